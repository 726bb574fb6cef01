"""Addresses for events: giving a connection a new one, and taking it back.

An address carries a random key, and where the platform has such a header, events need a secret of its own in it. The table
holds their SHA-256, for `event_receiver` to check; it is written before the platform hears of the address, so that no event
finds it unknown. One that is replaced works for another hour, since events are on their way to it; one that is closed is still
known for a minute to whoever has just used it, and ingest_records drops what comes of that.
"""

from __future__ import annotations

from datetime import timedelta

from portaria import platforms
from portaria.aws.table import Conflict, Item, Table
from portaria.core import clock
from portaria.core.entities import Connection, Retryable, Secret
from portaria.webhooks.event_receiver import SK, Key, digest, partition, read_key

# 256 bits.
KEY_BYTES = 32
OVERLAP_S = 60 * 60
# Of the keys that were replaced within the overlap. Whoever makes more in an hour ends the oldest early.
MAX_PREVIOUS = 5
# A closed address is forgotten after this.
CLOSED_FOR = timedelta(days=1)


def open_address(table: Table, connection: Connection, key: Secret, header: Secret | None = None) -> bool:
    """Let events in by this key, and for an hour still by the one before. Doing it again with the same key changes nothing.

    False where a later grant of the connection has opened its own: then this one is nobody's any more. Raises `Retryable` where
    somebody else opened one at the same moment.
    """
    item = table.get(partition(connection.name), SK) or {}
    if item.get("granted_at", "") > connection.granted_at:
        return False
    now = int(clock.now().timestamp())
    fresh = Key(digest(key.reveal()), digest(header.reveal()) if header else "")
    known = [read_key(text) for text in item.get("keys", [])]
    if fresh in known:
        return True
    previous = [one if one.until else one._replace(until=now + OVERLAP_S) for one in known if one.works(now)]
    platform = platforms.load(connection.platform)
    made: Item = {
        "pk": partition(connection.name),
        "sk": SK,
        "platform": connection.platform,
        "account_id": platform.require(platform.events).account_of(connection.account_id, connection.fields),
        "granted_at": connection.granted_at,
        "keys": [one.text() for one in (fresh, *previous[:MAX_PREVIOUS])],
    }
    try:
        table.put_revision(made, new=not item, revision=item.get("revision", ""))
    except Conflict:
        raise Retryable("address_changed", "another URL was created at the same moment", after_s=1) from None
    return True


def close_address(table: Table, connection: Connection) -> None:
    """Let nothing in any more, but what a later grant has opened. Without an address nothing happens."""
    try:
        table.update(
            partition(connection.name),
            SK,
            "SET #keys = :none, revision = :closed, expires_at = :expires_at",
            condition="attribute_exists(pk) AND granted_at <= :granted_at",
            names={"#keys": "keys"},
            values={
                ":none": [],
                ":closed": "closed",
                ":expires_at": int((clock.now() + CLOSED_FOR).timestamp()),
                ":granted_at": connection.granted_at,
            },
        )
    except Conflict:
        return
