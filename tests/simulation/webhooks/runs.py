"""Events for many webhooks, some of which fail, in virtual time on AWS in memory.

The product's own fan-out and worker run, as many as template.yaml allows, interleaved at every call of AWS and every request,
and are killed at random calls. SQS delivers in the order of sending, without the fairness between message groups that AWS
promises. Endpoints are modelled: each answers after some time, and a bad one fails in its own way.
"""

from __future__ import annotations

import heapq
import itertools
import json
import logging
import random
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

from greenlet import GreenletExit, greenlet

from portaria.aws.table import Table
from portaria.core import clock
from portaria.core.errors import AnswerLost, Retryable, Unreachable
from portaria.core.event_catalogue import CATALOGUE
from portaria.core.http.messages import Request, Response
from portaria.core.settings import DeliverWebhooksSettings, FanOutEventsSettings
from portaria.notifications import (
    deliveries,
    delivery_attempt,
    endpoint_gate,
    event_fan_out,
    webhooks,
)
from portaria.notifications.delivery_worker import Worker
from portaria.notifications.webhooks import Webhook
from portaria.outbound import http_client
from tests.simulation.aws.cloud import KEY_ID, TABLE, Cloud, Sqs, installed

BEGIN = datetime(2026, 1, 5, 15, tzinfo=UTC).timestamp()
EVENTS, USUAL, SLOW = "webhook_events", "webhook_deliveries", "slow_webhook_deliveries"
# As template.yaml has them for the smallest size.
WORKERS = {EVENTS: 5, USUAL: 20, SLOW: 5}
HIDDEN_S = {EVENTS: 180.0, USUAL: 360.0, SLOW: 360.0}
TIME_LIMIT_S = 60.0
MAX_RECEIVES = 20
# A call of AWS, and the start of a worker after its death.
CALL_S, COLD_START_S = 0.008, 1.5
TYPE = "connection.ready"


def type_of(name: str) -> str:
    """The event that an endpoint subscribes to."""
    return f"{name}.called"


class Endless(Exception):
    """Deliveries are pending although longer has passed than one can take."""


class Died(BaseException):
    """The worker was killed. It is no Exception, so that the code under test does not catch it."""


@dataclass(frozen=True)
class Endpoint:
    """`kind` says how it fails: `ok`, `gone`, `error`, `refused`, `silent`, `flaky` (500 at 20 %).

    It does so from `from_s` until `until_s` after the beginning, and works otherwise.
    """

    kind: str = "ok"
    from_s: float = 0.0
    until_s: float = float("inf")

    def now(self, passed_s: float) -> str:
        return self.kind if self.from_s <= passed_s < self.until_s else "ok"


BAD = (
    Endpoint("silent"), Endpoint("silent"), Endpoint("silent", from_s=40), Endpoint("silent", from_s=60, until_s=7_200),
    Endpoint("error"), Endpoint("error", until_s=20_000), Endpoint("refused"), Endpoint("gone", from_s=50),
    Endpoint("flaky"), Endpoint("flaky"),
)  # fmt: skip


@dataclass(frozen=True)
class Scenario:
    """`kills` is about how many workers are killed. Only the healthy endpoints exist if `is_alone`.

    `days` is longer than a delivery can take.
    """

    events: int = 5_000
    endpoints: int = 50
    bad: tuple[Endpoint, ...] = BAD
    events_a_second: float = 25.0
    kills: int = 20
    seed: int = 1
    is_alone: bool = False
    days: float = 7


SHORT = Scenario(
    events=250,
    endpoints=14,
    bad=(BAD[0], BAD[4], BAD[8], Endpoint("error", until_s=900), Endpoint("gone", from_s=5)),
    kills=4,
)
# Nobody is killed, so that only the endpoints delay one another.
BURST = Scenario(events=1_000, endpoints=20, bad=(Endpoint("silent", from_s=5, until_s=600),) * 5, kills=0)


@dataclass
class Result:
    """`missing` are deliveries that were neither delivered nor failed with a reason, and events without a delivery."""

    events: int = 0
    delivered: int = 0
    failed_with_reason: int = 0
    missing: int = 0
    claimed_but_not_received: int = 0
    duplicates: int = 0
    attempts: int = 0
    kills: int = 0
    healthy_p99_s: float = 0.0
    healthy_failed: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    simulated_days: float = 0.0


class Run:
    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.chance = random.Random(scenario.seed)
        self.deaths = random.Random(scenario.seed + 1)
        self.time = BEGIN
        self.cloud = Cloud()
        self.sqs = Sqs(self.cloud)
        self.main = greenlet.getcurrent()
        self.agenda: list[tuple[float, int, Callable[[], None]]] = []
        self.numbers = itertools.count()
        self.idle = {queue: deque(range(count)) for queue, count in WORKERS.items()}
        self.result = Result()
        count = scenario.endpoints - len(scenario.bad)
        self.endpoints = {f"wh_healthy{number:02d}": Endpoint() for number in range(count)}
        if not scenario.is_alone:
            self.endpoints |= {f"wh_bad{number:02d}": each for number, each in enumerate(scenario.bad)}
        self.sent_at: dict[tuple[str, str], float] = {}
        self.received: Counter[tuple[str, str]] = Counter()
        self.first_at: dict[tuple[str, str], float] = {}
        self.latency = {name: self.chance.uniform(0.05, 0.3) for name in self.endpoints}
        self.settings: DeliverWebhooksSettings = self.cloud.settings(DeliverWebhooksSettings)
        self.fan_out_settings: FanOutEventsSettings = self.cloud.settings(FanOutEventsSettings)
        self.processes: dict[tuple[str, int], Worker] = {}
        # A worker makes about a dozen calls for each event.
        self.death_rate = scenario.kills / (scenario.events * 14)

    # ---------------------------------------------------------------------------------------------------------- the world

    def set_up(self) -> None:
        now = clock.to_iso(clock.now())
        for name in self.endpoints:
            url = f"https://{name.replace('_', '-')}.example.com/webhooks"
            sealed = webhooks.seal(KEY_ID, name, webhooks.new_secret())
            webhooks.create(
                Table(TABLE), Webhook(name, url, (type_of(name),), "", webhooks.ENABLED, now, "me", now, now, sealed)
            )
        self.cloud.carry = self.carry

    def plan(self) -> None:
        """Each endpoint subscribes to an event of its own, so that each event has one delivery."""
        names = sorted(f"wh_healthy{number:02d}" for number in range(self.scenario.endpoints - len(self.scenario.bad)))
        names += sorted(f"wh_bad{number:02d}" for number in range(len(self.scenario.bad)))
        chance = random.Random(self.scenario.seed)
        for number in range(self.scenario.events):
            at = BEGIN + number / self.scenario.events_a_second
            name = chance.choice(names)
            if name in self.endpoints:
                self.at(at, lambda number=number, name=name, at=at: self.publish(number, name, at))  # type: ignore[misc]

    def publish(self, number: int, name: str, at: float) -> None:
        self.result.events += 1
        moment = datetime.fromtimestamp(at, UTC)
        event = {
            "id": f"event-{number}@{name}",
            "source": "portaria",
            "detail-type": type_of(name),
            "time": moment.isoformat(),
            "detail": CATALOGUE[TYPE].example,
        }
        self.sent_at[name, deliveries.id_of(str(event["id"]), clock.from_iso(clock.to_iso(moment)))] = at
        self.send(EVENTS, json.dumps(event))

    def send(self, queue: str, body: str) -> None:
        self.sqs.send_message(Cloud.url(queue), body)
        self.poke(queue)

    def http(self, request: Request, *, allowed_domain: str, owner: str = "") -> Response:
        """The edge of all endpoints."""
        name = owner.removeprefix("webhook:")
        assert urlsplit(request.url).hostname == allowed_domain
        kind = self.endpoints[name].now(self.time - BEGIN)
        self.result.attempts += 1
        if kind == "refused":
            self.wait(0.05)
            raise Unreachable("it was not reached: ConnectionRefusedError")
        if kind == "silent":
            self.wait(request.total_timeout_s or 15.0)
            raise AnswerLost("it gave no answer: TimeoutError")
        self.wait(self.latency[name] * self.chance.uniform(0.8, 1.6))
        if kind == "gone":
            return Response(410)
        if kind == "error" or (kind == "flaky" and self.chance.random() < 0.2):
            return Response(500, {}, b"internal error")
        key = (name, request.headers["webhook-id"])
        self.received[key] += 1
        self.first_at.setdefault(key, self.time)
        self.maybe_die()
        return Response(204)

    # --------------------------------------------------------------------------------------------------- time and workers

    def at(self, moment: float, act: Callable[[], None]) -> None:
        heapq.heappush(self.agenda, (moment, next(self.numbers), act))

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.time, UTC)

    def wait(self, seconds: float) -> None:
        current = greenlet.getcurrent()
        if current is self.main:
            return
        self.at(self.time + seconds, current.switch)
        self.main.switch()

    def carry(self, name: str, call: Callable[[], Any]) -> Any:
        if greenlet.getcurrent() is self.main:
            return call()
        self.maybe_die()
        self.wait(CALL_S)
        answer = call()
        self.maybe_die()
        if name == "sqs.send_message":
            for queue in WORKERS:
                self.poke(queue)
        return answer

    def maybe_die(self) -> None:
        if self.deaths.random() < self.death_rate / 2:
            self.result.kills += 1
            raise Died

    def poke(self, queue: str) -> None:
        """Start idle workers on what is visible, and come back when the next message is."""
        now = self.time
        held = self.cloud.queues.get(queue, [])
        visible = sum(message.visible_at <= now for message in held)
        for _ in range(min(visible, len(self.idle[queue]))):
            number = self.idle[queue].popleft()
            self.at(now, lambda number=number: self.start(queue, number))  # type: ignore[misc]
        later = [message.visible_at for message in held if message.visible_at > now]
        if later:
            self.at(min(later), lambda: self.poke(queue))

    def start(self, queue: str, number: int) -> None:
        greenlet(lambda: self.work(queue, number), self.main).switch()

    def work(self, queue: str, number: int) -> None:
        """One worker, until its queue is empty or it dies."""
        while found := self.sqs.receive(queue, 1, HIDDEN_S[queue]):
            (message,) = found
            if message.deliveries > MAX_RECEIVES:
                self.sqs.delete_message(Cloud.url(queue), message.id)
                continue
            begun = self.time
            try:
                self.handle(queue, number, message.body, lambda begun=begun: TIME_LIMIT_S - (self.time - begun))  # type: ignore[misc]
                self.sqs.delete_message(Cloud.url(queue), message.id)
            except Retryable:
                message.visible_at = self.time + 5.0
                self.at(message.visible_at, lambda: self.poke(queue))
            except Died:
                self.processes.pop((queue, number), None)
                self.at(message.visible_at, lambda: self.poke(queue))
                self.at(self.time + COLD_START_S, lambda: self.rest(queue, number))
                return
            except GreenletExit:
                return
        self.rest(queue, number)

    def rest(self, queue: str, number: int) -> None:
        self.idle[queue].append(number)
        if greenlet.getcurrent() is self.main:
            self.poke(queue)

    def handle(self, queue: str, number: int, body: str, time_left_s: Callable[[], float]) -> None:
        if queue == EVENTS:
            event_fan_out.fan_out(body, self.fan_out_settings)
            return
        worker = self.processes.setdefault((queue, number), Worker(self.settings))
        worker.handle(body, time_left_s, is_patient=queue == SLOW)

    def sweep(self) -> None:
        """The schedule, in each minute in which a sweep has something to do."""
        self.send(USUAL, '{"sweep": ""}')

    def run(self) -> Result:
        self.set_up()
        self.plan()
        minute = BEGIN
        end = BEGIN + self.scenario.days * 86_400
        while self.time < end:
            upcoming = self.agenda[0][0] if self.agenda else end
            due = self.next_due(minute)
            if upcoming >= due:
                minute = due + 60
                self.time = max(self.time, due)
                self.sweep()
                continue
            if not self.agenda:
                break
            moment, _, act = heapq.heappop(self.agenda)
            self.time = max(self.time, moment)
            act()
        else:
            raise Endless("deliveries stay pending")
        return self.summary()

    def next_due(self, minute: float) -> float:
        """The first minute from `minute` on in which a sweep finds something; infinite if nothing is pending."""
        soonest = float("inf")
        view = self.cloud.view("by_due")
        for name in self.endpoints:
            entries = view.partitions.get(deliveries.due_partition(name))
            if not entries:
                continue
            due = clock.from_iso(entries[0][0]).timestamp()
            closed = int(self.cloud.item(*endpoint_gate.key(name)).get("closed_until_ms", 0)) / 1_000
            is_enabled = self.cloud.item(*webhooks.key(name)).get("state") == webhooks.ENABLED
            soonest = min(soonest, max(due, closed) if is_enabled else 0.0)
        if any(self.cloud.item(*webhooks.key(name)).get("announce") for name in self.endpoints):
            soonest = 0.0
        if soonest == float("inf"):
            return soonest
        passed = max(0.0, soonest - minute)
        return minute + 60 * -(-passed // 60)

    # ------------------------------------------------------------------------------------------------------------ outcome

    def summary(self) -> Result:
        result = self.result
        result.simulated_days = round((self.time - BEGIN) / 86_400, 2)
        reasons: Counter[str] = Counter()
        for (name, delivery_id), at in self.sent_at.items():
            item = self.cloud.item(*deliveries.key(name, delivery_id))
            state = item.get("state")
            if state == deliveries.DELIVERED:
                result.delivered += 1
                result.claimed_but_not_received += not self.received[name, delivery_id]
            elif state == deliveries.FAILED and item.get("reason"):
                result.failed_with_reason += 1
                reasons[item["reason"]] += 1
                result.healthy_failed += self.endpoints[name].kind == "ok"
            elif not state and self._was_disabled(name, at):
                # A disabled webhook is not subscribed: nothing is stored for it.
                result.failed_with_reason += 1
                reasons["not_subscribed"] += 1
            else:
                result.missing += 1
        result.reasons = dict(reasons)
        result.duplicates = sum(count - 1 for count in self.received.values())
        took = sorted(
            self.first_at[key] - at
            for key, at in self.sent_at.items()
            if self.endpoints[key[0]].kind == "ok" and key in self.first_at
        )
        result.healthy_p99_s = round(took[int(len(took) * 0.99)], 3) if took else 0.0
        return result

    def _was_disabled(self, name: str, at: float) -> bool:
        """Whether the webhook was disabled when an event was fanned out: five minutes later at most, also after deaths."""
        disabled_at = str(self.cloud.item(*webhooks.key(name)).get("disabled_at", ""))
        return bool(disabled_at) and clock.from_iso(disabled_at).timestamp() <= at + 300


@contextmanager
def _world(run: Run) -> Iterator[None]:
    with ExitStack() as stack:
        stack.enter_context(installed(lambda: run.cloud))
        stack.enter_context(patch.object(clock, "now", run.now))
        stack.enter_context(patch.object(http_client, "send", run.http))
        types = {type_of(name): CATALOGUE[TYPE] for name in run.endpoints}
        stack.enter_context(patch.dict(CATALOGUE, types))
        virtual = SimpleNamespace(monotonic=lambda: run.time)
        stack.enter_context(patch.object(delivery_attempt, "time", virtual))
        state = random.getstate()
        random.seed(run.scenario.seed)
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
            random.setstate(state)


def play(scenario: Scenario) -> Result:
    run = Run(scenario)
    with _world(run):
        return run.run()
