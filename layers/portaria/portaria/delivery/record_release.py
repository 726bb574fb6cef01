"""Send waiting records, with one worker for each destination, which continues by messages to its own queue.

    schedule → {"sweep": ""} → a message for each destination that is due → {"drain": destination} → … until nothing waits

A drain sends the oldest entries of each list in turn, in growing batches that begin with a small one: if the destination is
still closed, its first request shows it. Entries are deleted after their records were dealt with. If a worker dies, its lease
ends by itself, and its entries are sent again. Records that arrive during a drain join their list, or are sent directly if
there is none.
"""

from __future__ import annotations

import json
import logging
import random
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace

from portaria import platforms
from portaria.aws import queues
from portaria.aws.table import Table, run_concurrently
from portaria.connections import connection_store
from portaria.core import clock
from portaria.core.errors import Rejected
from portaria.core.settings import ReleaseRecordsSettings
from portaria.core.unexpected_errors import log_unexpected
from portaria.delivery import backlogs, destination_states, host_pauses, pipeline, waiting_entries, waiting_lists
from portaria.delivery.backlogs import Backlog
from portaria.delivery.stages.batch_state import QueuedMessage
from portaria.delivery.waiting_entries import Entry
from portaria.delivery.waiting_lists import ListHead, Place, WaitingList
from portaria.records import dead_letter_counts, dead_letters
from portaria.records.dead_letters import GAVE_UP

logger = logging.getLogger(__name__)

# How long the drain of one message begins new batches; then another message continues it, so that destinations take turns.
RUN_S = 45.0
# A batch begins with this much time left: a slow request, its retry with another token, and the writes after it.
LEAST_TIME_S = 50.0
# Entries in the first batch, the factor by which the next one may be larger, and about the most records in a batch.
FIRST_BATCH, GROWTH, LARGEST_BATCH = 40, 5, 2_000
# How many lists one batch takes entries from.
MAX_LISTS = 200
# The sending time of one batch at a destination's rate.
SECONDS_A_BATCH = 15.0
# How many destinations a sweep drains of a host whose pause has passed. One of them tries the host; others may have nothing to
# send.
PROBES_A_SWEEP = 3
# The seconds between a drain that could send nothing and the next one.
AGAIN_S = 30
# How often an entry may fail unexpectedly before it becomes a dead letter, and the wait between two tries.
MAX_TRIES, TRY_AGAIN_S = 60, 300
# After this many claims without a release, each entry is tried alone, to find the one that kills workers.
MAX_UNFINISHED = 4
# How often the end of a drain is tried again because records have arrived.
RELEASES = 5


@dataclass(frozen=True)
class ReleaseOutcome:
    """The result of one message: `swept`, `drained` (nothing waits), `continued`, `waiting` (for a later time) or `ignored`.

    `counts` and `quota_left` are as in `BatchOutcome`. A sweep also has about how many `records` wait, how long the oldest has
    waited, and how long a destination that records wait for has not answered (None if all answer).
    """

    state: str
    queued: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    quota_left: dict[tuple[str, str], int] = field(default_factory=dict)
    records: int | None = None
    oldest_s: float | None = None
    no_answer_s: float | None = None


def handle_message(body: str, settings: ReleaseRecordsSettings, time_left_s: Callable[[], float]) -> ReleaseOutcome:
    """Handle one message of the WaitingRecords queue.

    Raises `Retryable`, and what AWS raises; then the message should be delivered again.
    """
    try:
        message = json.loads(body)
        if "sweep" in message:
            return _sweep(settings)
        destination = str(message["drain"])
    except (ValueError, KeyError, TypeError):
        logger.error("waiting_records_message_unreadable")
        return ReleaseOutcome("ignored")
    table = Table(settings.table_name)
    backlog = backlogs.claim(table, destination)
    return _Drain(backlog, table, settings, time_left_s).run() if backlog else ReleaseOutcome("ignored")


def _sweep(settings: ReleaseRecordsSettings) -> ReleaseOutcome:
    """Queue a drain for each destination that is due. A second drain finds the lease taken, or nothing to do."""
    now = int(clock.now().timestamp())
    table = Table(settings.table_name)
    found = backlogs.list_all(table)
    due = _without_paused_hosts(table, [backlog for backlog in found if backlog.next_at <= now], now)
    _continue(settings, due)
    return ReleaseOutcome(
        "swept",
        queued=len(due),
        records=sum(backlog.records for backlog in found),
        oldest_s=max((now - backlog.since for backlog in found), default=0),
        no_answer_s=_no_answer_s(table, found),
    )


def _no_answer_s(table: Table, found: list[Backlog]) -> float | None:
    """How long a destination with waiting records, or its host, has not answered. Raises nothing: drains are queued already."""
    try:
        since = destination_states.no_answer_since(table, found) if found else None
    except Exception as error:  # noqa: BLE001 - the next sweep reports it
        log_unexpected("silent_destinations_not_read", error)
        return None
    return (clock.now() - clock.from_iso(since)).total_seconds() if since else None


def _without_paused_hosts(table: Table, due: list[Backlog], now: int) -> list[str]:
    """The destinations that can be drained: none of a paused host, and a few of one whose pause has passed."""
    by_host: dict[str, list[str]] = defaultdict(list)
    for backlog in due:
        by_host[backlog.host].append(backlog.destination)
    destinations: list[str] = []
    for host, names in by_host.items():
        pause = host_pauses.read(table, host) if host else None
        if pause is None:
            destinations += names
        elif pause.until <= now:
            destinations += random.sample(names, min(PROBES_A_SWEEP, len(names)))
    return destinations


def _continue(settings: ReleaseRecordsSettings, destinations: Iterable[str]) -> None:
    bodies = [queues.encode({"drain": destination}) for destination in destinations]
    queues.send(settings.waiting_records_queue_url, bodies)


@dataclass
class _Reader:
    """A list that is being drained, and how far it was read.

    `waits_since` is when the first entry that stays began to wait, `read_until` when the last entry that was read did.
    """

    head: ListHead
    cursor: str | None = None
    is_read: bool = False
    waits_since: int | None = None
    read_until: int | None = None


class _Drain:
    def __init__(
        self, backlog: Backlog, table: Table, settings: ReleaseRecordsSettings, time_left_s: Callable[[], float]
    ) -> None:
        self.backlog = backlog
        self.table = table
        self.settings = settings
        self.time_left_s = time_left_s
        self.ends_at = clock.now().timestamp() + RUN_S
        self.counts: dict[str, int] = {}
        self.quota_left: dict[tuple[str, str], int] = {}
        # The wait that the destination asked for in the last batch.
        self.pause_s = 0.0
        # Whether any entry has left its list.
        self.is_progress = False
        # Lists with entries that failed unexpectedly.
        self.failing: set[WaitingList] = set()
        # Entries in the next batch, and at most records of each object.
        self.size = FIRST_BATCH
        self.most: dict[str, int] = {}
        self.is_cautious = backlog.unfinished > MAX_UNFINISHED

    def run(self) -> ReleaseOutcome:
        is_done = False
        try:
            is_done = self._send_all()
        finally:
            ended = self._release(is_done=is_done)
        if ended == "continued":
            _continue(self.settings, [self.backlog.destination])
        return ReleaseOutcome(ended, counts=self.counts, quota_left=self.quota_left)

    def _send_all(self) -> bool:
        """Whether every list was read to its end, or closed."""
        for is_bulk in (False, True):
            heads = waiting_lists.heads(self.table, self.backlog.destination)
            readers = deque(_Reader(head) for head in heads if head.waiting.is_bulk is is_bulk)
            while readers:
                if not self._has_time():
                    for reader in readers:
                        self._note_since(reader)
                    return False
                self._send_some(readers, is_bulk=is_bulk)
        return True

    def _has_time(self) -> bool:
        return clock.now().timestamp() < self.ends_at and self.time_left_s() > LEAST_TIME_S

    def _send_some(self, readers: deque[_Reader], *, is_bulk: bool) -> None:
        """Send one batch of the lists whose turn it is. Lists with more entries go to the end."""
        turn = self._next(readers)
        if not turn:
            return
        share = max(1, self.size // len(turn))
        entries = [
            entry for found in run_concurrently(lambda reader: self._read(reader, share), turn) for entry in found
        ]
        if self.is_cautious and entries and not self._may_be_tried(entries[0]):
            entries = []
        stays = self._deal_with(entries, is_bulk=is_bulk) if entries else set()
        for reader in turn:
            stayed = [entry for entry in entries if entry.place in stays and entry.waiting == reader.head.waiting]
            if stayed and self.pause_s and reader.head.waiting not in self.failing:
                readers.append(_Reader(reader.head))
                continue
            if stayed and reader.waits_since is None:
                reader.waits_since = stayed[0].since
            if stayed and reader.head.waiting not in self.failing:
                # The destination is closed, or the source has used its share of the quota.
                self._note_since(reader)
            elif not reader.is_read:
                readers.append(reader)
            else:
                self._finish(reader)
        if stays and self.pause_s:
            clock.sleep(self.pause_s)
        elif entries and not stays:
            records = sum(entry.records for entry in entries)
            most = min([LARGEST_BATCH, *(self._most(reader.head.waiting) for reader in turn)])
            self.size = max(1, min(self.size * GROWTH, most * len(entries) // records))

    def _next(self, readers: deque[_Reader]) -> list[_Reader]:
        """The lists whose turn it is, without those that must wait."""
        now = clock.now().timestamp()
        status = backlogs.status(self.table, self.backlog.destination)
        host_closed_until = host_pauses.closed_until(self.table, self.backlog.host)
        turn: list[_Reader] = []
        most = 1 if self.is_cautious else min(MAX_LISTS, self.size)
        while readers and len(turn) < most:
            reader = readers.popleft()
            head = reader.head
            if max(status.closed_until(head.waiting.object), host_closed_until, head.not_before) <= now:
                turn.append(reader)
        self.size = 1 if self.is_cautious else min([self.size, *(self._most(reader.head.waiting) for reader in turn)])
        return turn

    def _most(self, waiting: WaitingList) -> int:
        """How many records of one batch an object accepts in `SECONDS_A_BATCH`."""
        if waiting.object not in self.most:
            self.most[waiting.object] = LARGEST_BATCH
            with suppress(Rejected):
                connection = connection_store.get(self.table, waiting.destination)
                platform = platforms.load(connection.platform)
                destination = platform.require(platform.destination_object(waiting.object.partition("/")[0]))
                if destination.REQUESTS_PER_SECOND:
                    a_batch = destination.REQUESTS_PER_SECOND * SECONDS_A_BATCH
                    self.most[waiting.object] = max(1, int(destination.MAX_OBJECTS * a_batch))
        return self.most[waiting.object]

    def _read(self, reader: _Reader, share: int) -> list[Entry]:
        until_ms = int(clock.now().timestamp() * 1_000) if reader.head.waiting.is_retry else None
        found, reader.cursor = waiting_entries.read(
            self.table, reader.head.waiting, limit=share, cursor=reader.cursor, until_ms=until_ms
        )
        reader.is_read = not reader.cursor
        if found:
            reader.read_until = found[-1].since
        return found

    def _deal_with(self, entries: list[Entry], *, is_bulk: bool) -> set[Place]:
        """Send entries, then delete those whose records were dealt with or have other entries. Returns the places of entries of
        which some records still wait.

        After a death before the deletion, the records are sent again.
        """
        outcome = pipeline.ingest_waiting(
            [QueuedMessage(entry.message_id, entry.body) for entry in entries],
            self.settings,
            self.time_left_s,
            bulk=is_bulk,
            stored={entry.place: entry.records for entry in entries},
        )
        for name, count in outcome.counts.items():
            self.counts[name] = self.counts.get(name, 0) + count
        self.quota_left |= outcome.quota_left
        self.pause_s = outcome.pause_s
        failed = {entry.place for entry in entries if entry.message_id in outcome.waiting}
        held = {waiting_entries.group(place) for place in outcome.held}
        stays = failed | {entry.place for entry in entries if waiting_entries.group(entry.place) in held}
        for entry in entries:
            if entry.place in failed:
                self._count_failure(entry)
        kept = failed | {entry.place for entry in entries if entry.place in outcome.held}
        waiting_entries.remove(self.table, [entry for entry in entries if entry.place not in kept])
        self.is_progress = self.is_progress or len(stays) < len({entry.place for entry in entries})
        return stays

    def _count_failure(self, entry: Entry) -> None:
        """Count an unexpected failure, as SQS counts receives; after `MAX_TRIES` the entry becomes a dead letter."""
        self.failing.add(entry.waiting)
        if entry.tries + 1 < MAX_TRIES:
            waiting_entries.count_try(self.table, entry)
        else:
            self._give_up(entry)

    def _may_be_tried(self, entry: Entry) -> bool:
        """False for the entry that the last worker tried alone and died of: it becomes a dead letter."""
        name = f"{entry.waiting.pk}#{entry.prefix}"
        if name == self.backlog.trying:
            self._give_up(entry)
            return False
        backlogs.note_trial(self.table, self.backlog, name)
        return True

    def _give_up(self, entry: Entry) -> None:
        logger.error("waiting_entry_given_up", extra={"message_id": entry.message_id, "reason": GAVE_UP})
        letter = dead_letters.of_message(entry.message_id, entry.body)
        if not letter.raw:
            detail = (
                "the records failed each time that they were sent after their wait; the log of release_records says why"
            )
            letter = replace(letter, destination=entry.waiting.destination, detail=detail)
        dead_letter_counts.add(self.table, {(letter.route, letter.reason): max(1, len(letter.records))})
        dead_letters.put(self.table, letter)
        waiting_entries.remove(self.table, [entry])

    def _note_since(self, reader: _Reader) -> None:
        """Write down since when the first entry of a list has waited, if this drain knows it."""
        since = reader.waits_since or reader.read_until
        if since is not None and since != reader.head.since:
            waiting_lists.list_since(self.table, reader.head.waiting, since)

    def _finish(self, reader: _Reader) -> None:
        """Close, and later remove, a list that was read to its end, unless entries stay or have arrived."""
        head = reader.head
        if reader.waits_since is not None:
            self._note_since(reader)
        elif head.waiting.is_retry and self._next_retry_at(head.waiting):
            return
        elif not head.closed_at:
            waiting_lists.close_list(self.table, head)
        elif clock.now().timestamp() > head.removable_at:
            waiting_lists.remove_list(self.table, head)

    def _next_retry_at(self, waiting: WaitingList) -> int | None:
        """When the first entry of a retry list is due (epoch seconds), or None if it is empty."""
        found, _ = waiting_entries.read(self.table, waiting, limit=1)
        return found[0].order // 1_000 if found else None

    def _release(self, *, is_done: bool) -> str:
        """End the lease and set when the destination is tried again, or remove the backlog if nothing waits.

        After a death before this, the lease ends after `LEASE_S`, and the next sweep finds the backlog due.
        """
        destination, now = self.backlog.destination, int(clock.now().timestamp())
        for _ in range(RELEASES if is_done else 0):
            status = backlogs.status(self.table, destination)
            if not status.backlog or status.backlog.fence != self.backlog.fence:
                return "ignored"
            arrivals = status.backlog.arrivals
            heads = waiting_lists.heads(self.table, destination)
            if not heads:
                if backlogs.remove(self.table, self.backlog, arrivals):
                    return "drained"
                continue
            next_at = min(self._next_at(head, status, now) for head in heads)
            since = min((head.since for head in heads if not head.closed_at), default=now)
            if backlogs.release(self.table, self.backlog, arrivals=arrivals, next_at=next_at, since=since):
                return "waiting" if next_at > now else "continued"
        try:
            backlogs.release(self.table, self.backlog, arrivals=None, next_at=now, since=self.backlog.since)
        except Exception as error:  # noqa: BLE001 - the lease ends by itself
            log_unexpected("drain_not_released", error, destination=destination)
        return "continued"

    def _next_at(self, head: ListHead, status: backlogs.Status, now: int) -> int:
        waiting = head.waiting
        next_at = max(now if self.is_progress else now + AGAIN_S, head.not_before, status.closed_until(waiting.object))
        next_at = max(next_at, host_pauses.closed_until(self.table, self.backlog.host))
        if head.closed_at:
            next_at = max(next_at, head.removable_at + 1)
        if waiting.is_retry:
            next_at = max(next_at, self._next_retry_at(waiting) or now)
        if waiting in self.failing:
            next_at = max(next_at, now + TRY_AGAIN_S)
        return next_at
