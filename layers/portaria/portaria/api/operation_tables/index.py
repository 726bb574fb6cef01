"""The operations by resource, and an index of them: a function imports only the tables that its requests need.

The first step of a path, such as `connections`, can have several tables. Each table belongs to one function. `find` reads a
function's tables in order, so tables that import the fewest modules come first.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

from portaria.api.operation import Operation

MANAGE, CALL = "manage", "call_connection"


class Table(NamedTuple):
    """A module of `operation_tables`, the function that serves its operations, and the first steps of their paths."""

    name: str
    function: str
    steps: tuple[str, ...]


# In the order of the reference.
TABLES = (
    Table("stack", MANAGE, ("platforms", "scopes", "me", "overview", "settings")),
    Table("oauth_clients", MANAGE, ("oauth-clients",)),
    Table("connections", MANAGE, ("connections",)),
    Table("connection_parts", MANAGE, ("connections",)),
    Table("connection_calls", CALL, ("connections",)),
    Table("platform_actions", CALL, ("connections",)),
    Table("routes", MANAGE, ("routes", "records")),
    Table("install_links", MANAGE, ("install-links", "connections")),
    Table("installs", MANAGE, ("installs",)),
    Table("delivery", MANAGE, ("receipts", "destinations")),
    Table("dead_letters", MANAGE, ("dead-letters",)),
    Table("access", MANAGE, ("private-integrations", "console-sessions")),
    Table("webhooks", MANAGE, ("webhooks",)),
    Table("audit", MANAGE, ("audit",)),
)


def find(function: str, method: str, path: str) -> Operation | None:
    """The operation of a function; `path` is the one of its route (`/connections/{name}`)."""
    step = path.removeprefix("/").partition("/")[0]
    for table in TABLES:
        if table.function == function and step in table.steps:
            found = _by_route(table.name).get((method, path))
            if found:
                return found
    return None


def load(name: str) -> list[Operation]:
    """All operations of a table."""
    operations: list[Operation] = importlib.import_module(f"portaria.api.operation_tables.{name}").OPERATIONS
    return operations


@cache
def _by_route(name: str) -> Mapping[tuple[str, str], Operation]:
    return {(operation.method, operation.path): operation for operation in load(name)}
