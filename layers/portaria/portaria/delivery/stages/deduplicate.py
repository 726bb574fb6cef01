"""Stage 2, deduplicate: leave out each record of which a newer version has been sent, in this batch or in any before.

A mark is written before its record is sent (see `version_guard`). After a death between the two, the redelivered message finds
its own mark and passes it. After a death before the mark, nothing of the record has happened yet. Records that are left out
need no write: their newer version has its own message or its own dead letter.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import chain

from portaria.aws.table import Table
from portaria.core import clock
from portaria.core.unexpected_errors import log_unexpected
from portaria.delivery import version_guard
from portaria.delivery.stages.batch_state import BatchOutcome, MappedRecords, ResolvedMessage, ResolvedRoute
from portaria.delivery.version_guard import VersionScope
from portaria.records.mapping import record_mapping
from portaria.records.mapping.record_mapping import OutgoingRecord, Source

# Marks are read again before a request that is sent later than this after they were written, because a newer version may
# have been sent in the meantime. Another batch needs about as long from its marks to its request.
MARKS_HOLD_S = 0.1


class Deduplicator:
    """Compares versions twice: when marks are written (`newest`), and before a late request (`not_overtaken`)."""

    def __init__(self, table: Table, outcome: BatchOutcome) -> None:
        self._table = table
        self._outcome = outcome
        self._marked_at = clock.now()
        # A record in the destination's own shape has no route and no mark.
        self._scopes: dict[str, VersionScope] = {"": VersionScope.NONE}

    def newest(self, messages: list[ResolvedMessage]) -> Iterator[tuple[ResolvedRoute, MappedRecords, list[Source]]]:
        """The newest versions of each message's records, by route, with what they are mapped to.

        Messages of the data ingestion endpoint come first, unchanged: they have no versions. If the marks of a group cannot be
        written, its messages return to the queue. Raises nothing.
        """
        together: dict[tuple[str, str], list[ResolvedMessage]] = defaultdict(list)
        for each in messages:
            if each.message.target:
                yield *each.routes[0], each.sources
            else:
                together[each.message.object, each.message.route].append(each)
                self._scopes |= {route.name: route.scope for route, _ in each.routes if not route.refused}
        self._marked_at = clock.now()
        for group in together.values():
            yield from self._newest_of(group)

    def _newest_of(self, group: list[ResolvedMessage]) -> Iterator[tuple[ResolvedRoute, MappedRecords, list[Source]]]:
        """Of messages with the same object and the same route, or with all routes of their sources."""
        newest, older = record_mapping.newest(chain.from_iterable(each.sources for each in group))
        self._outcome.counts["RecordsCoalesced"] += older
        scopes = {each.message.id: _strictest(each.routes) for each in group}
        try:
            superseded = version_guard.superseded(self._table, newest, scopes)
            shared = {route for each in group for route, _ in each.routes if not each.message.route}
            by_route = {
                route.name: version_guard.superseded_on(self._table, newest, route.name)
                for route in shared
                if route.scope is VersionScope.ALL
            }
        except Exception as error:  # noqa: BLE001 - these messages return to the queue and the others go on
            log_unexpected("marks_not_written", error)
            for each in group:
                self._outcome.hold(each.message.id)
            return
        self._outcome.counts["RecordsSuperseded"] += len(superseded)
        # Not by their ids: parts of one message wait apart, and a drain can send several of them together.
        by_message: dict[int, list[int]] = defaultdict(list)
        for number, source in enumerate(newest):
            by_message[id(source.message)].append(number)
        older_on = {route: superseded | numbers for route, numbers in by_route.items()}
        for each in group:
            numbers = by_message[id(each.message)]
            for route, mapped in each.routes:
                left_out = set() if route.scope is VersionScope.NONE else older_on.get(route.name, superseded)
                yield route, mapped, [newest[number] for number in numbers if number not in left_out]

    def not_overtaken(self, piece: list[OutgoingRecord]) -> list[OutgoingRecord]:
        """The records of a request without those of which a newer version was sent since the marks were written.

        Raises what AWS raises; then the request must not be sent.
        """
        if (clock.now() - self._marked_at).total_seconds() < MARKS_HOLD_S:
            return piece
        origins = [origin for one in piece for origin in one.origins]
        older = {origins[number] for number in version_guard.overtaken(self._table, origins, self._scopes)}
        left = [one for one in piece if not older.issuperset(one.origins)]
        self._outcome.counts["RecordsSuperseded"] += len(piece) - len(left)
        return left


def _strictest(routes: list[tuple[ResolvedRoute, MappedRecords]]) -> VersionScope:
    """How a message's records are marked if its routes differ."""
    found = {route.scope for route, _ in routes}
    return next(scope for scope in (VersionScope.ALL, VersionScope.EVENTS, VersionScope.NONE) if scope in found)
