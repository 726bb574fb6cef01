"""The deterministic simulation: no connection is lost, whatever fails and in any order."""

from __future__ import annotations

import time
from concurrent.futures import Executor

import pytest

from portaria.connections.credential_stores.protocol import SECRETS_MANAGER, STORES, TABLE
from tests.simulation import faults
from tests.simulation.platform import MODES
from tests.simulation.results import write_result
from tests.simulation.runner import Case, Chunk, Failure, Tally, attempt, random_chunks, run_all
from tests.simulation.scenarios import SCENARIOS
from tests.simulation.schedule import simulating

SCHEDULES, LONG_SCHEDULES = 250, 100_000
# With the credentials in the table, where most code is the same.
SCHEDULES_IN_TABLE = 150
# The scenarios in which every pair of faults is tried, with the modes that make a difference.
PAIRS = {
    "one_renewal": MODES, "install": ("strict",), "fresh_rotation": ("strict",),
}  # fmt: skip
# A pair's first fault decides its process: enough parts for the processes to end together.
PARTS = 8
# The scenarios in which the short run tries every single fault; the long one tries all scenarios, in all modes.
SHORT_SINGLES = {
    "one_renewal": MODES, "install": ("strict",), "departure": ("strict",),
    "fresh_rotation": ("strict",), "ended_token": ("grace",),
}  # fmt: skip
SHORT_SINGLES_IN_TABLE = {"one_renewal": ("strict",), "install": ("strict",)}


# Schedules that once broke a rule.
ONCE_BROKEN = (
    # A refusal after a lost response was taken for a disconnect by the customer.
    Case("strict", 0, "replayed_hook", ((13, "pause_before"),)),
    # An event was published at each sweep, because every visit found a renewal due and returned before its end.
    Case("strict", 0, "short_lives", ((141, "pause_after"),), TABLE),
    # The answer to an early refresh was lost, and no worker repeated the request within the platform's grace period.
    Case("grace", 0, "short_lives", ((153, "timeout_after"),), TABLE),
    Case("grace", 0, "short_lives", ((153, "error_after"),), TABLE),
    # The same after a 401, hours before the connection was due; the worker died, or gave up.
    Case("grace", 0, "ended_token", ((33, "crash_after"),), TABLE),
    Case("grace", 0, "ended_token", ((33, "timeout_after"),), TABLE),
    Case("replay", 0, "ended_token", ((33, "error_after"),), TABLE),
)


def conclude(store: str, parts: dict[str, Tally], took_s: float) -> None:
    total = sum(parts.values(), Tally())
    write_result(
        store,
        schedules=total.schedules,
        lost=total.lost,
        flagged=total.flagged,
        calls=total.calls,
        **{name: tally.schedules for name, tally in parts.items()},
    )
    shown = ", ".join(f"{name} {tally.schedules:,}" for name, tally in parts.items())
    print(
        f"\nsimulation, {store}: {total.schedules:,} schedules ({shown}) with {total.calls:,} calls in {took_s:.0f} s: "
        f"{total.lost} lost, {total.flagged} flagged"
    )
    assert not total.failures, "\n".join(["a schedule broke a rule:", *map(str, total.failures)])


@pytest.mark.parametrize("store", STORES)
def test_simulation_schedules_lose_no_connection(store: str, long: bool, processes: Executor) -> None:
    started = time.monotonic()
    if not long:
        short = SHORT_SINGLES if store == SECRETS_MANAGER else SHORT_SINGLES_IN_TABLE
        chunks = [Chunk("singles", mode, name, store=store) for name, modes in short.items() for mode in modes]
        schedules, size = (SCHEDULES, 250) if store == SECRETS_MANAGER else (SCHEDULES_IN_TABLE, 50)
        singles = run_all(chunks, processes)
        drawn = run_all(random_chunks(schedules, size=size, store=store), processes)
        return conclude(store, {"singles": singles, "random": drawn}, time.monotonic() - started)
    singles = run_all([Chunk("singles", mode, name, store=store) for name in SCENARIOS for mode in MODES], processes)
    pairs = run_all(
        [
            Chunk("pairs", mode, name, first=part, count=PARTS, store=store)
            for name, modes in PAIRS.items()
            for mode in modes
            for part in range(PARTS)
        ],
        processes,
    )
    drawn = run_all(random_chunks(LONG_SCHEDULES, store=store), processes)
    conclude(store, {"singles": singles, "pairs": pairs, "random": drawn}, time.monotonic() - started)


def test_simulation_schedules_that_once_failed_pass() -> None:
    with simulating():
        assert [end for case in ONCE_BROKEN if isinstance(end := attempt(case), Failure)] == []


def test_simulation_schedule_with_same_seed_makes_same_calls() -> None:
    """Given a seed, when its schedule is played twice, then both make the same calls at the same times."""
    for mode in MODES:
        for seed in range(20):
            traces: list[list[str]] = [[], []]
            with simulating():
                for trace in traces:
                    attempt(Case(mode, seed), trace)
            assert traces[0]
            assert traces[0] == traces[1]


def test_simulation_single_fault_at_refresh_ends_grant_only_for_lost_answer() -> None:
    """Given one fault at the refresh, then only a lost response costs a grant, and only if the token works once."""
    with simulating():
        ends = {
            (mode, fault): attempt(Case(mode, 0, "one_renewal", ((number, fault),)))
            for mode in MODES
            for number, fault in refresh_faults(mode)
        }
    flagged = {key for key, end in ends.items() if getattr(end, "flagged", -1)}
    assert flagged == {("strict", fault) for fault in ("crash_after", "timeout_after", "error_after")}


def refresh_faults(mode: str) -> list[tuple[int, str]]:
    """Every fault of the refresh itself, with the number of that call."""
    end = attempt(Case(mode, 0, "one_renewal", ()))
    seen: tuple[str, ...] = getattr(end, "seen", ())
    number = next(at for at, name in enumerate(seen, start=1) if name.startswith("refresh "))
    return [(number, fault) for fault in faults.OF_HTTP]
