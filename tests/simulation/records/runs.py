"""One run of records through `ingest_records` and `release_records`: destinations that fail six times of seven, and workers
that die anywhere. In some runs, a source's two routes lead to two destinations, or to the same persons.

Events, backfills, reconciliations and front-door requests come into both queues, some twice and in no order. Workers are
interleaved at every call that leaves, in virtual time; a seed decides everything. When all has come to rest, every version that
counts must stand at the destination or among the dead letters with a reason. Then the faults end, the dead letters are
redriven, and all must stand.
"""

from __future__ import annotations

import json
import random
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

from greenlet import greenlet

from portaria.aws import queues, service_clients
from portaria.aws.table import Table
from portaria.connections import connection_store
from portaria.connections.tokens import cache
from portaria.connections.vault import Vault
from portaria.core import record_messages
from portaria.core.callbacks import Record, Secret
from portaria.core.entities import Connection, Route
from portaria.core.errors import AnswerLost, Retryable
from portaria.core.http.messages import Request, Response
from portaria.core.settings import IngestRecordsSettings, ReleaseRecordsSettings
from portaria.delivery import backlogs, pipeline, quotas, record_release, retry_schedule
from portaria.delivery.pipeline import QueuedMessage
from portaria.platforms.marketo import persons
from portaria.records import dead_letter_redrive, dead_letters, routes
from tests.fakes.crashes import Died
from tests.fakes.records.contacts import DESTINATION, SOURCE, contact
from tests.simulation.aws.cloud import PREFIX, TABLE, Message
from tests.simulation.faults import LONGEST_INDEX_LAG_S, index_lag_s, throttled
from tests.simulation.interleaving import BEGIN, Broken, Current, Process, Run, play_all, running

OTHER = "marketo-other"
LIVE, BULK, WAITING, GIVEN_UP = "records", "bulk_records", "waiting_records", "records_dead_letters"
# As in template.yaml: the functions' timeouts, the visibility timeout of their queues, and the number of receives.
TIME_LIMIT_S, HIDDEN_S, MAX_RECEIVES = 120.0, 725.0, {LIVE: 60, BULK: 60, WAITING: 20}
# How often waiting records are checked.
SWEEP_EVERY_S = 60.0
WORKERS = 3
# All records arrive within ten minutes.
COMES_WITHIN_S = 600.0
# What a destination does, each with the same frequency: accept the records, or one of these.
KINDS = ("", "429", "500", "timeout", "reset", "quota", "stopped")
CODES = {"429": "429001", "500": "5000801", "quota": "4290801", "stopped": "4030801"}
# This share of all calls to AWS is refused, half of them after they have taken effect.
THROTTLED = 0.004
# A run with more turns than this does not end.
MAX_TURNS = 20_000
NEVER = float("inf")
# Counters of the quota, which are read again after each wait: fewer than in the product, which only reduces the calls.
SHARDS = 2
# Destinations whose versions the routes store.
KEEPING = (("events", "events"), ("all", "all"), ("events", "all"))


@dataclass
class Worker(Process):
    ledger: quotas.Ledger | None = None


@dataclass(frozen=True)
class Wanted:
    """A version (`updated_at`) of a record that must be stored in the end, in every partition of its routes."""

    source: str
    key: str
    email: str
    version: int
    partitions: tuple[str, ...]


@dataclass
class Ended:
    """`sent` counts the expected deliveries, one for each record and route; the rest is the state when the faults end."""

    sent: int = 0
    applied: int = 0
    dead_with_reason: int = 0
    missing: int = 0
    stale: int = 0
    applied_after_redrive: int = 0
    deaths: int = 0
    requests: int = 0
    calls: int = 0
    drains: int = 0

    def __add__(self, other: Ended) -> Ended:
        return Ended(*(mine + its for mine, its in zip(vars(self).values(), vars(other).values(), strict=True)))


class RecordRun(Run[Worker, Ended]):
    def __init__(self, seed: int) -> None:
        super().__init__(f"records {seed}")
        self.lag_rng = random.Random(f"index lag {seed}")
        self.processes = [Worker() for _ in range(WORKERS)]
        self.faulty = True
        # The probability that a worker crashes before a call, and after it. In some runs none does.
        self.dying = self.rng.choice((0.0, 0.001, 0.003, 0.008))
        # In half of the runs a batch has several requests for one target, of which some are in progress at the same time.
        self.objects_a_request = (1_000, 2)[seed % 2]
        self.settings: IngestRecordsSettings = self.cloud.settings(IngestRecordsSettings)
        self.release_settings: ReleaseRecordsSettings = self.cloud.settings(ReleaseRecordsSettings)
        self.state: dict[tuple[str, str], dict[str, Any]] = defaultdict(dict)
        self.poison: set[str] = set()
        self.wanted: list[Wanted] = []
        self.result = Ended()
        self.turns = 0
        self.swept_at = BEGIN

    # ---------------------------------------------------------------------------------------------------------------- work

    def set_up(self) -> None:
        table, vault = Table(TABLE), Vault(PREFIX)
        for name, munchkin in ((DESTINATION, "123-ABC-456"), (OTHER, "456-DEF-789")):
            secret_id = vault.grant_id(name)
            vault.create(secret_id, {"client_id": Secret("id"), "client_secret": Secret("canary-secret")})
            domain, fields = "mkto-ingestion-api.adobe.io", {"munchkin_id": munchkin}
            connection_store.create(
                table,
                Connection(name, "marketo", "client_credentials", domain, "connected", 1, secret_id, fields=fields),
            )
        connection_store.create(
            table, Connection(SOURCE, "kommo", "oauth2", f"{SOURCE}.kommo.com", "connected", 1, "", account_id="1001")
        )
        self.ways = {"all": "everyone"}
        other = DESTINATION
        if self.rng.random() < 0.5:
            # Both routes can lead to the same persons.
            self.ways["some"] = self.rng.choice(("clients", "everyone"))
            if self.ways["some"] == "clients":
                other = self.rng.choice((DESTINATION, OTHER))
        for (name, partition), keep in zip(self.ways.items(), self.rng.choice(KEEPING), strict=False):
            route = Route(
                name,
                f"connection:{SOURCE}",
                "contacts",
                DESTINATION if name == "all" else other,
                options={"partition": partition},
                keep_newest=keep,
                priority=self.rng.choice(("normal", "high")),
            )
            routes.put(table, route, new=True)
        # From here on, so that the routes are known before the first record arrives.
        self.cloud.lag = lambda: index_lag_s(self.lag_rng)

    def draw(self) -> None:
        """Records of each origin, and their messages, shuffled and some of them twice."""
        people = list(range(1, self.rng.randint(6, 16)))
        versions = {number: sorted(self.rng.sample(range(1, 9), self.rng.randint(1, 3))) for number in people}
        partitions = tuple(sorted(set(self.ways.values())))
        for number in people:
            email = str(contact(number)["custom_fields_values"][1]["values"][0]["value"])
            self.wanted.append(Wanted(SOURCE, str(number), email, versions[number][-1], partitions))
        self.poison = {one.email for one in self.wanted if self.rng.random() < 0.05}
        for number in people:
            lost = self.rng.random() < 0.2
            for version in versions[number]:
                if not lost or version != versions[number][-1]:
                    self.say([(number, version)], LIVE, record_messages.EVENT, read_at=version * 1_000 + 100)
            # Records that the platform lost, and some that it did not lose, are read again.
            if lost or self.rng.random() < 0.3:
                self.say([(number, versions[number][-1])], BULK, record_messages.RECONCILIATION, read_at=10_000)
        for start in range(0, len(people), 5):
            page = [(number, self.rng.choice(versions[number])) for number in people[start : start + 5]]
            for route in self.ways:
                self.say(page, BULK, record_messages.BACKFILL, read_at=9_000, route=route)
        for number in range(1, self.rng.randint(2, 4)):
            self.say_at_front_door(f"program-{self.rng.randint(1, 2)}", number)

    def say(self, contacts: list[tuple[int, int]], queue: str, origin: str, *, read_at: int, route: str = "") -> None:
        records = []
        for number, version in contacts:
            data = contact(number, updated_at=version) | {"last_name": str(version)}
            records.append(Record(str(number), version, data))
        (body,) = record_messages.pack(
            records, connection=SOURCE, object="contacts", origin=origin, read_at=read_at, route=route
        )
        self.post(queue, body)

    def say_at_front_door(self, caller: str, number: int) -> None:
        """Objects in the destination's own format, which name their destination."""
        persons = [
            {"email": f"{caller}-{number}-{each}@example.com", "lastName": "1"}
            for each in range(self.rng.randint(1, 3))
        ]
        target = {
            "destination": DESTINATION,
            "object": "persons",
            "priority": "normal",
            "options": {"field1": "email", "partition": "front"},
        }
        (body,) = record_messages.pack(
            [Record(person["email"], 1, person) for person in persons],
            connection=caller,
            object="persons",
            origin=record_messages.FRONT_DOOR,
            read_at=1,
            request=f"request-{caller}-{number}",
            target=target,
        )
        for person in persons:
            self.wanted.append(Wanted(caller, person["email"], person["email"], 1, ("front",)))
        self.post(LIVE, body)

    def post(self, queue: str, body: str) -> None:
        for _ in range(2 if self.rng.random() < 0.15 else 1):
            at = self.time + self.rng.random() * COMES_WITHIN_S
            self.cloud.queues.setdefault(queue, []).append(Message(body, at, f"posted-{self.cloud.number()}"))

    # --------------------------------------------------------------------------------------------------- time and workers

    def rest(self) -> None:
        """Deliver messages and let the workers run until nothing is left to do."""
        while True:
            ready = [worker for worker in self.processes if worker.running is not None and worker.wake_at <= self.time]
            if ready:
                self.resume(self.rng.choice(ready))
                continue
            soonest = min((worker.wake_at for worker in self.processes if worker.running is not None), default=NEVER)
            soonest = min(soonest, self.sweep())
            idle = [worker for worker in self.processes if worker.running is None]
            if idle:
                visible: dict[str, list[Message]] = {}
                for queue, held in self.cloud.queues.items():
                    if found := [message for message in held if message.visible_at <= self.time]:
                        visible[queue] = found
                    soonest = min([soonest, *(message.visible_at for message in held if message not in found)])
                if visible:
                    queue = self.rng.choice(list(visible))
                    self.give(self.rng.choice(idle), queue, visible[queue])
                    continue
            if soonest == NEVER:
                return
            self.time = soonest

    def sweep(self) -> float:
        """When the schedule's next message comes that finds a destination due; it is sent where that is now."""
        due_at = min((backlog.next_at for backlog in backlogs.list_all(Table(TABLE))), default=NEVER)
        if self.cloud.queues.get(WAITING):
            return NEVER
        at = max(due_at, self.swept_at + SWEEP_EVERY_S)
        if at <= self.time:
            self.swept_at = at = self.time
            self.cloud.queues.setdefault(WAITING, []).append(
                Message('{"sweep": ""}', at, f"swept-{self.cloud.number()}")
            )
        return at

    def give(self, worker: Worker, queue: str, visible: list[Message]) -> None:
        """A batch for a worker, without messages that were received too often."""
        self.turns += 1
        if self.turns > MAX_TURNS:
            raise Broken("it never comes to rest")
        most = 1 if queue == WAITING else self.rng.randint(1, 10)
        batch = self.rng.sample(visible, min(len(visible), most))
        for message in list(batch):
            if queue != GIVEN_UP and message.deliveries >= MAX_RECEIVES[queue]:
                batch.remove(message)
                self.cloud.queues[queue].remove(message)
                if queue != WAITING:
                    self.cloud.queues.setdefault(GIVEN_UP, []).append(Message(message.body, self.time, message.id))
                continue
            message.deliveries += 1
            message.received_at, message.visible_at = self.time, self.time + HIDDEN_S
        worker.wake_at, worker.deadline = self.time, self.time + TIME_LIMIT_S
        if batch:
            worker.running = greenlet(lambda: self.work(worker, queue, batch), parent=self.main)

    def work(self, worker: Worker, queue: str, batch: list[Message]) -> None:
        """The work of the functions' handlers, and then of their queue's poller."""
        try:
            match queue:
                case "records_dead_letters":
                    waiting = self.keep(batch)
                case "waiting_records":
                    waiting = self.release(worker, batch)
                case _:
                    waiting = self.ingest(worker, queue, batch)
        except Died:
            worker.tokens, worker.ledger = cache.TokenCache(), None
            self.result.deaths += not self.over
            return
        except Exception as error:
            raise Broken(f"a batch raised {type(error).__name__}, and so all of it comes back") from error
        for message in batch:
            if message.id not in waiting:
                self.cloud.queues[queue].remove(message)

    def ingest(self, worker: Worker, queue: str, batch: list[Message]) -> Iterable[str]:
        outcome = pipeline.ingest(
            [QueuedMessage(message.id, message.body, message.deliveries) for message in batch],
            self.settings,
            lambda: worker.deadline - self.time,
            bulk=queue == BULK,
        )
        receives = {message.id: message.deliveries for message in batch}
        for message_id, asked_s in outcome.waiting.items():
            queues.give_back(self.cloud.url(queue), message_id, retry_schedule.wait_s(asked_s, receives[message_id]))
        return outcome.waiting

    def release(self, worker: Worker, batch: list[Message]) -> Iterable[str]:
        (message,) = batch
        try:
            ended = record_release.handle_message(
                message.body, self.release_settings, lambda: worker.deadline - self.time
            )
            self.result.drains += ended.state in ("drained", "continued", "waiting")
        except (Retryable, *service_clients.FAILURES):
            message.visible_at = self.time + 5 * message.deliveries
            return [message.id]
        return []

    def keep(self, batch: list[Message]) -> Iterable[str]:
        failed = []
        for message in batch:
            try:
                dead_letters.put(Table(TABLE), dead_letters.of_message(message.id, message.body))
            except Exception:
                failed.append(message.id)
        return failed

    # -------------------------------------------------------------------------------------------------------------- faults

    def carry(self, name: str, call: Callable[[], Any]) -> Any:
        """Every call to AWS. Calls of an operator have no faults."""
        if self.current is None:
            return call()
        self.maybe_die()
        self.wait(self.rng.random() * 0.02)
        if self.faulty and self.rng.random() < THROTTLED:
            if self.rng.random() < 0.5:
                call()
            raise throttled(name)
        answer = call()
        self.maybe_die()
        return answer

    def maybe_die(self) -> None:
        self.result.calls += 1
        if self.over or (self.faulty and self.rng.random() < self.dying):
            raise Died

    def send(self, request: Request) -> Response:
        return self.begin_request(request)()

    def begin_request(self, request: Request) -> Callable[[], Response]:
        """The destination's edge."""
        self.maybe_die()
        kind = self.rng.choice(KINDS) if self.faulty else ""
        # The records may have arrived although no answer comes.
        arrives = not kind or (kind in ("timeout", "reset") and self.rng.random() < 0.5)
        self.wait(self.rng.random() * 0.3)
        return partial(self.read, request, kind, self.arrive(request) if arrives else None)

    def read(self, request: Request, kind: str, answer: Response | None) -> Response:
        self.wait(request.connect_timeout_s + request.read_timeout_s if kind == "timeout" else self.rng.random() * 0.3)
        self.maybe_die()
        if kind in ("timeout", "reset"):
            raise AnswerLost("no whole answer came")
        if kind:
            code = CODES[kind]
            return Response(int(code[:3]), {}, json.dumps({"error_code": code, "message": "no"}).encode())
        assert answer is not None
        return answer

    def arrive(self, request: Request) -> Response:
        if request.url.endswith("/identity/oauth/token"):
            token = {"access_token": "canary-token:int", "token_type": "bearer", "expires_in": 3599}
            return Response(200, {}, json.dumps(token).encode())
        document = json.loads(request.body or b"")
        self.result.requests += 1
        if self.faulty and any(person["email"] in self.poison for person in document["persons"]):
            return Response(400, {}, b'{"error_code": "4000802", "message": "bad data"}')
        for person in document["persons"]:
            self.state[document["partitionName"], person["email"]] |= person
        return Response(202, {"x-request-id": f"request-{self.result.requests}"})

    # ------------------------------------------------------------------------------------------------------- how it ended

    def play(self) -> Ended:
        """Raises `Broken`."""
        with patch.object(persons, "MAX_OBJECTS", self.objects_a_request):
            return self.play_to_end()

    def play_to_end(self) -> Ended:
        self.set_up()
        self.draw()
        self.rest()
        self.time += LONGEST_INDEX_LAG_S
        if left := {queue: len(held) for queue, held in self.cloud.queues.items() if held}:
            raise Broken(f"messages that nobody takes: {left}")
        if kept := sorted({pk for pk, sk in self.cloud.items if pk.startswith("WAITING#") or sk == backlogs.SK}):
            raise Broken(f"records that nobody sends: {kept}")
        self.look(after_redrive=False)
        self.faulty = False
        self.redrive()
        self.rest()
        self.look(after_redrive=True)
        return self.result

    def redrive(self) -> None:
        table = Table(TABLE)
        cursor = None
        while True:
            heads, cursor = dead_letters.list_page(
                table, dead_letters.LetterFilter(is_waiting=True), cursor=cursor, newest_first=False
            )
            for head in heads:
                told = dead_letter_redrive.redrive(
                    table, self.settings.records_queue_url, head.id, again=False, dry_run=False
                )
                if told.outcome != dead_letters.REDRIVEN or told.records != head.count:
                    raise Broken(f"a dead letter could not be redriven: {told.outcome} {told.reason}")
            if not cursor:
                return

    def look(self, *, after_redrive: bool) -> None:
        dead = set() if after_redrive else self.dead()
        for one in self.wanted:
            for partition in one.partitions:
                self.look_at(one, partition, dead, after_redrive=after_redrive)

    def look_at(
        self, one: Wanted, partition: str, dead: set[tuple[str, str, int, str]], *, after_redrive: bool
    ) -> None:
        standing = int(self.state[partition, one.email].get("lastName", 0))
        applied = standing == one.version
        what = f"{one.source}/{one.key} in {partition}: version {standing} stands, {one.version} was sent"
        if after_redrive:
            self.result.applied_after_redrive += applied
            if not applied:
                raise Broken(f"after the redrive, {what}")
            return
        ways = {"", *(way for way, each in self.ways.items() if each == partition)}
        self.result.sent += 1
        self.result.applied += applied
        if applied:
            return
        if any((one.source, one.key, one.version, way) in dead for way in ways):
            self.result.dead_with_reason += 1
            return
        if standing:
            self.result.stale += 1
            raise Broken(f"stale: {what}")
        self.result.missing += 1
        raise Broken(f"missing: {what}")

    def dead(self) -> set[tuple[str, str, int, str]]:
        """(source, key, version, route) of every record with a reason; without a route it is to go all ways again."""
        table = Table(TABLE)
        found = set()
        for head in table.query_all(dead_letters.LIST, index="listing"):
            if not head["reason"] or not head["detail"] or head["state"] != dead_letters.OPEN:
                raise Broken(f"a dead letter without a reason: {head['id']}")
            letter = dead_letters.find(table, head["id"])
            assert letter is not None
            found |= {
                (head["connection"], record["key"], record["updated_at"], head["route"]) for record in letter[1].records
            }
        return found


# ---------------------------------------------------------------------------------------------------------------- running


_CURRENT = Current(Worker())


def _ledger(table_name: str, time_zone: str) -> quotas.Ledger:
    worker = _CURRENT.process
    if worker.ledger is None:
        worker.ledger = quotas.Ledger(Table(table_name), time_zone, random.Random(_CURRENT.run.rng.random()))
    return worker.ledger


def attempt_all(seeds: Iterable[int]) -> tuple[Ended, list[str]]:
    """The sum of the runs, and what broke: in a process of its own, or in this one."""
    with running(_CURRENT, patch.object(pipeline, "_ledger", _ledger), patch.object(quotas, "SHARDS", SHARDS)):
        return play_all(_CURRENT, map(RecordRun, seeds), Ended())


def main() -> int:
    """`PYTHONHASHSEED=0 python -m tests.simulation.records.runs SEED …`"""
    total, broken = attempt_all(map(int, sys.argv[1:]))
    print("\n".join([*broken, str(total)]))
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
