"""Claims: tags for the connection of an account that installed, or will install, without a link.

A marketplace's install webhook carries no state. The team shows a link inside its widget page instead, bound to the account,
and what the customer confirms there waits in the item `CLAIM#…` for the account's connection:

    confirmed → the connection exists: tagged at once, by a message of the Exchanges queue
              → it does not exist yet: tagged in the transaction that creates it, until the link's end

The item is deleted once the tags are on the connection and the event about it was published.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from portaria.aws import event_bus
from portaria.aws.table import Conflict, Item, Table, delete_of, update_of
from portaria.connections import connection_store
from portaria.core import clock, event_catalogue
from portaria.core.entities import Connection
from portaria.core.errors import Retryable
from portaria.core.item_keys import claim_key
from portaria.core.tags import Tags, decode
from portaria.installs.install_messages import ClaimNotice


@dataclass(frozen=True)
class Claim:
    """Tags that wait. `link` is the id of the link that they came with; `claimed_at` is ISO 8601."""

    platform: str
    client: str
    account_id: str
    link: str
    tags: Tags
    claimed_at: str
    has_ended: bool
    is_applied: bool

    @property
    def key(self) -> tuple[str, str]:
        return claim_key(self.platform, self.client, self.account_id)


def find(table: Table, platform: str, client: str, account_id: str) -> Claim | None:
    item = table.get(*claim_key(platform, client, account_id))
    return _read(item, clock.now()) if item else None


def consumption(platform: str, client: str, account_id: str, claim: Claim | None) -> dict[str, Any]:
    """The part of a transaction that creates an account's connection: no other claim than this one has come meanwhile."""
    key = claim_key(platform, client, account_id)
    if claim is None:
        return delete_of(*key, "attribute_not_exists(pk)")
    return delete_of(*key, "link = :link", {":link": claim.link})


def apply(notice: ClaimNotice, table: Table, bus_name: str) -> str:
    """Tag the account's connection if there is one. Returns `tagged`, `waiting` or `ignored`; safe to repeat.

    Raises `Retryable` where the connection changes at the same time.
    """
    claim = find(table, notice.platform, notice.client, notice.account_id)
    if claim is None or (claim.has_ended and not claim.is_applied):
        return "ignored"
    name = connection_store.installed_name(claim.platform, claim.client, claim.account_id)
    connection = connection_store.find(table, name)
    if connection is None or connection.state == "removed":
        return "waiting"
    if not claim.is_applied and claim.claimed_at > connection.tagged_at:
        applied = update_of(
            *claim.key, "SET applied = :yes", condition="link = :link", values={":yes": 1, ":link": claim.link}
        )
        try:
            at = clock.from_iso(claim.claimed_at)
            connection = connection_store.replace_tags(table, connection, claim.tags, at, also=[applied])
        except Conflict:
            raise Retryable("connection_changed", "the connection changed meanwhile", after_s=1) from None
    publish_tagged(bus_name, connection)
    try:
        table.delete(*claim.key, condition="link = :link", values={":link": claim.link})
    except Conflict:
        # Another claim has come, with a message of its own.
        return "tagged"
    return "tagged"


def publish_tagged(bus_name: str, connection: Connection) -> None:
    """Put the event `connection.tagged` on the bus, for tags that no other event tells of. Raises `Retryable`."""
    event_bus.put(
        bus_name,
        event_catalogue.TAGGED,
        {
            "connection": connection.name,
            "platform": connection.platform,
            "client": connection.client,
            "tags": connection.tags,
        },
    )


def _read(item: Item, now: datetime) -> Claim:
    return Claim(
        platform=item["platform"],
        client=item["client"],
        account_id=item["account_id"],
        link=item["link"],
        tags=decode(item["tags"]),
        claimed_at=item["claimed_at"],
        has_ended=int(item["ends_at"]) <= now.timestamp(),
        is_applied=bool(item.get("applied")),
    )
