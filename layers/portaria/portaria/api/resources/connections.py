"""Administering connections: making one, replacing or rotating its credentials, and taking it away.

What a connection of each kind is made of is in its platform's `tokens` part (`KINDS`). A kind without credentials of its own
has those of an OAuth client; where it also needs a person's consent it begins as `pending`. Connections to a platform that
has no kinds are made by installing its application.
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import replace as with_changes
from types import ModuleType
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from portaria.access import private_integrations
from portaria.api.resources.oauth_clients import HIDDEN, Scopes
from portaria.api.router import ApiRequest, Reply, page, require_match
from portaria.api.schemas import Output
from portaria.api.validation import (
    CLIENT_NAME,
    Input,
    InvalidInput,
    Matching,
    PlatformName,
    ResourceName,
    hide,
    read_credential,
)
from portaria.aws import boto3_clients
from portaria.aws.table import Conflict, Table
from portaria.connections import connection_store, oauth_clients, rotation
from portaria.connections.tokens.static_credentials import LOG_IN_KINDS
from portaria.connections.vault import Credentials, Vault, version_id
from portaria.core import clock
from portaria.core.entities import Connection, Kind, OAuthClient, Rejected
from portaria.delivery import waiting_records
from portaria.installs import uninstall
from portaria.outbound import domain_rules
from portaria.platforms import part
from portaria.records import routes

logger = logging.getLogger(__name__)

# Values stay as they came, wrapped where they are text, until the kind says what they must be.
GivenCredentials = dict[
    str, Annotated[Any, BeforeValidator(hide), WithJsonSchema({"type": "string", "format": "password"})]
]
GivenFields = dict[str, Annotated[Any, WithJsonSchema({"type": "string"})]]


class Creation(Input):
    """`kind` may be left out where the platform has one, `allowed_domain` where the platform makes it."""

    platform: PlatformName
    name: ResourceName
    kind: str | None = None
    allowed_domain: str | None = None
    client: str | None = None
    scopes: Scopes | None = None
    fields: GivenFields = Field(default_factory=dict)
    credentials: GivenCredentials = Field(default_factory=dict)


class Replacement(Input):
    """Only the credentials change; whatever else is sent must be as it is."""

    credentials: GivenCredentials
    platform: str | None = None
    kind: str | None = None
    allowed_domain: str | None = None
    client: str | None = None
    scopes: Scopes | None = None
    fields: GivenFields = Field(default_factory=dict)


class Rotation(Input):
    """With `expire_now` the old token is dropped at once, otherwise after the platform's overlap."""

    credentials: GivenCredentials
    expire_now: bool = False


class Shown(Output):
    """Times are ISO 8601; an empty text or null stands for what a connection of its kind does not have (yet)."""

    name: str
    platform: str
    kind: str
    state: Literal["pending", "connected", "needs_reconnect", "removed"]
    reason: str
    label: str
    client: str
    account_id: str
    allowed_domain: str
    scopes: str
    generation: int
    created_at: str
    updated_at: str
    granted_at: str
    token_ends_at: str
    previous_until: str
    refused_since: str
    refusal: str
    age_days: int | None
    fields: dict[str, str]
    credentials: dict[str, Literal["*****"]]
    notes: list[str]


def create(asked: ApiRequest) -> Reply:
    """Raises `Rejected` (409 `connection_exists`, `api_domains_missing`; 400 `credentials_refused`, `domain_not_registered`)
    and `Retryable`; nothing is stored then.

    Each creation has a secret of its own, so neither a rival nor a removed namesake whose secret can still be brought
    back gets in its way. A death between secret and item leaves a secret that no connection points to.
    """
    table, vault, sent = asked.desk.table, asked.desk.vault, asked.sent
    tokens = _tokens_part(sent.platform)
    kind_name = _kind_name(tokens, sent)
    kind: Kind = tokens.KINDS[kind_name]
    fields = _fields(kind, kind_name, sent)
    credentials = _credentials(kind, kind_name, sent.credentials)
    allowed_domain = _allowed_domain(kind, sent.allowed_domain, fields)
    client = _client(table, tokens, kind, kind_name, sent)
    if client:
        oauth_clients.check_domain(client, allowed_domain, field="allowed_domain")
    _refuse_install_name(sent.name)
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
        account_id=tokens.account_id(fields) if hasattr(tokens, "account_id") else "",
        granted_at="" if pending else now,
        fields=fields,
    )
    if pending:
        return _store(table, vault, connection)
    scopes = rotation.try_credentials(table, vault, connection, credentials)
    # A provider that names no scopes has granted those that it was asked for (RFC 6749, 5.1).
    scopes = scopes or fields.get("scopes", "") or (client.scopes if client else "")
    # The client has the credentials; the secret makes this connection's tokens its own all the same.
    version = vault.create(secret_id, credentials or {"client": hide(connection.client)}, connection.version_id)
    connection = with_changes(connection, version_id=version, scopes=scopes[: rotation.MAX_SCOPES_LENGTH])
    return _store(table, vault, connection)


def replace(asked: ApiRequest) -> Reply:
    """Give a connection other credentials for the same account. Raises `Rejected` and `Retryable` as `rotation.replace`."""
    table, sent = asked.desk.table, asked.sent
    connection = connection_store.get(table, asked.path["name"])
    require_match(asked, etag(connection))
    kind = _own_kind(connection)
    _refuse_changes(connection, kind, sent)
    credentials = _credentials(kind, connection.kind, sent.credentials)
    fresh = rotation.replace(table, asked.desk.vault, connection, credentials)
    _send_waiting(table, connection.name)
    return _reply(fresh)


def rotate(asked: ApiRequest) -> Reply:
    """Hand in the platform's new token. Raises `Rejected` and `Retryable` as `rotation.rotate`."""
    table, sent, name = asked.desk.table, asked.sent, asked.path["name"]
    connection = connection_store.get(table, name)
    credentials = _credentials(_own_kind(connection), connection.kind, sent.credentials)
    fresh = rotation.rotate(table, asked.desk.vault, name, credentials, expire_now=sent.expire_now)
    _send_waiting(table, name)
    return _reply(fresh)


def expire(asked: ApiRequest) -> Reply:
    """Drop the old token of a rotation before its time. Without one nothing happens. Raises as `rotation.expire`."""
    return _reply(rotation.expire(asked.desk.table, asked.desk.vault, asked.path["name"]))


def get(asked: ApiRequest) -> Reply:
    """Raises `Rejected` (404 `unknown_connection`)."""
    name = asked.path["name"]
    connection = connection_store.get(asked.desk.table, name)
    if _is_deleted(connection):
        raise Rejected("unknown_connection", f"the connection {name} has been deleted", field="connection", status=404)
    return _reply(connection)


def etag(connection: Connection) -> str:
    """What an edit can insist on: the generation of the credentials, which every change of them checks, and the state."""
    return f"{connection.generation}-{connection.state}"


def list_page(asked: ApiRequest) -> Reply:
    """One that a customer uninstalled is told as removed; those deleted here are left out, so a page may be short."""
    found, next_cursor = connection_store.list_page(asked.desk.table, asked.cursor, asked.limit)
    return page([show(connection) for connection in found if not _is_deleted(connection)], next_cursor)


def delete(asked: ApiRequest) -> Reply:
    """Raises `Rejected`: 404 `unknown_connection`, 409 `connection_in_use` while a route leads to it or starts at it.

    From here on nobody uses the connection; its secret (which can be brought back for seven days) and its webhooks are removed
    soon after. Its name can be used again at once: scopes that are narrowed to it end with it.
    """
    table, name = asked.desk.table, asked.path["name"]
    connection = connection_store.get(table, name)
    for item in table.query_all(routes.LIST, index="listing"):
        if name in (item["destination"], item["source"].removeprefix("connection:")):
            raise Rejected("connection_in_use", f"the route {item['name']} needs it: delete that first", status=409)
    # First, so that a repeated deletion finishes what a first one began.
    private_integrations.drop_scopes_of(table, name)
    try:
        uninstall.delete(table, asked.desk.uninstalls_queue_url, connection)
    except Conflict:
        raise rotation.changed(name) from None
    _send_waiting(table, name)
    return Reply(None)


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
    kind = _kinds(connection.platform).get(connection.kind)
    return shown | {
        "age_days": (clock.now() - clock.from_iso(connection.granted_at)).days if connection.granted_at else None,
        "fields": connection.fields,
        "credentials": {name: HIDDEN for name in (kind.credentials if kind else ())},
        "notes": list(connection.notes),
    }


def _is_deleted(connection: Connection) -> bool:
    """Whether it is gone for administrators, though its item stays for a while for what is still on its way."""
    return connection.state == "removed" and connection.reason == uninstall.DELETED


def _kinds(platform: str) -> dict[str, Kind]:
    return getattr(part(platform, "tokens"), "KINDS", {})


def _tokens_part(platform: str) -> ModuleType:
    try:
        tokens = part(platform, "tokens")
    except Rejected:
        # What stands there may be anything, even a secret that slipped out of its place: it is not repeated.
        raise Rejected(
            "unknown_platform", "platform is not the name of one that is known here", field="platform"
        ) from None
    if not getattr(tokens, "KINDS", {}):
        detail = f"connections to {platform} are made by installing its application, not from credentials"
        raise Rejected("made_by_install", detail, field="platform")
    return tokens


def _own_kind(connection: Connection) -> Kind:
    """Raises `Rejected` (`no_own_credentials`) for a connection whose credentials nobody typed in."""
    kind = _kinds(connection.platform).get(connection.kind)
    if not kind or not kind.credentials:
        what = "an application's install" if not kind else "its OAuth client"
        raise Rejected(
            "no_own_credentials",
            f"the credentials of {connection.name} come from {what}: there are none to be given here",
            field="credentials",
            status=409,
        )
    return kind


def _kind_name(tokens: ModuleType, sent: Creation) -> str:
    kinds = sorted(tokens.KINDS)
    if sent.kind is None and len(kinds) == 1:
        return str(kinds[0])
    if sent.kind is None or sent.kind not in kinds:
        how = "is missing: it must be" if sent.kind is None else "must be"
        raise InvalidInput([("kind", f"kind {how} one of {', '.join(kinds)} for {sent.platform}")])
    return sent.kind


def _fields(kind: Kind, kind_name: str, sent: Creation) -> dict[str, str]:
    """The kind's fields, checked, with its defaults. `scopes` stands in the body for itself, and is a field like others."""
    given = dict(sent.fields)
    errors = []
    if sent.scopes is not None:
        if "scopes" not in kind.fields:
            errors.append(("scopes", f"scopes are not asked for with the kind {kind_name}"))
        elif given.setdefault("scopes", sent.scopes) != sent.scopes:
            errors.append(("scopes", "scopes stand in the body twice, and differ"))
    missing = set(kind.fields) - set(kind.optional) - set(given)
    errors += [(f"fields.{name}", f"fields.{name} is missing") for name in sorted(missing)]
    errors += _unknown("fields", set(given) - set(kind.fields), kind.fields)
    for name, pattern in kind.fields.items():
        value = given.get(name, kind.optional.get(name, ""))
        if name in given and not isinstance(value, str):
            errors.append((f"fields.{name}", f"fields.{name} must be text"))
        elif name in given and not pattern.fullmatch(value):
            errors.append((f"fields.{name}", f"fields.{name} must match {pattern.pattern}"))
    if errors:
        raise InvalidInput(errors)
    if kind_name == "api_key":
        with_digits = given.get("allow_digits_in_header_name") == "yes"
        domain_rules.check_header_name(given["header_name"], with_digits=with_digits)
    return {**kind.optional, **given}


def _credentials(kind: Kind, kind_name: str, given: dict[str, Any]) -> Credentials:
    errors = []
    for name in kind.credentials:
        if name not in given:
            errors.append((f"credentials.{name}", f"credentials.{name} is missing"))
        else:
            try:
                given = {**given, name: read_credential(kind_name, name, given[name])}
            except ValueError as wrong:
                errors.append((f"credentials.{name}", f"credentials.{name} {wrong}"))
    errors += _unknown("credentials", set(given) - set(kind.credentials), kind.credentials)
    if errors:
        raise InvalidInput(errors)
    if kind_name == "basic" and not any(given.values()):
        raise InvalidInput([("credentials", "credentials: username and password cannot both be empty")])
    return given


def _unknown(section: str, names: set[str], allowed: Any) -> list[tuple[str, str]]:
    """A key that is not known may be anything, even a secret that slipped out of its place: it is not repeated."""
    if not names:
        return []
    known = f"only {', '.join(sorted(allowed))}" if allowed else "there are none for this kind"
    return [(section, f"{section} holds {len(names)} unknown: {known}")]


def _allowed_domain(kind: Kind, given: str | None, fields: dict[str, str]) -> str:
    """The domain that the platform makes of the fields, or the one that was given."""
    if kind.allowed_domain is None:
        if given is None:
            raise InvalidInput([("allowed_domain", "allowed_domain is missing")])
        return domain_rules.check_allowed_domain(given)
    made = kind.allowed_domain(fields)
    if given is not None and given.lower() != made:
        raise InvalidInput([("allowed_domain", f"allowed_domain is {made} for this platform: leave it out")])
    return made


def _client(table: Table, tokens: ModuleType, kind: Kind, kind_name: str, sent: Creation) -> OAuthClient | None:
    """The OAuth client of a kind that has no credentials of its own."""
    if kind.credentials:
        if sent.client is not None:
            raise InvalidInput([("client", f"client is not a field of the kind {kind_name}")])
        return None
    if sent.client is None:
        raise InvalidInput([("client", f"client is missing: the kind {kind_name} needs an OAuth client")])
    try:
        Matching(CLIENT_NAME, "")(sent.client)
        client = oauth_clients.get(table, sent.platform, sent.client)
    except ValueError:
        raise InvalidInput([("client", "client is not the name of an OAuth client")]) from None
    except Rejected:
        detail = f"client names no OAuth client of {sent.platform}: register it first"
        raise Rejected("unknown_client", detail, field="client") from None
    if tokens.CLIENT_GRANTS.get(client.grant) != kind_name:
        raise Rejected(
            "wrong_grant",
            f"the client has the grant {client.grant}, which makes no connection of the kind {kind_name}",
            field="client",
        )
    return client


def _refuse_changes(connection: Connection, kind: Kind, sent: Replacement) -> None:
    """Raises `Rejected` (409 `connection_fixed`) for the first thing that would be another than when it was created."""
    domain = sent.allowed_domain.lower() if sent.allowed_domain is not None else None
    for field, given, fixed in (
        ("platform", sent.platform, connection.platform),
        ("kind", sent.kind, connection.kind),
        ("allowed_domain", domain, connection.allowed_domain),
        ("client", sent.client, connection.client),
        ("scopes", sent.scopes, connection.fields.get("scopes", "")),
        # A connection that is older than one of the optional fields has that field's default.
        ("fields", {**kind.optional, **sent.fields} if sent.fields else None, {**kind.optional, **connection.fields}),
    ):
        if given is not None and given != fixed:
            raise Rejected(
                "connection_fixed",
                f"{field} of a connection cannot change: make another connection and lead the routes to it",
                field=field,
                status=409,
            )


def _refuse_install_name(name: str) -> None:
    """`kommo-…` is how an install names its connection: taken by another kind, that account could not connect."""
    platform = name.partition("-")[0]
    try:
        part(platform, "install")
        if _kinds(platform):
            return
    except Rejected:
        return
    raise Rejected(
        "name_reserved",
        f"names that begin with {platform}- are for connections made by installs",
        field="name",
    )


def _send_waiting(table: Table, name: str) -> None:
    """Have records that wait for a connection tried soon: it has other credentials, or is gone, which they end for.

    The change is done by now, so a failure is only logged: the pause ends by itself.
    """
    try:
        waiting_records.try_now(table, name)
    except boto3_clients.FAILURES as error:
        logger.warning("waiting_records_not_tried", extra={"connection": name, "error": type(error).__name__})


def _reply(connection: Connection) -> Reply:
    return Reply(show(connection), etag=etag(connection))


def _store(table: Table, vault: Vault, connection: Connection) -> Reply:
    try:
        connection_store.create(table, connection)
    except Conflict:
        if connection.secret_id:
            vault.remove(connection.secret_id, at_once=True)
        raise _exists(connection.name) from None
    _send_waiting(table, connection.name)
    return _reply(connection_store.get(table, connection.name))


def _exists(name: str) -> Rejected:
    detail = f"there is a connection {name} already: replace its credentials with PUT"
    return Rejected("connection_exists", detail, field="name", status=409)
