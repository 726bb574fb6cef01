"""Finding connections and installs by a tag: `TAG#customer_id#{hash}` leads to `CONNECTION#{name}` and `INSTALL#{time}#{id}`.

An entry is written in the same transaction as the tags that it leads to. A reader compares each entry with what it leads to,
so an entry that is left over shows nothing.
"""

from __future__ import annotations

from typing import Any

from portaria.aws.table import Item, Table, delete_of, put_of
from portaria.core.item_keys import tag_partition
from portaria.core.tags import INDEXED, Tags

CONNECTION_PREFIX, INSTALL_PREFIX = "CONNECTION#", "INSTALL#"


def connection_writes(name: str, before: Tags, after: Tags, *, expires_at: int | None = None) -> list[dict[str, Any]]:
    """What a transaction that changes a connection's tags also writes. With `expires_at` the entry ends with the connection."""
    old, new = before.get(INDEXED), after.get(INDEXED)
    writes = []
    if old is not None and old != new:
        writes.append(delete_of(*_connection_key(name, old)))
    if new is not None:
        pk, sk = _connection_key(name, new)
        writes.append(put_of({"pk": pk, "sk": sk, "id": name, "expires_at": expires_at}))
    return writes


def install_entry(install_id: str, received_at: str, tags: Tags, expires_at: int) -> Item | None:
    """The entry of an install, which ends with the install; None where no tag of it is indexed."""
    value = tags.get(INDEXED)
    if value is None:
        return None
    sk = f"{INSTALL_PREFIX}{received_at}#{install_id}"
    return {"pk": tag_partition(INDEXED, value), "sk": sk, "id": install_id, "expires_at": expires_at}


def find_page(
    table: Table, prefix: str, value: str, cursor: str | None, limit: int, *, newest_first: bool = False
) -> tuple[list[str], str | None]:
    """The names or ids of one page of what has the tag `customer_id` with this value, and the next cursor."""
    items, next_cursor = table.query(
        tag_partition(INDEXED, value), sk_prefix=prefix, cursor=cursor, limit=limit, newest_first=newest_first
    )
    return [item["id"] for item in items], next_cursor


def _connection_key(name: str, value: str) -> tuple[str, str]:
    return tag_partition(INDEXED, value), f"{CONNECTION_PREFIX}{name}"
