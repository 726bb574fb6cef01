"""Each test that has a long version runs in `make faults`."""

from __future__ import annotations

import re
from pathlib import Path

from tests.fakes.paths import ROOT

_LONG = re.compile(r"\bmark\.long\b|\blong: bool\b")


def test_make_faults_runs_every_file_with_a_long_version() -> None:
    (recipe,) = re.findall(r"^faults:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    run = [Path(word) for word in recipe.split() if word.startswith("tests/")]
    long = [
        file.relative_to(ROOT)
        for file in (ROOT / "tests").rglob("test_*.py")
        if file != Path(__file__) and _LONG.search(file.read_text())
    ]
    assert len(long) > 10
    assert [str(file) for file in long if not any(file.is_relative_to(path) for path in run)] == []
