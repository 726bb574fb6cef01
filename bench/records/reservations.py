"""What one reservation of quota costs with 10, 1,000 and 20,000 tenants: request units of DynamoDB, calls and time.

On the table in memory, so the time is the worker's own. Request units follow
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/capacity-mode.html
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from unittest.mock import patch

from rich.table import Table

from bench.report import conclude, console
from portaria.aws import table as tables
from portaria.aws.table import Table as Items
from portaria.core import clock
from portaria.delivery import quotas
from tests.simulation.aws import cloud as clouds
from tests.simulation.aws.cloud import TABLE, Cloud, InTurn

TENANTS = (10, 1_000, 20_000)
QUOTA = 50_000_000
SUBSCRIPTION = "123-ABC-456"
ZONE = "America/Chicago"
NOON = datetime(2026, 11, 23, 18, tzinfo=UTC)
# A live event of one tenant, and a request with the records of as many tenants as a batch of messages has at most.
SHARES = {"one tenant": 1, "40 tenants": 40}
RESERVATIONS, EVERY = 600, timedelta(seconds=1)
LIMITS = {"largest_item_bytes": 40_960.0, "write_units_one_tenant_20000": 12.0}


class Cost(NamedTuple):
    """Of one reservation, on average. `begin_ms` and `begin_read_units` are what a process needs for its first."""

    write_units: float
    read_units: float
    calls: float
    own_ms: float
    begin_ms: float
    begin_read_units: float


class Meter:
    def __init__(self, cloud: Cloud) -> None:
        self.read_units = self.write_units = self.calls = 0
        cloud.item_written = lambda old, new: self.wrote(max(_size(old), _size(new)))
        cloud.carry = self.carry

    def wrote(self, size: int) -> None:
        self.write_units += max(1, math.ceil(size / 1_024))

    def carry(self, name: str, call: Callable[[], Any]) -> Any:
        self.calls += 1
        answer = call()
        if name == "dynamodb.batch_get_item":
            items = next(iter(answer["Responses"].values()))
            self.read_units += sum(max(1, math.ceil(_size(item) / 4_096)) for item in items)
        elif name == "dynamodb.query":
            self.read_units += max(1, math.ceil(sum(map(_size, answer["Items"])) / 4_096))
        return answer


def _size(item: Any) -> int:
    return int(getattr(item, "size", 0))


def measure() -> bool:
    shown = Table(title="A reservation", title_justify="left")
    for heading in ("tenants", "in the request", "write units", "read units", "calls", "ms", "first: ms", "read units"):
        shown.add_column(heading, justify="right")
    figures: dict[str, float] = {}
    largest = 0
    for tenants in TENANTS:
        cloud = day_of(tenants)
        for name, count in SHARES.items():
            cost = run(cloud, tenants, min(count, tenants))
            shown.add_row(f"{tenants:,}", name, *(f"{figure:.2f}" for figure in cost))
            place = f"{name.replace(' ', '_')}_{tenants}"
            figures |= {f"{figure}_{place}": getattr(cost, figure) for figure in Cost._fields}
        largest = max(largest, *(item.size for item in cloud.items.values()))
        figures[f"items_{tenants}"] = len(cloud.items)
    figures["largest_item_bytes"] = largest
    console.print(shown)
    return conclude("reservations", figures, LIMITS)


def day_of(tenants: int) -> Cloud:
    """Noon of a day on which, as on the day before, every tenant has sent something."""
    cloud = Cloud()
    names = [name_of(number) for number in range(tenants)]
    with clouds.installed(lambda: cloud), patch.object(tables, "ThreadPoolExecutor", InTurn):
        for moment in (NOON - timedelta(days=1), NOON):
            with patch.object(clock, "now", lambda moment=moment: moment):
                ledger = quotas.Ledger(Items(TABLE), ZONE, random.Random(1))
                for start in range(0, tenants, 40):
                    shares = dict.fromkeys(names[start : start + 40], 5)
                    ledger.reserve(SUBSCRIPTION, QUOTA, shares, bulk=False, weights={})
    return cloud


def run(cloud: Cloud, tenants: int, count: int) -> Cost:
    """A process that begins at noon and reserves once a second for ten minutes."""
    rng = random.Random(2)
    meter = Meter(cloud)
    now = NOON
    with (
        clouds.installed(lambda: cloud),
        patch.object(tables, "ThreadPoolExecutor", InTurn),
        patch.object(clock, "now", lambda: now),
    ):
        ledger = quotas.Ledger(Items(TABLE), ZONE, random.Random(3))

        def reserve() -> float:
            shares = {name_of(rng.randrange(tenants)): 1 for _ in range(count)}
            began = time.perf_counter()
            answer = ledger.reserve(SUBSCRIPTION, QUOTA, shares, bulk=False, weights={})
            assert answer.granted == shares
            return (time.perf_counter() - began) * 1_000

        begin_ms, begin_read_units = reserve(), float(meter.read_units)
        meter.read_units = meter.write_units = meter.calls = 0
        own_ms = 0.0
        for _ in range(RESERVATIONS):
            now += EVERY
            own_ms += reserve()
    totals = (meter.write_units, meter.read_units, meter.calls, own_ms)
    writes, reads, calls, spent = (figure / RESERVATIONS for figure in totals)
    return Cost(writes, reads, calls, spent, begin_ms, begin_read_units)


def name_of(number: int) -> str:
    return f"kommo-acme-{30_000_000 + number}"
