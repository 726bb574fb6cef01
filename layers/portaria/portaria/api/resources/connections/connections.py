"""Administering connections: making one, replacing or rotating its credentials, and taking it away.

`connection_rules` says what one may be. A kind without credentials of its own
has those of an OAuth client; where it also needs a person's consent it begins as `pending`. Connections to a platform that
has no kinds are made by installing its application.
"""

from __future__ import annotations

import secrets
from dataclasses import replace as with_changes
from typing import Any, Literal

from pydantic import Field

from portaria import platforms
from portaria.api.operation import ApiRequest, Filters, Reply, page, require_match
from portaria.api.rules import connection_rules, tag_filters
from portaria.api.rules.stored_resources import Stored, is_deleted
from portaria.api.schemas import Output, Time
from portaria.api.validation import PLATFORM_NAME, Matching, hide
from portaria.aws.table import Conflict
from portaria.connections import connection_store, grant_life, rotation
from portaria.connections.tokens.static_credentials import LOG_IN_KINDS
from portaria.connections.vault import version_id
from portaria.core import clock
from portaria.core.entities import Connection
from portaria.core.errors import Rejected
from portaria.records import routes

FILTERS: Filters = {
    "platform": Matching(PLATFORM_NAME, "a platform's name"),
    "state": connection_store.STATES,
    "account_id": Matching(
        r"[\x21-\x7e]{1,255}", "an account's id at the platform: 1 to 255 printable ASCII characters"
    ),
    tag_filters.NAME: tag_filters.RULE,
}


class ConnectionOutput(Output):
    """Stored credentials of one account of one platform. A value is null if a connection of this kind does not have it, or
    not yet.
    """

    name: str = Field(description="The connection's name, which never changes.")
    platform: str = Field(description="The platform that the account belongs to.")
    kind: str = Field(description="How the connection authenticates, such as `oauth2`, `api_key` or `basic`.")
    state: Literal["pending", "connected", "needs_reconnect", "removed"] = Field(
        description="`pending` (nobody has granted access yet), `connected`, `needs_reconnect` (`reason` says why) or "
        "`removed`.",
    )
    reason: str | None = Field(description="Why the connection needs to be connected again, or was removed.")
    label: str | None = Field(description="The account's name at the platform.")
    client: str | None = Field(description="The name of the OAuth client that the connection uses.")
    account_id: str | None = Field(description="The account's id at the platform.")
    allowed_domain: str = Field(description="The host, or `*.` and a domain, that the credentials may be sent to.")
    scopes: str | None = Field(description="The scopes that the platform granted.")
    generation: int = Field(description="A number that grows when the credentials change.")
    created_at: Time | None = Field(description="When the connection was created.")
    updated_at: Time | None = Field(description="When the connection was changed last.")
    granted_at: Time | None = Field(description="When the current credentials were given or granted.")
    token_ends_at: Time | None = Field(description="When the access token expires. It is refreshed before that.")
    grant_ends_at: Time | None = Field(
        description="When the grant ends if its tokens are not renewed. Null if the platform sets no end."
    )
    previous_until: Time | None = Field(
        description="Until when the previous token is kept as a fallback after a rotation."
    )
    refused_since: Time | None = Field(
        description="Since when the platform refuses to refresh the token. Null if it does not."
    )
    refusal: str | None = Field(description="The platform's last refusal, for people.")
    age_days: int | None = Field(description="The age of the current credentials in days.")
    fields: dict[str, str] = Field(description="The platform's own fields of the connection, which are not secret.")
    tags: dict[str, str] = Field(
        description="Which of your customers the connection belongs to, such as `customer_id`."
    )
    credentials_set: list[str] = Field(
        description="The names of the secrets that are stored. A secret is never returned."
    )
    notes: list[str] = Field(description="Sentences about the account that people should know.")


class DeletedConnection(Output):
    """A connection that was deleted."""

    name: str = Field(description="The name of the deleted connection, which can be used again.")
    waiting_record_count: int | None = Field(
        description="About how many records waited for it. They become dead letters, unless a connection of this name is "
        "created within a minute. Null if the number could not be read.",
    )


def create(asked: ApiRequest) -> Reply:
    """Raises `Rejected` (409 `connection_exists`, `api_domains_missing`; 400 `credentials_refused`, `domain_not_registered`)
    and `Retryable`; nothing is stored then.

    Each creation has a secret of its own, so neither a rival nor a removed namesake whose secret can still be brought
    back gets in its way. A death between secret and item leaves a secret that no connection points to.
    """
    table, vault, sent = asked.context.table, asked.context.vault, asked.sent
    platform, kind_name, fields, credentials, allowed_domain, client = connection_rules.check_creation(
        sent, Stored(table)
    )
    namesake = connection_store.find(table, sent.name)
    if namesake and namesake.state != "removed":
        raise _exists(sent.name)
    now = clock.to_iso(clock.now())
    pending = client is not None and kind_name not in LOG_IN_KINDS
    secret_id = "" if pending else vault.grant_id(f"{sent.name}-{secrets.token_hex(4)}")
    connection = Connection(
        name=sent.name,
        platform=sent.platform,
        kind=kind_name,
        allowed_domain=allowed_domain,
        state="pending" if pending else "connected",
        generation=0 if pending else 1,
        secret_id=secret_id,
        version_id=version_id(secret_id, 1) if secret_id else "",
        client=client.name if client else "",
        account_id=platform.account_fields.account_id(fields) if platform.account_fields else "",
        granted_at="" if pending else now,
        fields=fields,
    )
    if pending:
        return _store(asked, connection)
    scopes = rotation.try_credentials(table, vault, connection, credentials)
    # A provider that names no scopes has granted those that it was asked for (RFC 6749, 5.1).
    scopes = scopes or fields.get("scopes", "") or (client.scopes if client else "")
    # The client has the credentials; the secret makes this connection's tokens its own all the same.
    version = vault.create(secret_id, credentials or {"client": hide(connection.client)}, connection.version_id)
    connection = with_changes(connection, version_id=version, scopes=scopes)
    return _store(asked, connection)


def replace(asked: ApiRequest) -> Reply:
    """Give a connection other credentials for the same account. Raises `Rejected` and `Retryable` as `rotation.replace`."""
    table, sent = asked.context.table, asked.sent
    connection = connection_store.get(table, asked.path["name"])
    require_match(asked, etag(connection))
    credentials = connection_rules.check_replacement(connection, sent)
    fresh = rotation.replace(table, asked.context.vault, connection, credentials)
    _send_waiting(asked, connection.name)
    return reply(fresh)


def rotate(asked: ApiRequest) -> Reply:
    """Hand in the platform's new token. Raises `Rejected` and `Retryable` as `rotation.rotate`."""
    table, sent, name = asked.context.table, asked.sent, asked.path["name"]
    connection = connection_store.get(table, name)
    kind = connection_rules.own_kind(connection)
    credentials = connection_rules.check_credentials(kind, connection.kind, sent.credentials)
    fresh = rotation.rotate(table, asked.context.vault, name, credentials, expire_now=sent.expire_now)
    _send_waiting(asked, name)
    return reply(fresh)


def expire(asked: ApiRequest) -> Reply:
    """Drop the old token of a rotation before its time. Without one nothing happens. Raises as `rotation.expire`."""
    return reply(rotation.expire(asked.context.table, asked.context.vault, asked.path["name"]))


def get(asked: ApiRequest) -> Reply:
    """Raises `Rejected` (404 `unknown_connection`)."""
    name = asked.path["name"]
    connection = connection_store.get(asked.context.table, name)
    if is_deleted(connection):
        raise Rejected("unknown_connection", f"the connection {name} has been deleted", field="connection", status=404)
    return reply(connection)


def etag(connection: Connection) -> str:
    """What an edit can insist on: the generation of the credentials, which every change of them checks, the state, and when the
    connection was tagged."""
    tagged = f"-{connection.tagged_at}" if connection.tagged_at else ""
    return f"{connection.generation}-{connection.state}{tagged}"


def list_page(asked: ApiRequest) -> Reply:
    """By name. A connection whose account has uninstalled is listed as removed. Deleted ones are left out, so a page may be
    short.

    The connections of one account come on one page: an account has few. Every other filter is read from the index `by_filter`.
    """
    table, filters = asked.context.table, asked.filters
    if tag_filters.NAME in filters:
        of_customer, cursor = connection_store.of_customer(table, tag_filters.read(asked), asked.cursor, asked.limit)
        return page([show(connection) for connection in of_customer if not is_deleted(connection)], cursor)
    platform_names = [filters["platform"]] if "platform" in filters else [each.name for each in platforms.every()]
    states = [filters["state"]] if "state" in filters else list(connection_store.STATES)
    next_cursor: str | None = None
    if "account_id" in filters:
        of_account = [connection_store.of_account(table, name, filters["account_id"]) for name in platform_names]
        found = [connection for each in of_account for connection in each if connection.state in states]
        found.sort(key=lambda connection: connection.name)
    elif filters:
        found, next_cursor = connection_store.filtered_page(table, platform_names, states, asked.cursor, asked.limit)
    else:
        found, next_cursor = connection_store.list_page(table, asked.cursor, asked.limit)
    return page([show(connection) for connection in found if not is_deleted(connection)], next_cursor)


def delete(asked: ApiRequest) -> Reply:
    """Raises `Rejected`: 404 `unknown_connection`, 409 `connection_in_use` while a route leads to it or starts at it.

    From here on nobody uses the connection; its secret (which can be brought back for seven days) and its webhooks are removed
    soon after. Its name can be used again at once: scopes that are narrowed to it end with it, and so do its pauses.
    """
    table, name = asked.context.table, asked.path["name"]
    connection = connection_store.get(table, name)
    if route := routes.using(table, name):
        raise Rejected(
            "connection_in_use", f"the route {route.name} uses this connection: delete the route first", status=409
        )
    # Imported here: what only this operation needs.
    from portaria.access import private_integrations  # noqa: PLC0415
    from portaria.installs import uninstall  # noqa: PLC0415

    # First, so that a repeated deletion finishes what a first one began.
    private_integrations.drop_scopes_of(table, name)
    try:
        uninstall.delete(table, asked.context.uninstalls_queue_url, connection)
    except Conflict:
        raise rotation.changed(name) from None
    return Reply({"name": name, "waiting_record_count": _send_waiting(asked, name)})


def show(connection: Connection) -> dict[str, Any]:
    """Everything but the secrets, of which only the names are told."""
    shown: dict[str, Any] = {
        field: getattr(connection, field)
        for field in (
            "name", "platform", "kind", "state", "reason", "label", "client", "account_id", "allowed_domain", "scopes",
            "generation", "created_at", "updated_at", "granted_at", "token_ends_at", "previous_until", "refused_since",
            "refusal",
        )
    }  # fmt: skip
    kind = connection_rules.kinds_of(connection.platform).get(connection.kind)
    ends_at = grant_life.ends_at(connection) if connection.kind == "oauth2" else None
    return shown | {
        "grant_ends_at": clock.to_iso(ends_at) if ends_at else None,
        "age_days": (clock.now() - clock.from_iso(connection.granted_at)).days if connection.granted_at else None,
        "fields": connection.fields,
        "tags": connection.tags,
        "credentials_set": list(kind.credentials if kind and connection.state != "removed" else ()),
        "notes": list(connection.notes),
    }


def _send_waiting(asked: ApiRequest, name: str) -> int | None:
    """Have records that wait for a connection tried at once: it has other credentials, or is gone, which they end for."""
    from portaria.delivery import destination_states  # noqa: PLC0415 - a new connection has no waiting records

    return destination_states.resume_after_change(asked.context.table, asked.context.waiting_records_queue_url, name)


def reply(connection: Connection) -> Reply:
    """A connection as the API returns it, with its ETag."""
    return Reply(show(connection), etag=etag(connection))


def _store(asked: ApiRequest, connection: Connection) -> Reply:
    table = asked.context.table
    try:
        connection_store.create(table, connection)
    except Conflict:
        if connection.secret_id:
            asked.context.vault.remove(connection.secret_id, immediately=True)
        raise _exists(connection.name) from None
    _send_waiting(asked, connection.name)
    return reply(connection_store.get(table, connection.name))


def _exists(name: str) -> Rejected:
    detail = f"the connection {name} exists already: replace its credentials with PUT /connections/{name}/credentials"
    return Rejected("connection_exists", detail, field="name", status=409)
