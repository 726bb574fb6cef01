"""Entries of waiting lists: the records of one message that wait for the same route.

    pk WAITING#{destination}#{object}#{kind}#{source}   sk {order}#{message id}#{route}#{digest}#{part}

An entry holds its records as a Records message of their own, compressed, in as many items as it needs. The same records stored
again (after a redelivery) have this entry already. Other records of the same message never do: the digest in the key is of the
records. If some of an entry's records are dealt with, the others become an entry of their own. An entry is removed only after
its records were dealt with or have another entry; if the worker dies before that, they are sent again.
"""

from __future__ import annotations

import hashlib
import zlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, partial

from portaria.aws import service_clients
from portaria.aws.table import Conflict, Item, Table, delete_of, put_of, run_concurrently
from portaria.core import clock, record_messages
from portaria.delivery import backlogs
from portaria.delivery.waiting_lists import Place, WaitingList
from portaria.records.dead_letters import cut
from portaria.records.mapping.record_mapping import Message, target_fields

# A list is one partition, which takes 1,000 writes a second. Removals that it refuses are repeated after these pauses, because
# records whose entry stays are sent twice.
REMOVE_AGAIN_S = (0.5, 1.0, 2.0)


@dataclass(frozen=True)
class HeldRecords:
    """Records of one message that must wait. `order` is epoch milliseconds: their arrival, or the next try in a retry list."""

    waiting: WaitingList
    message: Message
    route: str
    records: list[object]
    order: int

    @cached_property
    def body(self) -> str:
        """The records as a Records message."""
        return narrowed(self.message, self.route, self.records)

    @cached_property
    def prefix(self) -> str:
        """The prefix of the sort keys of the entry's items: the same only if the same records are held again."""
        digest = hashlib.sha256(self.body.encode()).hexdigest()[:16]
        return f"{self.order:015d}#{self.message.id}#{self.route}#{digest}#"

    @property
    def place(self) -> Place:
        return self.waiting, self.prefix


@dataclass(frozen=True)
class Entry:
    """An entry as it is stored. `since` is when it began to wait (epoch seconds), `tries` how often it failed unexpectedly.

    `body` is a Records message of `records` records. `digest` is a hash of the stored content.
    """

    waiting: WaitingList
    prefix: str
    message_id: str
    route: str
    body: str
    records: int
    since: int
    tries: int
    digest: str
    sort_keys: tuple[str, ...]

    @property
    def place(self) -> Place:
        return self.waiting, self.prefix

    @property
    def order(self) -> int:
        return int(self.prefix.partition("#")[0])


def arrival_order(message: Message) -> int:
    """When a message's records were read or arrived (epoch milliseconds), as a number of at most 15 digits."""
    return min(max(0, message.read_at), 10**15 - 1)


def put(table: Table, held: HeldRecords) -> bool:
    """Store an entry; whether it is new, because the same records may wait already. Raises what AWS raises."""
    data = zlib.compress(held.body.encode())
    digest = hashlib.sha256(data).hexdigest()[:32]
    parts = cut(data)
    head: Item = {
        "message_id": held.message.id,
        "route": held.route,
        "records": len(held.records),
        "since": int(clock.now().timestamp()),
        "digest": digest,
        "parts": len(parts),
    }
    items = [
        head | {"pk": held.waiting.pk, "sk": f"{held.prefix}{number}", "content": part}
        for number, part in enumerate(parts)
    ]
    absent = "attribute_not_exists(pk)"
    try:
        if len(items) == 1:
            table.put(items[0], condition=absent)
        else:
            table.write_all([put_of(item, absent) for item in items])
    except Conflict:
        if len(items) > 1:
            # Raised also if another transaction wrote one of the items at this moment, perhaps to delete it.
            table.write_all([put_of(item) for item in items])
        return False
    return True


def group(place: Place) -> tuple[WaitingList, str]:
    """The same for all entries of one message in a list that wait for the same route and moment."""
    waiting, prefix = place
    return waiting, prefix[:-1].rpartition("#")[0]


def narrowed(message: Message, route: str, records: list[object]) -> str:
    """A Records message with some of a message's records, for one route."""
    fields: dict[str, object] = {
        "version": record_messages.VERSION,
        "connection": message.connection,
        "object": message.object,
        "origin": message.origin,
        "route": route,
        "read_at": message.read_at,
        "request": message.request,
        "records": records,
    }
    if message.target:
        fields["target"] = target_fields(message.target)
    if message.trace.fields:
        fields["trace"] = message.trace.fields
    return record_messages.encode(fields)


def read(
    table: Table, waiting: WaitingList, *, limit: int, cursor: str | None = None, until_ms: int | None = None
) -> tuple[list[Entry], str | None]:
    """About `limit` entries of a list, the oldest first, and the cursor of the next ones or None.

    `until_ms` leaves out entries with a later `order`. An entry is always read whole. Raises what AWS raises.
    """
    items: list[Item] = []
    until = f"{until_ms:015d}~" if until_ms is not None else ""
    while True:
        page, cursor = table.query(waiting.pk, sk_until=until, limit=limit, cursor=cursor)
        items += page
        if not cursor or (items and _is_last_part(items[-1])):
            break
        # The rest of the last entry's parts.
        limit = 1
    by_prefix: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        by_prefix[item["sk"].rpartition("#")[0] + "#"].append(item)
    return [_entry(waiting, prefix, parts) for prefix, parts in by_prefix.items()], cursor


def _is_last_part(item: Item) -> bool:
    return int(item["sk"].rpartition("#")[2]) == int(item["parts"]) - 1


def _entry(waiting: WaitingList, prefix: str, items: list[Item]) -> Entry:
    first = items[0]
    return Entry(
        waiting,
        prefix,
        first["message_id"],
        first["route"],
        zlib.decompress(b"".join(part["content"] for part in items)).decode(),
        int(first["records"]),
        int(first["since"]),
        int(first.get("tries", 0)),
        first["digest"],
        tuple(item["sk"] for item in items),
    )


def remove(table: Table, entries: Iterable[Entry]) -> None:
    """Delete entries whose records were dealt with, unless other records have taken their place. Raises what AWS raises.

    The entries are deleted first, then their records are subtracted from the backlog's count.
    """
    gone: dict[str, int] = defaultdict(int)
    left = list(entries)
    for pause_s in (0.0, *REMOVE_AGAIN_S):
        if not left:
            break
        if pause_s:
            clock.sleep(pause_s)
        is_last = pause_s == REMOVE_AGAIN_S[-1]
        outcomes = run_concurrently(partial(_remove, table, give_up=is_last), left)
        for entry, is_gone in zip(left, outcomes, strict=True):
            gone[entry.waiting.destination] += entry.records if is_gone else 0
        left = [entry for entry, is_gone in zip(left, outcomes, strict=True) if is_gone is None]
    for destination, count in gone.items():
        try:
            table.update(
                *backlogs.key(destination),
                "ADD waiting :count",
                condition="attribute_exists(pk)",
                values={":count": -count},
            )
        except Conflict:
            continue


def _remove(table: Table, entry: Entry, *, give_up: bool) -> bool | None:
    """Whether this removed it; None if the table was too busy. With `give_up`, that is raised as well."""
    condition, values = "attribute_not_exists(pk) OR digest = :digest", {":digest": entry.digest}
    pk = entry.waiting.pk
    try:
        if len(entry.sort_keys) == 1:
            table.delete(pk, entry.sort_keys[0], condition=condition, values=values)
        else:
            table.write_all([delete_of(pk, sort_key, condition, values) for sort_key in entry.sort_keys])
    except Conflict:
        return False
    except service_clients.FAILURES as error:
        if give_up or not service_clients.passes(error):
            raise
        return None
    return True


def count_try(table: Table, entry: Entry) -> None:
    """Count that an entry failed unexpectedly, unless it is gone."""
    try:
        table.update(
            entry.waiting.pk,
            entry.sort_keys[0],
            "ADD tries :one",
            condition="digest = :digest",
            values={":one": 1, ":digest": entry.digest},
        )
    except Conflict:
        return
