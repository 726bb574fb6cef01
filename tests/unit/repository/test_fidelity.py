"""docs/fidelity.md: each row has a source and a test, and all names in it exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.fakes.paths import ROOT

TEXT = (ROOT / "docs" / "fidelity.md").read_text()
PLATFORMS = ("kommo", "marketo", "leadconnector", "engage", "oauth2", "http")
SOURCE, TEST = 1, 3


def rows() -> Iterator[tuple[str, list[str]]]:
    """The rows of the platforms' tables, with the folder of each row's platform."""
    platform = ""
    for line in TEXT[TEXT.index("\n## Platforms") :].splitlines():
        if line.startswith("### "):
            name = re.split(r"[ :]", line[4:])[0].lower()
            platform = "oauth2" if name.startswith("oauth") else name
        if line.startswith("| ") and not line.startswith("| behaviour"):
            yield platform, [cell.strip() for cell in line.strip("|").split(" | ")]


ROWS = list(rows())


def named(cell: str) -> list[str]:
    """The names in backquotes in a cell."""
    return re.findall(r"`([^`]+)`", cell)


def test_fidelity_table_has_rows_for_every_platform() -> None:
    assert set(PLATFORMS) - {"http"} <= {platform for platform, _ in ROWS}
    assert len(ROWS) > 50


@pytest.mark.parametrize(("platform", "cells"), ROWS, ids=[f"{number}" for number in range(len(ROWS))])
def test_fidelity_row_has_source_and_existing_test(platform: str, cells: list[str]) -> None:
    assert len(cells) == 4, cells
    assert cells[SOURCE]
    tests = named(cells[TEST])
    assert tests or cells[TEST].startswith("none needed"), cells
    missing = [name for name in tests if not is_there(name, platform)]
    assert not missing


def is_there(name: str, platform: str) -> bool:
    """Whether a fixture, a folder or a test exists; other names always do.

    A name may have wildcards, omit its extension, or end in an ellipsis.
    """
    path, _, inside = name.rstrip("…").partition("::")
    for short, folder in (("D/", "deliveries"), ("F/", "fixtures")):
        if path.startswith(short):
            return any(
                (ROOT / "tests" / "platforms" / platform / folder).glob(path.removeprefix(short).rstrip("*") + "*")
            )
    if path.startswith("test_") and not path.endswith(".py"):
        return any(f"def {path}" in text for text in texts().values())
    if path.startswith("tests/"):
        found = [file for file in texts() if file.match(path)] if path.endswith(".py") else []
        return bool(found or (not path.endswith(".py") and any(ROOT.glob(path)))) and has(found, inside)
    if path.endswith(".py"):
        found = [file for file in texts() if file.name == path]
        return bool(found) and has(found, inside)
    return True


def has(files: list[Path], inside: str) -> bool:
    """Whether one of these files has a test or a class of this name."""
    return not inside or any(
        re.search(rf"(def|class) {re.escape(inside.rpartition('::')[2])}", texts()[file]) for file in files
    )


@cache
def texts() -> dict[Path, str]:
    """The source of each test module."""
    return {file: file.read_text() for file in (ROOT / "tests").rglob("test_*.py")}


def test_fidelity_captured_deliveries_are_listed_with_source() -> None:
    listed = {name for _, cells in ROWS for name in named(cells[TEST])}
    captured = list(ROOT.glob("tests/platforms/*/deliveries/captured_*.json"))
    assert captured
    for path in captured:
        assert f"D/{path.name}" in listed or "D/captured_*.json" in listed
        assert json.loads(path.read_text())["source"].startswith("captured ")
