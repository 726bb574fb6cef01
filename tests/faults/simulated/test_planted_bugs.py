"""Bugs planted in the code, one at a time, each of which the simulation must catch."""

from __future__ import annotations

from tests.leaks import without_secrets
from tests.simulation.bugs import BUGS, QUICK, planted, seek
from tests.simulation.records.bugs import RECORD_BUGS
from tests.simulation.results import write_result

# Most are caught within a hundred.
LIMIT = 3_000


def test_simulation_planted_bug_is_caught(long: bool) -> None:
    bugs = [bug for bug in BUGS if long or bug.name in QUICK]
    caught = {bug.name: seek(bug, LIMIT) for bug in bugs}

    missed = [name for name, failure in caught.items() if failure is None]
    print(f"\nplanted bugs: {len(bugs)}, caught {len(bugs) - len(missed)}")
    for name, failure in caught.items():
        if failure:
            print(f"  {name}: {without_secrets(failure.what)}")
    if long:
        write_result(bugs_planted=len(bugs), bugs_caught=len(bugs) - len(missed))
    assert missed == []


def test_planted_bugs_can_all_still_be_planted() -> None:
    """Given the list, then each piece of source that it replaces still occurs once, and the result compiles."""
    assert len(BUGS) >= 20
    assert len({bug.name for bug in BUGS}) == len(BUGS)
    for bug in (*BUGS, *RECORD_BUGS):
        with planted(bug):
            pass
