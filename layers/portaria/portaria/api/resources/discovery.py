"""What a client needs to know before its first change: what platforms offer, which scopes there are, and who it is."""

from __future__ import annotations

from typing import Any, Literal

from portaria import platforms
from portaria.access import private_integrations, scopes, token_usage
from portaria.api.operation import ApiRequest, Reply, page
from portaria.api.schemas import Output, Time
from portaria.core import clock
from portaria.core.entities import Kind
from portaria.core.errors import Rejected
from portaria.platforms.record_protocols import RouteRules


class KindField(Output):
    """A value must match `pattern` as a whole. `default` is used if the field is left out, and null if it is required."""

    name: str
    pattern: str
    is_required: bool
    default: str | None


class ConnectionKind(Output):
    """`credentials` are secrets that a connection is created with; without any, an OAuth client has them.
    `needs_allowed_domain` says that the platform does not determine the domain."""

    name: str
    fields: list[KindField]
    credentials: list[str]
    needs_allowed_domain: bool
    needs_client: bool
    needs_consent: bool


class DestinationOption(Output):
    name: str
    pattern: str
    rule: str


class DestinationOffer(Output):
    """`accepted` maps a source's object to the destination's object that it becomes. A route's `target` must match
    `target_pattern`; `target_rule` says it in words."""

    accepted: dict[str, str]
    target_pattern: str
    target_rule: str
    dedupe_fields: dict[str, list[str]]
    default_dedupe_fields: dict[str, list[str]]
    options: list[DestinationOption]


class PlatformOutput(Output):
    """`is_testable` says whether `POST /connections/{name}/test` works for its connections. `sources` are the objects that
    routes can start with. `destination` is null if records cannot be sent to it, and `api_domains` is empty if an OAuth
    client must name its own."""

    name: str
    is_installable: bool
    is_testable: bool
    kinds: list[ConnectionKind]
    api_domains: list[str]
    sources: list[str]
    destination: DestinationOffer | None


class ScopeOutput(Output):
    """`is_narrowable` says whether it can be given for one connection, as `scope@name`."""

    name: str
    description: str
    is_narrowable: bool


class CallerOutput(Output):
    """`scopes` is null for an administrator, who may do everything. `previous_token_until` is set while two tokens of a private
    integration work."""

    id: str
    kind: Literal["administrator", "private_integration"]
    name: str | None
    scopes: list[str] | None
    previous_token_until: Time | None
    last_used_at: Time | None


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
