"""The client generated from docs/openapi.yaml. tests/stack/api/test_generated_client.py calls the deployed API with it."""

from __future__ import annotations

import importlib
import os
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from portaria.api.operations import OPERATIONS
from tests.fakes.api.generated_client import PACKAGE, generated


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The folder with the package, and the output of the generator."""
    folder = tmp_path_factory.mktemp("client")
    with generated(folder) as printed:
        yield folder, printed


def test_generator_document_produces_no_warning(client: tuple[Path, str]) -> None:
    _, printed = client
    assert "warning" not in printed.lower(), printed


def test_generated_client_every_operation_has_a_module(client: tuple[Path, str]) -> None:
    api = importlib.import_module(f"{PACKAGE}.api")
    modules = {
        name.rpartition(".")[2]: importlib.import_module(name)
        for _, name, is_package in pkgutil.walk_packages(api.__path__, f"{PACKAGE}.api.")
        if not is_package
    }
    assert {operation.id for operation in OPERATIONS} <= set(modules)
    assert all(hasattr(modules[operation.id], "sync_detailed") for operation in OPERATIONS)


@pytest.mark.long
def test_generated_client_types_pass_mypy(client: tuple[Path, str]) -> None:
    folder, _ = client
    # Findings in the generator's own template: a redundant `cast`, and `dict` without parameters.
    command = [sys.executable, "-m", "mypy", "--strict", "--disable-error-code", "redundant-cast"]
    command += ["--disable-error-code", "type-arg", "--cache-dir", str(folder / "cache"), "--config-file", os.devnull]
    checked = subprocess.run([*command, "--package", PACKAGE], cwd=folder, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
