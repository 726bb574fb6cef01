"""Records for a destination that fails four times of five, while the workers crash."""

from __future__ import annotations

import json
import time
from concurrent.futures import Executor
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings

from portaria.core import record_messages
from portaria.delivery.pipeline import QueuedMessage
from tests.fakes.records import ingesting, waiting_records
from tests.fakes.records.contacts import contact
from tests.fakes.records.ingesting import body, refusal
from tests.fakes.records.shuffled_events import check_newest_is_left, deliveries, origins
from tests.simulation.records import many_routes, runs
from tests.simulation.records.runs import Ended

RESULT, MANY_ROUTES_RESULT = Path("build/faults/record_faults.json"), Path("build/faults/many_routes.json")
RUNS, LONG_RUNS = 24, 3_000
MANY_ROUTES_RUNS, LONG_MANY_ROUTES_RUNS, MANY_ROUTES_AT_ONCE = 15, 400, 5
SEEDS_AT_ONCE = 12
CASES = 10_000


def play_seeds(module: ModuleType, runs: int, at_once: int, processes: Executor, result: Path) -> Ended:
    """Play the first seeds of a simulation of records: each record must be applied, or a dead letter until its redrive."""
    started = time.monotonic()
    total, broken = Ended(), []
    seeds = [range(first, min(first + at_once, runs)) for first in range(0, runs, at_once)]
    for ended, what in processes.map(module.attempt_all, seeds):
        total += ended
        broken += what
    figures = {"runs": runs, "broken": len(broken), **vars(total)}
    result.parent.mkdir(parents=True, exist_ok=True)
    result.write_text(json.dumps(figures, indent=2) + "\n")
    print(f"\n{result.stem} in {time.monotonic() - started:.0f} s: {figures}")
    command = f"PYTHONHASHSEED=0 PYTHONPATH=layers/portaria .venv/bin/python -m {module.__name__} SEED"
    assert not broken, "\n".join(["a run broke a rule:", *broken[:20], command])
    assert total.applied + total.dead_with_reason == total.sent
    assert total.applied_after_redrive == total.sent
    return total


def test_records_faults_and_kills_every_record_is_applied_after_redrive(long: bool, processes: Executor) -> None:
    count = LONG_RUNS if long else RUNS
    total = play_seeds(runs, count, SEEDS_AT_ONCE, processes, RESULT)
    # The run proves nothing without faults.
    assert total.dead_with_reason > total.sent * 0.05
    assert total.deaths > count


def test_records_of_many_routes_and_targets_are_applied_after_redrive(long: bool, processes: Executor) -> None:
    count = LONG_MANY_ROUTES_RUNS if long else MANY_ROUTES_RUNS
    total = play_seeds(many_routes, count, MANY_ROUTES_AT_ONCE, processes, MANY_ROUTES_RESULT)
    # The runs prove nothing without dead letters and deaths.
    assert total.dead_with_reason > count
    assert total.deaths > count / 3


def test_records_run_of_the_same_seed_is_the_same() -> None:
    """Seed 2 ends with dead letters, whose redrive is paced."""
    assert runs.attempt_all([2]) == runs.attempt_all([2])
    assert many_routes.attempt_all([2]) == many_routes.attempt_all([2])


@pytest.mark.parametrize("origin", [record_messages.EVENT, record_messages.RECONCILIATION, record_messages.BACKFILL])
@pytest.mark.parametrize("keep_newest", ["events", "all", "none"])
def test_pipeline_record_refused_after_version_mark_is_sent_again(origin: str, keep_newest: str) -> None:
    """Given a record that was marked and refused, when its message is received again, then its own mark does not stop it."""
    with ingesting.harness() as harness:
        harness.route("people", keep_newest=keep_newest)
        message = QueuedMessage("m1", body([contact(1)], origin=origin))
        harness.rule = lambda document: refusal("5000801")
        assert harness.ingest(message).waiting == {}
        harness.rule = lambda document: None
        with waiting_records.later(minutes=6):
            harness.release()
        assert set(harness.state()) == {"person1@example.com"}


def test_pipeline_shuffled_and_duplicate_events_leave_newest_version_in_10_000_cases(long: bool) -> None:
    if not long:
        pytest.skip("takes some minutes: make faults")
    settings(max_examples=CASES)(given(deliveries(), origins)(check_newest_is_left))()
