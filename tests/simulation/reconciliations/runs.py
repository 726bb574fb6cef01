"""One run of reconciliations beside exchanges, calls and a backfill, which share a platform's request budget.

The platform loses every event, so only reconciliation can find a change. The product's own code reads the accounts and claims
its slots; processes are interleaved at every call that leaves, in virtual time, and may die there. Each process has a memory of
its own. A seed decides everything. The rules:

- no second has more requests than the platform allows for its addresses and for one account, wherever the second begins;
- an exchange waits for no reconciliation, and is never refused in these runs, which have few;
- each change is found within a bound, also while calls want more than the whole budget;
- at the end each change has been queued: no reading's start passed one that was not.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Any
from unittest.mock import patch
from urllib.parse import parse_qs, urlsplit

from greenlet import greenlet

from portaria.aws.table import Table
from portaria.connections import connection_store, request_budget
from portaria.connections.request_budget import BudgetExhausted, RequestBudget
from portaria.connections.tokens import cache
from portaria.connections.vault import Vault
from portaria.core.callbacks import Secret
from portaria.core.entities import Connection, Route
from portaria.core.errors import Retryable
from portaria.core.http.messages import Request, Response
from portaria.core.settings import BackfillRecordsSettings
from portaria.outbound.request_slots import LaneRule, Priority
from portaria.platforms.kommo import pagination
from portaria.records import reconciliation_wakeups, routes
from portaria.records.reconciliation_schedule import Bounds
from portaria.sources import backfill, reconciliation
from tests.fakes.crashes import Died
from tests.fakes.records.contacts import contact
from tests.simulation.aws.cloud import PREFIX, TABLE, Message
from tests.simulation.interleaving import BEGIN, Broken, Current, Process, Run, play_all, running

BACKFILLS = "backfills"
# As in template.yaml: the function's time limit, and the visibility timeout and receives of its queue.
TIME_LIMIT_S, HIDDEN_S, MAX_RECEIVES = 60.0, 360.0, 20
LEAST, MOST = timedelta(minutes=5), timedelta(minutes=10)
# The platform's limit.
PER_SECOND = 7
PAGE_SIZE = 4
# How late a change is found where no process dies: the longest interval, the next sweep, and waiting for the budget.
FOUND_WITHIN_S = MOST.total_seconds() + 60 + 300
# An exchange waits for calls that were claimed before (1 s), for other exchanges, and for slow calls to AWS.
EXCHANGE_WITHIN_S = 2.5
# More processes than Lambda would run, so that they could fill the budget far ahead.
READERS, CALLERS = 12, 16
MAX_TURNS = 400_000


@dataclass
class Worker(Process):
    name: str
    work: Callable[[Worker], None]
    # It works when the queue has a message for it. The others work until the end.
    reads: bool = False
    budgets: dict[str, RequestBudget] = field(default_factory=dict)

    def forget(self) -> None:
        self.budgets, self.tokens = {}, cache.TokenCache()


@dataclass
class Result:
    """Sums over runs, but `slowest_…` and `most_a_second`, which are the largest."""

    runs: int = 0
    deaths: int = 0
    requests: int = 0
    reconciliations: int = 0
    waited_for_budget: int = 0
    changes: int = 0
    exchanges: int = 0
    calls: int = 0
    refused_calls: int = 0
    most_a_second: int = 0
    slowest_exchange_s: float = 0.0
    slowest_change_s: float = 0.0

    def __add__(self, other: Result) -> Result:
        summed = {}
        for each in fields(self):
            mine, its = getattr(self, each.name), getattr(other, each.name)
            summed[each.name] = max(mine, its) if each.name.startswith(("most", "slowest")) else mine + its
        return Result(**summed)


class ReconciliationRun(Run[Worker, Result]):
    def __init__(self, seed: int) -> None:
        super().__init__(f"reconciliations {seed}")
        self.is_set_up, self.turns = False, 0
        # Three kinds of runs: calls want more than the budget, and all due accounts are queued at once; processes die; neither,
        # for longer.
        self.kind = ("saturated", "dying", "idle")[seed % 3]
        self.dying = 0.004 if self.kind == "dying" else 0.0
        self.addresses = self.rng.choice((1, 1, 2))
        self.lasts_s = {"saturated": 1_200.0, "dying": 3_600.0, "idle": 12_000.0}[self.kind]
        self.settings: BackfillRecordsSettings = self.cloud.settings(BackfillRecordsSettings)
        self.bounds = Bounds(LEAST, MOST)
        self.accounts = [f"kommo-acme-{number}" for number in range(1, self.rng.randint(4, 14))]
        self.contacts: dict[str, dict[int, dict[str, Any]]] = {
            account: {number: contact(number) for number in range(1, 7)} for account in self.accounts
        }
        # When each change was made, until it is queued: by account, contact and version.
        self.waiting: dict[tuple[str, int, int], float] = {}
        self.sent: dict[str, list[float]] = defaultdict(list)
        self.result = Result(runs=1)
        self.processes = [Worker(f"reader {number}", self.read, reads=True) for number in range(READERS)]
        program = Worker("program", self.change)
        if self.kind == "idle":
            # The accounts are idle for most of the time, and then change.
            program.wake_at = BEGIN + 0.8 * self.lasts_s
        self.processes += [Worker("exchanger", self.exchange), program]
        if self.kind == "saturated":
            self.processes += [Worker(f"caller {number}", self.call) for number in range(CALLERS)]

    # ------------------------------------------------------------------------------------------------------------- set up

    def set_up(self) -> None:
        store, vault = Table(TABLE), Vault(PREFIX)
        for number, account in enumerate(self.accounts):
            secret_id = vault.grant_id(account)
            token = {"access_token": f"canary-access-{account}", "expires_at": "2999-01-01T00:00:00.000Z"}
            vault.create(secret_id, {name: Secret(value) for name, value in token.items()})
            connection = Connection(
                account, "kommo", "oauth2", f"{account}.kommo.com", "connected", 1, secret_id, account_id=str(number)
            )
            connection_store.create(store, connection)
            routes.put(store, Route(f"r-{account}", f"connection:{account}", "contacts", "marketo-one"), new=True)
            reconciliation.begin(store, connection, "contacts")
        busy = self.accounts[0]
        self.contacts[busy] = {number: contact(number) for number in range(1, 200)}
        backfill.start(store, self.settings.backfills_queue_url, connection_store.get(store, busy))
        # A process whose clock is an hour ahead has claimed a slot in each lane.
        self.time += 3_600
        for priority in (Priority.EXCHANGE, Priority.BACKFILL, Priority.RECONCILIATION):
            counters = _budget(TABLE, "kommo")._address
            assert counters is not None
            counters.claim((LaneRule(priority.rules[-1].lane, 5.0),))
        _CURRENT.aside.forget()
        self.time = BEGIN
        self.is_set_up = True

    # --------------------------------------------------------------------------------------------------- time and processes

    def play(self) -> Result:
        self.set_up()
        ends_at, sweep_at = BEGIN + self.lasts_s, BEGIN
        # After the end nothing changes any more, and the rest is found.
        last_at = ends_at + 3 * reconciliation.QUEUE_AGAIN.total_seconds()
        while self.time < last_at and not (self.time >= ends_at and not self.waiting):
            self.turns += 1
            if self.turns > MAX_TURNS:
                raise Broken("it never comes to rest")
            if self.time >= ends_at:
                self.dying = 0.0
            if sweep_at <= self.time:
                sweep_at += 60
                self.post('{"reconcile": "due"}')
            if ready := self.ready():
                self.resume(self.rng.choice(ready))
                continue
            goes_on = self.time < ends_at
            moments = [each.wake_at for each in self.processes if each.running or (goes_on and not each.reads)]
            moments += [message.visible_at for message in self.cloud.queues.get(BACKFILLS, ())]
            self.time = min([sweep_at, *(moment for moment in moments if moment > self.time)])
            self.check_lateness()
        if self.waiting:
            raise Broken(f"{len(self.waiting)} changes were never found, such as {min(self.waiting)}")
        return self.result

    def ready(self) -> list[Worker]:
        """The processes that can go on now."""
        now = self.time
        has_message = any(message.visible_at <= now for message in self.cloud.queues.get(BACKFILLS, ()))
        goes_on = now < BEGIN + self.lasts_s
        return [
            each
            for each in self.processes
            if (has_message if each.reads and not each.running else each.wake_at <= now and (goes_on or each.running))
        ]

    def resume(self, process: Worker) -> None:
        if process.running is None:
            process.deadline = self.time + (TIME_LIMIT_S if process.reads else 1e9)
            process.running = greenlet(lambda: self.begin(process), parent=self.main)
        super().resume(process)

    def begin(self, process: Worker) -> None:
        try:
            process.work(process)
        except Died:
            process.forget()
            self.result.deaths += not self.over

    def carry(self, name: str, call: Callable[[], Any]) -> Any:
        if self.current is None or not self.is_set_up:
            return call()
        self.maybe_die()
        self.wait(self.rng.random() * 0.01)
        answer = call()
        # An answer that comes after the slot that was claimed has ended.
        self.wait(0.4 if self.rng.random() < 0.1 else self.rng.random() * 0.01)
        self.maybe_die()
        return answer

    def maybe_die(self) -> None:
        if self.over or self.rng.random() < self.dying:
            raise Died

    def post(self, body: str) -> None:
        self.cloud.queues.setdefault(BACKFILLS, []).append(Message(body, self.time, f"posted-{self.cloud.number()}"))

    # ------------------------------------------------------------------------------------------------------ the processes

    def read(self, process: Worker) -> None:
        """One message of the Backfills queue, as the function's handler and its poller take it."""
        held = self.cloud.queues[BACKFILLS]
        message = self.rng.choice([each for each in held if each.visible_at <= self.time])
        message.deliveries += 1
        if message.deliveries > MAX_RECEIVES:
            raise Broken(f"a message became a dead letter: {message.body}")
        message.visible_at = self.time + HIDDEN_S
        try:
            outcome = backfill.handle_message(message.body, self.settings, lambda: process.deadline - self.time)
        except Retryable as later:
            message.visible_at = self.time + (later.after_s or 5.0 * message.deliveries)
            return
        held.remove(message)
        self.result.reconciliations += outcome.state == "reconciled"
        self.result.waited_for_budget += outcome.state == "waiting"

    def exchange(self, process: Worker) -> None:
        asked_at = self.time
        try:
            request_budget.wait(Table(TABLE), "kommo", Priority.EXCHANGE)
        except BudgetExhausted:
            raise Broken("an exchange was refused, although there are few") from None
        self.request("exchange")
        waited_s = self.time - asked_at
        self.result.exchanges += 1
        self.result.slowest_exchange_s = max(self.result.slowest_exchange_s, waited_s)
        if waited_s > EXCHANGE_WITHIN_S:
            raise Broken(f"an exchange waited {waited_s:.1f} s")
        # Sometimes several in a row.
        process.wake_at = self.time + self.rng.choice((0.0, 0.3, 5.0, 60.0))

    def call(self, process: Worker) -> None:
        account = self.rng.choice(self.accounts)
        try:
            request_budget.wait(Table(TABLE), "kommo", Priority.CALL, account)
        except BudgetExhausted as exhausted:
            self.result.refused_calls += 1
            process.wake_at = self.time + (exhausted.after_s or 0.0)
            return
        self.request(account)
        self.result.calls += 1
        process.wake_at = self.time + 0.2

    def change(self, process: Worker) -> None:
        """A contact changes, and its event is lost. The event of another change of the account may arrive."""
        account = self.rng.choice(self.accounts[1:])
        number = self.rng.choice(list(self.contacts[account]))
        version = int(self.time)
        for key in [key for key in self.waiting if key[:2] == (account, number)]:
            del self.waiting[key]
        self.contacts[account][number] = contact(number, updated_at=version)
        self.waiting[account, number, version] = self.time
        self.result.changes += 1
        if self.rng.random() < 0.3:
            reconciliation_wakeups.wake(Table(TABLE), account, "contacts", self.bounds)
            reconciliation_wakeups.forget()
        process.wake_at = self.time + self.rng.expovariate(1 / min(self.lasts_s / 25, 100))

    # ---------------------------------------------------------------------------------------------------- the platform

    def send(self, request: Request) -> Response:
        self.maybe_die()
        parts = urlsplit(request.url)
        account = (parts.hostname or "").partition(".")[0]
        self.request(account)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        body = self.listed(account, query)
        self.wait(0.05 + self.rng.random() * 0.4)
        self.maybe_die()
        return Response(200, {}, json.dumps(body).encode()) if body else Response(204, {}, b"")

    def listed(self, account: str, query: dict[str, str]) -> dict[str, Any]:
        since = int(query.get("filter[updated_at][from]", 0))
        until = int(query.get("filter[updated_at][to]", 2**40))
        order = "updated_at" if "order[updated_at]" in query else "id"
        found = [each for each in self.contacts[account].values() if since <= each["updated_at"] <= until]
        found.sort(key=lambda each: (each[order], each["id"]))
        page, limit = int(query["page"]), int(query["limit"])
        shown = found[(page - 1) * limit : page * limit]
        links = {"next": {"href": "…"}} if len(found) > page * limit else {}
        return {"_links": links, "_embedded": {"contacts": shown}} if shown else {}

    def request(self, account: str) -> None:
        """A request reaches the platform."""
        self.result.requests += 1
        for who, most in (("", PER_SECOND * self.addresses), (account, PER_SECOND)):
            times = self.sent[who]
            times.append(self.time)
            del times[: -most - 1]
            if not who:
                self.result.most_a_second = max(self.result.most_a_second, sum(each > self.time - 1 for each in times))
            if who != "exchange" and len(times) > most and self.time - times[0] < 1 - 1e-6:
                raise Broken(f"{len(times)} requests of {who or 'all accounts'} within a second")

    def queued(self) -> None:
        """Take the records out of their queue: what has come there is found."""
        held = self.cloud.queues.get("bulk_records", [])
        for message in held:
            body = json.loads(message.body)
            for record in body["records"]:
                key = (body["connection"], int(record["key"]), int(record["updated_at"]))
                if (changed_at := self.waiting.pop(key, None)) is not None:
                    self.result.slowest_change_s = max(self.result.slowest_change_s, self.time - changed_at)
        held.clear()

    def check_lateness(self) -> None:
        self.queued()
        if self.kind == "dying" or not self.waiting:
            return
        key, changed_at = min(self.waiting.items(), key=lambda item: item[1])
        if self.time - changed_at > FOUND_WITHIN_S:
            raise Broken(f"the change {key} was not found within {self.time - changed_at:.0f} s")


_CURRENT: Current[Worker] = Current(Worker("aside", lambda _: None))


def _budget(table_name: str, platform: str) -> RequestBudget:
    budgets = _CURRENT.process.budgets
    if platform not in budgets:
        budgets[platform] = RequestBudget(Table(table_name), platform, _run().addresses)
    return budgets[platform]


def _bounds(_least: str, _most: str) -> Bounds:
    return _run().bounds


def _run() -> ReconciliationRun:
    assert isinstance(_CURRENT.run, ReconciliationRun)
    return _CURRENT.run


def attempt_all(seeds: Iterable[int]) -> tuple[Result, list[str]]:
    """The sum of the runs, and what broke."""
    with running(
        _CURRENT,
        patch.object(request_budget, "_budget", _budget),
        patch.object(Bounds, "of_minutes", staticmethod(_bounds)),
        patch.object(pagination, "PAGE_SIZE", PAGE_SIZE),
        patch.object(reconciliation, "SPREAD_S", 0),
    ):
        return play_all(_CURRENT, map(ReconciliationRun, seeds), Result())


def main() -> int:
    """`PYTHONHASHSEED=0 python -m tests.simulation.reconciliations.runs SEED …`"""
    total, broken = attempt_all(map(int, sys.argv[1:]))
    print("\n".join([*broken, str(total)]))
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
