"""What test modules may import from tests: the fakes, the simulation, and modules without tests of their own suite."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

TESTS = next(folder for folder in Path(__file__).resolve().parents if folder.name == "tests")
# Folders without tests, shared by all suites.
SHARED = ("fakes", "simulation")


def imported(source: str) -> Iterator[str]:
    """The full dotted names that a module imports; a relative import begins with a dot."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ("." * node.level + f"{node.module}.{alias.name}" for alias in node.names)


def refused(path: Path, source: str) -> list[str]:
    """The forbidden imports of a module, which is named by its path below `tests/`."""
    return [name for name in imported(source) if not allowed(path.parts[0], *name.split("."))]


def allowed(suite: str, package: str, *names: str) -> bool:
    """Whether a module of a suite may import `package.names`; the package of a relative import is empty."""
    if package != "tests":
        return package != ""
    if any(name.startswith("test_") for name in names):
        return False
    return not (TESTS / names[0]).is_dir() or names[0] in (*SHARED, suite)


def test_suite_imports_contain_no_test_module_and_no_other_suite() -> None:
    files = {path.relative_to(TESTS): path.read_text() for path in TESTS.rglob("*.py")}
    assert len(files) > 150
    assert {str(path): names for path, source in files.items() if (names := refused(path, source))} == {}
    assert [path for path in files if path.parts[0] in SHARED and path.name.startswith("test_")] == []


def test_suite_imports_of_test_module_or_another_suite_are_refused() -> None:
    for line, passes in {
        "from tests.fakes.aws.moto_cloud import cloud": True,
        "from tests.simulation.aws import cloud": True,
        "from tests.fakes.package_locks import pins": True,
        "from tests.leaks import WATCH": True,
        "from tests.stack.operations import breakages": False,
        "from tests.unit.connections.test_tokens import Desk": False,
        "from tests.unit import test_tokens": False,
        "import tests.aws.rules": False,
        "from .package_locks import pins": False,
    }.items():
        assert (refused(Path("unit/test_table.py"), line) == []) is passes, line
