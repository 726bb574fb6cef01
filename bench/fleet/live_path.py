"""Live events, from the webhook through the Records queue to their destinations, and events that wait for a destination.

One process of simpy is one batch: an invocation of ingest_records, or a drain of release_records. Single events are no
processes, because simpy handles about 90,000 jobs a second, and all tried loads together have more than 20 million events. They
are entries of a queue, so each event still has its own age.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict, deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import simpy

from bench.fleet import configuration
from bench.fleet.configuration import Configuration, EventSource
from bench.fleet.meters import Ages, BusyShare, Meters
from bench.fleet.pauses import BatchTime, Pauses
from bench.fleet.steps import Steps
from bench.fleet.workload import Accounts, Destination, Fleet

# An event that is not delivered: when it arrived, its account, how often it has failed.
Entry = tuple[float, int, int]
Process = Generator[Any, Any, None]

# Lambda begins to drain a queue with so many batches at the same time, and adds at most 300 a minute.
FIRST_POLLERS = 5
# SQS hands over at most ten messages in one call.
RECEIVED_TOGETHER = 10
# An invocation of ingest_records begins no request with less time left: the request's timeouts and the time to finish.
INGEST_TIMEOUT_S, LEAST_LEFT_S = 120.0, 33.0
SWEEP_S = 60.0
# Quota items: about so many bytes for each tenant, at most so many tenants in an item, so many items.
TENANT_BYTES, TENANTS_AN_ITEM, QUOTA_ITEMS = 25, 300, 10
# How many claimed slots the model remembers for each destination.
MOST_SLOTS = 2_000
# The deletions of delivered entries run ten at a time.
DELETED_TOGETHER = 10


@dataclass
class Batch:
    """Messages that one poller collects. Its window begins with its first message."""

    first_at: float
    entries: list[Entry] = field(default_factory=list)


@dataclass
class Waiting:
    """Records that wait in the table for one destination: `parked` until the pause ends, `retries` (a heap) until a time."""

    parked: deque[Entry] = field(default_factory=deque)
    retries: list[tuple[float, Entry]] = field(default_factory=list)
    is_drained: bool = False

    def __len__(self) -> int:
        return len(self.parked) + len(self.retries)


class Delivery(NamedTuple):
    """How long a destination's part of a batch takes, and the time in it in which the batch may send to others."""

    lasts_s: float
    free_s: float = 0.0


class Turns:
    """When the destinations of one batch begin and end. The batch has one thread and starts at `begin`."""

    def __init__(self, begin: float) -> None:
        self._thread_at = begin
        self._ends = [begin] * configuration.MAX_DESTINATIONS

    @property
    def next_at(self) -> float:
        """When the next destination begins."""
        return max(self._thread_at, self._ends[0])

    @property
    def ends_at(self) -> float:
        return max(self._thread_at, *self._ends)

    def add(self, delivery: Delivery) -> None:
        """Add a destination that begins now. The thread does all of its own work at once, which is a little too early."""
        begin = self.next_at
        heapq.heapreplace(self._ends, begin + delivery.lasts_s)
        self._thread_at = begin + delivery.lasts_s - delivery.free_s


class LivePath:
    """`delivered`, `dead` (dead letters) and `refused` (by API Gateway) count events; `ages` has the age at the
    destination's request: `live` of all, `open` of those whose destination was neither down nor parked.
    """

    def __init__(
        self, env: simpy.Environment, fleet: Fleet, accounts: Accounts, configured: Configuration, steps: Steps,
        meters: Meters,
    ) -> None:  # fmt: skip
        self.env, self.fleet, self.accounts, self.meters, self.steps = env, fleet, accounts, meters, steps
        self.configured = configured
        self.source: EventSource = configured.sources["Records"]
        self.busy = BusyShare(self.source.concurrency)
        self.release_busy = BusyShare(configured.sources["WaitingRecords"].concurrency)
        self.drains = simpy.Resource(env, configured.sources["WaitingRecords"].concurrency)
        self.queue: deque[Entry] = deque()
        self.collecting: deque[Batch] = deque()
        self.pollers = float(min(FIRST_POLLERS, self.source.concurrency))
        self.running = self.draining = 0
        self.in_flight = self.returning = 0
        self.waiting: dict[int, Waiting] = defaultdict(Waiting)
        self.pauses = Pauses()
        # The claimed slots of destinations with a rate limit. A batch claims all of its slots at its begin, so the next batch
        # may find earlier ones.
        self._slots: dict[int, set[int]] = defaultdict(set)
        self.ages = {"live": Ages(), "open": Ages()}
        self.oldest_s = {"Records": 0.0, "WaitingRecords": 0.0}
        self.accepted = self.delivered = self.dead = self.refused = 0
        self.waited_most = 0
        # The time from which no event waited any more for the platform that had failed.
        self.recovered_at = 0.0
        # An account is read soon after an event that follows a longer time without any.
        self.wakes_after_s = 4 * configured.readings.least_s
        self.wake: Callable[[int], None] = lambda account: None
        self._tokens = configured.events_throttle.burst
        self._tenants: dict[int, set[int]] = defaultdict(set)
        self._warm_receivers = 0.0

    # ------------------------------------------------------------------------------------------------------- the webhook

    def receive(self, arrived: list[int]) -> None:
        """One tick's events: API Gateway's throttle, the receiver, and the queue."""
        now, tick_s = self.env.now, self.fleet.tick_s
        throttle = self.configured.events_throttle
        self._tokens = min(throttle.burst, self._tokens + throttle.rate * tick_s)
        taken = min(len(arrived), int(self._tokens))
        self._tokens -= taken
        self.refused += len(arrived) - taken
        self.accepted += taken
        self.meters.add("api_gateway_requests", now, len(arrived))
        self.meters.add("lambda_requests", now, taken)
        changed_at = self.accounts.changed_at
        for account in arrived[:taken]:
            self.queue.append((now, account, 0))
            if now - changed_at[account] > self.wakes_after_s:
                self.wake(account)
            changed_at[account] = now
        self.steps.receive(taken, now)
        self._scale_receivers(taken / tick_s)
        self.dispatch()

    @property
    def receivers(self) -> float:
        """The environments of receive_events that have been started and not ended yet."""
        return self._warm_receivers

    def _scale_receivers(self, per_second: float) -> None:
        # Events come independently, so how many are in progress varies as a Poisson number does.
        mean = per_second * self.steps.seconds("receive_events")
        needed = math.ceil(mean + 3 * math.sqrt(mean)) if mean else 0
        if needed > self._warm_receivers:
            self.meters.note("lambda_scaling", needed - self._warm_receivers, self.env.now)
            self._warm_receivers = needed
        # Lambda ends idle environments after some minutes.
        self._warm_receivers = max(needed, self._warm_receivers * (1 - self.fleet.tick_s / 600))
        reserved = self.configured.reserved["ReceiveEvents"]
        if reserved:
            self.meters.note("reserved_receive_events", 100 * needed / reserved, self.env.now)

    # ------------------------------------------------------------------------------------------------- the Records queue

    def dispatch(self) -> None:
        """Hand messages to pollers in turn, and invoke each batch that is full or whose window has ended."""
        now, size = self.env.now, self.source.batch
        while self.queue:
            if not self.collecting or (
                all(len(each.entries) for each in self.collecting) and self._free_pollers() >= 1
            ):
                if self._free_pollers() < 1:
                    break
                self.collecting.append(Batch(now))
            batch = self.collecting[0]
            if not batch.entries:
                batch.first_at = now
            for _ in range(min(RECEIVED_TOGETHER, size - len(batch.entries), len(self.queue))):
                batch.entries.append(self.queue.popleft())
                self.in_flight += 1
            if len(batch.entries) >= size or not self.source.window_s:
                self.collecting.popleft()
                self._invoke(batch)
            else:
                self.collecting.rotate(-1)
        for batch in [each for each in self.collecting if each.entries and now - each.first_at >= self.source.window_s]:
            self.collecting.remove(batch)
            self._invoke(batch)
        self.meters.note("sqs_in_flight", self.in_flight, now)
        if self.queue:
            self.oldest_s["Records"] = max(self.oldest_s["Records"], now - self.queue[0][0])

    def scale_pollers(self) -> None:
        """Lambda adds pollers while messages are left over, and takes them away when none are."""
        added = configuration.quotas()["event_source_growth"].value / 60 * self.fleet.tick_s
        if self.queue:
            self.pollers = min(self.source.concurrency, self.pollers + added)
        elif self.running < self.pollers / 2:
            self.pollers = max(min(FIRST_POLLERS, self.source.concurrency), self.pollers - self.fleet.tick_s / 10)

    def _free_pollers(self) -> int:
        return int(self.pollers) - self.running - len(self.collecting)

    def _invoke(self, batch: Batch) -> None:
        self.running += 1
        self.env.process(self._ingest(batch.entries))

    def _ingest(self, entries: list[Entry]) -> Process:
        """One invocation of ingest_records. Its destinations take turns."""
        begin = self.env.now
        self.oldest_s["Records"] = max(self.oldest_s["Records"], begin - entries[0][0])
        by_destination: dict[int, list[Entry]] = defaultdict(list)
        for entry in entries:
            by_destination[self.accounts.of[entry[1]].number].append(entry)
        sources = len({entry[1] for entry in entries})
        self.steps.begin_batch()
        turns = Turns(begin + self.steps.batch_s(sources, len(entries), len(by_destination)))
        returned: list[Entry] = []
        batch_time = BatchTime()
        for number, ones in by_destination.items():
            if turns.next_at - begin > INGEST_TIMEOUT_S - LEAST_LEFT_S:
                returned += ones
                continue
            turns.add(self._deliver(self.accounts.destinations[number], ones, turns.next_at, batch_time))
        lasts_s = turns.ends_at - begin
        shares = [len({entry[1] for entry in ones}) for ones in by_destination.values()]
        self.steps.account_batch("IngestRecords", begin, lasts_s, shares, len(entries))
        self.busy.add(begin, lasts_s)
        self.returning += len(returned)
        yield self.env.timeout(lasts_s)
        self.returning -= len(returned)
        self.running -= 1
        self.in_flight -= len(entries)
        self.queue.extendleft(reversed(returned))
        self.dispatch()

    # -------------------------------------------------------------------------------------------------- at a destination

    def is_down(self, destination: Destination, at: float) -> bool:
        outage = self.fleet.outage
        return bool(outage and destination.platform == outage.platform and outage.begin <= at < outage.end)

    def is_parked(self, destination: Destination, at: float) -> bool:
        return destination.number == self.fleet.parked_subscription and at < self.fleet.parked_until

    def _deliver(
        self, destination: Destination, entries: list[Entry], at: float, batch_time: BatchTime | None = None
    ) -> Delivery:
        """Send entries. An entry that cannot be sent waits, or becomes a dead letter.

        A drain has no `batch_time`: its time at one destination is not limited.
        """
        sources = {entry[1] for entry in entries}
        waiting = self.waiting.get(destination.number)
        is_closed = self.is_parked(destination, at) or self.pauses.close(destination, at)
        if batch_time and ((waiting and waiting.parked) or batch_time.is_used_up(destination)):
            is_closed = True
        if is_closed:
            return Delivery(self._park(destination, entries, at))
        if self.is_down(destination, at):
            return Delivery(self._meet_outage(destination, entries, at, batch_time))
        self._tenants[destination.number] |= sources
        self.pauses.succeed(destination, at)
        most = configuration.MAX_OBJECTS[destination.platform]
        lasts_s, sent, waited_s = 0.0, 0, 0.0
        each_s = self.steps.request_s(destination.platform)
        was_open = not (self.fleet.outage and destination.platform == self.fleet.outage.platform)
        was_open = was_open and destination.number != self.fleet.parked_subscription
        while sent < len(entries):
            piece = entries[sent : sent + most]
            wait_s = self._wait_for_rate(destination, at + lasts_s, waited_s, is_live=batch_time is not None)
            if wait_s is None:
                lasts_s += self._park(destination, entries[sent:], at + lasts_s)
                entries = entries[:sent]
                break
            waited_s += wait_s
            lasts_s += wait_s
            reaches = at + lasts_s + each_s
            for arrived, _, _ in piece:
                self.ages["live"].add(reaches - arrived)
                if was_open:
                    self.ages["open"].add(reaches - arrived)
            sent += len(piece)
            lasts_s += each_s
            if batch_time:
                batch_time.add(destination, each_s)
        requests = math.ceil(len(entries) / most)
        if not requests:
            return Delivery(lasts_s)
        self.steps.requests(destination, requests, len(sources), at, lasts_s, self._quota_units(destination, requests))
        self.delivered += len(entries)
        return Delivery(lasts_s, requests * self.steps.answer_s(destination.platform))

    def _wait_for_rate(self, destination: Destination, at: float, waited_s: float, *, is_live: bool) -> float | None:
        """Claim a slot of a rate limit that all workers share: how long to wait for it, or None if none is near enough.

        The product returns such a message to the queue for seconds, twice, before it waits in the table.
        """
        per_second = configuration.REQUESTS_PER_SECOND[destination.platform]
        if not per_second:
            return 0.0
        claimed, slot = self._slots[destination.number], int(at * per_second)
        if len(claimed) > MOST_SLOTS:
            now = int(self.env.now * per_second)
            self._slots[destination.number] = claimed = {each for each in claimed if each >= now}
        while slot in claimed:
            slot += 1
        wait_s = max(0.0, slot / per_second - at)
        if is_live and (waited_s >= configuration.MAX_RATE_WAIT_S or wait_s > configuration.AHEAD_S):
            return None
        claimed.add(slot)
        return wait_s

    def _park(self, destination: Destination, entries: list[Entry], at: float) -> float:
        self.waiting[destination.number].parked.extend(entries)
        return self.steps.park(destination, len({entry[1] for entry in entries}), len(entries), at)

    def _meet_outage(
        self, destination: Destination, entries: list[Entry], at: float, batch_time: BatchTime | None
    ) -> float:
        """Requests that get an error at once, or one request that gets no answer; the other entries are not sent then."""
        assert self.fleet.outage
        answer_s, most = self.fleet.outage.answer_s, configuration.MAX_OBJECTS[destination.platform]
        is_silent = answer_s >= configuration.SLOW_S
        requests = 1 if is_silent else math.ceil(len(entries) / most)
        failed = entries[: requests * most]
        lasts_s = requests * (answer_s + self.steps.request_calls_s)
        self.steps.requests(destination, requests, len({entry[1] for entry in failed}), at, lasts_s)
        self._fail(destination, failed, at + lasts_s)
        if is_silent:
            self.pauses.fail(destination, at, answer_s)
            if batch_time:
                batch_time.add(destination, answer_s)
            if rest := entries[len(failed) :]:
                lasts_s += self._park(destination, rest, at + lasts_s)
        else:
            self.pauses.succeed(destination, at)
        return lasts_s

    def _quota_units(self, destination: Destination, requests: int) -> float:
        """Write units of one of the quota's items: an item holds the counts of its tenants, and is written whole."""
        if destination.platform != "marketo":
            return 0.0
        tenants = min(TENANTS_AN_ITEM, len(self._tenants[destination.number]))
        return requests * math.ceil((tenants * TENANT_BYTES + 100) / 1_024) / QUOTA_ITEMS

    def _fail(self, destination: Destination, entries: list[Entry], at: float) -> None:
        waits = self.configured.retry_waits_s
        for arrived, account, tries in entries:
            if tries >= len(waits):
                self.dead += 1
                continue
            retry = (at + waits[tries], (arrived, account, tries + 1))
            heapq.heappush(self.waiting[destination.number].retries, retry)
        self.steps.wait(destination, len({entry[1] for entry in entries}), len(entries), at)

    # ---------------------------------------------------------------------------------------------- what waits in the table

    def sweep(self) -> Process:
        """Every minute: a drain for each destination with records that are due."""
        while True:
            yield self.env.timeout(SWEEP_S)
            now = self.env.now
            waits = failed = 0
            probing: dict[str, int] = defaultdict(int)
            for number, waiting in list(self.waiting.items()):
                if not waiting:
                    continue
                waits += len(waiting)
                failed += len(waiting.retries)
                oldest = waiting.parked[0][0] if waiting.parked else waiting.retries[0][1][0]
                self.oldest_s["WaitingRecords"] = max(self.oldest_s["WaitingRecords"], now - oldest)
                destination = self.accounts.destinations[number]
                if not waiting.is_drained and self._due(destination, waiting):
                    if self.pauses.is_probed(destination.platform, now):
                        probing[destination.platform] += 1
                        if probing[destination.platform] > configuration.PROBES_A_SWEEP:
                            continue
                    waiting.is_drained = True
                    self.env.process(self._drain(destination, waiting))
            self.waited_most = max(self.waited_most, waits)
            outage = self.fleet.outage
            if outage and now > outage.end and not failed and not self.recovered_at:
                self.recovered_at = now

    def _due(self, destination: Destination, waiting: Waiting) -> bool:
        now = self.env.now
        if self.pauses.close(destination, now):
            return False
        parked = bool(waiting.parked) and not self.is_parked(destination, now)
        return parked or bool(waiting.retries and waiting.retries[0][0] <= now)

    def _drain(self, destination: Destination, waiting: Waiting) -> Process:
        """Batches of a destination's waiting records until none are due, in turns with other destinations."""
        with self.drains.request() as turn:
            yield turn
            ends_at, size = self.env.now + configuration.DRAIN_RUN_S, configuration.DRAIN_FIRST
            begin = self.env.now
            self.draining += 1
            while self._due(destination, waiting) and self.env.now < ends_at:
                entries = self._take(destination, waiting, size)
                sources = len({entry[1] for entry in entries})
                lasts_s = self.steps.drain_s(sources, len(entries), DELETED_TOGETHER)
                at = self.env.now
                lasts_s += self._deliver(destination, entries, at + lasts_s).lasts_s
                self.steps.account_batch("ReleaseRecords", at, lasts_s, [sources], len(entries))
                yield self.env.timeout(lasts_s)
                size = min(configuration.DRAIN_LARGEST, size * configuration.DRAIN_GROWTH)
            self.draining -= 1
            self.release_busy.add(begin, self.env.now - begin)
        waiting.is_drained = False
        if self._due(destination, waiting):
            waiting.is_drained = True
            self.env.process(self._drain(destination, waiting))

    def _take(self, destination: Destination, waiting: Waiting, size: int) -> list[Entry]:
        now, most = self.env.now, size
        per_second = configuration.REQUESTS_PER_SECOND[destination.platform]
        if per_second:
            # As much as the destination takes in fifteen seconds.
            most = min(size, max(1, int(per_second * 15 * configuration.MAX_OBJECTS[destination.platform])))
        entries: list[Entry] = []
        if not self.is_parked(destination, now):
            while waiting.parked and len(entries) < most:
                entries.append(waiting.parked.popleft())
        while waiting.retries and waiting.retries[0][0] <= now and len(entries) < most:
            entries.append(heapq.heappop(waiting.retries)[1])
        return entries

    @property
    def undelivered(self) -> int:
        """Accepted events that are in the queue or in the table. A batch that has begun has decided about its events."""
        collected = sum(len(each.entries) for each in self.collecting)
        return len(self.queue) + collected + self.returning + sum(len(each) for each in self.waiting.values())
