"""Starting a connection's reconciliations by hand."""

from __future__ import annotations

from portaria import platforms
from portaria.aws import queues
from portaria.aws.table import Table
from portaria.core import clock
from portaria.core.entities import Connection
from portaria.core.errors import Rejected
from portaria.records import routes
from portaria.sources import reconciliation


def start(table: Table, queue_url: str, connection: Connection) -> list[str]:
    """Queue a reconciliation of each object that a route takes from a connection, and whose changes can be listed.

    Each item exists before its message is queued: after a death in between the schedule reads it, and the call can be repeated.
    A message of a reconciliation that is already running is dropped by its worker. Returns the objects.

    Raises `Rejected` (409 `not_connected`, `nothing_to_read`) and `Retryable`.
    """
    if connection.state != "connected":
        raise Rejected("not_connected", f"the connection {connection.name} is {connection.state}", status=409)
    platform = platforms.load(connection.platform)
    objects = sorted({route.object for route in routes.for_connection(table, connection)})
    objects = [name for name in objects if platform.changed_object(name)]
    if not objects:
        detail = (
            f"there is nothing to read: {connection.name} is not the source of a route with an object whose changes "
            f"{connection.platform} can list"
        )
        raise Rejected("nothing_to_read", detail, status=409)
    for name in objects:
        reconciliation.begin(table, connection, name)
    queued_at = clock.to_iso(clock.now())
    queues.send(queue_url, [reconciliation.message(connection.name, name, queued_at) for name in objects])
    return objects
