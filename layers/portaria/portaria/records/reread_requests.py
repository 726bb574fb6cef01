"""Requests to read an account's changes soon: an event lacked a value that a mapping needs, and the platform's API has it.

Events of some platforms have fewer fields than the API (`callbacks.Record`). The attributes that an event has values for are
sent immediately. For the others, the account is reconciled at the next sweep: one page of changes has up to 250 complete
records, so the number of requests grows with the accounts that change, not with their events.

A request is an item beside the reconciliation's own and is due immediately. It is removed after a reading that began after the
request has ended, so that an event during a reading is not forgotten.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

from portaria import platforms
from portaria.aws import due_index
from portaria.aws.table import Conflict, Item, Table
from portaria.core import clock
from portaria.core.errors import Rejected

# No object's name is in capitals.
SUFFIX = "#WHOLE"
KEPT_FOR = timedelta(days=15)


def key(connection: str, object_name: str) -> tuple[str, str]:
    return f"RECONCILIATION#{connection}", f"{object_name}{SUFFIX}"


def is_request(item: Item) -> bool:
    return str(item["sk"]).endswith(SUFFIX)


def is_possible(platform: str, object_name: str) -> bool:
    """Whether a platform can list the changes of an object."""
    try:
        return platforms.load(platform).changed_object(object_name) is not None
    except Rejected:
        return False


def request(table: Table, connection: str, object_name: str, changed_at: int) -> None:
    """Request that the next sweep reads the changes of an object; `changed_at` (epoch seconds) is a change that is needed.

    Of several requests the oldest `changed_at` is kept, and an overdue request keeps its place among the due ones.
    """
    now = clock.now()
    place = key(connection, object_name)
    item = table.update(
        *place,
        "SET #connection = :connection, #object = :object, changed_at = if_not_exists(changed_at, :changed_at), "
        "requested_at = :now, due_pk = :due_pk, due_at = if_not_exists(due_at, :due_at), expires_at = :expires_at",
        names={"#connection": "connection", "#object": "object"},
        values={
            ":connection": connection,
            ":object": object_name,
            ":changed_at": changed_at,
            ":now": int(now.timestamp()),
            ":expires_at": int((now + KEPT_FOR).timestamp()),
            **{f":{name}": value for name, value in due_index.attributes(due_index.RECONCILIATIONS, now).items()},
        },
    )
    lowest: Item = {"changed_at": changed_at, "due_at": clock.to_iso(now)}
    for name, value in lowest.items():
        # Kept from an older request. A sweep has postponed its due time, and the reading may have begun before this event.
        if item[name] > value:
            with suppress(Conflict):
                table.update(*place, f"SET {name} = :value", condition=f"{name} > :value", values={":value": value})


def find(table: Table, connection: str, object_name: str) -> Item | None:
    return table.get(*key(connection, object_name))


def settle(table: Table, connection: str, object_name: str, read_at: int) -> None:
    """Remove a request that was made before a reading began (epoch seconds)."""
    with suppress(Conflict):
        table.delete(
            *key(connection, object_name),
            condition="attribute_not_exists(pk) OR requested_at < :read_at",
            values={":read_at": read_at},
        )
