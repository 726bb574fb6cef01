"""Routes: which records of which source go to which destination, and how their attributes are mapped."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from portaria import platforms
from portaria.aws import filter_index
from portaria.aws.table import Item, Table
from portaria.core.entities import Connection, Route, Target
from portaria.core.errors import Rejected

if TYPE_CHECKING:
    from portaria.platforms.record_protocols import RouteRules

LIST = "ROUTES"


def key(name: str) -> tuple[str, str]:
    return f"ROUTE#{name}", "ROUTE"


def get(table: Table, name: str) -> Route:
    """Raises `Rejected` (`unknown_route`) if there is none."""
    return find(table, name)[0]


def find(table: Table, name: str) -> tuple[Route, str]:
    """A route and its revision, another one after each change. Raises `Rejected` (`unknown_route`)."""
    item = table.get(*key(name))
    if not item:
        raise Rejected("unknown_route", f"there is no route {name}", field="route", status=404)
    return read(item), item.get("revision", "")


def for_connection(table: Table, connection: Connection) -> list[Route]:
    """The routes that start at a connection, by its own name or by the OAuth client that it was installed with."""
    return [route for source in sources_of(connection) for route in for_source(table, source)]


def sources_of(connection: Connection) -> list[str]:
    """The sources of routes that start at a connection: itself, and the OAuth client that it was installed with."""
    sources = [f"connection:{connection.name}"]
    if connection.client:
        sources.append(f"client:{connection.platform}/{connection.client}")
    return sources


def for_source(table: Table, source: str) -> list[Route]:
    return [read(item) for item in table.query_all(source, index="by_source")]


def target(route: Route, destination: Connection) -> Target:
    """The target of the route's records. Raises `Rejected` (`object_not_accepted`)."""
    object_name = route.target or _rules(destination).ACCEPTED.get(route.object, "")
    if not object_name:
        raise Rejected("object_not_accepted", f"{destination.platform} takes no {route.object}", field="object")
    fields = [(f"field{number}", name) for number, name in enumerate(route.dedupe_fields, 1)]
    return Target(route.destination, object_name, route.priority, tuple(sorted([*fields, *route.options.items()])))


def mapping(route: Route, source: Connection, destination: Connection) -> dict[str, str]:
    """The mapping for records of a source connection. Raises as `mapping_from`."""
    return mapping_from(route, source.platform, destination)


def mapping_from(route: Route, source_platform: str, destination: Connection) -> dict[str, str]:
    """The route's own mapping, or the default of the two platforms. Raises `Rejected` (`no_mapping`) if there is none."""
    if route.mapping:
        return route.mapping
    rules = _rules(destination)
    object_name = route.target or rules.ACCEPTED.get(route.object, "")
    platform = platforms.load(source_platform)
    source_object = platform.require(platform.source_object(route.object))
    default = rules.default_mapping(source_object.DEFAULT_MAPPING, object_name)
    if not default:
        raise Rejected(
            "no_mapping", f"there is no default mapping to {object_name}: give the route a mapping", field="mapping"
        )
    return default


def _rules(destination: Connection) -> RouteRules:
    platform = platforms.load(destination.platform)
    return platform.require(platform.route_rules)


def read(item: Item) -> Route:
    return Route(
        name=item["name"],
        source=item["source"],
        object=item["object"],
        destination=item["destination"],
        mapping=dict(item.get("mapping", {})),
        dedupe_fields=tuple(item.get("dedupe_fields", ("email",))),
        priority=item.get("priority", "normal"),
        target=item.get("target", ""),
        options=dict(item.get("options", {})),
        keep_newest=item.get("keep_newest", "events"),
        weight=item.get("weight", 1),
    )


def to_item(route: Route) -> dict[str, Any]:
    pk, sk = key(route.name)
    filter_keys = filter_index.keys(_destination(route.destination), f"{route.source}#{route.name}")
    return {"pk": pk, "sk": sk, "list_pk": LIST, "list_sk": route.name, **filter_keys, **show(route)}


def show(route: Route) -> dict[str, Any]:
    """Its fields as JSON has them."""
    return {field.name: getattr(route, field.name) for field in fields(route)} | {
        "dedupe_fields": list(route.dedupe_fields)
    }


def put(table: Table, route: Route, *, new: bool, revision: str = "") -> str:
    """Its new revision. Raises `Conflict` if a new one exists already, or an old one does not or has another revision."""
    return table.put_revision(to_item(route), new=new, revision=revision)


def list_page(table: Table, cursor: str | None, limit: int) -> tuple[list[Route], str | None]:
    items, cursor = table.query(LIST, index="listing", cursor=cursor, limit=limit)
    return [read(item) for item in items], cursor


def of_source(table: Table, source: str) -> list[Route]:
    """Every route that starts at a source, by its name."""
    return [read(item) for item in table.query_all(source, index="by_source") if item["pk"].startswith("ROUTE#")]


def of_destination(
    table: Table, destination: str, source: str, cursor: str | None, limit: int
) -> tuple[list[Route], str | None]:
    """One page of the routes to a destination, by source and name; of one source where `source` is not empty."""
    entries, next_cursor = table.query(
        _destination(destination),
        index=filter_index.INDEX,
        sk_prefix=f"{source}#" if source else "",
        cursor=cursor,
        limit=limit,
    )
    found = [read(item) for item in filter_index.read_items(table, entries)]
    return [route for route in found if route.destination == destination and source in ("", route.source)], next_cursor


def using(table: Table, connection: str) -> Route | None:
    """A route that starts at a connection or leads to it, if there is one."""
    cursor: str | None = None
    while True:
        found, cursor = of_destination(table, connection, "", cursor, 10)
        if found or not cursor:
            break
    return next(iter(found or of_source(table, f"connection:{connection}")), None)


def _destination(name: str) -> str:
    return f"ROUTES#{name}"


def delete(table: Table, name: str) -> None:
    table.delete(*key(name))
