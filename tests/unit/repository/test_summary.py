"""The summary at the end of `make test`, from reports that pytest wrote."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import summary

PLANTED = """
import pytest

def test_passes():
    pass

def test_is_skipped():
    pytest.skip("no browser here")

class TestThings:
    @pytest.mark.parametrize("number", [1, 2])
    def test_fails(self, number):
        assert number == 2

@pytest.fixture
def broken():
    yield
    raise OSError("teardown")

def test_fails_twice(broken):
    assert False

@pytest.mark.xfail(reason="known")
def test_fails_as_expected():
    assert False
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report `offline.xml` of a run of the suites `unit`, which has failures, and `broken`, which cannot be imported."""
    folder = tmp_path_factory.mktemp("summary")
    for suite, source in {"unit": PLANTED, "broken": "import no_such_module\n"}.items():
        (folder / "tests" / suite).mkdir(parents=True)
        (folder / "tests" / suite / f"test_{suite}.py").write_text(source)
    (folder / "pytest.ini").write_text("[pytest]\n")
    options = ["-p", "no:cacheprovider", "--continue-on-collection-errors", "--junit-xml", "offline.xml"]
    command = [sys.executable, "-m", "pytest", "-q", "--rootdir", str(folder), *options, "tests"]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == pytest.ExitCode.TESTS_FAILED, ended.stdout
    return folder / "offline.xml"


def test_summary_lists_suites_skips_and_failures(report: Path) -> None:
    group = summary.read_group(report)
    assert group.name == "offline"
    text = summary.write_summary([group], duration_s=90.0)
    rows = [line.split() for line in text.splitlines()]
    assert rows[0] == list(summary.COLUMNS)
    assert rows[1][:5] == ["offline", "broken", "1", "1", "0"]
    assert rows[2][:5] == ["offline", "unit", "6", "2", "2"]
    assert rows[3][:4] == ["all", "7", "3", "2"]
    assert "everything: 1.5 minutes from start to end" in text
    assert "skipped 1: no browser here\n" in text
    assert "skipped 1: known\n" in text
    assert text.splitlines()[-3:] == [
        "failed in offline: tests/broken/test_broken.py",
        "failed in offline: tests/unit/test_unit.py::TestThings::test_fails[1]",
        "failed in offline: tests/unit/test_unit.py::test_fails_twice",
    ]


def test_summary_table_columns_are_aligned(report: Path) -> None:
    table = summary.write_summary([summary.read_group(report)]).splitlines()[:4]
    assert {len(line) for line in table} == {len(table[0])}
    assert (
        len({line.index(" " + suite) for line, suite in zip(table[:3], ("suite", "broken", "unit"), strict=True)}) == 1
    )


def test_summary_failed_test_exits_with_1(report: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert summary.main([str(report)]) == 1
    assert "failed in offline: " in capsys.readouterr().out


def test_summary_missing_or_truncated_report_exits_with_1(
    report: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cloud.xml").write_text(report.read_text()[:-20])
    for name in ("cloud.xml", "isolated.xml"):
        assert summary.main([str(tmp_path / name)]) == 1
        group = name.removesuffix(".xml")
        assert f"{group}: no report, so the group did not run or did not end\n" in capsys.readouterr().out


def test_summary_without_failures_exits_with_0(tmp_path: Path) -> None:
    report = tmp_path / "offline.xml"
    case = '<testcase classname="tests.unit.test_a" name="test_b" time="1.0"/>'
    report.write_text(f'<testsuites><testsuite name="pytest" time="2.0">{case}</testsuite></testsuites>')
    assert summary.main([str(report)]) == 0
