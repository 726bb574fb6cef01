"""Backlogs: one item for each destination that records wait for, with the time of the next attempt and the drain's lease.

    pk PARKED#{destination}   sk WAITING

A destination's backlog is in the partition of its pauses. It exists while its waiting lists may exist (see `waiting_lists`). A
backlog without lists is removed if no records have arrived since the drain looked for lists (`arrivals`).

One worker at a time drains a backlog, under a lease (`claim`, `release`). If it dies, its lease ends after `LEASE_S`; `fence`
keeps it from writing to the backlog once another worker has the lease.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from portaria.aws.table import Conflict, Item, Table
from portaria.core import clock
from portaria.delivery import destination_pause
from portaria.delivery.destination_pause import DestinationPause

LISTING = "WAITING"
SK = "WAITING"
# Workers run for at most 120 s: one that took a lease, or saw a waiting list, before this time is dead.
LEASE_S = 150


@dataclass(frozen=True)
class Backlog:
    """Records wait for a destination: about how many, since when, and when it is tried next (epoch seconds).

    `arrivals` grows with each write of waiting records, `fence` with each lease. `unfinished` counts the leases since the
    last release, `trying` names the entry that a cautious drain tries alone. `host` is where the destination's requests go.
    """

    destination: str
    arrivals: int
    records: int
    since: int
    next_at: int
    fence: int = 0
    unfinished: int = 0
    trying: str = ""
    host: str = ""


class Status(NamedTuple):
    """Whether a destination accepts records: its pauses, including those that have passed, and its backlog."""

    pauses: tuple[DestinationPause, ...]
    backlog: Backlog | None

    def pauses_of(self, object_name: str) -> list[DestinationPause]:
        return [pause for pause in self.pauses if pause.object in ("", object_name)]

    def closed_until(self, object_name: str) -> int:
        """When the last pause of an object ends (epoch seconds), or 0."""
        return max((pause.until for pause in self.pauses_of(object_name)), default=0)


def key(destination: str) -> tuple[str, str]:
    return destination_pause.partition(destination), SK


def status(table: Table, destination: str) -> Status:
    """One strongly consistent query."""
    pauses, backlog = [], None
    for item in table.query_all(destination_pause.partition(destination)):
        if item["sk"] == SK:
            backlog = read_backlog(item)
        else:
            pauses.append(destination_pause.read(item))
    return Status(tuple(pauses), backlog)


def list_all(table: Table) -> list[Backlog]:
    """The backlogs of all destinations. The index is eventually consistent: a new one may be missing for a moment."""
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
        item.get("host", ""),
    )


def touch(table: Table, destination: str, host: str, count: int, next_at: int, now: int) -> None:
    """Create or extend a backlog by `count` records; it is due at `next_at` (epoch seconds) at the latest.

    Raises what AWS raises.
    """
    sets = (
        "SET list_pk = :listing, list_sk = :destination, destination = :destination, host = :host, "
        "since = if_not_exists(since, :now), next_at = {next_at} ADD arrivals :one, waiting :count"
    )
    values: Item = {
        ":listing": LISTING, ":destination": destination, ":host": host, ":now": now, ":next_at": next_at, ":one": 1,
        ":count": count,
    }  # fmt: skip
    place = key(destination)
    try:
        table.update(
            *place,
            sets.format(next_at=":next_at"),
            condition="attribute_not_exists(pk) OR next_at > :next_at",
            values=values,
        )
    except Conflict:
        # It is due earlier already.
        table.update(*place, sets.format(next_at="if_not_exists(next_at, :next_at)"), values=values)


def claim(table: Table, destination: str) -> Backlog | None:
    """Take the lease of a destination's backlog; None if another worker has it, or if nothing waits. Raises what AWS raises.

    `unfinished` is then more than one if workers have died.
    """
    now = int(clock.now().timestamp())
    try:
        item = table.update(
            *key(destination),
            "SET lease_until = :until, next_at = :until ADD fence :one, unfinished :one",
            condition="attribute_exists(pk) AND (attribute_not_exists(lease_until) OR lease_until < :now)",
            values={":until": now + LEASE_S, ":now": now, ":one": 1},
        )
    except Conflict:
        return None
    return read_backlog(item)


def release(table: Table, backlog: Backlog, *, arrivals: int | None, next_at: int, since: int) -> bool:
    """End a lease and return whether that was possible. Raises what AWS raises.

    It is not possible if records have arrived since `arrivals` was read (None: do not check), or if another worker has the
    lease.
    """
    values: Item = {":next_at": next_at, ":since": since, ":fence": backlog.fence, ":zero": 0}
    condition = "fence = :fence"
    if arrivals is not None:
        condition += " AND arrivals = :arrivals"
        values[":arrivals"] = arrivals
    try:
        table.update(
            *key(backlog.destination),
            "SET next_at = :next_at, since = :since, unfinished = :zero REMOVE lease_until, trying",
            condition=condition,
            values=values,
        )
    except Conflict:
        return False
    return True


def note_trial(table: Table, backlog: Backlog, prefix: str) -> None:
    """Store which entry is tried alone, so that the next worker knows it if this one dies. Raises what AWS raises."""
    table.update(
        *key(backlog.destination),
        "SET trying = :trying",
        condition="fence = :fence",
        values={":trying": prefix, ":fence": backlog.fence},
    )


def remove(table: Table, backlog: Backlog, arrivals: int) -> bool:
    """Remove a backlog without lists, unless records have arrived since `arrivals` was read; whether it is gone."""
    try:
        table.delete(
            *key(backlog.destination),
            condition="attribute_not_exists(pk) OR (fence = :fence AND arrivals = :arrivals)",
            values={":fence": backlog.fence, ":arrivals": arrivals},
        )
    except Conflict:
        return False
    return True


def try_now(table: Table, destination: str) -> None:
    """Let a destination's pauses be over, and then have the next sweep, within a minute, drain its backlog.

    Raises what AWS raises. After a death in between, the backlog is due at its old time.
    """
    for pause in status(table, destination).pauses:
        destination_pause.lift(table, pause)
    try:
        table.update(
            *key(destination),
            "SET next_at = :now ADD arrivals :one",
            condition="attribute_exists(pk)",
            values={":now": 0, ":one": 1},
        )
    except Conflict:
        return
