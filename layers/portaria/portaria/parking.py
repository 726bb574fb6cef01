"""Destinations that take nothing for now: the day's quota is used up, or somebody has to act first.

Records for a parked object wait in their queue instead of being refused one request after the other. When the time is over, the
next batch tries; what the destination says then ends the parking or begins the next.
"""

from __future__ import annotations

from dataclasses import dataclass

from portaria import clock
from portaria.table import Conflict, Item, Table

LIST = "PARKED"


@dataclass(frozen=True)
class Parking:
    """`object` is the destination's, empty for all of them; `until` is epoch seconds, `since` ISO 8601."""

    destination: str
    object: str
    reason: str
    code: str
    until: int
    since: str


def key(destination: str, object_name: str) -> tuple[str, str]:
    return f"PARKED#{destination}", object_name or "*"


def find(table: Table, destination: str, object_name: str) -> Parking | None:
    """What stands in the way of an object at a destination, also where its time is over; the longer of two."""
    found = [read(item) for item in table.query_all(f"PARKED#{destination}") if item["sk"] in ("*", object_name)]
    return max(found, key=lambda parking: parking.until, default=None)


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
            "SET #until = :until, code = :code",
            values={":until": until, ":code": code},
            names={"#until": "until"},
        )
        return False
    return True


def end(table: Table, parking: Parking) -> None:
    """The destination takes the object again."""
    table.delete(*key(parking.destination, parking.object))


def read(item: Item) -> Parking:
    return Parking(item["destination"], item["object"], item["reason"], item["code"], int(item["until"]), item["since"])


def list_all(table: Table) -> list[Parking]:
    return [read(item) for item in table.query_all(LIST, index="listing")]
