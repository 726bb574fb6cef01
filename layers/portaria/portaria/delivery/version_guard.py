"""Marks: which version of a record has been on its way last, so that an older one never overwrites it.

Events come out of order, a backfill's page may be older than an event that overtook it, and queues promise no order. A mark is
written before its record is sent: if the process dies between the two, the message comes again, finds its own mark, and goes
on, since a version passes its own mark. The version that set the mark is on its way or among the dead letters, so whatever is
left out as older is not lost. Between mark and request time may pass (a destination that is slow or paced, a request that is
halved); so whoever sends late looks again, and only what happens while a request is under way stays unseen.

An incomplete record (see `record_mapping.Source`) is marked just before its second, so that the complete record of the same
second, which is read later, passes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from enum import Enum

from portaria.aws.table import Conflict, Table, at_once
from portaria.core import clock, record_messages
from portaria.records.record_mapping import Source

SK = "MARK"
# Longer than a dead letter is kept, which can be sent again, and than records have to wait for a destination in practice.
KEPT_FOR = timedelta(days=100)


class VersionScope(Enum):
    """Whose versions a route asks to be remembered: see `Route.keep_newest`."""

    EVENTS = "events"
    ALL = "all"
    NONE = "none"


def key(source: Source, route: str = "") -> tuple[str, str]:
    """Of what goes every way, or of what goes only one: a backfill of one route says nothing of the others."""
    message = source.message
    return f"MARK#{message.connection}#{message.object}#{source.key}", f"{SK}#{route}" if route else SK


def superseded(table: Table, sources: Sequence[Source], keeping: dict[str, VersionScope]) -> set[int]:
    """Which of these (by position) are older than what has been on its way, and mark the others.

    `keeping` says for each message's id how its records are kept. A record that was read again since it may have been missed
    (reconciliation) is left out too where an event has brought the same version. Raises what AWS raises.
    """
    by_message = {source.message.id: source for source in sources}.values()
    marked = {source.message.id for source in by_message if _marks(source, keeping)}
    # What goes one way has a mark of its own, and must not be older than what goes every way either.
    heeded = {source.message.id for source in by_message if _heeds(source, keeping)}
    heeded |= {source.message.id for source in by_message if source.message.route and source.message.id in marked}
    older: set[int] = set()
    if marking := [number for number, source in enumerate(sources) if source.message.id in marked]:
        passed = at_once(lambda number: _mark(table, sources[number]), marking)
        older |= {number for number, passes in zip(marking, passed, strict=True) if not passes}
    if heeded:
        older |= _older(
            table, ((key(source), source, n) for n, source in enumerate(sources) if source.message.id in heeded)
        )
    return older


def superseded_on(table: Table, sources: Sequence[Source], route: str) -> set[int]:
    """Which of these (by position), which go every way, are older than what went this one way alone. Raises what AWS raises."""
    return _older(table, ((key(source, route), source, number) for number, source in enumerate(sources)))


def overtaken(table: Table, sources: Sequence[tuple[Source, str]], keeping: dict[str, VersionScope]) -> set[int]:
    """Which of these (by position), each with the route that it goes, are older than what has been on its way since.

    `keeping` says for each route how its records are kept. Looks only. Raises what AWS raises.
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
    """Whether the record may go on: nothing newer has been on its way."""
    version = _version(source)
    # Two changes of one second cannot be told apart by what is read later, and nearly always it is the same one. Its own
    # mark it passes, or a redelivery would leave it out. What goes one way was dropped nowhere else: it is sent again.
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
    """Sorts as text: seconds of the change, then milliseconds of the reading.

    That of an incomplete record sorts behind all of the second before and in front of all others of its own.
    """
    updated_at, read_at = source.version
    seconds, read_ms = max(0, updated_at), f"{max(0, read_at):015d}"
    if source.is_incomplete:
        return f"{max(0, seconds - 1):0{SECONDS}d}.~{read_ms}"
    return f"{seconds:0{SECONDS}d}.{read_ms}"


def _older(table: Table, places: Iterable[tuple[tuple[str, str], Source, int]]) -> set[int]:
    """The numbers of those whose place has the mark of a newer version."""
    looked_at = list(places)
    known = table.get_many({place for place, _, _ in looked_at})
    if not known:
        return set()
    newest = {place: item["newest"] for place, item in known.items() if "newest" in item}
    return {number for place, source, number in looked_at if newest.get(place, "") > _version(source)}
