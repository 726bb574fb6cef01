"""Waiting lists: where the records of one source wait for one object of a destination, in order of arrival.

    entries  pk WAITING#{destination}#{object}#{kind}#{source}   (see `waiting_entries`)
    list     pk WAITING#{destination}                            sk {object}#{kind}#{source}

A message that waits in SQS counts as in flight, of which a queue allows about 120,000 for all destinations together. It may
stay invisible for 12 hours in total, and each wait costs one of its receives. So longer waits are in the table, until
`record_release` sends the records.

Each source has its own list, so that no tenant waits behind another, and live records do not wait behind a backfill. A list
exists while it may have entries. While it exists, new records join it instead of overtaking the waiting ones.

Order of writes, and the state after a crash between two of them:

1. `announce` writes the list, and then the destination's backlog, before the first entry. After a death here, the list is
   empty; a drain closes and removes it.
2. `waiting_entries.put` writes the entries. After a death here, they are in a list that a drain finds.
3. `confirm` writes the list and the backlog again, with the count of records. After a death before it, the count is too small.

A drain that finds a list empty closes it (`close_list`): new records no longer join it. The list is removed (`remove_list`)
if it is still empty after `LEASE_S`, when no worker that saw it open is alive.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from portaria.aws.table import Conflict, Item, Table, run_concurrently
from portaria.core import clock
from portaria.core.entities import Target
from portaria.delivery import backlogs
from portaria.delivery.backlogs import LEASE_S

LIVE, BULK = "live", "bulk"
# Entries of these kinds are ordered by the time of their next try. They hold up no other records: the record itself may be
# the cause of the failure.
RETRIES = {LIVE: "live-retry", BULK: "bulk-retry"}


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


# An entry: its list, and the prefix of the sort keys of its items.
Place = tuple[WaitingList, str]


@dataclass(frozen=True)
class ListHead:
    """A list as it is stored. Its entries are not tried before `not_before`; `closed_at` is when it was found empty, or 0.

    Times are epoch seconds; `since` is when the first entry began to wait. `arrivals` grows with each write of entries.
    """

    waiting: WaitingList
    arrivals: int
    since: int
    not_before: int
    closed_at: int

    @property
    def removable_at(self) -> int:
        return self.closed_at + LEASE_S


def list_key(waiting: WaitingList) -> tuple[str, str]:
    return f"WAITING#{waiting.destination}", f"{waiting.object}#{waiting.kind}#{waiting.source}"


def list_of(target: Target, source: str, *, bulk: bool, retry: bool = False) -> WaitingList:
    kind = BULK if bulk else LIVE
    return WaitingList(target.destination, target.object, RETRIES[kind] if retry else kind, source)


def existing(table: Table, lists: Iterable[WaitingList]) -> dict[WaitingList, int]:
    """The open ones of some lists, each with the time before which it is not tried (epoch seconds)."""
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


class Due(NamedTuple):
    """When a destination's backlog is due at the latest (epoch seconds), and the host that its requests go to."""

    at: int
    host: str


def announce(table: Table, lists: Iterable[WaitingList], due: dict[str, Due]) -> None:
    """Write lists, and then their destinations' backlogs, before the first entries. Raises what AWS raises."""
    _touch(table, dict.fromkeys(lists, 0), {}, due)


def confirm(
    table: Table, counts: dict[WaitingList, int], not_before: dict[WaitingList, int], due: dict[str, Due]
) -> None:
    """Count the records that were put into lists. `not_before` has the lists that wait for their share of a quota.

    Raises what AWS raises.
    """
    _touch(table, counts, not_before, due)


def _touch(
    table: Table, counts: dict[WaitingList, int], not_before: dict[WaitingList, int], due: dict[str, Due]
) -> None:
    now = int(clock.now().timestamp())
    by_destination: dict[str, int] = defaultdict(int)
    for waiting, count in counts.items():
        by_destination[waiting.destination] += count
    run_concurrently(lambda waiting: _touch_list(table, waiting, not_before.get(waiting), now), list(counts))
    # The lists first: a drain reads the backlog's arrivals, looks for lists, and removes a backlog without lists.
    for destination, count in by_destination.items():
        backlogs.touch(table, destination, due[destination].host, count, due[destination].at, now)


def _touch_list(table: Table, waiting: WaitingList, not_before: int | None, now: int) -> None:
    sets = "SET #object = :object, kind = :kind, source_name = :source, since = if_not_exists(since, :now)"
    values: Item = {":one": 1, ":object": waiting.object, ":kind": waiting.kind, ":source": waiting.source, ":now": now}
    if not_before is not None:
        sets += ", not_before = :not_before"
        values[":not_before"] = not_before
    expression = f"{sets} REMOVE closed_at ADD arrivals :one"
    table.update(*list_key(waiting), expression, names={"#object": "object"}, values=values)


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
    """Remove a closed list without entries, unless records have arrived since the head was read; whether it is gone."""
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
    """Write down since when (epoch seconds) the first entry of a list has waited, unless the list is gone."""
    try:
        table.update(
            *list_key(waiting), "SET since = :since", condition="attribute_exists(pk)", values={":since": since}
        )
    except Conflict:
        return
