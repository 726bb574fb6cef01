"""docs/threat-model.md names tests, which must exist."""

from __future__ import annotations

import re

import pytest

from tests.fakes.paths import ROOT

MODEL = (ROOT / "docs" / "threat-model.md").read_text()
NAMED = sorted(set(re.findall(r"`((?:tests/|test_|bench/)[a-z_/]*(?:\.py)?(?:::\w+)?)`", MODEL)))


def test_threat_model_names_more_than_25_tests() -> None:
    assert len(NAMED) > 25


@pytest.mark.parametrize("name", NAMED)
def test_threat_model_named_test_exists(name: str) -> None:
    path, _, what = name.partition("::")
    files = [ROOT / path] if "/" in path else list((ROOT / "tests").rglob(path))
    assert any(file.exists() for file in files)
    if what:
        assert any(re.search(rf"^\s*(class|def) {what}\b", file.read_text(), re.MULTILINE) for file in files)


def test_threat_model_rows_are_complete() -> None:
    section = MODEL.partition("## Threats and controls")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")][2:]
    assert len(rows) > 25
    for row in rows:
        assert len(row) == 4
        assert all(cell.strip() for cell in row)
