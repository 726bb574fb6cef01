"""Masses of records for a destination that is closed, beside those of another one, in virtual time on AWS in memory.

Messages come at a rate through SQS with its limits, and workers of both functions are interleaved at every request. Only the
destination fails: a scenario says how, and when it recovers. What must hold is checked while it runs and at its end.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from unittest.mock import patch

from botocore.exceptions import ClientError
from greenlet import greenlet

from portaria.aws import queues, service_clients, table
from portaria.aws.table import Table
from portaria.connections import connection_store
from portaria.connections.tokens import cache
from portaria.connections.vault import Vault
from portaria.core import clock, record_messages
from portaria.core.callbacks import Record, Secret
from portaria.core.entities import Connection, Route
from portaria.core.http.messages import Request, Response
from portaria.core.settings import IngestRecordsSettings, ReleaseRecordsSettings
from portaria.delivery import backlogs, pipeline, record_release, retry_schedule
from portaria.delivery.pipeline import QueuedMessage
from portaria.platforms.marketo import persons
from portaria.records import dead_letters, reconciliation_wakeups, routes
from tests.fakes import outgoing
from tests.fakes.outgoing import SentRequest
from tests.fakes.records.contacts import contact
from tests.simulation.aws.cloud import PREFIX, TABLE, Cloud, Message, Sqs, installed

BEGIN = datetime(2026, 1, 5, 15, tzinfo=UTC).timestamp()
LIVE, WAITING = "records", "waiting_records"
CLOSED, OPEN = "marketo-closed", "marketo-open"
# As in template.yaml.
BATCH, INGEST_WORKERS, RELEASE_WORKERS, TIME_LIMIT_S, HIDDEN_S = 40, 5, 5, 120.0, 725.0
# The time of a batch besides its requests, and of a request.
BATCH_S, REQUEST_S = 2.0, 0.3
# How long a record for the open destination may take, from sending to arrival.
MOST_DELAY_S = 60.0
DAY_S = 86_400.0
NEVER = float("inf")


class Broken(BaseException):
    """A rule was violated. It is no Exception, so that the code under test does not catch it."""


@dataclass(frozen=True)
class Scenario:
    """`count` messages come for the closed destination, `a_second`; it answers with `code` until `closed_s` have passed.

    `max_in_flight` stands for the 120,000 of SQS, in proportion to `count`. The messages are changes of `keys` records. Without
    `keep_newest`, the order of changes is that of the queue and of the waiting list alone.
    """

    count: int
    a_second: float
    closed_s: float
    code: str
    max_in_flight: int
    keys: int
    others_every_s: float = 5.0
    keep_newest: str = "none"
    objects_a_request: int = 1_000


# The runs of `make test`: less than a hundredth of the messages, with a hundredth of the limit.
SCENARIOS = {
    "masses": Scenario(2_000, 20.0, 3_600.0, "4030801", 1_200, keys=1_000),
    "quota": Scenario(2_000, 20.0, 2 * DAY_S, "4290801", 1_200, keys=1_000, others_every_s=900.0),
    "failing": Scenario(2_000, 5.0, 2_400.0, "5000801", 1_200, keys=1_000, keep_newest="events"),
    "busy": Scenario(2_000, 5.0, 1_800.0, "429001", 1_200, keys=1_000),
    "days": Scenario(300, 0.0003, 13 * DAY_S, "4030801", 1_200, keys=100, others_every_s=3_600.0),
    # New records arrive while the waiting ones are sent, a few at a time.
    "order": Scenario(1_500, 1.0, 300.0, "4030801", 1_200, keys=30, objects_a_request=10),
}
LONG = {
    "masses": Scenario(300_000, 80.0, 5_400.0, "4030801", 120_000, keys=100_000),
    "quota": Scenario(300_000, 80.0, 5_400.0, "4290801", 120_000, keys=100_000, others_every_s=60.0),
    "failing": Scenario(300_000, 80.0, 3_000.0, "5000801", 120_000, keys=100_000, keep_newest="events"),
    "busy": Scenario(300_000, 80.0, 5_400.0, "429001", 120_000, keys=100_000),
}


@dataclass
class Worker:
    running: greenlet | None = None
    wake_at: float = 0.0
    deadline: float = 0.0


@dataclass
class Result:
    """`drained_s` is how long the records took after the destination had recovered."""

    applied: int = 0
    requests: int = 0
    slowest_other_s: float = 0.0
    most_in_flight: int = 0
    most_waiting: int = 0
    most_receives: int = 0
    drained_s: float = 0.0
    refused: int = 0


@dataclass
class Flow:
    scenario: Scenario
    time: float = BEGIN
    cloud: Cloud = field(default_factory=Cloud)
    current: Worker | None = None
    result: Result = field(default_factory=Result)
    # The versions of each key that the closed destination accepted, and when records for the open one were sent.
    taken: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    sent_at: dict[str, float] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    last_other_at: float = 0.0

    def __post_init__(self) -> None:
        self.main = greenlet.getcurrent()
        self.ingesting = [Worker() for _ in range(INGEST_WORKERS)]
        self.releasing = [Worker() for _ in range(RELEASE_WORKERS)]
        self.settings: IngestRecordsSettings = self.cloud.settings(IngestRecordsSettings)
        self.release_settings: ReleaseRecordsSettings = self.cloud.settings(ReleaseRecordsSettings)
        self.sqs = Sqs(self.cloud)
        self.opens_at = BEGIN + self.scenario.closed_s
        self.sweeps_at = BEGIN
        self.over = False

    # -------------------------------------------------------------------------------------------------------------- world

    def set_up(self) -> None:
        store, vault = Table(TABLE), Vault(PREFIX)
        for name in (CLOSED, OPEN):
            secret_id = vault.grant_id(name)
            vault.create(secret_id, {"client_id": Secret("id"), "client_secret": Secret("canary-secret")})
            domain, fields = "mkto-ingestion-api.adobe.io", {"munchkin_id": f"123-ABC-{name}"}
            connection_store.create(
                store,
                Connection(name, "marketo", "client_credentials", domain, "connected", 1, secret_id, fields=fields),
            )
            source = f"kommo-to-{name}"
            connection_store.create(
                store, Connection(source, "kommo", "oauth2", f"{name}.kommo.com", "connected", 1, "", account_id=name)
            )
            routes.put(
                store,
                Route(name, f"connection:{source}", "contacts", name, keep_newest=self.scenario.keep_newest),
                new=True,
            )

    def arrivals(self) -> Iterator[tuple[float, str, str]]:
        """When each message arrives, for which destination, and its body."""
        scenario = self.scenario
        closed = (
            (BEGIN + number / scenario.a_second, CLOSED, number % scenario.keys, number // scenario.keys + 1)
            for number in range(scenario.count)
        )
        ends_at = max(BEGIN + scenario.count / scenario.a_second, self.opens_at) + 60
        others = (
            (BEGIN + number * scenario.others_every_s, OPEN, number, 1)
            for number in range(int((ends_at - BEGIN) / scenario.others_every_s))
        )
        for at, name, key, version in _merged(closed, others):
            yield at, name, self.message(at, name, key, version)

    def message(self, at: float, name: str, key: int, version: int) -> str:
        data = contact(key, updated_at=version) | {"last_name": str(version)}
        (body,) = record_messages.pack(
            [Record(str(key), version, data)],
            connection=f"kommo-to-{name}", object="contacts", origin=record_messages.EVENT, read_at=int(at * 1_000),
        )  # fmt: skip
        email = f"person{key}@example.com"
        if name == OPEN:
            self.sent_at[email] = at
            self.last_other_at = at
        else:
            self.versions[email] = version
        return body

    def send(self, request: Request, *, allowed_domain: str, owner: str) -> Response:
        return self.begin(request, allowed_domain=allowed_domain, owner=owner).response()

    def begin(self, request: Request, *, allowed_domain: str, owner: str) -> SentRequest:
        """The edge of both destinations."""
        if request.url.endswith("/identity/oauth/token"):
            # At once: the workers share one token cache, whose lock no other worker may need meanwhile.
            token = {"access_token": "canary-token:int", "token_type": "bearer", "expires_in": 3599}
            return SentRequest(lambda: Response(200, {}, json.dumps(token).encode()))
        answered_at, answer = self.time + REQUEST_S, self.arrive(request)

        def read() -> Response:
            self.wait(max(0.0, answered_at - self.time))
            return answer

        return SentRequest(read)

    def arrive(self, request: Request) -> Response:
        name = request.url.partition("/subscriptions/123-ABC-")[2].partition("/")[0]
        self.result.requests += 1
        if name == CLOSED and self.time < self.opens_at:
            self.result.refused += 1
            body = {"error_code": self.scenario.code, "message": "no"}
            return Response(int(self.scenario.code[:3]), {}, json.dumps(body).encode())
        for person in json.loads(request.body or b"")["persons"]:
            if name == CLOSED:
                self.taken[person["email"]].append(int(person["lastName"]))
                self.result.applied += 1
            elif sent_at := self.sent_at.pop(person["email"], None):
                self.result.slowest_other_s = max(self.result.slowest_other_s, self.time - sent_at)
        return Response(202, {"x-request-id": f"request-{self.result.requests}"})

    # --------------------------------------------------------------------------------------------------- time and workers

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.time, UTC)

    def wait(self, seconds: float) -> None:
        if self.current is None:
            self.time += seconds
            return
        if seconds <= 0:
            # `move_on` knows only later moments.
            return
        self.current.wake_at = self.time + seconds
        self.main.switch()
        if self.over:
            raise greenlet.GreenletExit

    def run(self) -> Result:
        """Run until everything has arrived and nothing waits. Raises `Broken`."""
        self.set_up()
        arrivals = self.arrivals()
        following = next(arrivals, None)
        try:
            while True:
                while following and following[0] <= self.time:
                    self.post(LIVE, following[2], following[0])
                    following = next(arrivals, None)
                self.start_workers()
                for worker in (*self.ingesting, *self.releasing):
                    if worker.running is not None and worker.wake_at <= self.time:
                        self.resume(worker)
                self.look()
                is_busy = any(worker.running is not None for worker in (*self.ingesting, *self.releasing))
                if not following and not is_busy and not any(self.cloud.queues.values()) and not self.all_backlogs():
                    break
                self.move_on(following[0] if following else NEVER)
        finally:
            self.over = True
            for worker in (*self.ingesting, *self.releasing):
                if worker.running is not None:
                    self.resume(worker)
        return self.judge()

    def move_on(self, next_arrival: float) -> None:
        """Advance to the next event, unless a worker became idle while messages are visible."""
        if self.is_work_left(LIVE, self.ingesting) or self.is_work_left(WAITING, self.releasing):
            return
        moments = [next_arrival, *(worker.wake_at for worker in (*self.ingesting, *self.releasing) if worker.running)]
        moments += [message.visible_at for held in self.cloud.queues.values() for message in held]
        later = [moment for moment in moments if moment > self.time]
        due_at = min((backlog.next_at for backlog in self.all_backlogs()), default=NEVER)
        sweep_at = max(self.sweeps_at, due_at)
        if sweep_at <= self.time:
            self.sweeps_at = self.time + 60
            self.post(WAITING, '{"sweep": ""}', self.time)
            return
        following = min([*later, sweep_at])
        if following == NEVER:
            raise Broken("nothing happens any more")
        # A datetime has microseconds: after a rounded time, a message would be due and yet not received.
        self.time = math.ceil(following * 1_000) / 1_000

    def is_work_left(self, queue: str, workers: list[Worker]) -> bool:
        is_visible = any(message.visible_at <= self.time for message in self.cloud.queues.get(queue, ()))
        in_flight = sum(message.is_in_flight(self.time) for message in self.cloud.queues.get(queue, ()))
        is_idle = any(worker.running is None for worker in workers)
        return is_visible and is_idle and in_flight < Sqs.MAX_IN_FLIGHT

    def all_backlogs(self) -> list[backlogs.Backlog]:
        return backlogs.list_all(Table(TABLE))

    def post(self, queue: str, body: str, at: float) -> None:
        self.cloud.queues.setdefault(queue, []).append(Message(body, at, f"posted-{self.cloud.number()}"))

    def start_workers(self) -> None:
        for queue, workers, most, work in (
            (LIVE, self.ingesting, BATCH, self.ingest),
            (WAITING, self.releasing, 1, self.release),
        ):
            for worker in workers:
                if worker.running is not None or not any(
                    each.visible_at <= self.time for each in self.cloud.queues.get(queue, ())
                ):
                    continue
                try:
                    batch = self.sqs.receive(queue, most, HIDDEN_S)
                except ClientError as refused:
                    if service_clients.error_code(refused) != "OverLimit":
                        raise
                    # The poller gets nothing until other messages are deleted or become visible.
                    break
                self.start(worker, work, batch)

    def start(self, worker: Worker, work: Callable[[Worker, list[Message]], None], batch: list[Message]) -> None:
        worker.wake_at, worker.deadline = self.time, self.time + TIME_LIMIT_S
        worker.running = greenlet(lambda: work(worker, batch), parent=self.main)

    def resume(self, worker: Worker) -> None:
        assert worker.running is not None
        self.current = worker
        try:
            worker.running.switch()
        finally:
            self.current = None
        if worker.running.dead:
            worker.running = None

    def ingest(self, worker: Worker, batch: list[Message]) -> None:
        self.wait(BATCH_S)
        outcome = pipeline.ingest(
            [QueuedMessage(message.id, message.body, message.deliveries) for message in batch],
            self.settings,
            lambda: worker.deadline - self.time,
        )
        for message in batch:
            self.result.most_receives = max(self.result.most_receives, message.deliveries)
            if message.id in outcome.waiting:
                wait_s = retry_schedule.wait_s(outcome.waiting[message.id], message.deliveries)
                queues.give_back(self.cloud.url(LIVE), message.id, wait_s)
            else:
                self.sqs.delete_message(self.cloud.url(LIVE), message.id)

    def release(self, worker: Worker, batch: list[Message]) -> None:
        (message,) = batch
        record_release.handle_message(message.body, self.release_settings, lambda: worker.deadline - self.time)
        self.sqs.delete_message(self.cloud.url(WAITING), message.id)

    # --------------------------------------------------------------------------------------------------------------- rules

    def look(self) -> None:
        in_flight = sum(message.is_in_flight(self.time) for message in self.cloud.queues.get(LIVE, ()))
        self.result.most_in_flight = max(self.result.most_in_flight, in_flight)
        if self.sent_at:
            oldest = next(iter(self.sent_at.values()))
            if self.time - oldest > MOST_DELAY_S:
                raise Broken(f"a record for the open destination waits for {self.time - oldest:.0f} s")
        self.result.most_waiting = max([self.result.most_waiting, *(each.records for each in self.all_backlogs())])

    def judge(self) -> Result:
        if self.cloud.expired:
            raise Broken(f"SQS dropped {len(self.cloud.expired)} messages")
        if dead := list(Table(TABLE).query_all(dead_letters.LIST, index="listing")):
            raise Broken(f"{len(dead)} dead letters: {dead[0]['detail']}")
        if left := sorted({pk for pk, sk in self.cloud.items if pk.startswith("WAITING#") or sk == backlogs.SK}):
            raise Broken(f"records that nobody sends: {left}")
        if self.sent_at:
            raise Broken(f"{len(self.sent_at)} records for the open destination never came")
        for email, version in self.versions.items():
            taken = self.taken.get(email, [])
            if taken[-1:] != [version]:
                raise Broken(f"{email}: {taken} came, {version} is the newest")
            if taken != sorted(taken):
                raise Broken(f"{email} came in the order {taken}")
        self.result.drained_s = max(0.0, self.time - self.opens_at)
        return self.result


def _merged(*series: Iterator[tuple[float, str, int, int]]) -> Iterator[tuple[float, str, int, int]]:
    heads: list[tuple[tuple[float, str, int, int], Iterator[tuple[float, str, int, int]]]] = []
    for each in series:
        if first := next(each, None):
            heads.append((first, each))
    for _ in itertools.count():
        if not heads:
            return
        at = min(range(len(heads)), key=lambda number: heads[number][0][0])
        head, each = heads[at]
        yield head
        if following := next(each, None):
            heads[at] = (following, each)
        else:
            del heads[at]


class _InTurn:
    """Replaces a pool of threads: one task after the other."""

    def __init__(self, _: int) -> None:
        self.map = map

    def __enter__(self) -> _InTurn:
        return self

    def __exit__(self, *_: object) -> None:
        return None


@contextmanager
def playing(scenario: Scenario, build: Callable[[Scenario], Flow] | None = None) -> Iterator[Flow]:
    flow = (build or Flow)(scenario)
    pipeline._ledger.cache_clear()
    cache.PROCESS_CACHE.clear()
    reconciliation_wakeups.forget()
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            installed(lambda: flow.cloud),
            patch.object(clock, "now", flow.now),
            patch.object(clock, "sleep", flow.wait),
            outgoing.answering(flow.send, flow.begin),
            patch.object(table, "ThreadPoolExecutor", _InTurn),
            patch.object(Sqs, "MAX_IN_FLIGHT", scenario.max_in_flight),
            patch.object(persons, "MAX_OBJECTS", scenario.objects_a_request),
        ):
            yield flow
    finally:
        logging.disable(disabled)
        pipeline._ledger.cache_clear()
        cache.PROCESS_CACHE.clear()


def play(scenario: Scenario) -> Result:
    """Raises `Broken`."""
    with playing(scenario) as flow:
        return flow.run()


def attempt(name: str) -> str:
    """The violations of a scenario; empty if there are none."""
    try:
        play(SCENARIOS[name])
    except Broken as broken:
        return f"{name}: {broken}"
    return ""


def main() -> int:
    """`python -m tests.simulation.records.waiting_runs NAME …`, with `long` before it for the full numbers."""
    names = sys.argv[1:]
    known = LONG if names[:1] == ["long"] else SCENARIOS
    for name in names[known is LONG :] or known:
        started = time.monotonic()
        try:
            told: object = play(known[name])
        except Broken as broken:
            told = f"broken: {broken}"
        print(f"{name} in {time.monotonic() - started:.1f} s: {told}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
