"""docs/adding-a-platform.md: its code blocks are added to a copy of the tree and pass the checks that it names."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "adding-a-platform.md").read_text()
NAME = "examplecrm"
# The parts of the repository that the guide's commands need.
COPIED = (
    "pyproject.toml",
    "layers/portaria/portaria",
    "local",
    "tests/__init__.py",
    "tests/conftest.py",
    "tests/fakes",
    "tests/leaks.py",
    "tests/platforms",
)
_FILE = re.compile(r"^\*\*(\S+)\*\*\n\n```(?:json|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(rf"^\.venv/bin/(.*{NAME}.*)$", re.MULTILINE)


def guide_files() -> dict[str, str]:
    return {path.replace("\\", ""): content for path, content in _FILE.findall(GUIDE)}


def guide_commands() -> list[list[str]]:
    """The commands of the guide, run by this interpreter."""
    found = [command.removeprefix("python -m ").split() for command in _COMMAND.findall(GUIDE)]
    return [[sys.executable, "-m", *words] for words in found]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree with the guide's files."""
    copy = tmp_path_factory.mktemp("tree")
    for name in COPIED:
        source, target = ROOT / name, copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    for name, content in guide_files().items():
        assert NAME in Path(name).parts, "the guide adds files to the platform's folders only"
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text(content)
    return copy


def run(tree: Path, command: list[str]) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(str(tree / folder) for folder in ("layers/portaria", "cli"))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "NO_COLOR": "1"}
    return subprocess.run(
        command,
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_guide_example_passes_ruff_and_mypy(tree: Path) -> None:
    for command in guide_commands()[:2]:
        done = run(tree, command)
        assert done.returncode == 0, done.stdout + done.stderr


def test_guide_example_passes_the_conformance_suite(tree: Path) -> None:
    done = run(tree, [*guide_commands()[2], "--verbose"])
    assert done.returncode == 0, done.stdout + done.stderr
    # A selection that matches too little would pass as well.
    for test in (
        "platform_request_is_allowed_and_carries_credentials",
        "platform_recorded_answer_is_read_as_expected",
        "platform_recorded_delivery_is_read_as_expected",
        "platform_events_garbage_is_rejected_or_read",
    ):
        assert f"test_{test}[{NAME}" in done.stdout, done.stdout


def test_guide_files_are_formatted(tree: Path) -> None:
    folder = f"layers/portaria/portaria/platforms/{NAME}"
    done = run(tree, [sys.executable, "-m", "ruff", "format", "--diff", folder])
    assert done.returncode == 0, done.stdout


def test_guide_has_the_files_and_commands_that_are_tested() -> None:
    assert sum(name.endswith(".py") for name in guide_files()) == 4
    assert [command[2] for command in guide_commands()] == ["ruff", "mypy", "pytest"]
