"""Everything beside live events: installs, renewals, and the reading of accounts (reconciliations and backfills)."""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Generator
from typing import Any

import simpy

from bench.fleet import configuration
from bench.fleet.call_counts import connection_units
from bench.fleet.configuration import Configuration
from bench.fleet.meters import BusyShare, Meters
from bench.fleet.steps import Steps
from bench.fleet.workload import Accounts, Fleet
from portaria.sources import reconciliation

Process = Generator[Any, Any, None]

LATE_S = 120.0
# How far ahead a reconciliation may claim a slot of the budget.
MOST_WAIT_S = 1.0
SWEEP_S = 60.0
# Companies, of which no events come.
NEVER_CHANGED_S = 30 * 86_400.0
QUEUE_AGAIN_S = reconciliation.QUEUE_AGAIN.total_seconds()
# Calls of one step, as `python -m bench renewal_sweep` and the tests of installs count them.
RENEWAL_DYNAMODB, RENEWAL_SECRETS, RENEWAL_KMS = 7, 4, 1
INSTALL_DYNAMODB, INSTALL_SECRETS, INSTALL_KMS, INSTALL_REQUESTS = 14, 3, 1, 3
READING_DYNAMODB = 8
# An item that moves in the index by_due is deleted and put there. A connection's is in the table and in two more indexes too.
RECONCILIATION_UNITS = 1
MOVES = 2


class Installs:
    """300 codes in ten minutes. `late` counts the installs that took more than two minutes."""

    def __init__(
        self, env: simpy.Environment, fleet: Fleet, configured: Configuration, steps: Steps, meters: Meters,
        readings: Readings, chance: random.Random,
    ) -> None:  # fmt: skip
        self.env, self.fleet, self.steps, self.meters, self.readings = env, fleet, steps, meters, readings
        source = configured.sources["Exchanges"]
        # A batch's codes are exchanged at the same time.
        self.places = simpy.Resource(env, source.concurrency * source.batch)
        self.busy = BusyShare(source.concurrency * source.batch)
        self._next_at = [0.0] * source.concurrency
        self._chance = chance
        self.late = self.connected = 0
        self.slowest_s = self.longest_wait_s = 0.0
        self.running = 0

    def arrive(self) -> Process:
        fleet = self.fleet
        times = sorted(fleet.installs_at + self._chance.random() * fleet.installs_within for _ in range(fleet.installs))
        for at in times:
            yield self.env.timeout(max(0.0, at - self.env.now))
            self.env.process(self._exchange())

    def _exchange(self) -> Process:
        arrived, steps = self.env.now, self.steps
        self.meters.add("api_gateway_requests", arrived, 1)
        with self.places.request() as place:
            yield place
            # Each process sends at most so many codes a second to the platform.
            worker = min(range(len(self._next_at)), key=self._next_at.__getitem__)
            start = max(self.env.now, self._next_at[worker])
            self._next_at[worker] = start + 1 / configuration.EXCHANGES_A_WORKER
            self.running += 1
            self.longest_wait_s = max(self.longest_wait_s, start - arrived)
            is_cold = self._chance.random() < 0.1
            lasts_s = (
                (start - self.env.now)
                + (steps.seconds("cold_start_worker") if is_cold else 0.0)
                + steps.seconds("kommo_token")
                + (INSTALL_REQUESTS - 1) * steps.seconds("kommo_read")
                + INSTALL_DYNAMODB * steps.seconds("dynamodb_call")
                + INSTALL_SECRETS * steps.seconds("secrets_call")
                + INSTALL_KMS * steps.seconds("kms_call")
                + steps.seconds("bus_call")
            )
            begin = self.env.now
            self.busy.add(begin, lasts_s)
            self.meters.add("secrets_writes", begin, 1, lasts_s)
            self.meters.add("secrets_reads", begin, INSTALL_SECRETS - 1, lasts_s)
            self.meters.add("kms_requests", begin, INSTALL_KMS + INSTALL_SECRETS, lasts_s)
            self.meters.add("eventbridge_puts", begin + lasts_s, 1)
            self.meters.add("eventbridge_invocations", begin + lasts_s, 2)
            self.meters.add("dynamodb_table_writes", begin, 3 * INSTALL_DYNAMODB, lasts_s)
            self.meters.add("writes listing:INSTALLS#*", begin, 6, lasts_s)
            steps.bill("ExchangeCode", lasts_s / 10, 0.2)
            yield self.env.timeout(lasts_s)
            self.running -= 1
        self.connected += 1
        took_s = self.env.now - arrived
        self.slowest_s = max(self.slowest_s, took_s)
        self.late += took_s > LATE_S
        self.readings.backfill(math.ceil(self.fleet.backfill_contacts / configuration.CONTACTS_A_PAGE))


class Renewals:
    """All tokens once. `slack_used` is the largest part of the time between a renewal's due time and its token's end."""

    def __init__(
        self, env: simpy.Environment, fleet: Fleet, configured: Configuration, steps: Steps, meters: Meters,
        chance: random.Random,
    ) -> None:  # fmt: skip
        self.env, self.fleet, self.steps, self.meters = env, fleet, steps, meters
        self.source = configured.sources["Renewals"]
        self.busy = BusyShare(self.source.concurrency)
        self.sweep_s = configured.renewal_sweep_s
        self.units = connection_units()
        issued = fleet.renewals_at - 0.8 * fleet.token_life_s
        self.ends_at = issued + fleet.token_life_s
        self._due = sorted(
            fleet.renewals_at + 0.1 * fleet.token_life_s * chance.random() for _ in range(fleet.accounts)
        )
        self._at = 0
        self.queue: deque[float] = deque()
        self.renewed = 0
        self.oldest_s = self.slack_used = 0.0
        self.running = 0

    def sweep(self) -> Process:
        """Pages of due connections: each is postponed by one write, one after the other, then queued."""
        while True:
            yield self.env.timeout(self.sweep_s)
            due = []
            while self._at < len(self._due) and self._due[self._at] <= self.env.now:
                due.append(self._due[self._at])
                self._at += 1
            call_s = self.steps.seconds("dynamodb_call")
            for first in range(0, len(due), configuration.DUE_PAGE):
                page = due[first : first + configuration.DUE_PAGE]
                lasts_s = len(page) * call_s
                self.meters.add("writes by_due:CONNECTIONS", self.env.now, len(page) * self.units * MOVES, lasts_s)
                self.meters.add("dynamodb_table_writes", self.env.now, len(page) * self.units * 5, lasts_s)
                yield self.env.timeout(lasts_s)
                self.queue.extend(page)

    def work(self) -> Process:
        """One of the workers. It renews at most one token a second."""
        steps = self.steps
        lasts_s = (
            steps.seconds("batch_overhead")
            + steps.seconds("kommo_token")
            + RENEWAL_DYNAMODB * steps.seconds("dynamodb_call")
            + RENEWAL_SECRETS * steps.seconds("secrets_call")
            + RENEWAL_KMS * steps.seconds("kms_call")
        )
        paced_s = max(lasts_s, 1 / configuration.RENEWALS_A_WORKER)
        while True:
            if not self.queue:
                yield self.env.timeout(1.0)
                continue
            due_at = self.queue.popleft()
            begin = self.env.now
            self.running += 1
            yield self.env.timeout(paced_s)
            self.running -= 1
            self.busy.add(begin, paced_s)
            self.renewed += 1
            late_s = self.env.now - due_at
            self.oldest_s = max(self.oldest_s, late_s)
            self.slack_used = max(self.slack_used, late_s / (self.ends_at - due_at))
            self.meters.add("secrets_writes", begin, 1)
            self.meters.add("secrets_reads", begin, RENEWAL_SECRETS - 1)
            self.meters.add("kms_requests", begin, RENEWAL_KMS + RENEWAL_SECRETS)
            # Four writes of the item, each in the table and in three indexes.
            for key in ("by_due:CONNECTIONS", "listing:CONNECTIONS"):
                self.meters.add(f"writes {key}", begin, 4 * self.units, paced_s)
            self.meters.add("dynamodb_table_writes", begin, 16 * self.units, paced_s)
            self.meters.add("dynamodb_table_reads", begin, 3, paced_s)
            self.meters.add("sqs_requests", begin, 3)
            steps.bill("RenewTokens", paced_s, 1)


class Readings:
    """Reconciliations of every account's objects, and the backfills of new ones, by the workers of one queue.

    A message is (when it was queued, the number of an account's object or -1, requests). Events concern contacts, which
    are the first of an account's objects.
    """

    def __init__(
        self, env: simpy.Environment, fleet: Fleet, accounts: Accounts, configured: Configuration, steps: Steps,
        meters: Meters, chance: random.Random,
    ) -> None:  # fmt: skip
        self.env, self.fleet, self.accounts, self.steps, self.meters = env, fleet, accounts, steps, meters
        self.rules = configured.readings
        self.busy = BusyShare(self.rules.workers)
        self._chance = chance
        items = fleet.accounts * fleet.objects
        self._read_at = [0.0] * items
        self._due_at = [0.0] * items
        for number in range(items):
            every_s = self._interval_s(number, fleet.begin)
            self._due_at[number] = fleet.begin + chance.random() * every_s
            self._read_at[number] = self._due_at[number] - every_s
        self._due = [(due_at, number) for number, due_at in enumerate(self._due_at)]
        heapq.heapify(self._due)
        self._is_queued = bytearray(items)
        # Since when each has been due and not read.
        self._wanted_at = [math.inf] * items
        self._next_slot_at = 0.0
        self.queue: deque[tuple[float, int, int]] = deque()
        self.backfills: deque[tuple[float, int, int]] = deque()
        # How many readings become due, in sweeps that queue at most so many: the highest mean of a quarter of an hour.
        self.swept = BusyShare(1, window_s=900.0)
        self.readings = self.requests = self.running = 0
        self.oldest_s = self.slowest_backfill_s = self.most_overdue_s = 0.0
        self.records = 0.0

    def _interval_s(self, number: int, now: float) -> float:
        account, item = divmod(number, self.fleet.objects)
        return self.rules.interval_s(now - self.accounts.changed_at[account] if item == 0 else NEVER_CHANGED_S)

    def backfill(self, pages: int) -> None:
        self.backfills.append((self.env.now, -1, pages))

    def wake(self, account: int) -> None:
        """A live event after a longer time: the account's contacts become due within the least interval."""
        number = account * self.fleet.objects
        due_at = self.env.now + self._chance.random() * self.rules.least_s
        if not self._is_queued[number] and due_at < self._due_at[number]:
            self._move(number, due_at)
            self.meters.add("writes by_due:RECONCILIATIONS", self.env.now, RECONCILIATION_UNITS * MOVES)
            self.meters.add("dynamodb_table_writes", self.env.now, RECONCILIATION_UNITS * (1 + MOVES))

    def sweep(self) -> Process:
        """Every minute: pages of due items, each postponed by one write, then queued."""
        call_s = self.steps.seconds("dynamodb_call")
        while True:
            yield self.env.timeout(SWEEP_S)
            claimed = new = 0
            most = self.rules.sweep_limit or len(self._due)
            while self._due and self._due[0][0] <= self.env.now and claimed < most:
                due_at, number = heapq.heappop(self._due)
                if due_at != self._due_at[number]:
                    continue
                claimed += 1
                # One that was put off is not counted again.
                new += self._wanted_at[number] == math.inf
                self._wanted_at[number] = min(self._wanted_at[number], due_at)
                if self._is_queued[number]:
                    # Its first message has not been handled. This one finds that, and is ignored.
                    self.queue.append((self.env.now, number, 0))
                else:
                    self._is_queued[number] = 1
                    self.queue.append((self.env.now, number, self._pages(number)))
                self._move(number, self.env.now + QUEUE_AGAIN_S)
            if self.rules.sweep_limit:
                self.swept.add(self.env.now, SWEEP_S * new / self.rules.sweep_limit)
            for first in range(0, claimed, configuration.DUE_PAGE):
                count = min(configuration.DUE_PAGE, claimed - first)
                at = self.env.now + first * call_s
                units = count * RECONCILIATION_UNITS
                self.meters.add("writes by_due:RECONCILIATIONS", at, units * MOVES, count * call_s)
                self.meters.add("dynamodb_table_writes", at, units * (1 + MOVES), count * call_s)

    def _pages(self, number: int) -> int:
        account = number // self.fleet.objects
        changed = 0.0
        if number % self.fleet.objects == 0:
            since_s = self.env.now - self._read_at[number] + reconciliation.OVERLAP_S
            changed = self.accounts.share[account] * self.fleet.events_a_day * since_s / 86_400
        self.records += changed
        return max(1, math.ceil(changed / configuration.CONTACTS_A_PAGE))

    def work(self) -> Process:
        """One of the workers: one message at a time, and at most so many requests a second."""
        steps = self.steps
        request_s = max(
            steps.seconds("kommo_read") + 2 * steps.seconds("dynamodb_call") + steps.seconds("sqs_send"),
            1 / self.rules.per_worker_s,
        )
        overhead_s = steps.seconds("batch_overhead") + READING_DYNAMODB * steps.seconds("dynamodb_call")
        while True:
            waiting = self.backfills or self.queue
            if not waiting:
                yield self.env.timeout(1.0)
                continue
            begin = self.env.now
            slot_at = max(begin, self._next_slot_at)
            if slot_at - begin > MOST_WAIT_S:
                # No slot is free soon. A reconciliation becomes due again, and does not wait in the queue or in a worker.
                if waiting is self.queue:
                    self._put_off()
                yield self.env.timeout(MOST_WAIT_S)
                continue
            queued_at, number, pages = waiting.popleft()
            lasts_s = 2 * steps.seconds("dynamodb_call")
            if pages:
                self._next_slot_at = slot_at + pages / self.rules.per_s
                lasts_s = overhead_s + (slot_at - begin) + pages * request_s
            self.oldest_s = max(self.oldest_s, begin - queued_at)
            self.running += 1
            yield self.env.timeout(lasts_s)
            self.running -= 1
            self.busy.add(begin, lasts_s)
            steps.bill("BackfillRecords", lasts_s, 1)
            self.requests += pages
            self.meters.add("kommo_requests", begin, pages, lasts_s)
            self.meters.add("sqs_requests", begin, 3)
            if number < 0:
                self.slowest_backfill_s = max(self.slowest_backfill_s, self.env.now - queued_at)
            elif pages:
                self._settle(number, begin)

    def _put_off(self) -> None:
        _, number, _ = self.queue.popleft()
        self._is_queued[number] = 0
        self._move(number, self.env.now + SWEEP_S)

    def _settle(self, number: int, began: float) -> None:
        self.readings += 1
        self._is_queued[number] = 0
        every_s = self._interval_s(number, began)
        self._read_at[number] = began
        self.most_overdue_s = max(self.most_overdue_s, began - self._wanted_at[number])
        self._wanted_at[number] = math.inf
        self._move(number, self.env.now + every_s * (0.95 + 0.05 * self._chance.random()))
        self.meters.add("writes by_due:RECONCILIATIONS", began, RECONCILIATION_UNITS * MOVES)
        self.meters.add("dynamodb_table_writes", began, 3 * RECONCILIATION_UNITS)
        self.meters.add("dynamodb_table_reads", began, READING_DYNAMODB)

    def _move(self, number: int, due_at: float) -> None:
        """An item's earlier place in the heap is skipped, because its time is not this one."""
        self._due_at[number] = due_at
        heapq.heappush(self._due, (due_at, number))
