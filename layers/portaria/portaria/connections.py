"""Connections: stored credentials for one account of one platform, the credentials themselves being in the vault.

A connection's item is the commit point of a grant: whoever wants its tokens follows `secret_id`, so replacing a grant is
one conditional write, and until it is made the old grant stands whole.
"""

from __future__ import annotations

from dataclasses import fields as dataclass_fields

from portaria import clock
from portaria.contract import Connection, Rejected
from portaria.table import Item, Table

LIST = "CONNECTIONS"
FIELDS = tuple(field.name for field in dataclass_fields(Connection))


def key(name: str) -> tuple[str, str]:
    return f"CONNECTION#{name}", "CONNECTION"


def find(table: Table, name: str) -> Connection | None:
    item = table.get(*key(name))
    return read(item) if item else None


def get(table: Table, name: str) -> Connection:
    """Raises `Rejected` (`unknown_connection`) where there is none."""
    connection = find(table, name)
    if not connection:
        raise Rejected("unknown_connection", f"there is no connection {name!r}", field="connection", status=404)
    return connection


def read(item: Item) -> Connection:
    values = {field: item[field] for field in FIELDS if field in item}
    values["notes"] = tuple(values.get("notes", ()))
    return Connection(**values)


def to_item(connection: Connection) -> Item:
    pk, sk = key(connection.name)
    item = {field: getattr(connection, field) for field in FIELDS}
    item["notes"] = list(connection.notes)
    return {**item, "pk": pk, "sk": sk, "list_pk": LIST, "list_sk": connection.name}


def create(table: Table, connection: Connection) -> None:
    """Raises `Conflict` where the name is taken, by whatever kind of connection."""
    now = clock.to_iso(clock.now())
    table.put({**to_item(connection), "created_at": now, "updated_at": now}, condition="attribute_not_exists(pk)")


def list_page(table: Table, cursor: str | None, limit: int) -> tuple[list[Connection], str | None]:
    items, cursor = table.query(LIST, index="listing", cursor=cursor, limit=limit)
    return [read(item) for item in items], cursor


def delete(table: Table, name: str) -> None:
    table.delete(*key(name))
