"""Finding a request's operation without importing the tables of other operations."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from portaria.api.operation import Operation
from portaria.api.operation_tables import index
from portaria.api.operation_tables.index import TABLES
from portaria.api.operations import OPERATIONS
from tests.fakes.paths import ROOT


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.id)
def test_find_each_operation_by_its_function_and_route(operation: Operation) -> None:
    assert index.find(operation.function, operation.method, operation.path) is operation


@pytest.mark.parametrize(
    ("function", "method", "path"),
    [
        ("manage", "POST", "/connections/{name}/call"),
        ("call_connection", "GET", "/connections"),
        ("manage", "PATCH", "/connections"),
        ("manage", "GET", "/nothing"),
        ("manage", "GET", "/connectionsx"),
        ("manage", "GET", ""),
        ("console", "GET", "/connections"),
    ],
)
def test_find_without_such_operation_is_none(function: str, method: str, path: str) -> None:
    assert index.find(function, method, path) is None


def test_tables_are_the_modules_of_the_folder_and_serve_one_function_each() -> None:
    folder = ROOT / "layers" / "portaria" / "portaria" / "api" / "operation_tables"
    assert sorted(table.name for table in TABLES) == sorted(
        file.stem for file in folder.glob("*.py") if file.stem not in ("__init__", "index")
    )
    for table in TABLES:
        operations = index.load(table.name)
        assert {operation.function for operation in operations} == {table.function}
        assert {operation.path.split("/")[1] for operation in operations} == set(table.steps)


def loaded_after(code: str) -> set[str]:
    """The modules that a fresh process has imported."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "layers" / "portaria")}
    command = [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(("path", "table"), [("/audit", "audit"), ("/connections", "connections")])
def test_find_imports_the_table_of_the_path_only(path: str, table: str) -> None:
    loaded = loaded_after(
        "import portaria.api.router\n"
        "from portaria.api.operation_tables import index\n"
        f"index.find('manage', 'GET', '{path}')"
    )
    tables = {name.rpartition(".")[2] for name in loaded if name.startswith("portaria.api.operation_tables.")}
    assert tables == {table, "index"}
