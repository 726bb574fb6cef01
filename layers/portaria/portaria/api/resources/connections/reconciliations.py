"""Starting the reconciliations of a connection before they are due."""

from __future__ import annotations

from pydantic import Field

from portaria.api.operation import ApiRequest, Reply
from portaria.api.schemas import Output
from portaria.connections import connection_store


class StartedReconciliations(Output):
    """The reconciliations that were queued."""

    objects: list[str] = Field(description="The objects whose changes are read.")


def start(asked: ApiRequest) -> Reply:
    """Raises `Rejected` (404 `unknown_connection`, 409 `not_connected`, `nothing_to_read`) and `Retryable`."""
    from portaria.sources import reconciliation_start  # noqa: PLC0415 - what only this operation needs

    context = asked.context
    connection = connection_store.get(context.table, asked.path["name"])
    return Reply({"objects": reconciliation_start.start(context.table, context.backfills_queue_url, connection)})
