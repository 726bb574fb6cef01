"""Administering routes: which records go where, and how each attribute is made. `route_rules` says what one may be."""

from __future__ import annotations

from typing import Literal

from portaria.api.operation import ApiRequest, Reply, changed_meanwhile, page, require_match
from portaria.api.rules import route_rules
from portaria.api.rules.route_rules import Keeping
from portaria.api.rules.stored_resources import Stored
from portaria.api.schemas import Output
from portaria.aws.table import Conflict
from portaria.core.errors import Rejected
from portaria.records import routes


class RouteOutput(Output):
    name: str
    source: str
    object: str
    destination: str
    mapping: dict[str, str]
    target: str | None
    dedupe_fields: list[str]
    priority: Literal["normal", "high"]
    options: dict[str, str]
    keep_newest: Keeping
    weight: int


class RouteWithWarnings(RouteOutput):
    """`warnings` are sentences about what may be a mistake."""

    warnings: list[str]


def create(asked: ApiRequest) -> Reply:
    """Raises `Rejected` (409 `route_exists`)."""
    table, sent = asked.context.table, asked.sent
    route, warnings = route_rules.check(sent.name, sent, Stored(table))
    try:
        revision = routes.put(table, route, new=True)
    except Conflict:
        detail = f"the route {route.name} exists already: replace it with PUT"
        raise Rejected("route_exists", detail, field="name", status=409) from None
    return Reply(routes.show(route) | {"warnings": warnings}, etag=revision)


def replace(asked: ApiRequest) -> Reply:
    """Raises `Rejected` (404 `unknown_route`, 409 or 412 `changed_meanwhile`)."""
    table, name = asked.context.table, asked.path["name"]
    _, revision = routes.find(table, name)
    require_match(asked, revision)
    route, warnings = route_rules.check(name, asked.sent, Stored(table))
    try:
        revision = routes.put(table, route, new=False, revision=revision)
    except Conflict:
        raise changed_meanwhile(asked) from None
    return Reply(routes.show(route) | {"warnings": warnings}, etag=revision)


def get(asked: ApiRequest) -> Reply:
    """Raises `Rejected` (404 `unknown_route`)."""
    route, revision = routes.find(asked.context.table, asked.path["name"])
    return Reply(routes.show(route), etag=revision)


def list_page(asked: ApiRequest) -> Reply:
    """By name; with a `destination` by source and name. Those of one `source` come on one page: a source has few routes."""
    table, source = asked.context.table, asked.filters.get("source", "")
    next_cursor: str | None = None
    if "destination" in asked.filters:
        found, next_cursor = routes.of_destination(
            table, asked.filters["destination"], source, asked.cursor, asked.limit
        )
    elif source:
        found = routes.of_source(table, source)
    else:
        found, next_cursor = routes.list_page(table, asked.cursor, asked.limit)
    return page([routes.show(route) for route in found], next_cursor)


def delete(asked: ApiRequest) -> Reply:
    """Raises `Rejected` (404 `unknown_route`)."""
    routes.get(asked.context.table, asked.path["name"])
    routes.delete(asked.context.table, asked.path["name"])
    return Reply(None)
