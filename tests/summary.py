"""The summary at the end of `make test`: suites, cases, minutes, what was skipped and why, and what failed.

`python -m tests.summary build/tests/unit.xml …` reads the JUnit XML report of each group, which is a run of pytest named after
its file. A suite is a folder of `tests/`. Exits with 1 when a test failed or a group has no report, as after a crash.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

COLUMNS = ("group", "suite", "cases", "failed", "skipped", "minutes")


@dataclass(frozen=True)
class Case:
    """One test of a report; `node_id` is how pytest names it on its command line, `skipped` the reason or empty."""

    node_id: str
    suite: str
    duration_s: float
    failed: bool
    skipped: str


@dataclass(frozen=True)
class Group:
    """One run of pytest. `duration_s` is the time from its start to its end, None without a report."""

    name: str
    duration_s: float | None
    cases: tuple[Case, ...]

    @property
    def failed(self) -> list[Case]:
        return [case for case in self.cases if case.failed]


def read_group(report: Path) -> Group:
    try:
        (suite,) = ElementTree.parse(report).iter("testsuite")
    except (FileNotFoundError, ElementTree.ParseError):
        return Group(report.stem, None, ())
    cases: dict[str, Case] = {}
    for element in suite.iter("testcase"):
        case = _read_case(element)
        # A test whose teardown fails after its call has failed is reported twice.
        if case.node_id not in cases or case.failed:
            cases[case.node_id] = case
    return Group(report.stem, float(suite.attrib["time"]), tuple(cases.values()))


def _read_case(element: ElementTree.Element) -> Case:
    # `tests.unit.aws.test_table.TestPages`; empty for a module that could not be imported, whose name is then the module's.
    names = (element.get("classname") or element.attrib["name"]).split(".")
    last = next((place for place, name in enumerate(names) if name.startswith("test_")), len(names) - 1)
    node = ["/".join(names[: last + 1]) + ".py", *names[last + 1 :]]
    if element.get("classname"):
        node.append(element.attrib["name"])
    skipped = element.find("skipped")
    return Case(
        node_id="::".join(node),
        suite=names[1] if len(names) > 1 else "",
        duration_s=float(element.get("time", 0)),
        failed=element.find("failure") is not None or element.find("error") is not None,
        skipped="" if skipped is None else skipped.get("message", ""),
    )


def write_summary(groups: Sequence[Group], duration_s: float | None = None) -> str:
    rows: list[tuple[str, ...]] = [COLUMNS]
    for group in groups:
        for suite in sorted({case.suite for case in group.cases}):
            rows.append(_row(group.name, suite, [case for case in group.cases if case.suite == suite]))
    every = [case for group in groups for case in group.cases]
    rows.append(_row("all", "", every))
    lines = _table(rows)
    for group in groups:
        if group.duration_s is not None:
            lines.append(f"{group.name}: {_minutes(group.duration_s)} minutes from start to end")
    if duration_s is not None:
        lines.append(f"everything: {_minutes(duration_s)} minutes from start to end")
    reasons = Counter(case.skipped for case in every if case.skipped)
    for reason, count in sorted(reasons.items()):
        lines.append(f"skipped {count}: {reason}")
    for group in groups:
        if group.duration_s is None:
            lines.append(f"{group.name}: no report, so the group did not run or did not end")
        lines += [f"failed in {group.name}: {case.node_id}" for case in group.failed]
    return "\n".join(lines) + "\n"


def _row(group: str, suite: str, cases: Sequence[Case]) -> tuple[str, ...]:
    failed = sum(case.failed for case in cases)
    skipped = sum(bool(case.skipped) for case in cases)
    return (
        group,
        suite,
        f"{len(cases):,}",
        f"{failed:,}",
        f"{skipped:,}",
        _minutes(sum(case.duration_s for case in cases)),
    )


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f}"


def _table(rows: Iterable[Sequence[str]]) -> list[str]:
    """Texts to the left, numbers to the right, each column as wide as its longest value."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            value.ljust(width) if place < 2 else value.rjust(width)
            for place, (value, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Summarise the reports of test groups.")
    parser.add_argument("--started", type=float, help="when the groups started, in seconds since 1970")
    parser.add_argument("reports", nargs="+", type=Path)
    options = parser.parse_args(arguments)
    groups = [read_group(report) for report in options.reports]
    print()
    print(write_summary(groups, time.time() - options.started if options.started else None), end="")
    return int(any(group.failed or group.duration_s is None for group in groups))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
