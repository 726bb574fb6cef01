"""How an install ends, and the event and the item that report a failure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from portaria.aws import event_bus
from portaria.aws.table import Conflict, Item, Table
from portaria.connections import connection_store, oauth_clients, tag_index
from portaria.core import clock, event_catalogue
from portaria.core.errors import Rejected
from portaria.core.item_keys import install_key, install_lists, install_places
from portaria.core.settings import ExchangeCodeSettings
from portaria.core.tags import Tags
from portaria.installs.install_messages import Install

KEPT_FOR = timedelta(days=90)


@dataclass(frozen=True)
class ExchangeOutcome:
    """What became of an install: `state` is `connected` or `failed`, with the reason and the advice where it failed."""

    state: str
    reason: str = ""
    detail: str = ""


def expire(install: Install, settings: ExchangeCodeSettings) -> ExchangeOutcome | None:
    """End an install whose code expired before any worker began, in one write; None where a worker did begin.

    The event is published first: after a death in between it is published again.
    """
    table = Table(settings.table_name)
    pk, sk = install_key(install.id)
    if (table.get(pk, sk) or {}).get("attempts", 0):
        return None
    expired = Rejected("code_expired", "the code reached the end of its life before it could be exchanged")
    publish_failure(table, settings, install, install.account_host, expired)
    now = clock.now()
    expires_at = int((now + KEPT_FOR).timestamp())
    received_at = clock.to_iso(install.received_at)
    item: Item = {
        "pk": pk,
        "sk": sk,
        **install_lists("failed", install.platform, install.client),
        **install_places(install.id, received_at),
        "state": "failed",
        "reason": expired.reason,
        "detail": expired.detail,
        "platform": install.platform,
        "client": install.client,
        "account_host": install.account_host,
        "arrived_by": install.source,
        "received_at": received_at,
        "failed_at": clock.to_iso(now),
        "attempts": 0,
        "expires_at": expires_at,
        **install.from_link(),
    }
    if entry := tag_index.install_entry(install.id, received_at, install.tags, expires_at):
        table.put(entry)
    try:
        table.put(item, condition="attribute_not_exists(attempts) OR attempts = :none", values={":none": 0})
    except Conflict:
        return None
    return ExchangeOutcome("failed", expired.reason, expired.detail)


def publish_failure(
    table: Table, settings: ExchangeCodeSettings, install: Install, account_host: str, rejected: Rejected
) -> None:
    """Put the event `install.failed` on the bus, with the link to reconnect."""
    try:
        client = oauth_clients.get(table, install.platform, install.client)
        reconnect_url = oauth_clients.reconnect_url(client, install.connection)
    except Rejected:
        reconnect_url = ""
    event_bus.put(
        settings.bus_name,
        event_catalogue.INSTALL_FAILED,
        {
            "install_id": install.id,
            "platform": install.platform,
            "client": install.client,
            "account_host": account_host,
            "reason": rejected.reason,
            "detail": rejected.detail,
            "reconnect_url": reconnect_url,
            "tags": install.tags or _tags_of_connection(table, install),
        },
    )


def _tags_of_connection(table: Table, install: Install) -> Tags:
    """The tags of the connection that the install was to authorize again."""
    name = install.connection
    if install.account_id:
        name = connection_store.installed_name(install.platform, install.client, install.account_id)
    connection = connection_store.find(table, name) if name else None
    return connection.tags if connection else {}
