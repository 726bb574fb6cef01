"""What a client needs to know before its first change: what platforms offer, which scopes there are, and who it is."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from portaria import platforms
from portaria.access import private_integrations, scopes, token_usage
from portaria.api.operation import ApiRequest, Reply, page
from portaria.api.schemas import Output, Time
from portaria.core import clock
from portaria.core.entities import Kind
from portaria.core.errors import Rejected
from portaria.platforms.record_protocols import RouteRules


class KindField(Output):
    """A field of a connection that is not secret."""

    name: str = Field(description="The field's name in `fields` of a connection.")
    pattern: str = Field(description="The regular expression that the whole value must match.")
    is_required: bool = Field(description="Whether a connection of this kind cannot be created without the field.")
    default: str | None = Field(description="The value that is used if the field is omitted. Null if there is none.")


class ConnectionKind(Output):
    """A kind of connection that a platform offers."""

    name: str = Field(description="The name of the kind.")
    fields: list[KindField] = Field(description="The fields that a connection of this kind has.")
    credentials: list[str] = Field(
        description="The names of the secrets that the connection is created with. Empty if an OAuth client has them."
    )
    needs_allowed_domain: bool = Field(
        description="Whether `allowed_domain` must be given, because the platform does not determine the domain."
    )
    needs_client: bool = Field(description="Whether the connection needs an OAuth client.")
    needs_consent: bool = Field(description="Whether a person must grant access before the connection works.")


class DestinationOption(Output):
    """An option that a route to the platform can have."""

    name: str = Field(description="The option's name in `options` of a route.")
    pattern: str = Field(description="The regular expression that the whole value must match.")
    rule: str = Field(description="What the value must be, in words.")


class DestinationOffer(Output):
    """What routes to the platform can have."""

    accepted: dict[str, str] = Field(
        description="For each object of a source: the object of this platform that it becomes by default."
    )
    target_pattern: str = Field(description="The regular expression that `target` of a route must match.")
    target_rule: str = Field(description="What `target` must be, in words.")
    dedupe_fields: dict[str, list[str]] = Field(
        description="For each target: the attributes that the platform can deduplicate by."
    )
    default_dedupe_fields: dict[str, list[str]] = Field(
        description="For each target: the attributes that are used if a route names none."
    )
    options: list[DestinationOption] = Field(description="The options that a route can have.")


class PlatformOutput(Output):
    """What a platform offers, and what a form for its connections and routes needs."""

    name: str = Field(description="The platform's name.")
    is_installable: bool = Field(
        description="Whether customers install an application of this platform from a marketplace or an install page."
    )
    is_testable: bool = Field(
        description="Whether `POST /v1/connections/{name}/test` works for connections of this platform."
    )
    kinds: list[ConnectionKind] = Field(description="The kinds of connections that can be created.")
    api_domains: list[str] = Field(
        description="The domains of the platform's API. Empty if each OAuth client must name its own."
    )
    sources: list[str] = Field(description="The objects that a route can read from this platform.")
    destination: DestinationOffer | None = Field(
        description="What routes to this platform can have. Null if records cannot be sent to it."
    )


class ScopeOutput(Output):
    """A permission that a private integration can have."""

    name: str = Field(description="The scope.")
    description: str = Field(description="What the scope allows.")
    is_narrowable: bool = Field(description="Whether the scope can be given for one connection, as `scope@name`.")


class CallerOutput(Output):
    """Who the request's token or signature belongs to."""

    id: str = Field(description="The ARN of the AWS principal, or the private integration's id.")
    kind: Literal["administrator", "private_integration"] = Field(
        description="Whether the caller is an AWS principal or a private integration."
    )
    name: str | None = Field(description="The private integration's name, or null for an AWS principal.")
    scopes: list[str] | None = Field(
        description="The private integration's scopes. Null for an administrator, who may do everything."
    )
    previous_token_until: Time | None = Field(
        description="Until when the previous token works after a rotation. Null if only one token works."
    )
    last_used_at: Time | None = Field(
        description="When the private integration's tokens were last used, rounded to the hour. Null for an administrator.",
    )


SOURCE_OBJECTS = ("contacts", "companies")


def list_platforms(asked: ApiRequest) -> Reply:
    """All of them, on one page: each is a part of the code."""
    return page([show(name) for name in _names()], None)


def get_platform(asked: ApiRequest) -> Reply:
    """Raises `Rejected` (404 `unknown_platform`)."""
    name = asked.path["platform"]
    if name not in _names():
        raise Rejected(
            "unknown_platform", f"platform must be one of {', '.join(_names())}", field="platform", status=404
        )
    return Reply(show(name))


def list_scopes(asked: ApiRequest) -> Reply:
    """All of them, on one page."""
    shown = [
        {"name": name, "description": text, "is_narrowable": name in scopes.NARROWABLE}
        for name, text in scopes.SCOPES.items()
    ]
    return page(shown, None)


def show_caller(asked: ApiRequest) -> Reply:
    """Raises `Rejected` (404 `unknown_private_integration`) where it has just been deleted."""
    caller = asked.caller
    if caller.scopes is None:
        return Reply(
            {
                "id": caller.id,
                "kind": "administrator",
                "name": caller.name or None,
                "scopes": None,
                "previous_token_until": None,
                "last_used_at": None,
            }
        )
    integration = private_integrations.get(asked.context.table, caller.id.rpartition(":")[2])
    uses = token_usage.find(asked.context.table, [integration])
    return Reply(
        {
            "id": integration.id,
            "kind": "private_integration",
            "name": integration.name,
            "scopes": list(integration.scopes),
            "previous_token_until": integration.previous_until if integration.overlaps(clock.now()) else None,
            "last_used_at": max(uses.values(), default=None),
        }
    )


def show(name: str) -> dict[str, Any]:
    """A platform as its modules describe it."""
    platform = platforms.load(name)
    by_client = platform.provider_clients.CLIENT_GRANTS if platform.provider_clients else {}
    return {
        "name": name,
        "is_installable": platform.install is not None,
        "is_testable": platform.credential_test is not None,
        "kinds": [_kind(each, kind, by_client) for each, kind in sorted(platform.connection_kinds.KINDS.items())],
        "api_domains": list(platform.account_domains.API_DOMAINS) if platform.account_domains else [],
        "sources": [each for each in SOURCE_OBJECTS if platform.source_object(each)],
        "destination": _destination(platform.route_rules),
    }


def _kind(name: str, kind: Kind, by_client: dict[str, str]) -> dict[str, Any]:
    return {
        "name": name,
        "fields": [
            {
                "name": field,
                "pattern": pattern.pattern,
                "is_required": field not in kind.optional,
                "default": kind.optional.get(field) or None,
            }
            for field, pattern in kind.fields.items()
        ],
        "credentials": list(kind.credentials),
        "needs_allowed_domain": kind.allowed_domain is None,
        "needs_client": not kind.credentials,
        "needs_consent": by_client.get("authorization_code") == name,
    }


def _destination(offer: RouteRules | None) -> dict[str, Any] | None:
    if offer is None:
        return None
    return {
        "accepted": dict(offer.ACCEPTED),
        "target_pattern": offer.TARGETS.pattern,
        "target_rule": offer.TARGETS_RULE,
        "dedupe_fields": {target: list(fields) for target, fields in offer.DEDUPE_ATTRIBUTES.items()},
        "default_dedupe_fields": {target: list(fields) for target, fields in offer.DEFAULT_DEDUPE.items()},
        "options": [
            {"name": name, "pattern": pattern.pattern, "rule": rule} for name, (pattern, rule) in offer.OPTIONS.items()
        ],
    }


def _names() -> list[str]:
    return [platform.name for platform in platforms.every()]
