"""Pauses of destinations: the day's quota is used up, a person has to act first, or the destination asked for a longer wait.

Records for a paused object wait in the table (`waiting_records`) instead of being refused one request after the other. When the
pause is over, one request decides whether it ends or the next one begins.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from portaria.aws.table import Conflict, Item, Table
from portaria.core import clock

LIST = "PARKED"
QUOTA, STOPPED, BUSY = "quota", "stopped", "busy"


@dataclass(frozen=True)
class Pause:
    """`object` is the destination's, empty for all of them; `until` is epoch seconds, `since` ISO 8601.

    `for_s` is how long the pause was meant to be.
    """

    destination: str
    object: str
    reason: str
    code: str
    until: int
    since: str
    for_s: int = 0


def partition(destination: str) -> str:
    """Where a destination's pauses are, with its backlog (see `waiting_records`): one query reads them all."""
    return f"PARKED#{destination}"


def key(destination: str, object_name: str) -> tuple[str, str]:
    return partition(destination), object_name or "*"


def park(table: Table, destination: str, object_name: str, *, reason: str, code: str, for_s: float) -> bool:
    """Whether this is new: the object was not parked for this reason before."""
    now = clock.now()
    pk, sk = key(destination, object_name)
    until = int(now.timestamp() + for_s)
    item: Item = {
        "pk": pk,
        "sk": sk,
        "list_pk": LIST,
        "list_sk": f"{destination}/{object_name}",
        "destination": destination,
        "object": object_name,
        "reason": reason,
        "code": code,
        "until": until,
        "for_s": int(for_s),
        "since": clock.to_iso(now),
    }
    try:
        table.put(
            item,
            condition="attribute_not_exists(pk) OR reason <> :reason",
            values={":reason": reason},
        )
    except Conflict:
        table.update(
            pk,
            sk,
            "SET #until = :until, for_s = :for_s, code = :code",
            values={":until": until, ":for_s": int(for_s), ":code": code},
            names={"#until": "until"},
        )
        return False
    return True


def end(table: Table, parking: Pause) -> None:
    """The destination takes the object again. A pause that has begun anew meanwhile stays."""
    with suppress(Conflict):
        table.delete(
            *key(parking.destination, parking.object),
            condition="attribute_not_exists(pk) OR #until = :until",
            names={"#until": "until"},
            values={":until": parking.until},
        )


def read(item: Item) -> Pause:
    return Pause(
        item["destination"],
        item["object"],
        item["reason"],
        item["code"],
        int(item["until"]),
        item["since"],
        int(item.get("for_s", 0)),
    )
