"""Marks: the newest version of each record that was sent, so that an older version never overwrites it.

Events arrive out of order, a backfill's page may be older than an event that overtook it, and queues guarantee no order. A mark
is written before its record is sent. If the process dies between the two, the redelivered message finds its own mark and goes
on, because a version is never superseded by its own mark. The version that wrote the mark has been sent or is a dead letter, so
no record that is left out as older is lost. Time may pass between mark and request (a slow or rate-limited destination, a
request that is halved). Marks are therefore read again before a late request; only a change during a request stays unseen.

An incomplete record (see `record_mapping.Source`) is marked just before its second, so that the complete record of the same
second, which is read later, is not superseded.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from enum import Enum

from portaria.aws.table import Conflict, Table, run_concurrently
from portaria.core import clock, record_messages
from portaria.records.mapping.record_mapping import Source

SK = "MARK"
# Longer than a dead letter, which can be redriven, is kept, and longer than records wait for a destination in practice.
KEPT_FOR = timedelta(days=100)


class VersionScope(Enum):
    """Which origins' versions a route marks: see `Route.keep_newest`."""

    EVENTS = "events"
    ALL = "all"
    NONE = "none"


def key(source: Source, route: str = "") -> tuple[str, str]:
    """The key of a record's mark: for all routes, or for one, because a backfill of one route says nothing about the others."""
    message = source.message
    return f"MARK#{message.connection}#{message.object}#{source.key}", f"{SK}#{route}" if route else SK


def superseded(table: Table, sources: Sequence[Source], keeping: dict[str, VersionScope]) -> set[int]:
    """Mark records; those (by position) that are older than what was sent before are not marked but returned.

    `keeping` has the scope of each message, by its id. A record of a reconciliation, which is read because its event may have
    been missed, is also returned if an event has brought the same version. Raises what AWS raises.
    """
    by_message = {source.message.id: source for source in sources}.values()
    marked = {source.message.id for source in by_message if _marks(source, keeping)}
    # Records of one route have a mark of their own, and must not be older than those of all routes either.
    heeded = {source.message.id for source in by_message if _heeds(source, keeping)}
    heeded |= {source.message.id for source in by_message if source.message.route and source.message.id in marked}
    older: set[int] = set()
    if marked:
        marking = [number for number, source in enumerate(sources) if source.message.id in marked]
        passed = run_concurrently(lambda number: _mark(table, sources[number]), marking)
        older |= {number for number, passes in zip(marking, passed, strict=True) if not passes}
    if heeded:
        older |= _older(
            table, [(key(source), source, n) for n, source in enumerate(sources) if source.message.id in heeded]
        )
    return older


def superseded_on(table: Table, sources: Sequence[Source], route: str) -> set[int]:
    """Which records (by position) of all routes are older than what was sent by this route alone. Raises what AWS raises."""
    return _older(table, [(key(source, route), source, number) for number, source in enumerate(sources)])


def overtaken(table: Table, sources: Sequence[tuple[Source, str]], keeping: dict[str, VersionScope]) -> set[int]:
    """Which records (by position), each with its route, are older than what was sent since they were marked.

    `keeping` has the scope of each route. Writes nothing. Raises what AWS raises.
    """
    numbered = [(source, route, number) for number, (source, route) in enumerate(sources)]
    places = [
        (key(source), source, number) for source, route, number in numbered if keeping[route] is not VersionScope.NONE
    ]
    places += [
        (key(source, route), source, number) for source, route, number in numbered if keeping[route] is VersionScope.ALL
    ]
    return _older(table, places)


def _marks(source: Source, keeping: dict[str, VersionScope]) -> bool:
    kept = keeping[source.message.id]
    is_live = source.message.origin in (record_messages.EVENT, record_messages.RECONCILIATION)
    return kept is VersionScope.ALL or (kept is VersionScope.EVENTS and is_live)


def _heeds(source: Source, keeping: dict[str, VersionScope]) -> bool:
    return keeping[source.message.id] is VersionScope.EVENTS and not _marks(source, keeping)


def _mark(table: Table, source: Source) -> bool:
    """Write a record's mark; False if a newer version was sent. Raises what AWS raises."""
    version = _version(source)
    # A later reading cannot tell apart two changes of one second, which nearly always are the same change. A record passes its
    # own mark, or a redelivery would leave it out. A reconciliation of one route is sent again: only that route missed it.
    again = source.message.origin == record_messages.RECONCILIATION and not source.message.route
    passing, bound = (
        ("newest < :bound OR newest = :newest", version[:SECONDS]) if again else ("newest <= :bound", version)
    )
    try:
        table.update(
            *key(source, source.message.route),
            "SET newest = :newest, expires_at = :expires_at",
            condition=f"attribute_not_exists(newest) OR {passing}",
            values={
                ":newest": version,
                ":bound": bound,
                ":expires_at": int((clock.now() + KEPT_FOR).timestamp()),
            },
        )
    except Conflict:
        return False
    return True


SECONDS = 11


def _version(source: Source) -> str:
    """A text that sorts by version: seconds of the change, then milliseconds of the reading.

    An incomplete record sorts after all versions of the second before, and before all others of its own second.
    """
    updated_at, read_at = source.version
    seconds, read_ms = max(0, updated_at), f"{max(0, read_at):015d}"
    if source.is_incomplete:
        return f"{max(0, seconds - 1):0{SECONDS}d}.~{read_ms}"
    return f"{seconds:0{SECONDS}d}.{read_ms}"


def _older(table: Table, places: Sequence[tuple[tuple[str, str], Source, int]]) -> set[int]:
    """The numbers of the records whose place has the mark of a newer version."""
    known = table.get_many({place for place, _, _ in places})
    if not known:
        return set()
    newest = {place: item["newest"] for place, item in known.items() if "newest" in item}
    return {number for place, source, number in places if newest.get(place, "") > _version(source)}
