"""Runs schedules by their seed, or by a plan of faults. A failure is reported with the command that repeats it."""

from __future__ import annotations

import random
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from typing import Any

from portaria.connections.credential_stores.protocol import SECRETS_MANAGER
from tests.simulation import faults, scenarios
from tests.simulation.oracle import End, judge
from tests.simulation.platform import MODES
from tests.simulation.schedule import Violation, simulating

WEIGHTS = [weight for _, weight in scenarios.SCENARIOS.values()]
# How many faults a random schedule has, and how often.
FAULTS, FAULT_WEIGHTS = (0, 1, 2, 3, 4), (6, 30, 34, 20, 10)
# The number of failures that are reported.
KEPT_FAILURES = 20
# Of equal calls in one turn: a caller that waits for a lease to end makes hundreds.
FIRST_CALLS, LAST_CALLS = 4, 2


@dataclass(frozen=True)
class Case:
    """What decides a schedule. The seed draws an empty scenario, and the faults if `plan` (call, fault) is None.

    `store` is the stack's parameter CredentialStore.
    """

    mode: str
    seed: int
    scenario: str = ""
    plan: tuple[tuple[int, str], ...] | None = None
    store: str = SECRETS_MANAGER

    def command(self) -> str:
        more = f" --store {self.store}" + (f" --scenario {self.scenario}" if self.scenario else "")
        if self.plan is not None:
            more += "".join(f" --fault {call}:{fault}" for call, fault in self.plan) or " --no-faults"
        return f"PYTHONPATH=layers/portaria .venv/bin/python -m tests.simulation --mode {self.mode} --seed {self.seed}{more}"


@dataclass(frozen=True)
class Failure:
    case: Case
    what: str

    def __str__(self) -> str:
        return f"{self.what}\n    {self.case.command()}"


@dataclass
class Tally:
    """Results of many schedules. `flagged` counts connections and installs that were rightly given up."""

    schedules: int = 0
    flagged: int = 0
    lost: int = 0
    calls: int = 0
    failures: list[Failure] = field(default_factory=list)

    def add(self, end: End | Failure) -> None:
        self.schedules += 1
        if isinstance(end, End):
            self.flagged += end.flagged
            self.calls += end.calls
            return
        self.lost += 1
        if len(self.failures) < KEPT_FAILURES:
            self.failures.append(end)

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.schedules + other.schedules,
            self.flagged + other.flagged,
            self.lost + other.lost,
            self.calls + other.calls,
            (self.failures + other.failures)[:KEPT_FAILURES],
        )


@dataclass(frozen=True)
class Chunk:
    """Work for one process: `random` seeds from `first` on, `singles` or `pairs` of faults in one scenario.

    Pairs are spread over processes by their first call: those whose number leaves `first` when divided by `count`.
    """

    kind: str
    mode: str
    scenario: str = ""
    first: int = 0
    count: int = 1
    store: str = SECRETS_MANAGER


def play(case: Case, trace: list[str] | None = None) -> End:
    """Raises `Violation`. Only inside `simulating()`."""
    rng = random.Random(f"{case.mode}{case.seed}{case.scenario}")
    how: dict[str, Any] = {"store": case.store, "plan": dict(case.plan or ()), "trace": trace}
    name = case.scenario or rng.choices(list(scenarios.SCENARIOS), WEIGHTS)[0]
    schedule = scenarios.begin(name, case.mode, rng, workers=rng.randint(2, 4), **how)
    if case.plan is None:
        schedule.draw_faults(rng.choices(FAULTS, FAULT_WEIGHTS)[0])
    try:
        return judge(schedule)
    finally:
        schedule.end()


def attempt(case: Case, trace: list[str] | None = None) -> End | Failure:
    try:
        return play(case, trace)
    except Violation as violation:
        return Failure(case, str(violation))


def run(chunk: Chunk) -> Tally:
    """In a process of its own, or in this one."""
    tally = Tally()
    with simulating():
        match chunk.kind:
            case "random":
                for seed in range(chunk.first, chunk.first + chunk.count):
                    tally.add(attempt(Case(chunk.mode, seed, chunk.scenario, store=chunk.store)))
            case "singles":
                _faults_from(Case(chunk.mode, 0, chunk.scenario, (), chunk.store), tally, depth=1, chunk=chunk)
            case "pairs":
                _faults_from(Case(chunk.mode, 0, chunk.scenario, (), chunk.store), tally, depth=2, chunk=chunk)
    return tally


def _faults_from(case: Case, tally: Tally, *, depth: int, chunk: Chunk) -> None:
    """Every fault at every call after those of the plan, with `depth` more faults in all.

    A run shows which calls there are: the schedule is the same up to the fault.
    """
    plan = case.plan or ()
    end = attempt(case)
    if plan or chunk.first == 0:
        tally.add(end)
    if isinstance(end, Failure) or not depth:
        return
    after = plan[-1][0] if plan else 0
    for number in worth_a_fault(end, after):
        name = end.seen[number - 1]
        if not plan and number % chunk.count != chunk.first:
            continue
        for fault in faults.kinds(name):
            added = replace(case, plan=(*plan, (number, fault)))
            _faults_from(added, tally, depth=depth - 1, chunk=chunk)


def worth_a_fault(end: End, after: int) -> list[int]:
    """The numbers of the calls after a certain one; of the repeated calls of a waiting worker, only the first and the last."""
    same: dict[tuple[int, str], list[int]] = {}
    for number in range(after, len(end.seen)):
        same.setdefault((end.seen_by[number], end.seen[number]), []).append(number + 1)
    return sorted({number for numbers in same.values() for number in (*numbers[:FIRST_CALLS], *numbers[-LAST_CALLS:])})


def run_all(chunks: list[Chunk], processes: Executor) -> Tally:
    return sum(processes.map(run, chunks), Tally())


def random_chunks(schedules: int, first: int = 0, size: int = 500, store: str = SECRETS_MANAGER) -> list[Chunk]:
    """At least this many schedules, in equal parts in each mode."""
    of_each = -(-schedules // len(MODES))
    return [
        Chunk("random", mode, first=first + at, count=min(size, of_each - at), store=store)
        for at in range(0, of_each, size)
        for mode in MODES
    ]
