"""One run of records of many routes: two sources, six routes to two destinations and several objects, and data ingestion.

A seed decides everything, also which records come: changes and backfills that routes send, objects of data ingestion requests
that name their target, or both. Batches are handled one after the other, in virtual time, while destinations fail, workers
die, messages are delivered twice, routes change, and an operator resumes destinations. Then the faults end. When all has come
to rest, each record must stand at its destination or among the dead letters. The dead letters are redriven, and all records
must stand.
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch
from zoneinfo import ZoneInfo

from portaria.aws import queues
from portaria.aws.table import Table
from portaria.connections import connection_store
from portaria.connections.tokens import cache
from portaria.core import clock, record_messages
from portaria.core.callbacks import Record
from portaria.core.errors import AnswerLost, Retryable, Unreachable
from portaria.core.http.messages import Request, Response
from portaria.core.settings import ReleaseRecordsSettings
from portaria.delivery import backlogs, destination_states, pipeline, quotas, record_release, retry_schedule
from portaria.delivery.pipeline import QueuedMessage
from portaria.platforms.marketo import customobjects, daily_quota, persons
from portaria.records import dead_letter_redrive, dead_letters, routes
from tests.fakes.crashes import Died
from tests.fakes.records import waiting_records
from tests.fakes.records.contacts import DESTINATION, SOURCE
from tests.fakes.records.dying import Dying
from tests.fakes.records.ingesting import MUNCHKIN, Document, Harness, refusal
from tests.simulation.aws.cloud import Message
from tests.simulation.interleaving import Broken, Current, Process, Run, play_all, running
from tests.simulation.records.runs import (
    BULK,
    HIDDEN_S,
    LIVE,
    MAX_RECEIVES,
    SHARDS,
    TIME_LIMIT_S,
    WAITING,
    Ended,
)

OTHER_SOURCE, OTHER_DESTINATION = "kommo-two", "marketo-two"
# The fields of a source's records: an email address and a version.
FIELDS = {SOURCE: ("mail", "version"), OTHER_SOURCE: ("address", "revision")}
CALLERS = ("program-1", "program-2")
# The kinds of messages in a run: records of routes, objects of data ingestion requests, or both.
KINDS = (("routes",), ("targets",), ("routes", "targets"))
TARGETS = ("persons", "customobjects/a_c", "companies")
# Faulty steps, of which the first ones bring messages.
STEPS, STEPS_WITH_MESSAGES = 60, 40
STEPS_S = (1.0, 5.0, 20.0, 60.0, 300.0)
# Objects of a subscription and day.
QUOTAS = (60, 100, daily_quota.DAILY_QUOTA, daily_quota.DAILY_QUOTA)
# Requests a second that persons accept. With fewer than one, each batch would end after its first request.
RATES = (None, 2.0, 9.0)
# The share of the batches in which a worker dies, in the runs in which any does, and of its writes the last at which it does.
DYING, LAST_WRITE = 0.25, 20
# What a destination does if it does not accept a request: in each run, some of these. Few kinds leave more messages in the
# queues, because some of the others pause the destination.
FAILURES = ("500", "500", "busy", "busy_for", "lost", "lost_after_effect", "stopped", "unreachable")
KINDS_OF_FAILURE = (2, 3, len(FAILURES))
# A destination refuses an object with this attribute as long as there are faults.
BAD = "bad"
# The most messages that may follow from one of the schedule's.
MAX_DRAINS = 200
# Without faults, everything must come to rest within this time.
REST_WITHIN_S = 6 * 86_400.0


@dataclass(frozen=True)
class Way:
    """A route. It writes the version of a source's record into `attribute` of `object`."""

    route: str
    source: str
    destination: str
    object: str
    attribute: str


# The custom objects of two ways get equal bodies, and three ways write into the same persons.
WAYS = {
    way.route: way
    for way in (
        Way("first-persons", SOURCE, DESTINATION, "persons", "first"),
        Way("second-persons", SOURCE, DESTINATION, "persons", "second"),
        Way("a", SOURCE, DESTINATION, "customobjects/a_c", "version"),
        Way("b", SOURCE, DESTINATION, "customobjects/b_c", "version"),
        Way("other-persons", OTHER_SOURCE, DESTINATION, "persons", "other"),
        Way("c", SOURCE, OTHER_DESTINATION, "customobjects/c_c", "version"),
    )
}
# In runs whose routes change, this one is removed and added again, and the other one moves between the destinations.
REMOVED, MOVED = "b", "c"


@dataclass(frozen=True)
class Wanted:
    """`version` must stand in an attribute of an object in the end. Without a route, it came from a data ingestion request."""

    source: str
    key: str
    route: str
    object: str
    identity: str
    attribute: str
    version: int


def objects_of(document: Document) -> list[Document]:
    """The objects of a request's body, whose field differs by their type."""
    objects: list[Document] = document.get("persons") or document.get("customObjects") or document["input"]
    return objects


class ManyRoutesRun(Run[Process, Ended]):
    def __init__(self, seed: int) -> None:
        super().__init__(f"many routes {seed}")
        # Only one works at a time.
        self.worker = self.current = Process()
        self.processes = [self.worker]
        self.result = Ended()
        self.kinds = KINDS[seed % len(KINDS)]
        self.is_faulty = True
        self.workers_die = self.rng.random() < 0.5
        self.routes_change = self.rng.random() < 0.4
        self.failures = self.rng.sample(FAILURES, self.rng.choice(KINDS_OF_FAILURE))
        self.accepted_share = self.rng.choice((0.3, 0.6, 0.8))
        self.keep_newest = self.rng.choice(("events", "all"))
        self.quota = self.rng.choice(QUOTAS)
        self.release_settings: ReleaseRecordsSettings = self.cloud.settings(ReleaseRecordsSettings)
        # With many, few versions are followed by a newer one, and a lost one shows.
        self.keys = self.rng.choice((5, 60))
        self.versions = 0
        # The newest version of each record that a source has, by source and key.
        self.newest: dict[tuple[str, str], int] = {}
        self.ingested: list[Wanted] = []
        self.sent_by_day: Counter[str] = Counter()
        self._ledger: quotas.Ledger | None = None

    # --------------------------------------------------------------------------------------------------------------- world

    def carry(self, name: str, call: Callable[[], Any]) -> Any:
        """A worker that dies does so in `Dying`."""
        return call()

    def wait(self, seconds: float) -> None:
        self.time += seconds

    def ledger(self, table_name: str, time_zone: str) -> quotas.Ledger:
        if self._ledger is None:
            self._ledger = quotas.Ledger(Table(table_name), time_zone, random.Random(self.rng.random()))
        return self._ledger

    def set_up(self) -> None:
        self.harness = Harness(self.cloud)
        self.harness.rule = self.answer
        self.table = self.harness.table
        self.zone = ZoneInfo(self.harness.settings.quota_time_zone)
        self.harness.connect(OTHER_SOURCE, "kommo")
        first = connection_store.get(self.table, DESTINATION)
        connection_store.create(self.table, replace(first, name=OTHER_DESTINATION, fields={"munchkin_id": MUNCHKIN}))
        for way in WAYS.values():
            self.add_route(way)

    def add_route(self, way: Way) -> None:
        email, version = FIELDS[way.source]
        self.harness.route(
            way.route,
            source=f"connection:{way.source}",
            object="leads",
            destination=way.destination,
            target=way.object,
            mapping={"email": email, way.attribute: version},
            dedupe_fields=("email",),
            keep_newest=self.keep_newest,
        )

    def send(self, request: Request) -> Response:
        return self.harness.answer(request, allowed_domain="", owner="")

    def begin_request(self, request: Request) -> Callable[[], Response]:
        """The request arrives now. Its response may be read later, after the responses to other requests."""
        lost: AnswerLost | None = None
        try:
            response = self.send(request)
        except AnswerLost as error:
            lost = error

        def read() -> Response:
            if lost:
                raise lost
            return response

        return read

    def answer(self, document: Document) -> Response | Retryable | None:
        """What the destination does with a request; None if it accepts it."""
        self.result.requests += 1
        objects = objects_of(document)
        failure = self.draw_failure(objects)
        if failure == "unreachable":
            return Unreachable("no connection")
        self.sent_by_day[quotas.day_of(self.zone, self.now()).name] += len(objects)
        match failure:
            case "bad":
                return refusal(self.rng.choice(("4000801", "4000802")))
            case "500":
                return refusal("5000801")
            case "busy":
                return refusal("429001")
            case "busy_for":
                return refusal("429001", **{"retry-after": str(self.rng.choice((5, 40)))})
            case "stopped":
                return refusal("4030801" if self.rng.random() < 0.3 else "5000801")
            case "lost":
                return AnswerLost("no whole answer came")
            case "lost_after_effect":
                self.harness.accepted.append(self.harness.requests[-1])
                return AnswerLost("no whole answer came")
        return None

    def draw_failure(self, objects: list[Document]) -> str:
        if not self.is_faulty:
            return ""
        if any(BAD in each for each in objects):
            return "bad"
        return "" if self.rng.random() < self.accepted_share else self.rng.choice(self.failures)

    # ------------------------------------------------------------------------------------------------------------ messages

    def bring(self) -> None:
        """Queue the messages of one step."""
        if "routes" in self.kinds:
            if self.rng.random() < 0.2:
                self.backfill()
            if self.rng.random() < 0.7:
                self.change_records()
        if "targets" in self.kinds and self.rng.random() < 0.7:
            self.ingest_objects()

    def change_records(self) -> None:
        """One message of a source, with a new version of some of its records."""
        source = self.rng.choice((SOURCE, SOURCE, OTHER_SOURCE))
        keys = [str(number) for number in self.rng.sample(range(1, self.keys + 1), self.rng.choice((1, 2, 4, 5)))]
        for key in keys:
            self.versions += 1
            self.newest[source, key] = self.versions
        self.post_records(LIVE, source, keys, record_messages.EVENT)

    def backfill(self) -> None:
        """Some of a source's records as they are now, for one route."""
        way = self.rng.choice([way for way in WAYS.values() if way.route not in ("second-persons", REMOVED)])
        if keys := [key for source, key in self.newest if source == way.source]:
            some = self.rng.sample(keys, self.rng.randint(1, len(keys)))
            self.post_records(BULK, way.source, some, record_messages.BACKFILL, way.route)

    def post_records(self, queue: str, source: str, keys: Iterable[str], origin: str, route: str = "") -> None:
        records = []
        for key in keys:
            version = self.newest[source, key]
            email, attribute = FIELDS[source]
            data = {"id": int(key), "updated_at": version, email: email_of(key), attribute: version}
            records.append(Record(key, version, data))
        self.post(queue, records, connection=source, object="leads", origin=origin, route=route)

    def ingest_objects(self) -> None:
        """A data ingestion request. Each of its objects has an attribute of its own."""
        object_name, caller = self.rng.choice(TARGETS), self.rng.choice(CALLERS)
        is_company = object_name == "companies"
        identity = "externalCompanyId" if is_company else "email"
        records = []
        for _ in range(self.rng.choice((1, 2, 4))):
            self.versions += 1
            key, attribute = str(self.rng.randint(1, self.keys)), f"attribute_{self.versions}"
            data: Document = {identity: key if is_company else email_of(key), attribute: self.versions}
            if self.rng.random() < 0.1:
                data[BAD] = 1
            records.append(Record(key, int(self.time), data))
            self.ingested.append(Wanted(caller, key, "", object_name, data[identity], attribute, self.versions))
        options = {"action": "createOnly"} if is_company else {"field1": "email"}
        if object_name == "persons" and self.rng.random() < 0.5:
            options = {}
        target = {
            "destination": self.rng.choice((DESTINATION, OTHER_DESTINATION)),
            "object": object_name,
            "priority": "normal" if is_company else self.rng.choice(("normal", "high")),
            "options": options,
        }
        self.post(
            LIVE,
            records,
            connection=caller,
            object=object_name,
            origin=record_messages.FRONT_DOOR,
            request=f"request-{self.versions}",
            target=target,
        )

    def post(self, queue: str, records: list[Record], **given: Any) -> None:
        (body,) = record_messages.pack(records, read_at=int(self.time * 1_000), **given)
        message = Message(body, self.time, f"posted-{self.cloud.number()}")
        self.cloud.queues.setdefault(queue, []).append(message)

    # ------------------------------------------------------------------------------------------------------------- workers

    def ingest(self, queue: str) -> None:
        """A batch of the queue's visible messages."""
        visible = [each for each in self.cloud.queues.get(queue, ()) if each.visible_at <= self.time]
        batch = self.rng.sample(visible, min(len(visible), self.rng.choice((1, 2, 5))))
        for message in batch:
            if message.deliveries >= MAX_RECEIVES[queue]:
                raise Broken("a message was received as often as its queue allows")
            message.deliveries += 1
            message.received_at, message.visible_at = self.time, self.time + HIDDEN_S
        if batch:
            self.work(lambda: self.handle(queue, batch))

    def handle(self, queue: str, batch: list[Message]) -> None:
        """The work of the function's handler, and then of its queue's poller."""
        outcome = pipeline.ingest(
            [QueuedMessage(message.id, message.body, message.deliveries) for message in batch],
            self.harness.settings,
            self.time_left(),
            bulk=queue == BULK,
        )
        for message in batch:
            if message.id in outcome.waiting:
                wait_s = retry_schedule.wait_s(outcome.waiting[message.id], message.deliveries)
                queues.give_back(self.cloud.url(queue), message.id, wait_s)
            elif self.is_faulty and self.rng.random() < 0.1:
                # SQS delivers the message once more, although the poller has deleted it.
                message.visible_at = self.time + self.rng.choice((1.0, 60.0, 300.0, 4_000.0))
            else:
                self.cloud.queues[queue].remove(message)

    def release(self) -> None:
        """The schedule's message, and all that follow from it."""
        waiting = self.cloud.queues.setdefault(WAITING, [])
        waiting.append(Message('{"sweep": ""}', self.time, f"swept-{self.cloud.number()}"))
        for _ in range(MAX_DRAINS):
            message = next((each for each in waiting if each.visible_at <= self.time), None)
            if message is None:
                return
            ended = record_release.handle_message(message.body, self.release_settings, self.time_left())
            self.result.drains += ended.state in ("drained", "continued", "waiting")
            waiting.remove(message)
        raise Broken("a drain continues without end")

    def time_left(self) -> Callable[[], float]:
        deadline = self.time + TIME_LIMIT_S
        return lambda: deadline - self.time

    def work(self, handle: Callable[[], None]) -> None:
        """A worker, which may die."""
        dies = self.is_faulty and self.workers_die and self.rng.random() < DYING
        at, after = self.rng.randint(1, LAST_WRITE), self.rng.random() < 0.5
        try:
            with Dying(self.cloud, at, after=after) if dies else nullcontext():
                handle()
        except Died:
            self.result.deaths += 1
            self.worker.tokens, self._ledger = cache.TokenCache(), None
        except Exception as error:
            raise Broken(f"a worker raised {type(error).__name__}: {error}") from error

    # ------------------------------------------------------------------------------------------------------------ operator

    def operate(self) -> None:
        """An operator resumes a destination or changes routes."""
        if self.rng.random() < 0.05:
            name = self.rng.choice((DESTINATION, OTHER_DESTINATION))
            state = destination_states.find(self.table, name)
            destination_states.resume(self.table, self.cloud.url(WAITING), state)
        if self.routes_change:
            if self.rng.random() < 0.04:
                routes.delete(self.table, REMOVED)
            elif self.rng.random() < 0.1:
                self.add_removed_route()
            if self.rng.random() < 0.04:
                destination = self.rng.choice((DESTINATION, OTHER_DESTINATION))
                routes.put(self.table, replace(routes.get(self.table, MOVED), destination=destination), new=False)

    def add_removed_route(self) -> None:
        if not self.table.get(*routes.key(REMOVED)):
            self.add_route(WAYS[REMOVED])

    def redrive(self) -> None:
        for letter in self.harness.letters():
            told = dead_letter_redrive.redrive(
                self.table, self.harness.settings.records_queue_url, letter["id"], again=False, dry_run=False
            )
            if told.outcome != dead_letters.REDRIVEN:
                raise Broken(f"a dead letter could not be redriven: {told.outcome} {told.reason}")

    # -------------------------------------------------------------------------------------------------------------- course

    def play(self) -> Ended:
        """Raises `Broken`."""
        changed = (
            (pipeline, "_ledger", self.ledger),
            (quotas, "SHARDS", SHARDS),
            (daily_quota, "DAILY_QUOTA", self.quota),
            (persons, "MAX_OBJECTS", self.rng.choice((1, 2, 1_000))),
            (persons, "REQUESTS_PER_SECOND", self.rng.choice(RATES)),
            (persons, "REQUESTS_IN_PROGRESS", self.rng.choice((1, 2))),
            (customobjects, "MAX_OBJECTS", self.rng.choice((2, 1_000))),
        )
        with ExitStack() as stack:
            for module, name, value in changed:
                stack.enter_context(patch.object(module, name, value))
            self.play_to_end()
        return self.result

    def play_to_end(self) -> None:
        self.set_up()
        for number in range(STEPS):
            self.operate()
            if number < STEPS_WITH_MESSAGES:
                self.bring()
            self.turn(self.rng.random() < 0.5)
            self.time += self.rng.choice(STEPS_S)
        self.is_faulty = False
        self.add_removed_route()
        self.rest()
        self.look(after_redrive=False)
        known = len(self.harness.letters())
        self.redrive()
        self.rest()
        if len(self.harness.letters()) != known:
            raise Broken("a redriven record became a dead letter without a fault")
        self.look(after_redrive=True)
        if max(self.sent_by_day.values(), default=0) > self.quota:
            raise Broken(f"more objects than the daily quota of {self.quota}: {dict(self.sent_by_day)}")

    def turn(self, is_swept: bool) -> None:
        self.ingest(LIVE)
        self.ingest(BULK)
        if is_swept:
            self.work(self.release)
        self.look_at_counts()

    def rest(self) -> None:
        """Go on until nothing is left to do."""
        ends_at = self.time + REST_WITHIN_S
        while True:
            self.turn(is_swept=True)
            moments = [each.visible_at for held in self.cloud.queues.values() for each in held]
            moments += [float(backlog.next_at) for backlog in backlogs.list_all(self.table)]
            if not moments:
                break
            # The schedule has a message each minute.
            self.time = max(self.time + 60, min(moments))
            if self.time > ends_at:
                raise Broken("it never comes to rest")
        if kept := sorted({pk for pk, sk in self.cloud.items if pk.startswith("WAITING#") or sk == backlogs.SK}):
            raise Broken(f"records that nobody sends: {kept}")

    # --------------------------------------------------------------------------------------------------------------- rules

    def look_at_counts(self) -> None:
        """The count of a destination's waiting records is exact, unless a worker has died."""
        if self.workers_die:
            return
        waiting: Counter[str] = Counter()
        for entry in waiting_records.entries(self.table):
            waiting[entry.waiting.destination] += entry.records
        for backlog in backlogs.list_all(self.table):
            if backlog.records != waiting[backlog.destination]:
                wait = f"{waiting[backlog.destination]} records wait for {backlog.destination}"
                raise Broken(f"{wait}, {backlog.records} are counted")

    def look(self, *, after_redrive: bool) -> None:
        """Everything stands at its destination, or has a dead letter that was not redriven."""
        standing = self.standing()
        dead = set() if after_redrive else self.dead()
        for one in self.wanted():
            stands = standing.get((one.object, one.identity, one.attribute), 0)
            is_applied = stands == one.version
            if after_redrive:
                self.result.applied_after_redrive += is_applied
            else:
                self.result.sent += 1
                self.result.applied += is_applied
            if is_applied:
                continue
            if (one.source, one.key, one.route, one.version) in dead:
                self.result.dead_with_reason += 1
                continue
            where = f"{one.attribute} of {one.identity} in {one.object} by route {one.route or '(none)'}"
            when = "after the redrive, " if after_redrive else ""
            raise Broken(f"{when}{one.source}/{one.key}: {where} has {stands}, {one.version} was sent")

    def wanted(self) -> Iterator[Wanted]:
        yield from self.ingested
        for (source, key), version in self.newest.items():
            for way in WAYS.values():
                # A record that came while its route was removed has no other way.
                if way.source == source and not (self.routes_change and way.route == REMOVED):
                    yield Wanted(source, key, way.route, way.object, email_of(key), way.attribute, version)

    def standing(self) -> dict[tuple[str, str, str], int]:
        """The value of each attribute, by object and its identity."""
        found: dict[tuple[str, str, str], int] = {}
        for path, document in self.harness.accepted:
            for each in objects_of(document):
                identity = each.get("email") or each["externalCompanyId"]
                found |= {(path, identity, name): value for name, value in each.items()}
        return found

    def dead(self) -> set[tuple[str, str, str, int]]:
        """(source, key, route, version) of each record that has a dead letter."""
        found = set()
        waits_s = sum(float(minutes) * 60 for minutes in self.harness.settings.retry_after_minutes.split(","))
        for letter in self.harness.letters():
            if not letter["reason"] or not letter["detail"]:
                raise Broken(f"a dead letter without a reason: {letter['id']}")
            lasted_s = clock.from_iso(letter["set_aside_at"]).timestamp() - letter["read_at"] / 1_000
            # A time in a letter has whole seconds. After a death, a failure can be counted whose wait nobody has begun.
            if letter["reason"] == "gave_up" and not self.workers_die and lasted_s < waits_s - 1:
                raise Broken(f"given up after {lasted_s:.0f} s of {waits_s:.0f}")
            for record in letter["records"]:
                for value in record["data"].values():
                    if isinstance(value, int):
                        found.add((letter["connection"], record["key"], letter["route"], value))
        return found


def email_of(key: str) -> str:
    return f"person{key}@example.com"


# ---------------------------------------------------------------------------------------------------------------- running


_CURRENT = Current(Process())


def attempt_all(seeds: Iterable[int]) -> tuple[Ended, list[str]]:
    """The sum of the runs, and what broke: in a process of its own, or in this one."""
    with running(_CURRENT):
        return play_all(_CURRENT, map(ManyRoutesRun, seeds), Ended())


def main() -> int:
    """`PYTHONHASHSEED=0 python -m tests.simulation.records.many_routes SEED …`"""
    started = time.process_time()
    total, broken = attempt_all(map(int, sys.argv[1:]))
    print("\n".join([*broken, f"{total} in {time.process_time() - started:.1f} s of processor time"]))
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
