"""Many records for a failing destination must not delay those of another, and must all arrive in the end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.simulation.records import silent_runs, waiting_runs
from tests.simulation.records.bugs import RECORD_BUGS, seek
from tests.simulation.records.silent_runs import SILENCES
from tests.simulation.records.waiting_runs import LONG, SCENARIOS, Result, Scenario

RESULT = Path("build/faults/waiting_records.json")
# Most are caught by the first run.
LIMIT = 60


def play(name: str, *, long: bool) -> tuple[Scenario, Result]:
    """Raises `Broken` if a rule is broken, such as a record of the other destination that takes longer than a minute."""
    scenario = LONG.get(name, SCENARIOS[name]) if long else SCENARIOS[name]
    result = waiting_runs.play(scenario)
    print(f"\n{name}: {result}")
    if long:
        known = json.loads(RESULT.read_text()) if RESULT.exists() else {}
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        RESULT.write_text(json.dumps(known | {name: {"messages": scenario.count, **vars(result)}}, indent=2) + "\n")
    return scenario, result


@pytest.mark.parametrize("name", ["masses", "quota"])
def test_waiting_records_of_paused_destination_leave_sqs_and_are_applied_later(name: str, long: bool) -> None:
    scenario, result = play(name, long=long)
    # All of them waited at the same time, more than fit into SQS, and none was received twice
    assert result.most_waiting == scenario.count > scenario.max_in_flight
    assert result.most_receives == 1
    # One request checked each time that the destination was still closed
    assert result.refused <= scenario.closed_s / 1_800 + 10
    assert result.applied >= scenario.keys


@pytest.mark.parametrize("name", ["failing", "busy"])
def test_waiting_records_for_failing_or_busy_destination_do_not_fill_the_queue(name: str, long: bool) -> None:
    scenario, result = play(name, long=long)
    assert result.most_in_flight < scenario.max_in_flight
    assert result.most_receives <= 5


def test_waiting_records_of_thirteen_days_are_received_once_without_dead_letter() -> None:
    scenario, result = play("days", long=False)
    assert scenario.closed_s == 13 * 86_400
    assert result.most_receives == 1
    assert result.most_waiting == scenario.count


def test_waiting_records_are_not_overtaken_by_new_records() -> None:
    scenario, result = play("order", long=False)
    assert result.most_waiting > scenario.count / 2


@pytest.mark.parametrize("name", SILENCES)
def test_records_beside_silent_platform_or_locations_are_not_delayed(name: str) -> None:
    silence, result, flow = silent_runs.play(name)
    print(f"\n{name}: {result}; slowest location {flow.slowest_location_s:.0f} s")
    assert result.applied >= silence.count
    assert result.slowest_other_s < 30
    # Every record was received once by the queue's workers, or a few times within a rate limit.
    assert result.most_receives <= 3


@pytest.mark.long
def test_waiting_records_planted_bug_is_caught() -> None:
    caught = {bug.name: seek(bug, LIMIT) for bug in RECORD_BUGS}
    assert [name for name, what in caught.items() if not what] == []
