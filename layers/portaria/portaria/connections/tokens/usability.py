"""Whether a connection can be used, and the end of a connection that cannot."""

from __future__ import annotations

import logging
from datetime import timedelta

from portaria.aws.table import Table
from portaria.connections import connection_store
from portaria.core import clock, event_catalogue
from portaria.core.entities import Connection
from portaria.core.errors import ConnectionRemoved, NeedsReconnect, NotAuthorized
from portaria.core.stored_reasons import ConnectionReason

logger = logging.getLogger(__name__)

# The vault may not return yet what was written within this time.
YOUNG = timedelta(minutes=5)


def is_young(connection: Connection) -> bool:
    return bool(connection.updated_at) and clock.from_iso(connection.updated_at) + YOUNG > clock.now()


def check_usable(connection: Connection) -> None:
    """Raises `Rejected` unless the connection is connected; `detail` says what to do."""
    match connection.state:
        case "connected":
            return
        case "pending":
            raise NotAuthorized(f"the connection {connection.name} has not been authorized yet")
        case "removed":
            raise ConnectionRemoved(f"the connection {connection.name} has been removed")
    why = f" ({connection.reason})" if connection.reason else ""
    raise NeedsReconnect(f"the connection {connection.name} must be connected again{why}")


def end(table: Table, connection: Connection, reason: ConnectionReason, *, fence: int | None = None) -> None:
    """Mark a connection as one that must be connected again, and schedule the event about it.

    Raises `Conflict` if its credentials have changed since, or, with a `fence`, where that lease has been lost.
    """
    changed = connection_store.due_now(event_catalogue.NEEDS_RECONNECT)
    changed |= connection_store.filter_keys(connection, "needs_reconnect")
    now = clock.to_iso(clock.now())
    values = {f":{name}": value for name, value in changed.items()}
    table.update(
        *connection_store.key(connection.name),
        "SET #state = :needs_reconnect, #reason = :reason, updated_at = :now, "
        + ", ".join(f"{name} = :{name}" for name in changed)
        + " REMOVE lease_until, retry_at",
        condition="generation = :generation AND #state = :connected" + (" AND fence = :fence" if fence else ""),
        names={"#state": "state", "#reason": "reason"},
        values={
            **values,
            ":needs_reconnect": "needs_reconnect",
            ":connected": "connected",
            ":reason": reason,
            ":now": now,
            ":generation": connection.generation,
        }
        | ({":fence": fence} if fence else {}),
    )
    logger.error("connection_needs_reconnect", extra={"connection": connection.name, "reason": reason})
