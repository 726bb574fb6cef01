"""Connections: stored credentials for one account of one platform, the credentials themselves being in the vault.

A connection's item is the commit point of its credentials: whoever wants them follows `secret_id` and `version_id`, so
replacing them is one conditional write, and until it is made the old ones stand whole.

Beside the connection's fields the item holds what its keepers need: the lease of whoever changes its credentials
(`lease_until`, `fence`, `tries`, `retry_at`, see `tokens`), credentials that the vault does not take now (`sealed`), when a
renewal last added a version to the secret (`version_added_at`), an event that is still to be put on the bus (`announce`), and
when `renew_tokens` must look at it (`due_at`, in the index `by_due`).
"""

from __future__ import annotations

import zlib
from dataclasses import fields as dataclass_fields
from dataclasses import replace as with_changes
from datetime import UTC, datetime, timedelta

from portaria.aws import due_index
from portaria.aws.table import Item, Table
from portaria.core import clock
from portaria.core.entities import ROTATION_WARNINGS_AT, Connection, Rejected

SK = "CONNECTION"
LIST = "CONNECTIONS"
FIELDS = tuple(field.name for field in dataclass_fields(Connection))

# Kinds whose credentials are what somebody typed in, and so grow old.
STATIC_KINDS = ("api_key", "basic", "bearer")

# What the item says of its own accord is to be told to the bus.
ANNOUNCE = "announce"
VERSION_ADDED_AT = "version_added_at"
# Renewals add at most one version to a secret in this time: 72 a day of the 100 that a secret takes. The rest is for workers
# that store a pair twice. AWS advises against more than one each ten minutes.
# https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_limits.html
VERSION_EVERY = timedelta(minutes=20)
# Sorts behind every moment.
NEVER = "9999"


def key(name: str) -> tuple[str, str]:
    return f"CONNECTION#{name}", SK


def installed_name(platform: str, client: str, account_id: str) -> str:
    """How a connection is called that an account made by installing a client's application."""
    return f"{platform}-{client}-{account_id}"


def find(table: Table, name: str) -> Connection | None:
    item = table.get(*key(name))
    return read(item) if item else None


def get(table: Table, name: str) -> Connection:
    """Raises `Rejected` (`unknown_connection`) where there is none."""
    return read(get_item(table, name))


def get_item(table: Table, name: str) -> Item:
    """The whole item, its keepers' attributes included. Raises `Rejected` (`unknown_connection`)."""
    item = table.get(*key(name))
    if not item:
        raise Rejected("unknown_connection", f"there is no connection {name!r}", field="connection", status=404)
    return item


def read(item: Item) -> Connection:
    values = {field: item[field] for field in FIELDS if field in item}
    values["notes"] = tuple(values.get("notes", ()))
    return Connection(**values)


def to_item(connection: Connection, *, announce: str = "") -> Item:
    """A connection as it is stored, due when it should be; at once where there is an event to `announce`."""
    pk, sk = key(connection.name)
    item: Item = {field: getattr(connection, field) for field in FIELDS}
    item["notes"] = list(connection.notes)
    item |= {"pk": pk, "sk": sk, "list_pk": LIST, "list_sk": connection.name}
    if connection.account_id:
        item["source"] = _account(connection.platform, connection.account_id)
    now = clock.now()
    due = clock.to_iso(now) if announce else due_at(connection, now)
    if due:
        item |= {"due_pk": due_index.RENEWALS, "due_at": due}
    return item | ({ANNOUNCE: announce} if announce else {})


def due_at(connection: Connection, now: datetime) -> str:
    """When `renew_tokens` must look at a connection next (ISO 8601), or an empty text where it need not.

    A token is renewed when 80 to 90 % of its life are over: spread by the name, so that accounts that were connected together
    are not renewed together. Of typed-in credentials people are warned at 80 and 90 days, and the old ones of a rotation go
    when their overlap ends.
    """
    if connection.state != "connected":
        return ""
    moments: list[datetime] = []
    if connection.kind in STATIC_KINDS and connection.granted_at:
        moments += [clock.from_iso(connection.granted_at) + age for age in ROTATION_WARNINGS_AT]
        moments = [moment for moment in moments if moment > now]
    if connection.previous_until:
        moments.append(clock.from_iso(connection.previous_until))
    if connection.kind == "oauth2" and connection.token_ends_at:
        moments.append(renewal_at(connection))
    return clock.to_iso(min(moments)) if moments else ""


def renewal_at(connection: Connection) -> datetime:
    """When a connection's access token should be renewed, by when it was given (`updated_at`) and when it ends."""
    given = clock.from_iso(connection.updated_at)
    life = clock.from_iso(connection.token_ends_at) - given
    return given + life * (0.8 + 0.1 * spread(f"{connection.name}#{connection.generation}"))


def vault_rests_until(item: Item) -> datetime:
    """Until when renewals of a connection add no version to its secret."""
    added_at = item.get(VERSION_ADDED_AT)
    return clock.from_iso(added_at) + VERSION_EVERY if added_at else datetime.min.replace(tzinfo=UTC)


def spread(text: str) -> float:
    """A number from 0 to 1 that a text decides: jitter that is the same wherever it is worked out."""
    return zlib.crc32(text.encode()) / 2**32


def create(table: Table, connection: Connection) -> None:
    """Raises `Conflict` where the name is taken, by whatever kind of connection but one that has been removed."""
    now = clock.to_iso(clock.now())
    table.put(
        to_item(with_changes(connection, created_at=now, updated_at=now)),
        condition="attribute_not_exists(pk) OR #state = :removed",
        names={"#state": "state"},
        values={":removed": "removed"},
    )


def list_page(table: Table, cursor: str | None, limit: int) -> tuple[list[Connection], str | None]:
    items, cursor = table.query(LIST, index="listing", cursor=cursor, limit=limit)
    return [read(item) for item in items], cursor


def of_account(table: Table, platform: str, account_id: str) -> list[Connection]:
    """Every connection to one account, by name, the removed ones too. A new one is among them soon, not at once."""
    return [read(item) for item in table.query_all(_account(platform, account_id), index="by_source")]


def _account(platform: str, account_id: str) -> str:
    """What stands in `source`, the key of the index `by_source`, next to what routes have there."""
    return f"account:{platform}/{account_id}"


def due_now(announce: str) -> Item:
    """The attributes that have an event put on the bus soon, for an update of the item."""
    return due_index.attributes(due_index.RENEWALS, clock.now()) | {ANNOUNCE: announce}
