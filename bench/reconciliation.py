"""How late reconciliation finds a lost event, and what it costs a month, for 10 to 100,000 accounts.

The product's own scheduling runs on a fake clock: the intervals, phases and wake-ups of `records.reconciliation_schedule` and
`records.reconciliation_wakeups`, the limit and spread of sweeps, and the claims of the request budget with the priority of
reconciliations, on a table in memory. A discrete-event simulation stands for EventBridge, SQS, the workers (as many as
template.yaml allows) and the platform's answer times. The cost model (`bench.cost`) counts what one reading calls.
"""

from __future__ import annotations

import heapq
import itertools
import random
import statistics
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from unittest.mock import patch

from rich.table import Table as Shown

from bench.cost import STORE_NAMES, flows, read_model
from bench.cost.bill import DAYS, Bill, read_prices
from bench.cost.flows import Model
from bench.report import conclude, console
from local.template_file import read_template
from portaria.aws.table import Conflict, Item, Table
from portaria.connections.credential_stores.protocol import STORES, TABLE
from portaria.connections.request_budget import BudgetExhausted, SlotCounters
from portaria.core import clock
from portaria.outbound.request_slots import Priority
from portaria.records import reconciliation_schedule, reconciliation_wakeups
from portaria.records.reconciliation_schedule import Bounds
from portaria.sources import reconciliation, resubscription

BEGIN = datetime(2026, 3, 2, tzinfo=UTC).timestamp()
DAY = 86_400.0
OBJECTS = ("contacts", "companies")
# Of Kommo: the least interval, seconds of an answer, and of the calls to AWS of one reading.
ANSWER_S, AWS_S = 0.30, 0.12


class Traffic:
    """What is assumed of the accounts.

    One account in fifty is busy: a contact changes every five minutes for twelve hours of a day, and the platform loses one
    event in a hundred. In the others, something changes once in ten days on average, and half of these events are lost, so
    that there are enough to measure. A tenth of all changes are companies'.
    """

    BUSY, BUSY_EVERY_S, BUSY_HOURS = 1 / 50, 300.0, (8.0, 20.0)
    IDLE_EVERY_S = 10 * DAY
    BUSY_LOST, IDLE_LOST = 0.01, 0.5
    COMPANIES = 0.1


@dataclass(frozen=True)
class Fleet:
    """`warm_days` pass before anything is counted: at least the longest interval, because lost events are counted when they are
    found. `at_once`: all accounts were installed at the beginning.
    """

    name: str
    accounts: int
    idle_minutes: int = 720
    warm_days: float = 3.0
    days: float = 2.0
    at_once: bool = False


FLEETS = (
    Fleet("10", 10, days=60.0),
    Fleet("1000", 1_000, days=6.0),
    Fleet("10000", 10_000, warm_days=1.0),
    Fleet("10000_idle_2h", 10_000, idle_minutes=120, warm_days=0.5, days=0.5),
    Fleet("10000_idle_24h", 10_000, idle_minutes=1_440, warm_days=1.0),
    Fleet("10000_at_once", 10_000, warm_days=0.0, at_once=True),
    Fleet("100000", 100_000, warm_days=0.5, days=0.5),
    Fleet("100000_idle_48h", 100_000, idle_minutes=2_880, warm_days=2.0, days=0.5),
)


# The expressions of the budget and of wake-ups.
CONDITIONS: dict[str, Callable[[Item, Item, str], bool]] = {
    "attribute_not_exists(#lane) OR #lane < :first OR #lane > :impossible": lambda item, values, lane: (
        lane not in item or item[lane] < values[":first"] or item[lane] > values[":impossible"]
    ),
    "#lane >= :first AND #lane <= :last": lambda item, values, lane: (
        lane in item and values[":first"] <= item[lane] <= values[":last"]
    ),
    "due_at > :due_at": lambda item, values, _: item.get("due_at", "") > values[":due_at"],
    "attribute_exists(due_at)": lambda item, _values, _: "due_at" in item,
}
EXPRESSIONS: dict[str, Callable[[Item, Item, str], Item]] = {
    "SET #lane = :next": lambda _, values, lane: {lane: values[":next"]},
    "SET #lane = #lane + :one": lambda item, _values, lane: {lane: item[lane] + 1},
    "SET due_at = :due_at, changed_at = :changed_at": lambda _, values, _lane: {
        "due_at": values[":due_at"],
        "changed_at": values[":changed_at"],
    },
    "SET changed_at = :changed_at": lambda _, values, _lane: {"changed_at": values[":changed_at"]},
}


class MemoryTable(Table):
    """The table for the updates of the budget and of wake-ups, and nothing else."""

    def __init__(self) -> None:
        super().__init__("bench")
        self.items: dict[tuple[str, str], Item] = {}
        self.writes = 0

    def update(
        self,
        pk: str,
        sk: str,
        expression: str,
        *,
        condition: str = "",
        values: Item | None = None,
        names: dict[str, str] | None = None,
    ) -> Item:
        self.writes += 1
        item, lane = self.items.setdefault((pk, sk), {}), (names or {}).get("#lane", "")
        if not CONDITIONS[condition](item, values or {}, lane):
            raise Conflict(dict(item))
        item |= EXPRESSIONS[expression](item, values or {}, lane)
        return item


@dataclass
class Reconciled:
    """A reconciliation as the product stores it, and what a lost event waits for. Times are epoch seconds."""

    name: str
    object: str
    is_busy: bool
    item: Item
    phase: float
    changed_at: float
    subscribed_at: float = 0.0
    lost: list[float] = field(default_factory=list)
    version: int = 0


class Day:
    """One fleet's days."""

    def __init__(self, fleet: Fleet, workers: int) -> None:
        self.fleet = fleet
        self.rng = random.Random(f"reconciliation {fleet.name}")
        self.now = BEGIN
        self.table = MemoryTable()
        self.bounds = Bounds(timedelta(minutes=30), timedelta(minutes=fleet.idle_minutes))
        self.counters = SlotCounters(self.table, "kommo", 6.0)
        self.numbers = itertools.count()
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.known: list[Reconciled] = []
        self.due: list[tuple[float, int, int, Reconciled]] = []
        self.queue: list[tuple[float, int, Reconciled]] = []
        self.free = workers
        self.counted_from = BEGIN + fleet.warm_days * DAY
        self.ends_at = self.counted_from + fleet.days * DAY
        self.late_s: dict[bool, list[float]] = {True: [], False: []}
        self.counts: Counter[str] = Counter()
        self.most_due = 0

    def run(self) -> Day:
        reconciliation_wakeups.forget()
        for number in range(self.fleet.accounts):
            self.install(f"kommo-acme-{number}", is_busy=number < max(1, self.fleet.accounts * Traffic.BUSY))
        self.at(BEGIN, self.sweep)
        while self.events and (moment := heapq.heappop(self.events)) and moment[0] <= self.ends_at:
            self.now = moment[0]
            moment[2]()
        return self

    def install(self, name: str, *, is_busy: bool) -> None:
        for name_of_object in OBJECTS:
            every_s = Traffic.BUSY_EVERY_S if is_busy else Traffic.IDLE_EVERY_S
            changed_at = BEGIN if self.fleet.at_once else BEGIN - self.rng.expovariate(1 / every_s)
            item = self.table.items[reconciliation_wakeups.key(name, name_of_object)] = {}
            phase = reconciliation_wakeups.phase(name, name_of_object)
            each = Reconciled(name, name_of_object, is_busy, item, phase, changed_at)
            item["changed_at"] = int(changed_at)
            self.known.append(each)
            first_s = reconciliation.FIRST_AFTER.total_seconds() * (1 + phase)
            self.put(each, BEGIN + first_s if self.fleet.at_once else self.next_due(each, BEGIN))
            share = Traffic.COMPANIES if name_of_object == "companies" else 1 - Traffic.COMPANIES
            change = partial(self.change, each, every_s / share)
            self.at(BEGIN + self.rng.expovariate(share / every_s), change)

    def at(self, moment: float, what: Callable[[], None]) -> None:
        heapq.heappush(self.events, (moment, next(self.numbers), what))

    # ---------------------------------------------------------------------------------------------- what accounts do

    def change(self, each: Reconciled, every_s: float) -> None:
        self.at(self.now + self.rng.expovariate(1 / every_s), partial(self.change, each, every_s))
        first, last = Traffic.BUSY_HOURS
        if each.is_busy and not first <= (self.now % DAY) / 3_600 < last:
            return
        each.changed_at = self.now
        if self.rng.random() < (Traffic.BUSY_LOST if each.is_busy else Traffic.IDLE_LOST):
            each.lost.append(self.now)
            return
        # A live event: it arrives, and makes its account's reconciliation due.
        before, writes = each.item["due_at"], self.table.writes
        reconciliation_wakeups.wake(self.table, each.name, each.object, self.bounds)
        self.count("wake_writes", self.table.writes - writes)
        if each.item["due_at"] != before:
            self.put(each, clock.from_iso(each.item["due_at"]).timestamp())

    # ---------------------------------------------------------------------------------------------- schedule and queue

    def next_due(self, each: Reconciled, read_at: float) -> float:
        """As `_Reconciling` computes it when a reading ends, by the newest change that it knows."""
        idle = timedelta(seconds=read_at - each.item["changed_at"])
        every = self.bounds.interval(idle)
        now = datetime.fromtimestamp(self.now, UTC)
        return reconciliation_schedule.due_at(now, every, each.phase).timestamp()

    def put(self, each: Reconciled, due_at: float) -> None:
        """Into the index `by_due`."""
        each.version += 1
        each.item["due_at"] = clock.epoch_to_iso(due_at)
        heapq.heappush(self.due, (due_at, next(self.numbers), each.version, each))

    def sweep(self) -> None:
        self.at(self.now + 60, self.sweep)
        claimed: list[Reconciled] = []
        while self.due and self.due[0][0] <= self.now and len(claimed) < reconciliation.SWEEP_LIMIT:
            _, _, version, each = heapq.heappop(self.due)
            if version == each.version:
                claimed.append(each)
        for number, each in enumerate(claimed):
            # Claimed: due again in half an hour, if its message is not processed by then.
            self.put(each, self.now + reconciliation.QUEUE_AGAIN.total_seconds())
            moment = self.now + min(number, reconciliation.SPREAD_S * number / len(claimed))
            heapq.heappush(self.queue, (moment, next(self.numbers), each))
            self.at(moment, self.take)
        self.count("sweeps")
        if self.now >= self.counted_from and self.now % 600 < 60:
            waiting = sum(moment <= self.now and version == each.version for moment, _, version, each in self.due)
            self.most_due = max(self.most_due, waiting)

    def take(self) -> None:
        if self.free and self.queue and self.queue[0][0] <= self.now:
            self.free -= 1
            self.step(self.read(heapq.heappop(self.queue)[2]))

    def step(self, work: Iterator[float]) -> None:
        """Go on with a worker's work until it waits again."""
        wait_s = next(work, None)
        if wait_s is None:
            self.free += 1
            self.take()
        else:
            self.at(self.now + wait_s, partial(self.step, work))

    def read(self, each: Reconciled) -> Iterator[float]:
        """A worker's turn: the waits between its steps."""
        self.count("readings")
        asked_at, seconds = self.now, AWS_S
        is_idle = self.bounds.interval(timedelta(seconds=self.now - each.item["changed_at"])) > self.bounds.least
        again = resubscription.IDLE_AGAIN if is_idle else resubscription.AGAIN
        requests = 1
        if each.object == OBJECTS[0] and self.now - each.subscribed_at >= again.total_seconds():
            requests, each.subscribed_at = 2, self.now
        yield AWS_S
        for _ in range(requests):
            writes = self.table.writes
            try:
                begins_at = self.counters.claim(Priority.RECONCILIATION.rules)
            except BudgetExhausted as exhausted:
                self.count("waited_for_budget")
                self.put(each, self.now + (exhausted.after_s or 0.0))
                return
            finally:
                self.count("budget_writes", self.table.writes - writes)
            wait_s = max(0.0, begins_at - self.now) + ANSWER_S
            seconds += wait_s
            self.count("requests")
            yield wait_s
        self.count("lambda_s", seconds)
        self.found(each, asked_at)
        self.put(each, self.next_due(each, asked_at))

    def found(self, each: Reconciled, asked_at: float) -> None:
        if self.now >= self.counted_from:
            self.late_s[each.is_busy] += [self.now - changed_at for changed_at in each.lost]
        each.lost.clear()
        if each.changed_at <= asked_at:
            each.item["changed_at"] = max(each.item["changed_at"], int(each.changed_at))

    def count(self, what: str, by: float = 1) -> None:
        if self.now >= self.counted_from:
            self.counts[what] += by  # type: ignore[assignment]


def measure() -> bool:
    model, prices = read_model(), read_prices()
    source = read_template()["Resources"]["BackfillRecordsFunction"]["Properties"]["Events"]["Backfills"]["Properties"]
    workers = int(source["ScalingConfig"]["MaximumConcurrency"])
    counted = model.measures.reconciliation[TABLE]
    figures = {"reading_write_units": counted.write_units, "reading_read_units": counted.read_units}
    shown = Shown(title="A lost event is found after (minutes), and the cost a month", title_justify="left")
    for heading in ("accounts", "busy p50", "p99", "worst", "idle p50", "p99", "worst", "requests/s", "USD"):
        shown.add_column(heading, justify="right")
    for fleet in FLEETS:
        day = Day(fleet, workers)
        with patch.object(clock, "now", lambda day=day: datetime.fromtimestamp(day.now, UTC)):
            day.run()
        told = _figures(day)
        for store in STORES:
            told[f"usd_a_month_{STORE_NAMES[store]}"] = _bill(day, model, store).dollars(prices)
        figures |= {f"{fleet.name}_{name}": value for name, value in told.items()}
        minutes = [
            f"{told[f'{kind}_{part}_min']:,.0f}" if f"{kind}_{part}_min" in told else ""
            for kind in ("busy", "idle")
            for part in ("p50", "p99", "worst")
        ]
        shown.add_row(fleet.name, *minutes, f"{told['requests_per_s']:.2f}", f"{told['usd_a_month_table']:,.2f}")
    console.print(shown)
    console.print(
        f"Assumed: {Traffic.__doc__}\nWorkers: {workers}. USD with credentials in the table. A reading writes "
        f"{counted.write_units:g} units and reads {counted.read_units:g}."
    )
    return conclude(
        "reconciliation",
        figures,
        {
            # The least interval, the next sweep, and a minute of waiting; the worst is the first change after a night.
            "10000_busy_p99_min": 33,
            "10000_busy_worst_min": 180,
            "10000_idle_worst_min": 723,
            "10000_requests_per_s": 5.5,
            "10000_usd_a_month_table": 45,
            "10000_most_due": 300,
        },
    )


def _figures(day: Day) -> dict[str, float]:
    told: dict[str, float] = {}
    for kind, is_busy in (("busy", True), ("idle", False)):
        late = sorted(each / 60 for each in day.late_s[is_busy])
        told[f"{kind}_lost"] = len(late)
        if late:
            told |= {f"{kind}_p50_min": statistics.median(late), f"{kind}_worst_min": late[-1]}
            told[f"{kind}_p99_min"] = late[min(len(late) - 1, int(len(late) * 0.99))]
    days = day.fleet.days
    told["requests_per_s"] = day.counts["requests"] / days / DAY
    told["readings_a_day"] = day.counts["readings"] / days
    told["waited_for_budget_a_day"] = day.counts["waited_for_budget"] / days
    told["most_due"] = day.most_due
    return told


def _bill(day: Day, model: Model, store: str) -> Bill:
    """As the cost model bills a reading, and the writes of wake-ups and of refused claims on top."""
    month = DAYS / day.fleet.days
    shape, assumed, measures = model
    counted, readings = measures.reconciliation[store], day.counts["readings"] * month
    refused = max(0.0, day.counts["budget_writes"] - day.counts["requests"])
    return Bill(
        lambda_request=readings,
        lambda_gb_s=day.counts["lambda_s"] * month * shape.memory_gb["BackfillRecordsFunction"],
        dynamodb_write=readings * counted.write_units + (day.counts["wake_writes"] + refused) * month,
        dynamodb_read=readings * counted.read_units,
        secret_call=readings * counted.of("secretsmanager"),
        key_call=readings * counted.of("kms"),
        sqs_request=readings * 3 + day.counts["sweeps"] * month * 3,
        out_gb=readings * 2_000 / 1e9,
        **flows.logs(assumed, readings * assumed.log_bytes_a_call),
    )
