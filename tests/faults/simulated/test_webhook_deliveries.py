"""Failing, silent and dying endpoints must not delay other webhooks, and no event is lost, whatever workers are killed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.simulation.webhooks import bugs, runs
from tests.simulation.webhooks.bugs import WEBHOOK_BUGS
from tests.simulation.webhooks.runs import SHORT, Scenario

RESULT = Path("build/faults/webhook_deliveries.json")


def test_webhook_deliveries_end_and_bad_endpoints_delay_no_other(long: bool) -> None:
    scenario = Scenario() if long else SHORT
    beside = runs.play(scenario)
    alone = runs.play(replace(scenario, is_alone=True))
    figures = {
        **vars(beside),
        "endpoints": scenario.endpoints,
        "bad_endpoints": len(scenario.bad),
        "alone_p99_s": alone.healthy_p99_s,
        "healthy_p99_ratio": bugs.ratio(beside, alone),
    }
    print(f"\nwebhook deliveries: {figures}")
    if long:
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        RESULT.write_text(json.dumps(figures, indent=2) + "\n")
    assert bugs.faults(beside, alone) == []
    assert beside.delivered + beside.failed_with_reason == beside.events == scenario.events
    # It is no proof where nothing went wrong.
    assert beside.failed_with_reason > scenario.events * 0.05
    assert beside.kills > 0
    assert beside.duplicates < scenario.events * 0.02


@pytest.mark.long
def test_webhook_deliveries_of_silent_endpoints_delay_no_other_in_a_burst() -> None:
    """Five endpoints stop answering at the same time, while all have slots."""
    beside, alone = runs.play(runs.BURST), runs.play(replace(runs.BURST, is_alone=True))
    assert bugs.faults(beside, alone) == []
    assert beside.delivered == beside.events, "they work again after ten minutes"


@pytest.mark.long
def test_webhook_deliveries_planted_bug_is_caught() -> None:
    caught = {bug.name: bugs.seek(bug) for bug in WEBHOOK_BUGS}
    print(f"\n{caught}")
    assert [name for name, what in caught.items() if not what] == []
