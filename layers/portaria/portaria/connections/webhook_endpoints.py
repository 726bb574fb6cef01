"""Webhook URLs for events: creating and closing a connection's URL.

A URL contains a random key. On platforms that can send a header, events must also have a secret in that header. The table holds
the SHA-256 of both, for `event_receiver` to check; it is written before the platform learns the URL, so that no event arrives
at an unknown URL. A replaced URL works for another hour, because events for it may already have been sent. After a URL is
closed, processes that have just used it accept events for another minute; ingest_records drops those.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

from portaria import platforms
from portaria.aws.table import Conflict, Item, Table
from portaria.core import clock
from portaria.core.callbacks import Secret
from portaria.core.entities import Connection
from portaria.core.errors import Retryable
from portaria.core.settings import API_ENDPOINT
from portaria.webhooks.event_receiver import SK, Key, digest, partition, read_key

# 256 bits.
KEY_BYTES = 32
OVERLAP_S = 60 * 60
# Of the keys that were replaced within the overlap. With more replacements in an hour the oldest key ends early.
MAX_PREVIOUS = 5
# The item of a closed URL is deleted after this time.
CLOSED_FOR = timedelta(days=1)


def base_urls(endpoints: str, api_url: str) -> list[str]:
    """The base URLs of event webhooks, that of new URLs first.

    `endpoints` is the setting `event_endpoints`: `api` or a function URL, or both with a comma between them. `api_url` may be
    empty, and the API's base URL is empty then.
    """
    return [(api_url if endpoint == API_ENDPOINT else endpoint).rstrip("/") for endpoint in endpoints.split(",")]


def subscribed_endpoint(table: Table, connection: Connection) -> str:
    """The base URL that `record_endpoint` stored; empty if there is none."""
    item = table.get(partition(connection.name), SK) or {}
    return str(item.get("endpoint", ""))


def record_endpoint(table: Table, connection: Connection, endpoint: str) -> None:
    """Store that the connection is subscribed at `endpoint` and at no other that this version knows.

    Does nothing without a URL.
    """
    with suppress(Conflict):
        table.update(
            partition(connection.name),
            SK,
            "SET endpoint = :endpoint",
            condition="attribute_exists(pk) AND granted_at = :granted_at",
            values={":endpoint": endpoint, ":granted_at": connection.granted_at},
        )


def open_address(table: Table, connection: Connection, key: Secret, header: Secret | None = None) -> bool:
    """Accept events with this key, and for another hour with the previous one. Idempotent for the same key.

    False if a later grant of the connection has opened its own URL. Raises `Retryable` if another request opened one at
    the same time.
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
    """Accept no more events, except at a URL that a later grant has opened. Does nothing without a URL."""
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
