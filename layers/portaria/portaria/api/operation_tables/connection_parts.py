"""The operations on what belongs to a connection: tags, event addresses, backfills and reconciliations."""

from __future__ import annotations

from http import HTTPStatus

from portaria.api.operation import Operation
from portaria.api.resources.connections import connection_tags, connections, event_addresses, reconciliations
from portaria.api.resources.delivery import backfills

CREATED = HTTPStatus.CREATED

OPERATIONS = [
    Operation(
        "replace_tags", "PUT", "/connections/{name}/tags", "tags:replace", "Replace a connection's tags",
        connection_tags.replace, connections.ConnectionOutput, input=connection_tags.TagsReplacement,
        edits=True, changes=True,
        description="Tags say which of your customers a connection belongs to. They are for attribution: keep secrets and bulk "
        "data elsewhere. Each event about the connection carries them.",
    ),
    Operation(
        "create_event_address", "POST", "/connections/{name}/event-addresses", "event-addresses:create",
        "Create a webhook URL for events", event_addresses.create, event_addresses.EventAddress,
        status=CREATED, creates=True, is_secret=True, changes=True,
        description="The URL and the secret of its header are returned once. Earlier URLs work for another hour.",
    ),
    Operation(
        "start_backfill", "POST", "/connections/{name}/backfills", "backfills:create",
        "Start a connection's backfills", backfills.start, backfills.StartedBackfills,
        input=backfills.BackfillCreation,
        status=HTTPStatus.ACCEPTED, creates=True, changes=True,
        description="Reads all records of the account for each route that starts at the connection, or for one route. A "
        "running backfill continues; one that has ended starts again from the first page.",
    ),
    Operation(
        "list_backfills", "GET", "/connections/{name}/backfills", "backfills:list",
        "List a connection's backfills and reconciliations", backfills.show, backfills.BackfillStatus,
        description="The newest backfill of each route, and the reconciliations that follow it.",
    ),
    Operation(
        "start_reconciliations", "POST", "/connections/{name}/reconciliations", "reconciliations:create",
        "Start a connection's reconciliations now", reconciliations.start, reconciliations.StartedReconciliations,
        status=HTTPStatus.ACCEPTED, creates=True, changes=True,
        description="Reads what changed in the account since the last reconciliation, for each object that a route takes from "
        "the connection. The schedule does the same at intervals.",
    ),
]  # fmt: skip
