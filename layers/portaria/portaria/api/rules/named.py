"""Names that callers filter by, and names that stand for ids in what they are shown."""

from __future__ import annotations

from collections.abc import Iterable

from portaria.access import private_integrations
from portaria.aws.table import Table
from portaria.connections import connection_store
from portaria.core.errors import Rejected
from portaria.records import routes


def require(table: Table, *, connection: str = "", route: str = "", record: str = "") -> None:
    """For filters that matched nothing: refuse those that name something that does not exist.

    `connection` may also be the id of a private integration, which is the source of the records that it sends; `record` is
    `{source}/{key}`. Raises `Rejected` (404 `unknown_connection`, `unknown_route`).
    """
    source = record.partition("/")[0]
    keys = [
        each(name) for name in {connection, source} - {""} for each in (connection_store.key, private_integrations.key)
    ] + ([routes.key(route)] if route else [])
    found = table.get_many(keys)
    for field, name in (("connection", connection), ("record", source)):
        if name and connection_store.key(name) not in found and private_integrations.key(name) not in found:
            raise Rejected("unknown_connection", f"there is no connection {name}", field=field, status=404)
    if route and routes.key(route) not in found:
        raise Rejected("unknown_route", f"there is no route {route}", field="route", status=404)


def of_sources(table: Table, ids: Iterable[str]) -> dict[str, str]:
    """The name of each source: a connection's is its id; a private integration's is shown in place of its id."""
    wanted = {private_integrations.key(each): each for each in ids if each}
    return {wanted[key]: str(item["name"]) for key, item in table.get_many(wanted).items()}


def of_destinations(table: Table, names: Iterable[str]) -> dict[str, str]:
    """The destination of each route that exists."""
    wanted = {routes.key(each): each for each in names if each}
    return {wanted[key]: str(item["destination"]) for key, item in table.get_many(wanted).items()}
