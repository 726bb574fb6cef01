"""One schedule: workers with a memory of their own, interleaved by a seed, in virtual time, with faults at their calls.

Every call that leaves (AWS, a platform) and every sleep lets the other workers run; what happens between two of them happens
at once. Messages are delivered until they are done, as SQS would. Then time passes without faults, and `oracle` looks.
"""

from __future__ import annotations

import json
import logging
import random
import secrets
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NoReturn
from unittest.mock import patch

from botocore.exceptions import BotoCoreError, ClientError
from greenlet import greenlet

from portaria.aws import service_clients, table
from portaria.aws.table import Table
from portaria.connections import connection_store, renewal_sweep, rotation
from portaria.connections.credential_stores import sealing
from portaria.connections.tokens import cache, provider, refresh_lease
from portaria.connections.tokens import provider as token_provider
from portaria.connections.vault import Credentials, SealedTable
from portaria.core import clock
from portaria.core.callbacks import Secret
from portaria.core.entities import Connection
from portaria.core.errors import Rejected, Retryable
from portaria.core.http.messages import Request, Response
from portaria.core.settings import ExchangeCodeSettings, RemoveConnectionsSettings, RenewTokensSettings
from portaria.installs import claims, code_exchange, uninstall
from portaria.installs.install_lease import LEASE_S
from portaria.installs.install_messages import read_claim, read_message
from portaria.outbound import http_client
from portaria.outbound.rate_limiter import RateLimiter
from tests.fakes.crashes import Died
from tests.simulation import faults
from tests.simulation.aws import cloud as clouds
from tests.simulation.aws.cloud import KEY_ID, TABLE, Cloud, Message
from tests.simulation.aws.expressions import Item
from tests.simulation.index_keys import misplaced
from tests.simulation.platform import LIFE_S, Pair, Platform

BEGIN = datetime(2026, 1, 5, tzinfo=UTC).timestamp()
# The timeout of each function in seconds, and the visibility timeout of its queue.
TIME_LIMITS_S = {"exchanges": 40.0, "renewals": 90.0, "uninstalls": 90.0, "rotations": 20.0, "callers": 60.0}
HIDDEN_S = {
    "exchanges": LEASE_S + 1.0, "renewals": 540.0, "uninstalls": 540.0, "rotations": 31.0, "callers": 70.0,
}  # fmt: skip
AGAIN_S = 10.0
# Where a lease can end before the function does, its holder may pause for longer than both, which no Lambda would:
# the fence protects what follows. Elsewhere a holder whose lease has ended has crashed.
OUTLIVES_ITS_LEASE = ("renewals", "uninstalls", "callers")
NEVER = float("inf")
# How often a caller checks whether another one's renewal has ended: less often than the product, which only repeats calls.
POLL_S = 0.6
# The remaining lifetime of a token that is used; it was read from the vault a moment ago.
LEAST_LIFE_S = 45.0
# The calls that change credentials, or what points to them, by the stack's store.
HEAVY = {"secrets-manager": ("dynamodb.update_item",), "table": ("dynamodb.update_item", "dynamodb.put_item")}
# A schedule with more deliveries than this does not end.
MAX_DELIVERIES = 400


class Violation(BaseException):
    """A rule was violated. It is no Exception, so that the code under test does not catch it."""


@dataclass
class Worker:
    """A process: its memory, and its current turn. `paused` says that it was paused for a lease.

    `http_timeout_s` is the time-out of the request that it sends.
    """

    number: int
    memory: cache.TokenCache = field(default_factory=cache.TokenCache)
    turn: int = 0
    running: greenlet | None = None
    wake_at: float = 0.0
    deadline: float = 0.0
    paused: bool = False
    http_timeout_s: float = 0.0
    queue: str = ""
    message: Message | None = None


@dataclass
class Claim:
    turn: int
    at: float


class Schedule:
    """`plan` gives faults by the number of the call; a seed draws up to `chances` more. `trace` collects the calls."""

    def __init__(
        self,
        cloud: Cloud,
        platform: Platform,
        rng: random.Random,
        *,
        start: float = BEGIN,
        workers: int = 3,
        plan: dict[int, str] | None = None,
        trace: list[str] | None = None,
    ) -> None:
        self.cloud, self.platform, self.rng, self.time = cloud, platform, rng, start
        self.plan = dict(plan or {})
        self.drawn: set[int] = set()
        self.drawn_heavy: set[int] = set()
        self.trace = trace
        self.workers = [Worker(number) for number in range(workers)]
        self.current: Worker | None = None
        self.main = greenlet.getcurrent()
        self.calls = self.heavy_calls = self.turns = self.deliveries = 0
        # Each call that may fail: its name, and the turn that makes it.
        self.seen: list[str] = []
        self.seen_by: list[int] = []
        self.faulty = True
        # Faults and crashes so far, and refresh tokens as they arrived: each of more than one needs an excuse.
        self.excuses = 0
        self.presented: Counter[str] = Counter()
        self.claims: dict[str, Claim] = {}
        self.refreshing: dict[str, list[Worker]] = {}
        # When a refresh token was first stored, and the authorisations whose tokens a secret contains.
        self.stored: dict[str, float] = {}
        self.grants_of: dict[str, int] = {}
        # The responses that a turn got, and the turns that a fault ended before they could store them.
        self.delivered: dict[str, int] = {}
        self.cut_short: set[int] = set()
        # When a turn learned that its refresh token was refused.
        self.refused_at: dict[int, float] = {}
        self.down_until: dict[str, float] = {}
        # Whether the vault and the table were unavailable together: a response at that time could not be stored.
        self.nowhere_to_store = False
        # The store that a migration moves all credentials to; empty without one.
        self.migrates_to = ""
        # The last token that a connection was rotated to, as its administrator was told.
        self.rotated: dict[str, str] = {}
        self.events: list[tuple[float, Callable[[], None]]] = []
        # Where the item of each code's install is.
        self.installed: dict[str, tuple[str, str]] = {}
        # Tags that were given: when (ISO 8601), which, and by which code's install; None for a claim.
        self.tagged: list[tuple[str, dict[str, str], str | None]] = []
        # A generator of its own, so that the lag of the indexes does not change what else a seed decides.
        self.lag_rng = random.Random(hash(rng.getstate()[1]))
        self.over = False
        self.observe()

    def observe(self) -> None:
        self.cloud.carry = self.carry
        self.cloud.lag = lambda: faults.index_lag_s(self.lag_rng)
        self.cloud.secret_stored = self.secret_stored
        self.cloud.item_written = self.item_written
        self.platform.carry = self.carry
        self.platform.presenting = self.presenting
        self.platform.leaving = self.check_lease
        self.platform.using = self.check_stored

    # Setup of a schedule.

    def draw_faults(self, count: int) -> None:
        """Faults at calls that a number decides: half of them at the calls that change relevant state."""
        for _ in range(count):
            if self.rng.random() < 0.5:
                self.drawn.add(self.rng.randint(1, 70))
            else:
                self.drawn_heavy.add(self.rng.randint(1, 14))

    def post(self, queue: str, body: str, after_s: float = 0.0) -> None:
        message = Message(body, self.time + after_s, f"posted-{self.cloud.number()}")
        self.cloud.queues.setdefault(queue, []).append(message)

    def at(self, after_s: float, happen: Callable[[], None]) -> None:
        """An event outside of the product."""
        self.events.append((self.time + after_s, happen))
        self.events.sort(key=lambda event: event[0])

    # Time and switching.

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.time, UTC)

    def sleep(self, seconds: float) -> None:
        if self.current is None:
            self.time += seconds
        else:
            self.wait(seconds)

    def wait(self, seconds: float) -> None:
        worker = self.current
        assert worker is not None
        worker.wake_at = self.time + seconds
        self.main.switch()
        if self.over:
            raise Died
        if self.time > worker.deadline and not (worker.paused and worker.queue in OUTLIVES_ITS_LEASE):
            self.note("the function's time is over")
            self.excuses += 1
            if worker.paused:
                self.cut_short.add(worker.turn)
            raise Died

    def run(self) -> None:
        """Deliver messages and let the workers run until nothing is left to do."""
        while True:
            ready: list[Worker] = []
            idle: list[Worker] = []
            soonest = NEVER
            for worker in self.workers:
                if worker.running is None:
                    idle.append(worker)
                elif worker.wake_at <= self.time:
                    ready.append(worker)
                elif worker.wake_at < soonest:
                    soonest = worker.wake_at
            if ready:
                self.resume(ready[0] if len(ready) == 1 else self.rng.choice(ready))
                continue
            if self.events:
                moment, happen = self.events[0]
                if moment <= self.time:
                    self.events.pop(0)
                    happen()
                    continue
                soonest = min(soonest, moment)
            if idle:
                visible: list[tuple[str, Message]] = []
                for queue, messages in self.cloud.queues.items():
                    for message in messages:
                        if message.visible_at <= self.time:
                            visible.append((queue, message))
                        elif message.visible_at < soonest:
                            soonest = message.visible_at
                if visible:
                    self.deliver(self.rng.choice(idle), *self.rng.choice(visible))
                    continue
            if soonest == NEVER:
                return
            self.time = soonest

    def deliver(self, worker: Worker, queue: str, message: Message) -> None:
        self.deliveries += 1
        if self.deliveries > MAX_DELIVERIES:
            raise Violation(f"never comes to rest: {queue} {message.body[:80]}")
        self.turns += 1
        message.deliveries += 1
        message.visible_at = self.time + HIDDEN_S[queue]
        worker.turn, worker.queue, worker.message, worker.paused = self.turns, queue, message, False
        worker.deadline = self.time + TIME_LIMITS_S[queue]
        worker.wake_at = self.time
        worker.running = greenlet(lambda: self.work(worker, queue, message), parent=self.main)

    def resume(self, worker: Worker) -> None:
        self.current = worker
        assert worker.running is not None
        try:
            worker.running.switch()
        finally:
            self.current = None
        if worker.running is not None and worker.running.dead:
            worker.running = None

    def end(self) -> None:
        """Discard workers that are still in a call."""
        self.over = True
        for worker in self.workers:
            if worker.running is not None and not worker.running.dead:
                self.current = worker
                worker.running.switch()
                self.current = None
                worker.running = None

    # The work of each function's handler.

    def work(self, worker: Worker, queue: str, message: Message) -> None:
        if self.over:
            return
        self.note(f"takes {queue} {message.body[:90]}")
        if message.body.startswith("once "):
            self.take_away(queue, message)
        try:
            getattr(self, f"take_{queue}")(message.body, lambda: worker.deadline - self.time)
        except Died:
            self.note("dies")
            worker.memory = cache.TokenCache()
            return
        except Retryable as later:
            again_s = 5.0 if later.after_s is None else later.after_s
            self.note(f"later: {later.reason}, after {again_s:.1f} s")
            self.give_back(queue, message, again_s)
        except (ClientError, BotoCoreError, table.Conflict) as error:
            self.note(f"later: {service_clients.error_code(error) or type(error).__name__}")
            self.give_back(queue, message, AGAIN_S)
        except Exception as error:
            raise Violation(f"{queue} raised {type(error).__name__}: {error}") from error
        else:
            self.note("is done")
            self.take_away(queue, message)

    def give_back(self, queue: str, message: Message, after_s: float) -> None:
        message.visible_at = self.time + max(0.0, after_s)

    def take_away(self, queue: str, message: Message) -> None:
        messages = self.cloud.queues[queue]
        if message in messages:
            messages.remove(message)

    def take_exchanges(self, body: str, time_left_s: Callable[[], float]) -> None:
        settings = self.cloud.settings(ExchangeCodeSettings)
        if notice := read_claim(body):
            self.note(f"claim: {claims.apply(notice, Table(TABLE), settings.bus_name)}")
            return
        outcome = code_exchange.exchange(read_message(body), settings, time_left_s)
        self.note(f"install: {outcome.state} {outcome.reason}")

    def take_renewals(self, body: str, time_left_s: Callable[[], float]) -> None:
        try:
            outcome = renewal_sweep.handle_message(
                body, self.cloud.settings(RenewTokensSettings), time_left_s, RateLimiter(1e9)
            )
        except Rejected as rejected:
            self.note(f"renewal refused: {rejected.reason}")
            self.check_refusal(json.loads(body).get("connection", ""), rejected)
        else:
            self.note(f"renewal: {outcome.state}")

    def take_uninstalls(self, body: str, time_left_s: Callable[[], float]) -> None:
        outcome = uninstall.handle_message(body, self.cloud.settings(RemoveConnectionsSettings), time_left_s)
        self.note(f"uninstall: {outcome.state}")

    def take_rotations(self, body: str, time_left_s: Callable[[], float]) -> None:
        """An administrator, who repeats a call until it is answered."""
        wanted = json.loads(body)
        table_, vault_ = Table(TABLE), self.cloud.vault()
        try:
            if "token" in wanted:
                credentials = {"token": Secret(wanted["token"])}
                rotation.rotate(table_, vault_, wanted["name"], credentials, expire_now=wanted["expire_now"])
                if not self.platform.static_alive(wanted["token"]):
                    raise Violation("a rotation took a token that does not work")
                self.rotated[wanted["name"]] = wanted["token"]
            else:
                rotation.expire(table_, vault_, wanted["name"])
        except Rejected as rejected:
            self.note(f"rotation refused: {rejected.reason}")
            if rejected.reason == "connection_changed":
                raise Retryable("again", "the administrator looks and tries again", after_s=5) from None
            dead = rejected.reason == "credentials_refused" and not self.platform.static_alive(wanted.get("token", ""))
            if not dead and rejected.reason not in ("credentials_unchanged", "connection_removed"):
                raise Violation(f"a rotation to a good token was refused: {rejected.reason}") from None

    def take_callers(self, body: str, time_left_s: Callable[[], float]) -> None:
        """A caller that needs a connection's token, through the provider's `send` or `token`.

        One that calls `once` is not seen again if that fails.
        """
        how, _, name = body.partition(" ")
        table_ = Table(TABLE)
        connection = connection_store.find(table_, name)
        if connection is None:
            self.note("there is no such connection")
            return
        supply = provider.TokenProvider(table_, self.cloud.vault(), KEY_ID, time_left_s)
        try:
            if how in ("send", "once"):
                supply.send(connection, lambda token: self.build(connection, token))
            else:
                self.build(connection, supply.token(connection))
        except Rejected as rejected:
            self.note(f"caller refused: {rejected.reason}")
            self.check_refusal(name, rejected)

    def build(self, connection: Connection, token: cache.Token) -> Request:
        self.check_given_out(connection, token)
        if connection.kind == "bearer":
            secret, url = token.credentials["token"].reveal(), f"https://{connection.allowed_domain}/locations/1"
        else:
            secret, url = (
                token.credentials["access_token"].reveal(),
                f"https://{connection.allowed_domain}/api/v4/account",
            )
        self.note(f"uses {secret} of generation {token.generation}")
        return Request("GET", url, {"Authorization": f"Bearer {secret}"})

    # Rules that are checked continuously.

    def check_given_out(self, connection: Connection, token: cache.Token) -> None:
        refresh_token = token.credentials.get("refresh_token")
        if refresh_token and refresh_token.reveal() not in self.stored:
            raise Violation(f"a token of {connection.name} was handed out before it was stored")
        if (
            connection.kind == "oauth2"
            and token.ends_at
            and (token.ends_at - self.now()).total_seconds() < (LEAST_LIFE_S if self.platform.life_s >= LIFE_S else 0)
        ):
            raise Violation(f"a token of {connection.name} was handed out in the last minute of its life")

    def check_stored(self, pair: Pair) -> None:
        if pair.refresh not in self.stored:
            raise Violation(f"{pair.access} was used before it was stored")

    def check_refusal(self, name: str, rejected: Rejected) -> None:
        state = self.cloud.item(*connection_store.key(name)).get("state", "gone")
        if rejected.reason in ("no_credentials", "token_expired") or (
            state == "connected" and rejected.reason not in ("needs_reconnect", "connection_removed")
        ):
            raise Violation(f"{name}, which is {state}, was refused with {rejected.reason}")

    def presenting(self, host: str, token: str) -> None:
        """A refresh token reaches the platform."""
        self.presented[token] += 1
        if self.presented[token] > 1 + self.excuses:
            raise Violation(f"{token} was sent {self.presented[token]} times after {self.excuses} faults")

    def check_lease(self, host: str, token: str) -> None:
        """A refresh token is about to be sent: its sender must hold the connection's lease."""
        worker = self.current
        assert worker is not None
        name = self.name_at(host)
        item = self.cloud.item(*connection_store.key(name))
        grant = self.platform.refreshes[token].pair.grant
        if worker.paused or item["state"] != "connected" or grant != self.grants_of.get(item["secret_id"]):
            # No worker holds the lease of a grant that has just been replaced or given up.
            return
        claim = self.claims.get(name)
        if claim is None or claim.turn != worker.turn or item.get("lease_until", 0) < int(self.time):
            raise Violation(f"a refresh for {name} left without a lease")
        successors = [pair.refresh for pair in self.platform.given if pair.parent == token]
        if any(self.stored.get(successor, self.time) < claim.at for successor in successors):
            raise Violation(f"{token} was sent again although its successor is stored")

    def name_at(self, host: str) -> str:
        for (pk, _), item in self.cloud.items.items():
            if pk.startswith("CONNECTION#") and item["allowed_domain"]["S"] == host:
                return str(item["name"]["S"])
        raise Violation(f"a refresh left for {host}, which has no connection")

    def lost(self, pair: Pair) -> bool:
        """Whether a fault kept a pair from being stored: the response was lost, or its turn was ended."""
        turn = self.delivered.get(pair.refresh)
        return pair.refresh not in self.stored and (turn is None or turn in self.cut_short or self.nowhere_to_store)

    def secret_stored(self, secret_id: str, version: str, text: str) -> None:
        if token := json.loads(text).get("refresh_token"):
            self.store(token)
            self.grants_of[secret_id] = self.platform.refreshes[token].pair.grant

    def grant_sealed(self, item: Item) -> None:
        """As `secret_stored`, for an item of the sealed table."""
        for held in item["versions"]["M"].values():
            if token := self.cloud.sealed.get(held["M"]["sealed"]["S"]):
                self.store(token)
                secret_id = SealedTable.secret_id(item["pk"]["S"].removeprefix("GRANT#"))
                self.grants_of[secret_id] = self.platform.refreshes[token].pair.grant

    def store(self, token: str) -> None:
        self.stored.setdefault(token, self.time)

    def item_written(self, old: Item, new: Item) -> None:
        if wrong := misplaced(new):
            raise Violation(wrong)
        for name in ("sealed", "sealed_next", "sealed_grant"):
            text = new.get(name, {}).get("S", "")
            if text and text in self.cloud.sealed:
                self.store(self.cloud.sealed[text])
        if new.get("pk", {}).get("S", "").startswith("GRANT#"):
            self.grant_sealed(new)
        if self.current and new.get("state") == {"S": "needs_reconnect"} and old.get("state") == {"S": "connected"}:
            self.check_given_up(new)
        if self.current and "lease_until" in new and "fence" in new and new["fence"] != old.get("fence"):
            self.claims[new["name"]["S"]] = Claim(self.current.turn, self.time)

    def check_given_up(self, item: Item) -> None:
        """A connection is being given up: no valid pair may have been stored before its token was refused."""
        assert self.current is not None
        refused_at = self.refused_at.get(self.current.turn, 0.0)
        for pair in self.platform.given:
            in_time = self.stored.get(pair.refresh, refused_at) < refused_at
            ours = pair.grant == self.grants_of.get(item["secret_id"]["S"])
            if in_time and ours and self.platform.refresh_alive(pair.refresh):
                raise Violation(f"{item['name']['S']} is given up, though {pair.refresh} has been stored before")

    def note(self, text: str) -> None:
        if self.trace is not None:
            who = f"worker {self.current.number} turn {self.current.turn}" if self.current else "the world"
            self.trace.append(f"{self.time - BEGIN:12.3f} s  {who:18}  {text}")

    # Calls.

    def carry(self, name: str, call: Callable[[], Any]) -> Any:
        worker = self.current
        if worker is None:
            return call()
        if self.over:
            raise Died
        fault = self.fault_at(name)
        http = faults.is_http(name)
        refreshing = name.startswith("refresh ")
        if self.trace is not None:
            self.note(f"{self.calls:4} {name}{f'   ← {fault}' if fault else ''}")
        if fault:
            self.excuses += 1
            if fault == "duplicate" and worker.message:
                copy = Message(worker.message.body, self.time, f"duplicate-{self.calls}")
                self.cloud.queues[worker.queue].append(copy)
            elif fault.startswith("pause"):
                worker.paused = True
            elif fault == "outage":
                self.down_until[name.partition(".")[0]] = self.time + faults.OUTAGE_S * self.rng.random()
                is_in_table = self.migrates_to or self.cloud.credential_store == "table"
                stores = ("dynamodb",) if is_in_table else ("dynamodb", "secretsmanager")
                if all(self.down_until.get(service, 0.0) > self.time for service in stores):
                    self.nowhere_to_store = True
        if not refreshing:
            return self.attempt(name, call, fault, http)
        rivals = self.refreshing.setdefault(name, [])
        if any(not rival.paused for rival in rivals) and not worker.paused:
            raise Violation(f"two workers refresh at once: {name}")
        rivals.append(worker)
        try:
            return self.attempt(name, call, fault, http)
        finally:
            rivals.remove(worker)

    def attempt(self, name: str, call: Callable[[], Any], fault: str, http: bool) -> Any:
        self.wait(self.latency(http))
        if not http and self.down_until.get(name.partition(".")[0], 0.0) > self.time:
            fault = "throttle"
        match fault:
            case "crash_before":
                self.die()
            case "pause_before":
                self.wait(self.pause_s())
            case "timeout_before":
                self.wait(self.timeout_s(http))
                raise faults.no_answer(name)
            case "throttle":
                if name == "events.put_events":
                    return {"FailedEntryCount": 1, "Entries": [{"ErrorCode": "ThrottlingException"}]}
                raise faults.throttled(name)
            case "unreachable":
                self.wait(faults.CONNECT_TIMEOUT_S)
                raise faults.unreachable()
            case "rate_limited":
                return faults.refused(429)
            case "error_before":
                return faults.refused(503)
        answer = self.done(name, call)
        match fault:
            case "crash_after":
                self.die()
            case "pause_after":
                self.wait(self.pause_s())
            case "timeout_after":
                self.wait(self.timeout_s(http))
                raise faults.no_answer(name)
            case "error_after":
                return faults.refused(502)
            case "retried":
                self.wait(faults.AWS_TIMEOUT_S / 3)
                answer = self.done(name, call)
        if http:
            # The response is in transit while others continue.
            self.wait(self.latency(http))
            if self.current and name.startswith(("refresh ", "exchange ")) and answer.status == 200:
                self.delivered[json.loads(answer.body)["refresh_token"]] = self.current.turn
            elif self.current and name.startswith("refresh "):
                self.refused_at[self.current.turn] = self.time
        return answer

    def die(self) -> NoReturn:
        assert self.current is not None
        self.cut_short.add(self.current.turn)
        raise Died

    def done(self, name: str, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except ClientError as error:
            self.note(f"     {service_clients.error_code(error)}")
            raise

    def fault_at(self, name: str) -> str:
        self.calls += 1
        if not self.faulty:
            return ""
        self.seen.append(name)
        self.seen_by.append(self.current.turn if self.current else 0)
        if fault := self.plan.get(self.calls):
            return fault
        heavy = faults.is_http(name) or name.startswith("secretsmanager.") or name in HEAVY[self.cloud.credential_store]
        self.heavy_calls += heavy
        if self.calls in self.drawn or (heavy and self.heavy_calls in self.drawn_heavy):
            return self.rng.choice(faults.kinds(name))
        return ""

    def latency(self, http: bool) -> float:
        """Mostly short, at times long, in seconds."""
        chance = self.rng.random()
        if http:
            return chance * 0.5 if chance < 0.85 else (0.5 + (chance - 0.85) * 15 if chance < 0.97 else 3 + chance * 3)
        return chance * 0.05 if chance < 0.8 else (0.05 + (chance - 0.8) * 3 if chance < 0.98 else 1 + chance)

    def timeout_s(self, http: bool) -> float:
        return self.current.http_timeout_s if http and self.current else faults.AWS_TIMEOUT_S

    def pause_s(self) -> float:
        """Mostly until shortly after a lease that has just begun, when its next holder is working."""
        chance = self.rng.random()
        return refresh_lease.LEASE_S + (6 * chance if chance < 0.6 else 75 * chance)


class Here:
    """The schedule that runs now. The product's outgoing calls are patched once and use it."""

    def __init__(self) -> None:
        self.schedule: Schedule | None = None

    def get(self) -> Schedule:
        assert self.schedule is not None
        return self.schedule


HERE = Here()


class _CurrentMemory:
    """Replaces the memory of the process: that of the running worker."""

    def __getattr__(self, name: str) -> Any:
        worker = HERE.get().current
        return getattr(worker.memory if worker else _ASIDE, name)


_ASIDE = cache.TokenCache()


def _send(request: Request, *, allowed_domain: str, follow_redirects: int = 0, owner: str) -> Response:
    schedule = HERE.get()
    if schedule.current:
        schedule.current.http_timeout_s = request.time_limit_s
    return schedule.platform.send(request, allowed_domain=allowed_domain)


def _seal(seal: Callable[[sealing.Seal, Credentials], str]) -> Callable[[sealing.Seal, Credentials], str]:
    def observed(self: sealing.Seal, credentials: Credentials) -> str:
        text = seal(self, credentials)
        if token := credentials.get("refresh_token"):
            HERE.get().cloud.sealed[text] = token.reveal()
        return text

    return observed


def _random_below(limit: int) -> int:
    return HERE.get().rng.randrange(limit)


def _numbered_uuid() -> uuid.UUID:
    return uuid.UUID(int=HERE.get().rng.getrandbits(128), version=4)


@contextmanager
def simulating() -> Iterator[None]:
    """Route all outgoing calls to the schedule in `HERE`: AWS, platforms, time and randomness."""
    memory = {**(provider.TokenProvider.__init__.__kwdefaults__ or {}), "cache": _CurrentMemory()}
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            clouds.installed(lambda: HERE.get().cloud),
            patch.object(clock, "now", lambda: HERE.get().now()),
            patch.object(clock, "sleep", lambda seconds: HERE.get().sleep(seconds)),
            patch.object(http_client, "send", _send),
            patch.object(secrets, "randbelow", _random_below),
            patch.object(secrets, "token_urlsafe", lambda length=32: f"canary-{HERE.get().cloud.number()}"),
            patch.object(secrets, "token_hex", lambda length=4: f"{HERE.get().cloud.number():08x}"),
            patch.object(uuid, "uuid4", _numbered_uuid),
            patch.object(provider.TokenProvider.__init__, "__kwdefaults__", memory),
            patch.object(token_provider, "id", lambda thing: HERE.get().turns, create=True),
            patch.object(provider, "POLL_S", POLL_S),
            patch.object(sealing.Seal, "seal", _seal(sealing.Seal.seal)),
        ):
            yield
    finally:
        logging.disable(disabled)
