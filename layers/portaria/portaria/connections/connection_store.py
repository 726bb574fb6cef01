"""Connections: stored credentials for one account of one platform. The credentials themselves are in the vault.

A connection's item is the commit point of its credentials: every reader follows `secret_id` and `version_id`, so replacing
them is one conditional write, and until then the old ones are in use.

Besides the connection's fields the item has attributes for the workers: the lease on its credentials (`lease_until`, `fence`,
`tries`, `retry_at`, see `tokens.refresh_lease`), credentials that the vault could not accept (`sealed`), when a refresh last
added a version to the secret (`version_added_at`), an event that is still to be published (`announce`), and when `renew_tokens`
must visit it (`due_at`, in the index `by_due`). The index `by_filter` finds connections by state and platform; every write of
`state` writes its keys too (`filter_keys`).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import fields as dataclass_fields
from dataclasses import replace as with_changes
from datetime import UTC, datetime, timedelta
from typing import Any

from portaria.aws import due_index, filter_index, merged_pages
from portaria.aws.table import Item, Table, update_of
from portaria.connections import tag_index
from portaria.connections.credential_stores.protocol import SECRETS_MANAGER, store_name
from portaria.core import clock
from portaria.core.entities import ROTATION_WARNINGS_AT, Connection
from portaria.core.errors import Rejected
from portaria.core.tags import INDEXED, Tags

SK = "CONNECTION"
LIST = "CONNECTIONS"
STATES = ("pending", "connected", "needs_reconnect", "removed")
FIELDS = tuple(field.name for field in dataclass_fields(Connection))

# Kinds whose credentials a person entered: they do not expire by themselves.
STATIC_KINDS = ("api_key", "basic", "bearer")

# The attribute that names an event which is still to be published.
ANNOUNCE = "announce"
VERSION_ADDED_AT = "version_added_at"
# Refreshes add at most one version to a secret in this time: 72 a day of the 100 that a secret can have. The rest is for
# workers that store a pair twice. AWS advises against more than one version each ten minutes.
# https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_limits.html
VERSION_EVERY = timedelta(minutes=20)
# Sorts after every time.
NEVER = "9999"
# The condition that a connection's tags have not changed since it was read. One that has never had tags may lack the attribute.
TAGS_UNCHANGED = "(attribute_not_exists(tagged_at) OR tagged_at = :tagged_before)"


def key(name: str) -> tuple[str, str]:
    return f"CONNECTION#{name}", SK


def installed_name(platform: str, client: str, account_id: str) -> str:
    """The name of a connection that an account made by installing a client's application."""
    return f"{platform}-{client}-{account_id}"


def find(table: Table, name: str) -> Connection | None:
    item = table.get(*key(name))
    return read(item) if item else None


def get(table: Table, name: str) -> Connection:
    """Raises `Rejected` (`unknown_connection`) if there is none."""
    return read(get_item(table, name))


def get_item(table: Table, name: str) -> Item:
    """The whole item, the workers' attributes included. Raises `Rejected` (`unknown_connection`)."""
    item = table.get(*key(name))
    if not item:
        raise Rejected("unknown_connection", f"there is no connection {name}", field="connection", status=404)
    return item


def read(item: Item) -> Connection:
    values = {field: item[field] for field in FIELDS if field in item}
    values["notes"] = tuple(values.get("notes", ()))
    return Connection(**values)


def to_item(connection: Connection, *, announce: str = "") -> Item:
    """A connection as it is stored, with its due time: now if there is an event to `announce`."""
    pk, sk = key(connection.name)
    item: Item = {field: getattr(connection, field) for field in FIELDS}
    item["notes"] = list(connection.notes)
    item |= {"pk": pk, "sk": sk, "list_pk": LIST, "list_sk": connection.name}
    item |= filter_keys(connection, connection.state)
    if connection.account_id:
        item["source"] = _account(connection.platform, connection.account_id)
    now = clock.now()
    due = clock.to_iso(now) if announce else due_at(connection, now)
    if due:
        item |= {"due_pk": due_index.RENEWALS, "due_at": due}
    return item | ({ANNOUNCE: announce} if announce else {})


def due_at(connection: Connection, now: datetime) -> str:
    """When `renew_tokens` must visit a connection next (ISO 8601); empty if no visit is needed.

    A token is refreshed when 80 to 90 % of its life have passed, spread by the name, so that accounts that were connected
    together are not refreshed together. Owners of static credentials are warned at 80 and 90 days. The old credentials of a
    rotation are dropped when their overlap ends.
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
    """When a connection's access token should be refreshed, from when it was issued (`updated_at`) and when it ends."""
    given = clock.from_iso(connection.updated_at)
    life = clock.from_iso(connection.token_ends_at) - given
    return given + life * (0.8 + 0.1 * spread(f"{connection.name}#{connection.generation}"))


def vault_rests_until(item: Item) -> datetime:
    """The time until which refreshes of a connection add no version to its secret. The table takes any number of them."""
    added_at = item.get(VERSION_ADDED_AT) if store_name(item["secret_id"]) == SECRETS_MANAGER else None
    return clock.from_iso(added_at) + VERSION_EVERY if added_at else datetime.min.replace(tzinfo=UTC)


def spread(text: str) -> float:
    """A number from 0 to 1 derived from a text: jitter that is the same in every process."""
    return zlib.crc32(text.encode()) / 2**32


def create(table: Table, connection: Connection) -> None:
    """Raises `Conflict` if the name is taken by a connection that has not been removed."""
    now = clock.to_iso(clock.now())
    table.put(
        to_item(with_changes(connection, created_at=now, updated_at=now)),
        condition="attribute_not_exists(pk) OR #state = :removed",
        names={"#state": "state"},
        values={":removed": "removed"},
        unique=("created_at", "secret_id", "kind", "platform"),
    )


def list_page(table: Table, cursor: str | None, limit: int) -> tuple[list[Connection], str | None]:
    items, cursor = table.query(LIST, index="listing", cursor=cursor, limit=limit)
    return [read(item) for item in items], cursor


def filtered_page(
    table: Table, platforms: Iterable[str], states: Iterable[str], cursor: str | None, limit: int
) -> tuple[list[Connection], str | None]:
    """One page of the connections of these platforms in these states, by name.

    The index is eventually consistent: a connection that has just left these states is left out, so a page may be short.
    Raises `Rejected` (`bad_cursor`).
    """
    partitions = [_partition(platform, state) for platform in platforms for state in states]
    entries, next_cursor = merged_pages.merged_page(
        table, partitions, index=filter_index.INDEX, cursor=cursor, limit=limit
    )
    items = filter_index.read_items(table, entries)
    return [read(item) for item in items if item.get("filter_pk") in partitions], next_cursor


def names_of(table: Table, platforms: Iterable[str], states: Iterable[str] = STATES) -> list[str]:
    """The names of all connections of these platforms in these states, by default the removed ones too. Reads keys only, of
    an index.
    """
    partitions = [_partition(platform, state) for platform in platforms for state in states]
    return [entry["filter_sk"] for each in partitions for entry in table.query_all(each, index=filter_index.INDEX)]


def filter_keys(connection: Connection, state: str) -> Item:
    """The attributes that put a connection into the index `by_filter` when it gets this state."""
    return filter_index.keys(_partition(connection.platform, state), connection.name)


def of_customer(table: Table, customer_id: str, cursor: str | None, limit: int) -> tuple[list[Connection], str | None]:
    """One page of the connections whose tag `customer_id` has this value, by name. A page may be short before the last."""
    names, next_cursor = tag_index.find_page(table, tag_index.CONNECTION_PREFIX, customer_id, cursor, limit)
    items = table.get_many(key(name) for name in names)
    found = [read(items[key(name)]) for name in names if key(name) in items]
    return [each for each in found if each.tags.get(INDEXED) == customer_id], next_cursor


def replace_tags(
    table: Table, connection: Connection, tags: Tags, at: datetime, *, also: Sequence[dict[str, Any]] = ()
) -> Connection:
    """Give a connection other tags, and nothing else. `at` is when they were given; `also` are writes of the same transaction.

    Raises `Conflict` where the connection was removed or its tags have changed since it was read.
    """
    tagged_at = clock.to_iso(max(at, _after(connection.tagged_at)))
    table.write_all(
        [
            tagging(connection, tags, tagged_at),
            *tag_index.connection_writes(connection.name, connection.tags, tags),
            *also,
        ]
    )
    return with_changes(connection, tags=tags, tagged_at=tagged_at)


def tagging(connection: Connection, tags: Tags, tagged_at: str) -> dict[str, Any]:
    """The part of a transaction that gives a connection other tags and nothing else."""
    return update_of(
        *key(connection.name),
        "SET #tags = :tags, tagged_at = :tagged_at",
        condition=f"attribute_exists(pk) AND #state <> :removed AND {TAGS_UNCHANGED}",
        values={":tags": tags, ":tagged_at": tagged_at, ":removed": "removed"} | tags_fence(connection),
        names={"#tags": "tags", "#state": "state"},
    )


def tags_fence(connection: Connection) -> Item:
    """The values of `TAGS_UNCHANGED`."""
    return {":tagged_before": connection.tagged_at}


def _after(moment: str) -> datetime:
    """The first moment after a stored one, since stored moments have milliseconds."""
    return clock.from_iso(moment) + timedelta(milliseconds=1) if moment else datetime.min.replace(tzinfo=UTC)


def of_account(table: Table, platform: str, account_id: str) -> list[Connection]:
    """Every connection to one account, by name, the removed ones too. The index is eventually consistent."""
    return [read(item) for item in table.query_all(_account(platform, account_id), index="by_source")]


def _partition(platform: str, state: str) -> str:
    """The value of `filter_pk`. One for each state and platform, so that the writes of many states spread over partitions."""
    return f"CONNECTIONS#{state}#{platform}"


def _account(platform: str, account_id: str) -> str:
    """The value of `source`, the key of the index `by_source`, which routes use too."""
    return f"account:{platform}/{account_id}"


def due_now(announce: str) -> Item:
    """The attributes that schedule the publishing of an event, for an update of the item."""
    return due_index.attributes(due_index.RENEWALS, clock.now()) | {ANNOUNCE: announce}
