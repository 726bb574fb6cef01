"""The rules for connections: what a caller may send, and what must be true of it and of the OAuth client that it names.

A platform's `connection_kinds` (`KINDS`) defines the credentials and fields of each kind of connection.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from pydantic import BeforeValidator, Field, WithJsonSchema

from portaria import platforms
from portaria.api import validation
from portaria.api.rules.known_resources import Known
from portaria.api.validation import (
    CLIENT_NAME,
    Fault,
    Input,
    InvalidInput,
    MaskedSecret,
    Matching,
    PlatformName,
    Refusals,
    ResourceName,
    Scopes,
    hide,
    nearest,
    read_credential,
)
from portaria.connections import oauth_clients
from portaria.core.callbacks import OAuthClient
from portaria.core.entities import Connection, Kind
from portaria.core.errors import Rejected
from portaria.outbound import domain_rules
from portaria.platforms import Platform

if TYPE_CHECKING:
    from portaria.connections.vault import Credentials

# Values stay as they came, wrapped where they are text, until the kind says what they must be.
GivenCredentials = dict[
    str, Annotated[Any, BeforeValidator(hide), WithJsonSchema({"type": "string", "format": "password"})]
]
GivenFields = dict[str, Annotated[Any, WithJsonSchema({"type": "string"})]]


class ConnectionCreation(Input):
    """A connection to create. `show_platform` returns the kinds, fields and credentials of a platform."""

    platform: PlatformName = Field(description="The platform of the account.")
    name: ResourceName = Field(description="The connection's name. It cannot be changed.")
    kind: str | None = Field(
        default=None,
        description="How the connection authenticates. It can be omitted if the platform has only one kind.",
    )
    allowed_domain: str | None = Field(
        default=None,
        description="The host, or `*.` and a domain, that the credentials may be sent to. It can be omitted if the platform "
        "determines it.",
    )
    client: str | None = Field(default=None, description="The name of the OAuth client, for kinds that need one.")
    scopes: Scopes | None = Field(
        default=None, description="The scopes to request instead of those of the OAuth client."
    )
    fields: GivenFields = Field(default_factory=dict, description="The platform's own fields, which are not secret.")
    credentials: GivenCredentials = Field(default_factory=dict, description="The secrets, by name.")


class CredentialsReplacement(Input):
    """The new credentials. Any other field that is sent must equal the stored one."""

    credentials: GivenCredentials = Field(description="All secrets of the connection, by name.")
    platform: str | None = Field(default=None, description="The connection's platform.")
    kind: str | None = Field(default=None, description="The connection's kind.")
    allowed_domain: str | None = Field(default=None, description="The connection's allowed domain.")
    client: str | None = Field(default=None, description="The connection's OAuth client.")
    scopes: Scopes | None = Field(default=None, description="The connection's scopes.")
    fields: GivenFields = Field(default_factory=dict, description="The connection's fields.")


class CredentialsRotation(Input):
    """The new token that the platform issued."""

    credentials: GivenCredentials = Field(description="All secrets of the connection, by name.")
    expire_now: bool = Field(
        default=False,
        description="Whether the previous token is deleted at once. By default it is kept for as long as the platform accepts"
        " both.",
    )


class Checked(NamedTuple):
    """What a creation has come to: everything that is stored of it."""

    platform: Platform
    kind_name: str
    fields: dict[str, str]
    credentials: Credentials
    allowed_domain: str
    client: OAuthClient | None


def check_creation(sent: ConnectionCreation, known: Known) -> Checked:
    """Raises `Rejected` with everything that is wrong: 400, 409 `api_domains_missing`."""
    refusals = Refusals()
    refusals.of(lambda: _refuse_install_name(sent.name))
    platform = refusals.of(lambda: _platform(sent.platform))
    kind_name = refusals.of(lambda: _kind_name(platform, sent)) if platform else None
    if not platform or not kind_name:
        raise refusals.together()
    kind = platform.connection_kinds.KINDS[kind_name]
    fields = refusals.of(lambda: _fields(kind, kind_name, sent))
    credentials = refusals.of(lambda: check_credentials(kind, kind_name, sent.credentials))
    allowed_domain = None
    if fields is not None or kind.allowed_domain is None:
        allowed_domain = refusals.of(lambda: _allowed_domain(kind, sent.allowed_domain, fields or {}))
    client = refusals.of(lambda: _client(known, platform, kind, kind_name, sent))
    if client and allowed_domain:
        refusals.of(lambda: oauth_clients.check_domain(client, allowed_domain, field="allowed_domain"))
    if refusals.found or fields is None or credentials is None or allowed_domain is None:
        raise refusals.together()
    return Checked(platform, kind_name, fields, credentials, allowed_domain, client)


def check_replacement(connection: Connection, sent: ConnectionCreation | CredentialsReplacement) -> Credentials:
    """The credentials to try. Raises `Rejected` with everything that is wrong: 400, 409 `no_own_credentials`,
    `connection_fixed`."""
    kind = own_kind(connection)
    refusals = Refusals()
    refusals.of(lambda: refuse_changes(connection, sent))
    credentials = refusals.of(lambda: check_credentials(kind, connection.kind, sent.credentials))
    if refusals.found or credentials is None:
        raise refusals.together()
    return credentials


def read_shown(shown: dict[str, Any]) -> Connection:
    """A connection as `connections.show` has made it: everything but where its secret is."""
    names = ("name", "platform", "kind", "allowed_domain", "state", "client", "scopes", "reason")
    texts: dict[str, Any] = {name: shown[name] or "" for name in names}
    return Connection(secret_id="", generation=shown["generation"], fields=dict(shown["fields"]), **texts)


def kinds_of(platform: str) -> dict[str, Kind]:
    return platforms.load(platform).connection_kinds.KINDS


def _platform(name: str) -> Platform:
    try:
        platform = platforms.load(name)
    except Rejected:
        # What stands there may be anything, even a secret that slipped out of its place: it is not repeated.
        known = [each.name for each in platforms.every() if each.connection_kinds.KINDS]
        raise Rejected("unknown_platform", f"platform must be one of {', '.join(known)}", field="platform") from None
    if not platform.connection_kinds.KINDS:
        detail = (
            f"connections to {name} are created by installing its application: open the OAuth client's install page"
        )
        raise Rejected("made_by_install", detail, field="platform")
    return platform


def own_kind(connection: Connection) -> Kind:
    """Raises `Rejected` (`no_own_credentials`) for a connection whose credentials nobody typed in."""
    kind = kinds_of(connection.platform).get(connection.kind)
    if not kind or not kind.credentials:
        what = "an application's install" if not kind else "its OAuth client"
        raise Rejected(
            "no_own_credentials",
            f"the credentials of {connection.name} come from {what} and cannot be set here",
            field="credentials",
            status=409,
        )
    return kind


def _kind_name(platform: Platform, sent: ConnectionCreation) -> str:
    kinds = sorted(platform.connection_kinds.KINDS)
    if sent.kind is None and len(kinds) == 1:
        return kinds[0]
    if sent.kind is None or sent.kind not in kinds:
        how = "is missing: it must be" if sent.kind is None else "must be"
        raise InvalidInput([("kind", f"kind {how} one of {', '.join(kinds)} for {sent.platform}")])
    return sent.kind


def _fields(kind: Kind, kind_name: str, sent: ConnectionCreation) -> dict[str, str]:
    """The kind's fields, checked, with its defaults. `scopes` stands in the body for itself, and is a field like others."""
    given = dict(sent.fields)
    errors: list[tuple[str, str] | Fault] = []
    if sent.scopes is not None:
        if "scopes" not in kind.fields:
            errors.append(("scopes", f"scopes cannot be set for the kind {kind_name}: leave them out"))
        elif given.setdefault("scopes", sent.scopes) != sent.scopes:
            errors.append(("scopes", "scopes and fields.scopes differ: give only one of them"))
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


def check_credentials(kind: Kind, kind_name: str, given: dict[str, Any]) -> Credentials:
    """The credentials of a kind, each a `Secret`. Raises `InvalidInput` with everything that is wrong with them."""
    errors: list[tuple[str, str] | Fault] = []
    for name in kind.credentials:
        if name not in given:
            errors.append((f"credentials.{name}", f"credentials.{name} is missing"))
        else:
            try:
                given = {**given, name: read_credential(kind_name, name, given[name])}
            except MaskedSecret as wrong:
                errors.append(
                    Fault(f"credentials.{name}", f"credentials.{name} {wrong}", reason=validation.MASKED_SECRET)
                )
            except ValueError as wrong:
                errors.append((f"credentials.{name}", f"credentials.{name} {wrong}"))
    errors += _unknown("credentials", set(given) - set(kind.credentials), kind.credentials)
    if errors:
        raise InvalidInput(errors)
    if kind_name == "basic" and not any(given.values()):
        raise InvalidInput([("credentials", "credentials need a username, a password, or both")])
    return given


def _unknown(section: str, names: set[str], allowed: Iterable[str]) -> list[Fault]:
    """A name that is not known may be anything, even a secret that slipped out of its place: it is not repeated, unless it is
    nearly one of the allowed."""
    known = f"the known ones are {', '.join(sorted(allowed))}" if allowed else "this kind has none"
    faults = []
    for name in sorted(names):
        meant = nearest(name, allowed)
        if meant:
            field, detail = f"{section}.{name}", f"{section}.{name} is not known: did you mean {meant}?"
        else:
            field, detail = section, f"{section} has 1 unknown name: {known}"
        faults.append(Fault(field, detail, (section, name), of_name=True, meant=meant))
    return faults


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


def _client(
    known: Known, platform: Platform, kind: Kind, kind_name: str, sent: ConnectionCreation
) -> OAuthClient | None:
    """The OAuth client of a kind that has no credentials of its own."""
    if kind.credentials:
        if sent.client is not None:
            raise InvalidInput([("client", f"client cannot be set for the kind {kind_name}: leave it out")])
        return None
    if sent.client is None:
        raise InvalidInput([("client", f"client is missing: the kind {kind_name} needs the name of an OAuth client")])
    try:
        Matching(CLIENT_NAME, "")(sent.client)
        client = known.client(sent.platform, sent.client)
    except ValueError:
        raise InvalidInput([("client", "client must be the name of an OAuth client: 2 to 32 of a-z 0-9 -")]) from None
    except Rejected:
        detail = f"client names no OAuth client of {sent.platform}: create the OAuth client first"
        raise Rejected("unknown_client", detail, field="client") from None
    if platform.require(platform.provider_clients).CLIENT_GRANTS.get(client.grant) != kind_name:
        raise Rejected(
            "wrong_grant",
            f"the OAuth client has the grant {client.grant}, which does not fit the kind {kind_name}",
            field="client",
        )
    return client


def refuse_changes(connection: Connection, sent: ConnectionCreation | CredentialsReplacement) -> None:
    """Raises `Rejected` (409 `connection_fixed`) with all that would be other than when the connection was created."""
    kind = kinds_of(connection.platform).get(connection.kind)
    defaults = kind.optional if kind else {}
    domain = sent.allowed_domain.lower() if sent.allowed_domain is not None else None
    changed = [
        field
        for field, given, fixed in (
            ("platform", sent.platform, connection.platform),
            ("kind", sent.kind, connection.kind),
            ("allowed_domain", domain, connection.allowed_domain),
            ("client", sent.client, connection.client),
            ("scopes", sent.scopes, connection.fields.get("scopes", "")),
        )
        if given is not None and given != fixed
    ]
    if sent.fields:
        # A connection that is older than one of the optional fields has that field's default.
        given, fixed = {**defaults, **sent.fields}, {**defaults, **connection.fields}
        names = sorted(name for name in {*given, *fixed} if given.get(name) != fixed.get(name))
        changed += list(dict.fromkeys(f"fields.{name}" if name in fixed else "fields" for name in names))
    if changed:
        rule = "of a connection cannot change: create another connection and point the routes to it"
        raise InvalidInput([(field, f"{field} {rule}") for field in changed], "connection_fixed", 409)


def _refuse_install_name(name: str) -> None:
    """`kommo-…` is how an install names its connection: taken by another kind, that account could not connect."""
    platform = name.partition("-")[0]
    try:
        found = platforms.load(platform)
    except Rejected:
        return
    if not found.install or found.connection_kinds.KINDS:
        return
    raise Rejected(
        "name_reserved",
        f"names that begin with {platform}- are reserved for connections that installs create: choose another name",
        field="name",
    )
