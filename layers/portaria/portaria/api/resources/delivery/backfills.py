"""Starting the backfills of a connection, and showing their progress."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from portaria.api.operation import ApiRequest, Reply
from portaria.api.schemas import Output, Time
from portaria.api.validation import Input, ResourceName
from portaria.connections import connection_store
from portaria.core import clock

State = Literal["running", "done", "failed"]


class BackfillCreation(Input):
    """Which routes to read records for."""

    route: ResourceName | None = Field(
        default=None,
        description="The name of one route that starts at the connection. By default, every route that does.",
    )


class StartedBackfill(Output):
    """A backfill that runs."""

    route: str = Field(description="The name of the route that the records are read for.")
    state: State = Field(description="The backfill's state, which is `running` after the start.")


class StartedBackfills(Output):
    """The backfills that run for the connection's routes."""

    runs: list[StartedBackfill] = Field(description="One backfill for each route.")


class Backfill(Output):
    """The newest backfill of one route. A value is null if there is none yet."""

    route: str = Field(description="The name of the route that the records are read for.")
    object: str = Field(description="The object that is read at the source.")
    state: State = Field(description="`running`, `done` or `failed` (`reason` says why).")
    page_count: int = Field(description="How many pages have been queued so far.")
    record_count: int = Field(description="How many records have been queued so far.")
    started_at: Time | None = Field(description="When the backfill began.")
    finished_at: Time | None = Field(description="When the backfill ended.")
    reason: str | None = Field(description="Why the backfill failed.")
    detail: str | None = Field(description="A sentence about the failure, for people.")


class Reconciliation(Output):
    """The regular search for changes that no event reported."""

    object: str = Field(description="The object that is read at the source.")
    since: Time = Field(description="Changes until this time have been queued.")
    due_at: Time = Field(description="When the next reconciliation starts.")


class BackfillStatus(Output):
    """The backfills and reconciliations of a connection."""

    runs: list[Backfill] = Field(description="The newest backfill of each route.")
    reconciliations: list[Reconciliation] = Field(
        description="The reconciliations that follow the backfills, one for each object."
    )


def start(asked: ApiRequest) -> Reply:
    """Raises `Rejected` (404 `unknown_connection`, `unknown_route`, 409 `not_connected`, `nothing_to_read`) and `Retryable`."""
    context = asked.context
    connection = connection_store.get(context.table, asked.path["name"])
    from portaria.sources import backfill  # noqa: PLC0415 - what only backfills need

    states = backfill.start(context.table, context.backfills_queue_url, connection, asked.sent.route)
    return Reply({"runs": [{"route": route, "state": state} for route, state in states.items()]})


def show(asked: ApiRequest) -> Reply:
    """Raises `Rejected` (404 `unknown_connection`)."""
    table, name = asked.context.table, asked.path["name"]
    connection_store.get(table, name)
    from portaria.sources import backfill, reconciliation  # noqa: PLC0415 - what only backfills need

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
