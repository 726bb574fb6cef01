"""Records that wait for their destination: kept in the table, in order of arrival, until `record_release` sends them.

A message that waits in SQS counts as in flight, of which a queue allows about 120,000 for all destinations together. It may
stay invisible for 12 hours in total, and each wait costs one of its receives. So SQS has only waits up to `LONGEST_IN_QUEUE_S`.

    entry    pk WAITING#{destination}#{object}#{kind}#{source}   sk {order}#{message id}#{route}#{part}
    list     pk WAITING#{destination}                            sk {object}#{kind}#{source}
    backlog  pk PARKED#{destination}                             sk WAITING

An entry holds the records of one message that go one way, as a Records message of their own. Entries of one source form a list,
so that no tenant waits behind another, and live records do not wait behind a backfill. A list exists while it may have entries,
and the destination's backlog while lists may exist. While a list exists, new records join it instead of overtaking it.

A list is written before its first entry (`announce`), so that no entry is without one if the process dies, and again after the
last one (`confirm`). A drain that finds a list empty closes it: new records do not join it any more. It is removed only after a
worker that saw it open can be alive no longer (`LEASE_S`), if it is still empty. A backlog is removed without lists, if its
`arrivals` is what it was before the drain looked for them.
"""

from __future__ import annotations

import hashlib
import zlib
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from portaria.aws import boto3_clients
from portaria.aws.table import Conflict, Item, Table, at_once, delete_of, put_of
from portaria.core import clock, record_messages
from portaria.core.entities import Target
from portaria.delivery import destination_pause
from portaria.delivery.destination_pause import Pause
from portaria.records.dead_letters import MAX_PART_BYTES, cut
from portaria.records.record_mapping import Message, target_fields

# The longest that a message of records stays invisible because of its destination. A thousand messages a second, which is more
# than the largest `Size` handles, are then 15,000 of the 120,000 that SQS allows in flight; and a message is received three
# times at most for a destination that stays busy, so that these take little from others.
LONGEST_IN_QUEUE_S = 15.0

LISTING = "WAITING"
SK = "WAITING"
LIVE, BULK = "live", "bulk"
# Entries of these kinds are ordered by the time of their next try. They hold up nothing else: the record may be to blame.
RETRIES = {LIVE: "live-retry", BULK: "bulk-retry"}
# A list is one partition, which takes 1,000 writes a second: what it refuses is removed again after these pauses, so that its
# records, which were sent, are not sent twice.
REMOVE_AGAIN_S = (0.5, 1.0, 2.0)
# The parts of a message of 1 MiB that does not compress.
MAX_PARTS = 4
# Workers run for 120 s at most: one that took a lease, or saw a list, before this time is dead.
LEASE_S = 150


class WaitingList(NamedTuple):
    """Where records of one source wait for one object of a destination. `kind` is `LIVE`, `BULK` or one of `RETRIES`."""

    destination: str
    object: str
    kind: str
    source: str

    @property
    def pk(self) -> str:
        return f"WAITING#{self.destination}#{self.object}#{self.kind}#{self.source}"

    @property
    def is_retry(self) -> bool:
        return self.kind in RETRIES.values()

    @property
    def is_bulk(self) -> bool:
        return self.kind in (BULK, RETRIES[BULK])


Place = tuple[WaitingList, str]


class HeldRecords(NamedTuple):
    """Records of one message that must wait. `order` is epoch milliseconds: of the arrival, in a retry list of the next try."""

    waiting: WaitingList
    message: Message
    route: str
    records: list[object]
    order: int

    @property
    def prefix(self) -> str:
        """What the sort keys of the entry's items begin with: the same where the same records are held again."""
        return f"{self.order:015d}#{self.message.id}#{self.route}#"

    @property
    def place(self) -> Place:
        return self.waiting, self.prefix


@dataclass(frozen=True)
class Entry:
    """An entry as it is stored. `since` is when it began to wait (epoch seconds), `tries` how often it failed unexpectedly."""

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


@dataclass(frozen=True)
class ListHead:
    """A list as it is stored. Its entries are not tried before `not_before`; `closed_at` is when it was found empty, or 0.

    Times are epoch seconds.
    """

    waiting: WaitingList
    arrivals: int
    since: int
    not_before: int
    closed_at: int

    @property
    def removable_at(self) -> int:
        return self.closed_at + LEASE_S


@dataclass(frozen=True)
class Backlog:
    """What waits for a destination: about how many records, since when, and when to try again (epoch seconds)."""

    destination: str
    arrivals: int
    records: int
    since: int
    next_at: int
    fence: int = 0
    unfinished: int = 0
    trying: str = ""


class Status(NamedTuple):
    """Whether a destination takes records: its pauses, also those whose time is over, and its backlog."""

    pauses: tuple[Pause, ...]
    backlog: Backlog | None

    def pauses_of(self, object_name: str) -> list[Pause]:
        return [pause for pause in self.pauses if pause.object in ("", object_name)]

    def closed_until(self, object_name: str) -> int:
        """When the last pause of an object ends (epoch seconds), or 0."""
        return max((pause.until for pause in self.pauses_of(object_name)), default=0)


def backlog_key(destination: str) -> tuple[str, str]:
    return destination_pause.partition(destination), SK


def list_key(waiting: WaitingList) -> tuple[str, str]:
    return f"WAITING#{waiting.destination}", f"{waiting.object}#{waiting.kind}#{waiting.source}"


def status(table: Table, destination: str) -> Status:
    """One strongly consistent query."""
    pauses, backlog = [], None
    for item in table.query_all(destination_pause.partition(destination)):
        if item["sk"] == SK:
            backlog = read_backlog(item)
        else:
            pauses.append(destination_pause.read(item))
    return Status(tuple(pauses), backlog)


def backlogs(table: Table) -> list[Backlog]:
    """Of all destinations; a new one is among them soon, not at once."""
    return [read_backlog(item) for item in table.query_all(LISTING, index="listing")]


def read_backlog(item: Item) -> Backlog:
    return Backlog(
        item["destination"],
        int(item["arrivals"]),
        max(0, int(item["waiting"])),
        int(item["since"]),
        int(item["next_at"]),
        int(item.get("fence", 0)),
        int(item.get("unfinished", 0)),
        item.get("trying", ""),
    )


def existing(table: Table, lists: Iterable[WaitingList]) -> dict[WaitingList, int]:
    """Those of the lists that are open, with the time before which they are not tried (epoch seconds)."""
    by_key = {list_key(waiting): waiting for waiting in lists}
    return {
        by_key[key]: int(item.get("not_before", 0))
        for key, item in table.get_many(by_key).items()
        if "closed_at" not in item
    }


def heads(table: Table, destination: str) -> list[ListHead]:
    """Every list of a destination; strongly consistent."""
    return [
        ListHead(
            WaitingList(destination, item["object"], item["kind"], item["source_name"]),
            int(item["arrivals"]),
            int(item["since"]),
            int(item.get("not_before", 0)),
            int(item.get("closed_at", 0)),
        )
        for item in table.query_all(f"WAITING#{destination}")
    ]


# --------------------------------------------------------------------------------------------------------------- writing


def announce(table: Table, lists: Iterable[WaitingList], next_at: dict[str, int]) -> None:
    """Have lists, and then their destinations' backlogs, exist. Raises what AWS raises.

    `next_at` is by when each destination is to be tried (epoch seconds).
    """
    _touch(table, dict.fromkeys(lists, 0), {}, next_at)


def confirm(
    table: Table, counts: dict[WaitingList, int], not_before: dict[WaitingList, int], next_at: dict[str, int]
) -> None:
    """Count the records that were put into lists; `not_before` is for lists that wait for their share of a quota.

    Raises what AWS raises.
    """
    _touch(table, counts, not_before, next_at)


def _touch(
    table: Table, counts: dict[WaitingList, int], not_before: dict[WaitingList, int], next_at: dict[str, int]
) -> None:
    now = int(clock.now().timestamp())
    by_destination: dict[str, int] = defaultdict(int)
    for waiting, count in counts.items():
        by_destination[waiting.destination] += count
    at_once(lambda waiting: _touch_list(table, waiting, not_before.get(waiting), now), list(counts))
    # The lists first: a backlog is removed only where no list is found after its arrivals were read.
    for destination, count in by_destination.items():
        _touch_backlog(table, destination, count, next_at[destination], now)


def _touch_list(table: Table, waiting: WaitingList, not_before: int | None, now: int) -> None:
    sets = "SET #object = :object, kind = :kind, source_name = :source, since = if_not_exists(since, :now)"
    values: Item = {":one": 1, ":object": waiting.object, ":kind": waiting.kind, ":source": waiting.source, ":now": now}
    if not_before is not None:
        sets += ", not_before = :not_before"
        values[":not_before"] = not_before
    expression = f"{sets} REMOVE closed_at ADD arrivals :one"
    table.update(*list_key(waiting), expression, names={"#object": "object"}, values=values)


def _touch_backlog(table: Table, destination: str, count: int, next_at: int, now: int) -> None:
    sets = (
        "SET list_pk = :listing, list_sk = :destination, destination = :destination, "
        "since = if_not_exists(since, :now), next_at = {next_at} ADD arrivals :one, waiting :count"
    )
    values: Item = {
        ":listing": LISTING, ":destination": destination, ":now": now, ":next_at": next_at, ":one": 1, ":count": count,
    }  # fmt: skip
    key = backlog_key(destination)
    try:
        table.update(
            *key,
            sets.format(next_at=":next_at"),
            condition="attribute_not_exists(pk) OR next_at > :next_at",
            values=values,
        )
    except Conflict:
        # It is tried sooner than that in any case.
        table.update(*key, sets.format(next_at="if_not_exists(next_at, :next_at)"), values=values)


def put(table: Table, held: HeldRecords) -> None:
    """Store an entry; the same records held again take its place. Raises what AWS raises."""
    data = zlib.compress(narrowed(held.message, held.route, held.records).encode())
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
    if len(items) == 1 and not _may_replace_more(held):
        table.put(items[0])
        return
    # All at once, and without the parts of a longer one that stood here.
    gone = [delete_of(held.waiting.pk, f"{held.prefix}{number}") for number in range(len(items), MAX_PARTS)]
    table.write_all([*(put_of(item) for item in items), *gone])


def _may_replace_more(held: HeldRecords) -> bool:
    """Whether an entry that was stored for the same message before can have had several parts."""
    if len(held.records) == len(held.message.records):
        return False
    return len(narrowed(held.message, held.route, held.message.records).encode()) > MAX_PART_BYTES


def narrowed(message: Message, route: str, records: list[object]) -> str:
    """A Records message with some of a message's records, which go one way."""
    fields = {
        "version": record_messages.VERSION,
        "connection": message.connection,
        "object": message.object,
        "origin": message.origin,
        "route": route,
        "read_at": message.read_at,
        "request": message.request,
        "records": records,
    }
    return record_messages.encode(fields | ({"target": target_fields(message.target)} if message.target else {}))


def arrival_order(message: Message) -> int:
    """When a message's records were read or arrived, as a number of 15 digits at most."""
    return min(max(0, message.read_at), 10**15 - 1)


def list_of(target: Target, source: str, *, bulk: bool, retry: bool = False) -> WaitingList:
    kind = BULK if bulk else LIVE
    return WaitingList(target.destination, target.object, RETRIES[kind] if retry else kind, source)


# --------------------------------------------------------------------------------------------------------------- reading


def read(
    table: Table, waiting: WaitingList, *, limit: int, cursor: str | None = None, until_ms: int | None = None
) -> tuple[list[Entry], str | None]:
    """About `limit` entries of a list, the oldest first, and the cursor of the next ones or None.

    `until_ms` leaves out what is ordered later.
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


# --------------------------------------------------------------------------------------------------------------- draining


def claim(table: Table, destination: str) -> Backlog | None:
    """Take the lease of a destination's backlog. None where another worker has it, or where nothing waits.

    `unfinished` counts the claims since the last release: more than one where workers died.
    """
    now = int(clock.now().timestamp())
    try:
        item = table.update(
            *backlog_key(destination),
            "SET lease_until = :until, next_at = :until ADD fence :one, unfinished :one",
            condition="attribute_exists(pk) AND (attribute_not_exists(lease_until) OR lease_until < :now)",
            values={":until": now + LEASE_S, ":now": now, ":one": 1},
        )
    except Conflict:
        return None
    return read_backlog(item)


def release(table: Table, backlog: Backlog, *, arrivals: int | None, next_at: int, since: int) -> bool:
    """End a lease. False where records arrived after `arrivals` was read (None: whatever arrived). Raises what AWS raises."""
    values: Item = {":next_at": next_at, ":since": since, ":fence": backlog.fence, ":zero": 0}
    condition = "fence = :fence"
    if arrivals is not None:
        condition += " AND arrivals = :arrivals"
        values[":arrivals"] = arrivals
    try:
        table.update(
            *backlog_key(backlog.destination),
            "SET next_at = :next_at, since = :since, unfinished = :zero REMOVE lease_until, trying",
            condition=condition,
            values=values,
        )
    except Conflict:
        return False
    return True


def note_trial(table: Table, backlog: Backlog, prefix: str) -> None:
    """Write down which entry is tried alone, so that the next worker knows it if this one dies."""
    table.update(
        *backlog_key(backlog.destination),
        "SET trying = :trying",
        condition="fence = :fence",
        values={":trying": prefix, ":fence": backlog.fence},
    )


def remove_backlog(table: Table, backlog: Backlog, arrivals: int) -> bool:
    """Whether a backlog without lists is gone: nothing has arrived since `arrivals` was read."""
    try:
        table.delete(
            *backlog_key(backlog.destination),
            condition="attribute_not_exists(pk) OR (fence = :fence AND arrivals = :arrivals)",
            values={":fence": backlog.fence, ":arrivals": arrivals},
        )
    except Conflict:
        return False
    return True


def close_list(table: Table, head: ListHead) -> None:
    """Keep new records from joining a list without entries, unless some have arrived since the head was read."""
    with suppress(Conflict):
        table.update(
            *list_key(head.waiting),
            "SET closed_at = :now",
            condition="arrivals = :arrivals",
            values={":now": int(clock.now().timestamp()), ":arrivals": head.arrivals},
        )


def remove_list(table: Table, head: ListHead) -> bool:
    """Whether a closed list without entries is gone: nothing has arrived since the head was read."""
    try:
        table.delete(
            *list_key(head.waiting),
            condition="attribute_not_exists(pk) OR arrivals = :arrivals",
            values={":arrivals": head.arrivals},
        )
    except Conflict:
        return False
    return True


def list_since(table: Table, waiting: WaitingList, since: int) -> None:
    """Write down since when the first entry of a list has waited, unless the list is gone."""
    try:
        table.update(
            *list_key(waiting), "SET since = :since", condition="attribute_exists(pk)", values={":since": since}
        )
    except Conflict:
        return


def remove(table: Table, entries: Iterable[Entry]) -> None:
    """Delete entries whose records were dealt with, unless others took their place meanwhile. Raises what AWS raises."""
    gone: dict[str, int] = defaultdict(int)
    left = list(entries)
    for pause_s in (0.0, *REMOVE_AGAIN_S):
        if not left:
            break
        if pause_s:
            clock.sleep(pause_s)
        is_last = pause_s == REMOVE_AGAIN_S[-1]
        outcomes = at_once(partial(_remove, table, give_up=is_last), left)
        for entry, is_gone in zip(left, outcomes, strict=True):
            gone[entry.waiting.destination] += entry.records if is_gone else 0
        left = [entry for entry, is_gone in zip(left, outcomes, strict=True) if is_gone is None]
    for destination, count in gone.items():
        try:
            table.update(
                *backlog_key(destination),
                "ADD waiting :count",
                condition="attribute_exists(pk)",
                values={":count": -count},
            )
        except Conflict:
            continue


def _remove(table: Table, entry: Entry, *, give_up: bool) -> bool | None:
    """Whether this removed it; None where the table was too busy. Raises what AWS raises with `give_up`."""
    condition, values = "attribute_not_exists(pk) OR digest = :digest", {":digest": entry.digest}
    pk = entry.waiting.pk
    try:
        if len(entry.sort_keys) == 1:
            table.delete(pk, entry.sort_keys[0], condition=condition, values=values)
        else:
            table.write_all([delete_of(pk, sort_key, condition, values) for sort_key in entry.sort_keys])
    except Conflict:
        return False
    except boto3_clients.FAILURES as error:
        if give_up or not boto3_clients.passes(error):
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


def try_now(table: Table, destination: str) -> None:
    """End a destination's pauses: it was deleted, or has new credentials. What waits for it is tried soon."""
    for pause in status(table, destination).pauses:
        destination_pause.end(table, pause)
    try:
        table.update(
            *backlog_key(destination),
            "SET next_at = :now ADD arrivals :one",
            condition="attribute_exists(pk)",
            values={":now": 0, ":one": 1},
        )
    except Conflict:
        return
