"""Administering routes: which records go where, and how each attribute is made. `route_rules` says what one may be."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from portaria.api.operation import ApiRequest, Reply, changed_meanwhile, page, require_match
from portaria.api.rules import route_rules
from portaria.api.rules.route_rules import Keeping
from portaria.api.rules.stored_resources import Stored
from portaria.api.schemas import Output
from portaria.aws.table import Conflict
from portaria.core.errors import Rejected
from portaria.records import routes


class RouteOutput(Output):
    """Which records are sent to which destination, and how they are mapped."""

    name: str = Field(description="The route's name.")
    source: str = Field(
        description="Where the records come from: `connection:` and a connection's name, or `client:` with a platform and an "
        "OAuth client, for every account that installs it.",
    )
    object: str = Field(description="The source's object.")
    destination: str = Field(description="The name of the connection that the records go to.")
    mapping: dict[str, str] = Field(
        description="For each attribute of the destination: a JMESPath expression over the source's record. Empty for the "
        "default of the two platforms.",
    )
    target: str | None = Field(description="The destination's object. Null for the default of `object`.")
    dedupe_fields: list[str] = Field(description="The attributes by which the destination finds an existing object.")
    priority: Literal["normal", "high"] = Field(description="The priority of the records at the destination.")
    options: dict[str, str] = Field(description="The destination's own options, by name.")
    keep_newest: Keeping = Field(
        description="Which versions an older one must not overwrite: those that came by events (`events`), all of them "
        "(`all`), or none (`none`).",
    )
    weight: int = Field(description="The source's share of the destination's daily quota, relative to other sources.")


class RouteWithWarnings(RouteOutput):
    """A route, and what may be wrong with it."""

    warnings: list[str] = Field(description="Sentences about what may be a mistake. Empty if nothing was found.")


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
