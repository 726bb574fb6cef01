"""Administering connections: making one from credentials, replacing these, and taking one away.

What credentials and fields a platform needs is in its `tokens` part (`KIND`, `FIELDS`, `CREDENTIALS`, `ALLOWED_DOMAIN`).
Connections to a platform that has no such list are made by installing its application.
"""

from __future__ import annotations

import secrets
from dataclasses import replace as with_changes
from types import ModuleType
from typing import Any

from pydantic import Field

from portaria import clock, connections, egress, routes
from portaria.administration.inputs import Input, InvalidInput, PlatformName, ResourceName, SecretText, parse
from portaria.administration.oauth_clients import HIDDEN
from portaria.contract import Connection, Rejected, Retryable
from portaria.platforms import part
from portaria.table import Conflict, Table
from portaria.vault import Credentials, Vault


class Replacement(Input):
    platform: PlatformName
    credentials: dict[str, SecretText]
    fields: dict[str, str] = Field(default_factory=dict)


class Creation(Replacement):
    name: ResourceName


def create(table: Table, vault: Vault, body: dict[str, Any]) -> dict[str, Any]:
    """Raises `Rejected` (409 `connection_exists`, 400 `credentials_refused`) and `Retryable`; nothing is stored then.

    Each creation has a secret of its own, so neither a rival nor a removed namesake whose secret can still be brought
    back gets in its way. A death between secret and item leaves a secret that no connection points to.
    """
    sent = parse(Creation, body)
    platform = _tokens_part(sent.platform)
    _check_fields(platform, sent)
    _refuse_install_name(sent.name)
    if connections.find(table, sent.name):
        raise _exists(sent.name)
    secret_id = vault.grant_id(f"{sent.name}-{secrets.token_hex(4)}")
    connection = Connection(
        name=sent.name,
        platform=sent.platform,
        kind=platform.KIND,
        allowed_domain=platform.ALLOWED_DOMAIN,
        state="connected",
        generation=1,
        secret_id=secret_id,
        granted_at=clock.to_iso(clock.now()),
        fields=dict(sent.fields),
    )
    _try_credentials(platform, connection, sent.credentials)
    vault.create(secret_id, sent.credentials)
    try:
        connections.create(table, connection)
    except Conflict:
        vault.remove(secret_id, at_once=True)
        raise _exists(sent.name) from None
    return show(connections.get(table, sent.name))


def replace(table: Table, vault: Vault, name: str, body: dict[str, Any]) -> dict[str, Any]:
    """Give a connection other credentials for the same account, under a new generation. Raises as `create` does."""
    sent = parse(Replacement, body)
    platform = _tokens_part(sent.platform)
    _check_fields(platform, sent)
    old = connections.get(table, name)
    for field in ("platform", "fields"):
        if getattr(sent, field) != getattr(old, field):
            raise Rejected(
                "connection_fixed",
                f"{field} of a connection cannot change: make another connection and lead the routes to it",
                field=field,
                status=409,
            )
    _try_credentials(platform, old, sent.credentials)
    # The new credentials are in place before the generation tells that they are; a death in between costs nothing, since
    # a token fetched with the old ones is good until its end.
    vault.replace(old.secret_id, sent.credentials)
    now = clock.to_iso(clock.now())
    fresh = with_changes(old, generation=old.generation + 1, state="connected", updated_at=now, granted_at=now)
    try:
        table.put(
            connections.to_item(fresh),
            condition="generation = :generation AND #state <> :removed",
            values={":generation": old.generation, ":removed": "removed"},
            names={"#state": "state"},
        )
    except Conflict:
        raise _changed(name) from None
    return show(fresh)


def get(table: Table, name: str) -> dict[str, Any]:
    return show(connections.get(table, name))


def list_page(table: Table, cursor: str | None, limit: int) -> tuple[list[dict[str, Any]], str | None]:
    found, next_cursor = connections.list_page(table, cursor, limit)
    return [show(connection) for connection in found], next_cursor


def delete(table: Table, vault: Vault, name: str) -> None:
    """Raises `Rejected`: 404 `unknown_connection`, 409 `connection_in_use` while a route leads to it or starts at it.

    The connection is marked removed, then its secret goes (it can be brought back for seven days), then the item: after a
    death anywhere, deleting again goes on from there.
    """
    connection = connections.get(table, name)
    for item in table.query_all(routes.LIST, index="listing"):
        if name in (item["destination"], item["source"].removeprefix("connection:")):
            raise Rejected("connection_in_use", f"the route {item['name']} needs it: delete that first", status=409)
    fence = "generation = :generation"
    values = {":generation": connection.generation}
    try:
        table.update(
            *connections.key(name),
            "SET #state = :removed",
            condition=fence,
            values={**values, ":removed": "removed"},
            names={"#state": "state"},
        )
        vault.remove(connection.secret_id)
        table.delete(*connections.key(name), condition=fence, values=values)
    except Conflict:
        raise _changed(name) from None


def show(connection: Connection) -> dict[str, Any]:
    shown: dict[str, Any] = {
        field: getattr(connection, field)
        for field in (
            "name", "platform", "kind", "state", "label", "client", "account_id", "allowed_domain", "scopes", "generation",
            "created_at", "updated_at", "granted_at",
        )
    }  # fmt: skip
    names = getattr(part(connection.platform, "tokens"), "CREDENTIALS", ())
    return shown | {
        "fields": connection.fields,
        "credentials": {name: HIDDEN for name in names},
        "notes": list(connection.notes),
    }


def _tokens_part(platform: str) -> ModuleType:
    try:
        tokens = part(platform, "tokens")
    except Rejected:
        raise Rejected("unknown_platform", f"there is no platform {platform!r} here", field="platform") from None
    if not hasattr(tokens, "CREDENTIALS"):
        detail = f"connections to {platform} are made by installing its application, not from credentials"
        raise Rejected("made_by_install", detail, field="platform")
    return tokens


def _check_fields(platform: ModuleType, sent: Replacement) -> None:
    errors = []
    for section, given, allowed in (
        ("fields", set(sent.fields), set(platform.FIELDS)),
        ("credentials", set(sent.credentials), set(platform.CREDENTIALS)),
    ):
        errors += [(f"{section}.{name}", f"{section}.{name} is missing") for name in sorted(allowed - given)]
        # A key that is not known may be anything, even a secret that slipped out of its place: it is not repeated.
        if given - allowed:
            errors.append(
                (section, f"{section} holds {len(given - allowed)} unknown: only {', '.join(sorted(allowed))}")
            )
    for name, pattern in platform.FIELDS.items():
        if name in sent.fields and not pattern.fullmatch(sent.fields[name]):
            errors.append((f"fields.{name}", f"fields.{name} must match {pattern.pattern}"))
    if errors:
        raise InvalidInput(errors)


def _refuse_install_name(name: str) -> None:
    """`kommo-…` is how an install names its connection: taken by another kind, that account could not connect."""
    try:
        part(name.partition("-")[0], "install")
    except Rejected:
        return
    raise Rejected(
        "name_reserved",
        f"names that begin with {name.partition('-')[0]}- are for connections made by installs",
        field="name",
    )


def _try_credentials(platform: ModuleType, connection: Connection, credentials: Credentials) -> None:
    """Ask for a token. Raises `Rejected` where the platform says no and `Retryable` where it says nothing."""
    try:
        response = egress.send(
            platform.token_request(connection, credentials), allowed_domain=platform.token_domain(connection)
        )
        platform.read_grant(response, clock.now())
    except Rejected as refused:
        raise Rejected("credentials_refused", f"{refused.detail}; nothing was stored", field="credentials") from None
    except Retryable as silent:
        raise Retryable(
            "platform_unreachable",
            f"the credentials could not be tried, so nothing was stored: {silent.detail}",
            after_s=silent.after_s,
        ) from None


def _exists(name: str) -> Rejected:
    detail = f"there is a connection {name} already: replace its credentials with PUT"
    return Rejected("connection_exists", detail, field="name", status=409)


def _changed(name: str) -> Rejected:
    return Rejected(
        "connection_changed", f"the connection {name} has just changed: look at it and try again", status=409
    )
