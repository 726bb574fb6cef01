"""Reconciliations beside exchanges, calls and a backfill, which share a platform's request budget."""

from __future__ import annotations

import json
import time
from concurrent.futures import Executor
from pathlib import Path

import pytest

from tests.simulation.bugs import planted
from tests.simulation.reconciliations.bugs import RECONCILIATION_BUGS, seek
from tests.simulation.reconciliations.runs import EXCHANGE_WITHIN_S, Result, attempt_all

RESULT = Path("build/faults/request_budget.json")
# A third of the runs is of each kind.
RUNS, LONG_RUNS, SEEDS_AT_ONCE = 3, 300, 1
LIMIT = 4


def test_request_budget_is_kept_and_every_lost_event_is_found(long: bool, processes: Executor) -> None:
    started = time.monotonic()
    runs = LONG_RUNS if long else RUNS
    seeds = [range(first, first + SEEDS_AT_ONCE) for first in range(0, runs, SEEDS_AT_ONCE)]
    total, broken = Result(), []
    for result, what in processes.map(attempt_all, seeds):
        total += result
        broken += what
    figures = {**vars(total), "broken": len(broken)}
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(figures, indent=2) + "\n")
    print(f"\nrequest budget in {time.monotonic() - started:.0f} s: {figures}")
    command = (
        "PYTHONHASHSEED=0 PYTHONPATH=layers/portaria .venv/bin/python -m tests.simulation.reconciliations.runs SEED"
    )
    assert not broken, "\n".join(["a run broke a rule:", *broken[:20], command])
    # The runs prove nothing without faults, without waiting, and without a full budget.
    assert total.deaths >= runs / 3
    assert total.waited_for_budget > 0
    assert total.refused_calls > 0
    assert total.most_a_second >= 7
    assert total.slowest_exchange_s <= EXCHANGE_WITHIN_S


@pytest.mark.long
def test_request_budget_planted_bug_is_caught() -> None:
    bugs = RECONCILIATION_BUGS
    caught = {bug.name: seek(bug, LIMIT) for bug in bugs}
    assert [name for name, what in caught.items() if not what] == []


def test_request_budget_planted_bugs_can_all_still_be_planted() -> None:
    assert len({bug.name for bug in RECONCILIATION_BUGS}) == len(RECONCILIATION_BUGS) >= 10
    for bug in RECONCILIATION_BUGS:
        with planted(bug):
            pass
