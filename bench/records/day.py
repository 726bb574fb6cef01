"""Days of 10,000,000 objects over 200 tenants against the ledger of quotas, in virtual time, on a table in memory.

Each day more is wanted than the quota has. What each tenant got is compared with its max-min fair share by weight, which
only somebody can work out who knows in the morning what everyone will want: 1 is all of it.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from unittest.mock import patch

from rich.table import Table

from bench.report import conclude, console
from portaria.aws.table import Table as Items
from portaria.core import clock
from portaria.delivery import quotas
from tests.simulation.aws import cloud as clouds
from tests.simulation.aws.cloud import TABLE, Cloud

QUOTA = 10_000_000
TENANTS = 200
REQUEST = 1_000
SUBSCRIPTION = "123-ABC-456"
ZONE = "America/Chicago"
MIDNIGHT = datetime(2026, 11, 23, 6, tzinfo=UTC)
STEP = timedelta(minutes=4)
STEPS = 24 * 15
# Workers, each with its own ledger, and the requests of backfills that they send in a step; how long one takes of all.
WORKERS = 4
BULK_REQUESTS = 2_000
LASTS = timedelta(seconds=0.1)
# A backfill's messages are many, and each that finds no room waits by itself: they stand here for so many.
LANES = 8
LIMITS = {"over_quota": 0.0}


class Wish(NamedTuple):
    """What one tenant wants: live events evenly between two parts of the day, and one backfill (objects, from when)."""

    live: int = 0
    begin: float = 0.0
    end: float = 1.0
    bulk: int = 0
    bulk_at: float = 0.0
    weight: int = 1

    @property
    def total(self) -> int:
        return self.live + self.bulk


class Outcome(NamedTuple):
    wanted: int
    used: int
    over: int
    unused: int
    worst: float
    live: float
    late: float | None
    writes: int
    requests: int


@dataclass
class _Now:
    moment: datetime = MIDNIGHT


@dataclass
class _Waiting:
    """What is wanted and not yet sent, by tenant (of backfills by tenant and lane), and until when each waits."""

    objects: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    until: dict[str, datetime] = field(default_factory=dict)

    def ready(self, moment: datetime) -> list[str]:
        return [name for name, count in self.objects.items() if count and self.until.get(name, moment) <= moment]


def live_of(rng: random.Random, total: int, count: int) -> list[int]:
    """Skewed: a few tenants have most."""
    sizes = [rng.paretovariate(1.2) for _ in range(count)]
    return [max(1, round(total * size / sum(sizes))) for size in sizes]


def ordinary(seed: int) -> dict[str, Wish]:
    """6 M of one backfill at midnight; 6 M live, a tenth of the tenants wanting theirs late and all at once."""
    rng = random.Random(seed)
    wishes = {"hog": Wish(bulk=6_000_000)}
    for number, live in enumerate(live_of(rng, 6_000_000, TENANTS - 1)):
        late = number % 10 == 0
        begin = rng.uniform(0.6, 0.9) if late else 0.0
        wishes[f"tenant-{number}"] = Wish(live, begin, begin + 0.04 if late else 1.0)
    return wishes


def weighted(seed: int) -> dict[str, Wish]:
    """Twenty tenants have backfills of 500,000 at midnight, half of them with three times the weight."""
    wishes = ordinary(seed)
    del wishes["hog"]
    for number in range(20):
        name = f"tenant-{number}"
        wishes[name] = wishes[name]._replace(bulk=500_000, weight=3 if number < 10 else 1)
    return wishes


def at_noon(seed: int) -> dict[str, Wish]:
    """A second backfill of 6 M, of another tenant, begins at noon."""
    return ordinary(seed) | {"second": Wish(bulk=6_000_000, bulk_at=0.5)}


def live_only(seed: int) -> dict[str, Wish]:
    """No backfill, but 12 M live, of which one tenant has 5 M."""
    rng = random.Random(seed)
    wishes = {"hog": Wish(live=5_000_000)}
    return wishes | {f"tenant-{n}": Wish(live) for n, live in enumerate(live_of(rng, 7_000_000, TENANTS - 1))}


def live_before(wishes: dict[str, Wish]) -> dict[str, int]:
    """The live events of a day before, which foretell the day's badly: a fifth of the tenants had none, others more or less."""
    rng = random.Random(3)
    return {name: round(wish.live * rng.choice((0, 0.25, 0.5, 1, 2))) for name, wish in wishes.items()}


class Scenario(NamedTuple):
    """`has_yesterday`: the same tenants were there the day before, with their live events only. `unsent` is the part of the
    requests that are not sent after their quota was reserved, and give it back.
    """

    wishes: Callable[[int], dict[str, Wish]]
    has_yesterday: bool
    unsent: float = 0.0


SCENARIOS = {
    "6 M of backfill at midnight": Scenario(ordinary, has_yesterday=True),
    "the same on the first day": Scenario(ordinary, has_yesterday=False),
    "20 backfills, 10 of weight 3": Scenario(weighted, has_yesterday=True),
    "6 M at midnight, 6 M at noon": Scenario(at_noon, has_yesterday=True),
    "12 M live, 5 M of one tenant": Scenario(live_only, has_yesterday=False),
    "the first, 1 of 10 not sent": Scenario(ordinary, has_yesterday=True, unsent=0.1),
}


def measure() -> bool:
    outcomes = {}
    for name, scenario in SCENARIOS.items():
        outcomes[name] = run(scenario)
    shown = Table(title="Days (millions of objects)", title_justify="left")
    shown.add_column("", no_wrap=True)
    for heading in ("wanted", "used", "over", "worst", "live", "late"):
        shown.add_column(heading, justify="right")
    for name, day in outcomes.items():
        shares = [f"{day.worst:.2f}", f"{day.live:.3f}", f"{day.late:.3f}" if day.late is not None else ""]
        shown.add_row(name, f"{day.wanted / 1e6:.3f}", f"{day.used / 1e6:.3f}", str(day.over), *shares)
    console.print(shown)
    console.print(
        "worst: the worst tenant's part of its fair share; live, late: the part of the live events' fair shares that was sent, "
        "of all tenants and of those that come late in the day"
    )
    first = next(iter(outcomes.values()))
    figures = {
        "objects": first.used,
        "over_quota": sum(day.over for day in outcomes.values()),
        "worst_tenant_share_ratio": first.worst,
        "unused": first.unused,
        "unused_if_a_tenth_is_not_sent": outcomes["the first, 1 of 10 not sent"].unused,
        "worst_tenant_share_ratio_of_all": min(day.worst for day in outcomes.values()),
        "writes_per_request": first.writes / first.requests,
    }
    return conclude("day", figures, LIMITS)


def run(scenario: Scenario) -> Outcome:
    cloud, now, rng = Cloud(), _Now(), random.Random(2)
    wishes = scenario.wishes(1)
    writes = 0

    def counted(name: str, call: Callable[[], Any]) -> Any:
        nonlocal writes
        writes += name == "dynamodb.update_item"
        return call()

    with clouds.installed(lambda: cloud), patch.object(clock, "now", lambda: now.moment):
        ledgers = [quotas.Ledger(Items(TABLE), ZONE, random.Random(number)) for number in range(WORKERS)]
        if scenario.has_yesterday:
            now.moment = MIDNIGHT - timedelta(minutes=1)
            for name, count in live_before(wishes).items():
                ledgers[0].reserve(SUBSCRIPTION, QUOTA, {name: count}, bulk=False, weights={})
        cloud.carry = counted
        got, requests = _day(wishes, scenario.unsent, ledgers, now, rng)
        table_says = quotas.used(Items(TABLE), SUBSCRIPTION, quotas.day_of(ledgers[0].zone, MIDNIGHT).name)
    used = sum(sum(each.values()) for each in got.values())
    held = table_says.objects - used
    assert held >= 0 if scenario.unsent else held == 0, "the table has counted something else than was sent"
    wanted = sum(wish.total for wish in wishes.values())
    fair = max_min(wishes)
    ratios = {name: (got["live"][name] + got["bulk"][name]) / fair[name] for name in wishes}

    late = [name for name, wish in wishes.items() if wish.begin > 0]

    def sent(chosen: list[str]) -> float:
        least = {name: min(wishes[name].live, fair[name]) for name in chosen}
        return sum(min(got["live"][name], least[name]) for name in chosen) / sum(least.values())

    return Outcome(
        wanted,
        used,
        max(0, table_says.objects - QUOTA),
        min(wanted, QUOTA) - used,
        min(ratios.values()),
        sent(list(wishes)),
        sent(late) if late else None,
        writes,
        requests,
    )


def _day(
    wishes: dict[str, Wish], unsent: float, ledgers: list[quotas.Ledger], now: _Now, rng: random.Random
) -> tuple[dict[str, dict[str, int]], int]:
    got: dict[str, dict[str, int]] = {"live": defaultdict(int), "bulk": defaultdict(int)}
    live, bulk = _Waiting(), _Waiting()
    weights = {name: wish.weight for name, wish in wishes.items()}
    requests = 0

    def send(kind: str, waiting: _Waiting, shares: dict[str, int], lane: str = "") -> None:
        nonlocal requests
        now.moment += LASTS
        ledger = rng.choice(ledgers)
        answer = ledger.reserve(SUBSCRIPTION, QUOTA, shares, bulk=kind == "bulk", weights=weights)
        if unsent and rng.random() < unsent:
            ledger.give_back(SUBSCRIPTION, answer.day, Counter(answer.granted))
            waiting.until |= {name + lane: now.moment + STEP for name in shares}
            return
        requests += bool(answer.granted)
        for name, count in shares.items():
            granted = answer.granted.get(name, 0)
            got[kind][name] += granted
            waiting.objects[name + lane] -= granted
            if granted < count:
                waiting.until[name + lane] = now.moment + timedelta(seconds=answer.after_s or 0)

    for step in range(STEPS):
        now.moment = MIDNIGHT + step * STEP
        for name, wish in wishes.items():
            live.objects[name] += _due(wish, (step + 1) / STEPS) - _due(wish, step / STEPS)
            if wish.bulk and step == round(wish.bulk_at * STEPS):
                for number in range(LANES):
                    bulk.objects[f"{name}/{number}"] += wish.bulk // LANES
        for shares in _mixed(live, now.moment):
            send("live", live, shares)
        left = BULK_REQUESTS
        while left > 0 and (ready := bulk.ready(now.moment)):
            rng.shuffle(ready)
            for lane in ready[:left]:
                left -= 1
                tenant, slash, rest = lane.partition("/")
                send("bulk", bulk, {tenant: min(REQUEST, bulk.objects[lane])}, slash + rest)
    return got, requests


def _due(wish: Wish, gone: float) -> int:
    return round(wish.live * min(1.0, max(0.0, (gone - wish.begin) / (wish.end - wish.begin))))


def _mixed(waiting: _Waiting, moment: datetime) -> Iterator[dict[str, int]]:
    """What is waiting, in full requests of many tenants."""
    shares: dict[str, int] = {}
    room = REQUEST
    for name in waiting.ready(moment):
        count = waiting.objects[name]
        while count:
            shares[name] = min(count, room)
            room -= shares[name]
            count -= shares[name]
            if not room:
                yield shares
                shares, room = {}, REQUEST
    if shares:
        yield shares


def max_min(wishes: dict[str, Wish]) -> dict[str, float]:
    fair: dict[str, float] = {}
    left, weight = float(QUOTA), sum(wish.weight for wish in wishes.values())
    for name, wish in sorted(wishes.items(), key=lambda each: each[1].total / each[1].weight):
        fair[name] = min(wish.total, left * wish.weight / weight)
        left -= fair[name]
        weight -= wish.weight
    return fair
