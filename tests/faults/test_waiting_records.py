"""Masses of records for one destination that takes none must not delay those of another, and must all arrive in the end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.simulation import waiting_runs
from tests.simulation.record_bugs import QUICK, RECORD_BUGS, seek
from tests.simulation.waiting_runs import LONG, SCENARIOS, Result, Scenario

RESULT = Path("build/faults/waiting_records.json")
# Most are caught by the first run.
LIMIT = 60


def play(name: str, *, long: bool) -> tuple[Scenario, Result]:
    """Raises `Broken` where a rule is broken, such as one record of the other destination that takes longer than a minute."""
    scenario = LONG.get(name, SCENARIOS[name]) if long else SCENARIOS[name]
    result = waiting_runs.play(scenario)
    print(f"\n{name}: {result}")
    if long:
        known = json.loads(RESULT.read_text()) if RESULT.exists() else {}
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        RESULT.write_text(json.dumps(known | {name: {"messages": scenario.count, **vars(result)}}, indent=2) + "\n")
    return scenario, result


@pytest.mark.parametrize("name", ["masses", "quota"])
def test_records_for_a_closed_destination_wait_outside_sqs_and_flow_in_order_when_it_recovers(
    name: str, long: bool
) -> None:
    scenario, result = play(name, long=long)
    # All of them waited at the same time, more than SQS has room for, and none was received twice
    assert result.most_waiting == scenario.count > scenario.max_in_flight
    assert result.most_receives == 1
    # One request showed each time that the destination was still closed
    assert result.refused <= scenario.closed_s / 1_800 + 10
    assert result.applied >= scenario.keys


@pytest.mark.parametrize("name", ["failing", "busy"])
def test_a_destination_that_fails_or_is_busy_does_not_fill_the_queue(name: str, long: bool) -> None:
    scenario, result = play(name, long=long)
    assert result.most_in_flight < scenario.max_in_flight
    assert result.most_receives <= 5


def test_thirteen_days_of_waiting_make_no_dead_letter_and_cost_one_receive() -> None:
    scenario, result = play("days", long=False)
    assert scenario.closed_s == 13 * 86_400
    assert result.most_receives == 1
    assert result.most_waiting == scenario.count


def test_new_records_do_not_overtake_those_that_wait() -> None:
    scenario, result = play("order", long=False)
    assert result.most_waiting > scenario.count / 2


def test_each_planted_bug_of_waiting_records_is_caught(long: bool) -> None:
    bugs = [bug for bug in RECORD_BUGS if long or bug.name in QUICK]
    caught = {bug.name: seek(bug, LIMIT) for bug in bugs}
    assert [name for name, what in caught.items() if not what] == []
