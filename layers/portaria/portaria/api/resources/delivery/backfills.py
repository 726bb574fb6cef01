"""Starting the backfills of a connection, and showing their progress."""

from __future__ import annotations

from typing import Literal

from portaria.api.operation import ApiRequest, Reply
from portaria.api.schemas import Output, Time
from portaria.api.validation import Input, ResourceName
from portaria.connections import connection_store
from portaria.core import clock
from portaria.sources import backfill, reconciliation

State = Literal["running", "done", "failed"]


class BackfillCreation(Input):
    """Without `route`, every route that starts at the connection is read."""

    route: ResourceName | None = None


class StartedBackfill(Output):
    route: str
    state: State


class StartedBackfills(Output):
    runs: list[StartedBackfill]


class Backfill(Output):
    """`page_count` and `record_count` are what has been queued so far. A value is null if there is none yet."""

    route: str
    object: str
    state: State
    page_count: int
    record_count: int
    started_at: Time | None
    finished_at: Time | None
    reason: str | None
    detail: str | None


class Reconciliation(Output):
    """Changes until `since` have been queued; the next reconciliation is at `due_at`."""

    object: str
    since: Time
    due_at: Time


class BackfillStatus(Output):
    """`runs` has the newest backfill of each route, `reconciliations` what follows it."""

    runs: list[Backfill]
    reconciliations: list[Reconciliation]


def start(asked: ApiRequest) -> Reply:
    """Raises `Rejected` (404 `unknown_connection`, `unknown_route`, 409 `not_connected`, `nothing_to_read`) and `Retryable`."""
    context = asked.context
    connection = connection_store.get(context.table, asked.path["name"])
    states = backfill.start(context.table, context.backfills_queue_url, connection, asked.sent.route)
    return Reply({"runs": [{"route": route, "state": state} for route, state in states.items()]})


def show(asked: ApiRequest) -> Reply:
    """Raises `Rejected` (404 `unknown_connection`)."""
    table, name = asked.context.table, asked.path["name"]
    connection_store.get(table, name)
    found = [item for _, item in sorted(backfill.latest(table, name).items())]
    return Reply(
        {
            "runs": [
                {field: item.get(field, "") for field in Backfill.model_fields}
                | {"page_count": item.get("pages", 0), "record_count": item.get("records", 0)}
                for item in found
            ],
            "reconciliations": [
                {
                    "object": item["object"],
                    "since": clock.epoch_to_iso(item["since"]),
                    "due_at": item["due_at"],
                }
                for item in reconciliation.of_connection(table, name)
            ],
        }
    )
