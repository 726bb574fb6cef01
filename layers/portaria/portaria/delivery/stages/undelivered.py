"""Records that a batch did not deliver: they wait in the table, or become dead letters.

Both are collected while the batch runs, and written at its end, before its messages are deleted: the dead letters first, then
new waiting lists, their entries, and the counts of the lists (see `waiting_lists` for the order within them).
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from portaria.aws.table import Table, run_concurrently
from portaria.core import clock, record_messages
from portaria.core.entities import Target
from portaria.core.unexpected_errors import log_unexpected
from portaria.delivery import waiting_entries, waiting_lists
from portaria.delivery.waiting_entries import HeldRecords
from portaria.delivery.waiting_lists import Due, Place, WaitingList
from portaria.records import dead_letter_counts, dead_letters
from portaria.records.mapping import record_mapping
from portaria.records.mapping.record_mapping import OutgoingRecord, RejectedRecord, Source

logger = logging.getLogger(__name__)


class Undelivered:
    """Collects records and writes them at the end.

    `stored` has the entries that a drain's batch is made of, with the number of records of each: they are kept or replaced.
    `destinations` has the destination of each route, `lists` the waiting lists that are known to exist. After `write`,
    `waiting` has the entries that hold records, and `counts` the metrics.
    """

    def __init__(self, table: Table, *, bulk: bool, stored: Mapping[Place, int]) -> None:
        self.table = table
        self.bulk = bulk
        self.stored = stored
        self.counts: Counter[str] = Counter()
        self.destinations: dict[str, str] = {}
        self.lists = {waiting for waiting, _ in stored}
        self.waiting: set[Place] = set()
        self._rejected: dict[tuple[str, str, str, str], RejectedRecord] = {}
        self._held: dict[tuple[WaitingList, str, str, int], dict[int, Source]] = {}
        self._not_before: dict[WaitingList, int] = {}
        self._due: dict[str, Due] = {}

    def refuse(self, refused: RejectedRecord, message_id: str = "") -> None:
        """Turn a record into a dead letter; with an id, only for the sources in that message.

        The records of one message with the same route and reason share a letter.
        """
        for source in refused.sources:
            if message_id and source.message.id != message_id:
                continue
            name = (source.message.id, refused.route, refused.reason, refused.detail)
            known = self._rejected.get(name)
            sources = (*known.sources, source) if known else (source,)
            self._rejected[name] = RejectedRecord(sources, refused.route, refused.reason, refused.detail)

    def wait(
        self,
        target: Target,
        outgoing: Iterable[OutgoingRecord],
        until: float,
        *,
        host: str,
        message_id: str = "",
        is_share: bool = False,
        is_listed: bool = False,
        is_retry: bool = False,
    ) -> None:
        """Keep records in the table until a moment (epoch seconds); with an id, only that message's part of them.

        `host` is where the target's requests go. `is_share`: the source of their newest record waits for its share of a quota.
        `is_listed`: their waiting list exists already. `is_retry`: these records failed.
        """
        at = due_at = math.ceil(until)
        for one in outgoing:
            for source, route in one.origins:
                if message_id and source.message.id != message_id:
                    continue
                waiting = waiting_lists.list_of(target, source.message.connection, bulk=self.bulk, retry=is_retry)
                order = at * 1_000 if is_retry else waiting_entries.arrival_order(source.message)
                name = (waiting, source.message.id, route, order)
                self._held.setdefault(name, {})[id(source)] = source
                if is_listed:
                    self.lists.add(waiting)
                if is_share and source.message.connection == one.sources[-1].message.connection:
                    self._not_before[waiting] = at
                elif is_share:
                    # A source whose record was merged with another one's has not used its share.
                    due_at = int(clock.now().timestamp())
        known = self._due.get(target.destination)
        self._due[target.destination] = Due(min(due_at, known.at) if known else due_at, host)

    def write(self) -> set[str]:
        """Write everything; the ids of the messages of which something could not be written. Raises nothing."""
        return self._write_letters() | self._write_waiting()

    def _write_letters(self) -> set[str]:
        failed = set()
        counts: Counter[tuple[str, str]] = Counter()
        is_counted = self._count_letters()
        for one in self._rejected.values():
            message = one.sources[0].message
            if not is_counted:
                failed.add(message.id)
                continue
            try:
                dead_letters.put(self.table, _letter(one, self.destinations.get(one.route, "")))
            except Exception as error:  # noqa: BLE001 - the message of these records returns to the queue
                log_unexpected("dead_letter_not_written", error, route=one.route)
                failed.add(message.id)
                continue
            counts[one.route, one.reason] += len(one.sources)
        for (route, reason), count in counts.items():
            logger.warning("dead_letters_written", extra={"route": route, "reason": reason, "records": count})
        self.counts["DeadLetters"] += counts.total()
        return failed

    def _count_letters(self) -> bool:
        """Count the records that become dead letters, for the event. False if that failed: their messages return."""
        counts: Counter[tuple[str, str]] = Counter()
        for one in self._rejected.values():
            counts[one.route, one.reason] += len(one.sources)
        try:
            dead_letter_counts.add(self.table, counts)
        except Exception as error:  # noqa: BLE001 - the messages of these records return to the queue
            log_unexpected("dead_letters_not_counted", error)
            return False
        return True

    def _write_waiting(self) -> set[str]:
        if not self._held:
            return set()
        held = [
            HeldRecords(
                waiting, next(iter(sources.values())).message, route, [each.record for each in sources.values()], order
            )
            for (waiting, _, route, order), sources in self._held.items()
        ]
        messages = {each.message.id for each in held}
        try:
            if new := {each.waiting for each in held} - self.lists:
                waiting_lists.announce(self.table, new, self._due)
            added = run_concurrently(self._keep, held)
            counts: Counter[WaitingList] = Counter({each.waiting: 0 for each in held})
            for each, count in zip(held, added, strict=True):
                counts[each.waiting] += count or 0
            waiting_lists.confirm(self.table, counts, self._not_before, self._due)
        except Exception as error:  # noqa: BLE001 - the message of these records returns to the queue
            log_unexpected("records_not_kept_waiting", error)
            return messages
        self.waiting = {each.place for each, count in zip(held, added, strict=True) if count is not None}
        by_list: dict[WaitingList, int] = defaultdict(int)
        for each in held:
            by_list[each.waiting] += len(each.records)
        for waiting, count in by_list.items():
            facts = {"destination": waiting.destination, "object": waiting.object, "kind": waiting.kind}
            logger.info("records_wait", extra={**facts, "source": waiting.source, "records": count})
        self.counts["RecordsHeld"] += sum(by_list.values())
        return {each.message.id for each, count in zip(held, added, strict=True) if count is None}

    def _keep(self, held: HeldRecords) -> int | None:
        """Store records; how many did not wait before. None if that failed."""
        if self.stored.get(held.place) == len(held.records):
            return 0
        try:
            return len(held.records) if waiting_entries.put(self.table, held) else 0
        except Exception as error:  # noqa: BLE001 - the others are kept
            log_unexpected("records_not_kept_waiting", error, message_id=held.message.id)
            return None


def _letter(one: RejectedRecord, destination: str) -> dead_letters.Letter:
    """Its id is the same if a redelivery rejects the same records again. `destination` is the route's.

    The id depends on the whole records, because several records of a data ingestion request can have the same key.
    """
    message = one.sources[0].message
    records = [source.record for source in one.sources]
    texts = sorted(record_messages.encode({"record": record}) for record in records)
    return dead_letters.Letter(
        id=hashlib.sha256("\n".join([message.id, one.route, one.reason, *texts]).encode()).hexdigest()[:32],
        connection=message.connection,
        route=one.route,
        object=message.object,
        origin=message.origin,
        reason=one.reason,
        detail=one.detail,
        records=records,
        destination=message.target.destination if message.target else destination,
        target=record_mapping.target_fields(message.target) if message.target else None,
        read_at=message.read_at,
        request=message.request,
        trace=message.trace.fields,
    )
