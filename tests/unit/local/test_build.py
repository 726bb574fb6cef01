"""`local.build`: the Python and the processor of a build, the pip that it uses, and the checks afterwards."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from local import build
from local.build import PINNED_PIP, Build
from local.environments import ARCHITECTURE, RUNTIME, Environment, environment
from local.processes import NotStarted
from local.template_file import read_template
from tests.fakes.package_locks import pins
from tests.fakes.paths import ROOT

ENVIRONMENTS = ("default", "staging", "production")
OURS = f"python{sys.version_info[0]}.{sys.version_info[1]}"


class Commands:
    """Replaces the shell: records each command as text, with its environment."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.environments: list[Mapping[str, str]] = []

    def __call__(self, command: Sequence[str | Path], environment: Mapping[str, str]) -> None:
        self.texts.append(" ".join(map(str, command)))
        self.environments.append(environment)


@pytest.fixture
def commands() -> Commands:
    return Commands()


def elf(machine: int) -> bytes:
    return b"\x7fELF\x02\x01\x01" + bytes(9) + (3).to_bytes(2, "little") + machine.to_bytes(2, "little") + bytes(44)


# ---------------------------------------------------------------------------------------------------------- environments


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_build_environment_each_pins_default_runtime(name: str) -> None:
    parameters = environment(name).parameters
    allowed = read_template()["Parameters"]
    assert parameters[RUNTIME] == allowed[RUNTIME]["Default"]
    assert set(parameters) <= set(allowed)


def test_build_environment_unknown_is_refused_with_known_names() -> None:
    with pytest.raises(NotStarted, match=r"no environment 'prod'. It has: default, staging, production\."):
        environment("prod")


def test_build_environments_have_distinct_stack_names() -> None:
    """Two of them can be deployed beside each other in one account and region."""
    assert len({environment(name).stack_name for name in ENVIRONMENTS}) == len(ENVIRONMENTS)


def test_build_environment_without_stack_name_is_refused_with_advice(tmp_path: Path) -> None:
    file = tmp_path / "samconfig.toml"
    file.write_text('[own.global.parameters]\nparameter_overrides = ["PythonRuntime=python3.13"]\n')
    with pytest.raises(NotStarted, match=r"add stack_name to \[own\.global\.parameters\]"):
        environment("own", file)


def test_build_environment_without_runtime_is_refused_with_advice(tmp_path: Path) -> None:
    file = tmp_path / "samconfig.toml"
    file.write_text(
        'version = 0.1\n[own.global.parameters]\nstack_name = "mine"\nparameter_overrides = ["Architecture=arm64"]\n'
    )
    with pytest.raises(NotStarted, match=r"add PythonRuntime=python3.13 to parameter_overrides of \[own\.global"):
        environment("own", file)
    file.write_text(file.read_text().replace('["', '["PythonRuntime=python3.12", "'))
    assert environment("own", file) == Environment("mine", {RUNTIME: "python3.12", ARCHITECTURE: "arm64"})


@pytest.mark.parametrize(
    ("machine", "architecture"),
    [("x86_64", "x86_64"), ("AMD64", "x86_64"), ("aarch64", "arm64"), ("arm64", "arm64")],
)
def test_of_this_machine_is_current_python_and_processor(
    machine: str, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert build.of_this_machine() == {RUNTIME: OURS, ARCHITECTURE: architecture}


# ----------------------------------------------------------------------------------------------------------- interpreter


def test_interpreter_of_current_version_is_the_running_one() -> None:
    assert build.interpreter(OURS) == sys.executable


def test_interpreter_on_path_is_found_by_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    program = tmp_path / "python3.99"
    program.write_text("#!/bin/sh\necho python3.99\n")
    program.chmod(0o755)
    assert build.interpreter("python3.99") == "python3.99"


@pytest.mark.parametrize("program", ["#!/bin/sh\nexit 127\n", "#!/bin/sh\necho python3.98\n", None])
def test_interpreter_missing_or_wrong_is_refused_with_advice(
    program: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pyenv has a shim for every version that it knows, which fails for one that is not installed."""
    monkeypatch.setenv("PATH", str(tmp_path))
    if program:
        (tmp_path / "python3.99").write_text(program)
        (tmp_path / "python3.99").chmod(0o755)
    with pytest.raises(NotStarted) as refused:
        build.interpreter("python3.99")
    for words in ("run on python3.99", "not on the PATH", "uv python install 3.99", "BUILD_PYTHON=/path/to/python3.99"):
        assert words in str(refused.value)


def test_interpreter_given_explicitly_must_match_runtime() -> None:
    assert build.interpreter(OURS, sys.executable) == sys.executable
    with pytest.raises(NotStarted, match=f"{sys.executable} is not python3.99 with venv"):
        build.interpreter("python3.99", sys.executable)


def test_prepare_installs_pinned_pip_once_and_again_when_pin_changes(
    commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / f".venv-build-{OURS}"
    monkeypatch.setattr(build, "PINNED_PIP", tmp_path / "build.txt")
    (tmp_path / "build.txt").write_text(PINNED_PIP.read_text())

    def run(command: Sequence[str | Path], settings: Mapping[str, str]) -> None:
        commands(command, settings)
        folder.mkdir(exist_ok=True)

    python = build.prepare(OURS, run, tmp_path)
    assert python == folder / "bin" / "python"
    made, installed = commands.texts
    assert made == f"{sys.executable} -m venv {folder}"
    assert installed.startswith(f"{python} -m pip install ")
    assert {"--require-hashes", "--only-binary", ":all:", "--no-deps"} <= set(installed.split())
    build.prepare(OURS, run, tmp_path)
    assert len(commands.texts) == 2
    (tmp_path / "build.txt").write_text("pip==99")
    build.prepare(OURS, run, tmp_path)
    assert len(commands.texts) == 4, "another pin makes it anew"


def test_pinned_pip_matches_local_cloud_requirements() -> None:
    assert pins(PINNED_PIP).items() <= pins(ROOT / "requirements" / "ministack.txt").items()


# ----------------------------------------------------------------------------------------------------------------- build


def test_build_passes_runtime_and_architecture_to_sam(commands: Commands, tmp_path: Path) -> None:
    python = Path("/somewhere/bin/python")
    Build(python, {RUNTIME: "python3.13", ARCHITECTURE: "arm64"}, tmp_path / "out", tmp_path / "cache").run(commands)
    sam, compiled = commands.texts
    assert sam.startswith(f"{build.SAM_CLI} build ")
    assert sam.endswith(" --parameter-overrides PythonRuntime=python3.13 Architecture=arm64")
    assert f" --build-dir {tmp_path / 'out'} --cache-dir {tmp_path / 'cache'} --cached " in sam
    assert compiled == f"{python} -m compileall -q --invalidation-mode unchecked-hash {tmp_path / 'out'}"


def test_build_requires_hashes_and_hides_caller_environment(
    commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "someone")
    monkeypatch.setenv("PYTHONPATH", "layers/portaria")
    monkeypatch.setenv("PIP_INDEX_URL", "https://pypi.example/simple")
    Build(Path("/somewhere/bin/python"), {RUNTIME: "python3.13"}, tmp_path, tmp_path).run(commands)
    settings = commands.environments[0]
    assert settings["PIP_REQUIRE_HASHES"] == "1"
    locks = settings["PIP_CONSTRAINT"].split()
    assert sorted(locks) == ["layers/libraries/requirements.txt", "layers/portaria/requirements.txt"]
    assert all((ROOT / lock).exists() for lock in locks)
    assert settings["PATH"].split(os.pathsep)[0] == "/somewhere/bin"
    assert settings["PIP_INDEX_URL"] == "https://pypi.example/simple"
    assert not {"AWS_PROFILE", "PYTHONPATH"} & set(settings)


@pytest.mark.parametrize(
    ("parameters", "machine", "words"),
    [
        ({}, 62, ""),
        ({ARCHITECTURE: "x86_64"}, 62, ""),
        ({ARCHITECTURE: "arm64"}, 183, ""),
        ({ARCHITECTURE: "arm64"}, 62, "the build is for arm64, but fast.so.1 is for x86_64"),
        ({}, 183, "the build is for x86_64, but fast.so.1 is for arm64"),
        ({}, 3, "the build is for x86_64, but fast.so.1 is for an unknown processor"),
    ],
)
def test_build_refuses_modules_of_another_processor(
    parameters: dict[str, str], machine: int, words: str, commands: Commands, tmp_path: Path
) -> None:
    file = tmp_path / "LibrariesLayer" / "python" / "fast.so.1"
    file.parent.mkdir(parents=True)
    file.write_bytes(elf(machine))
    made = Build(Path("/somewhere/bin/python"), {RUNTIME: "python3.13", **parameters}, tmp_path, tmp_path / "cache")
    if not words:
        made.run(commands)
        return
    with pytest.raises(NotStarted, match=words):
        made.run(commands)


def test_build_keeps_the_services_that_the_functions_call_and_removes_others(
    commands: Commands, tmp_path: Path
) -> None:
    data = tmp_path / "LibrariesLayer" / "python" / "botocore" / "data"
    for service in (*build.SERVICES, "ec2", "s3"):
        (data / service / "2015-01-01").mkdir(parents=True)
    (data / "endpoints.json").write_text("{}")
    Build(Path("/somewhere/bin/python"), {RUNTIME: "python3.13"}, tmp_path, tmp_path / "cache").run(commands)
    assert {path.name for path in data.iterdir()} == {*build.SERVICES, "endpoints.json"}


def test_build_services_are_those_that_the_code_calls() -> None:
    code = [file.read_text() for folder in ("layers", "functions") for file in (ROOT / folder).rglob("*.py")]
    assert {name for text in code for name in re.findall(r'client\("([a-z0-9-]+)"', text)} == set(build.SERVICES)


def test_make_deploy_builds_the_environment_that_it_deploys() -> None:
    makefile = (ROOT / "Makefile").read_text()
    recipe = makefile.partition("\ndeploy:")[2].partition("\n\n")[0].splitlines()[1:]
    assert [line.strip() for line in recipe[:2]] == [
        "@$(RUN) -m local.build --environment $(ENV)",
        "@.venv-sam/bin/sam deploy --config-env $(ENV) $(DEPLOY_OPTIONS)",
    ]
    assert "make smoke ENV=$(ENV)" in "".join(recipe[2:])
