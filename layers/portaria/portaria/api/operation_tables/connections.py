"""The operations of connections that the function `manage` carries out."""

from __future__ import annotations

from http import HTTPStatus

from portaria.api.operation import Operation
from portaria.api.resources.connections import (
    connection_tags,
    connections,
    event_addresses,
    reconciliations,
)
from portaria.api.resources.delivery import backfills
from portaria.api.rules import connection_rules

CREATED = HTTPStatus.CREATED

OPERATIONS = [
    Operation(
        "list_connections", "GET", "/connections", "connections:list", "List connections",
        connections.list_page, connections.ConnectionOutput, listing=True, filters=connections.FILTERS,
        description="By name. A page can have fewer items than `limit`. `tag.customer_id` cannot be combined with other "
        "filters.",
    ),
    Operation(
        "create_connection", "POST", "/connections", "connections:create", "Create a connection",
        connections.create, connections.ConnectionOutput, input=connection_rules.ConnectionCreation, status=CREATED,
        description="Credentials are tested first, where the platform offers a request for that, and stored only if they work.",
        creates=True, changes=True,
    ),
    Operation(
        "show_connection", "GET", "/connections/{name}", "connections:show", "Get a connection",
        connections.get, connections.ConnectionOutput,
        description="`credentials_set` names the credentials that are stored; they are not returned.",
    ),
    Operation(
        "replace_credentials", "PUT", "/connections/{name}/credentials", "credentials:replace",
        "Replace a connection's credentials",
        connections.replace, connections.ConnectionOutput, input=connection_rules.CredentialsReplacement,
        edits=True, changes=True,
        description="They are tested first, where the platform offers a request for that. An ended connection works again.",
    ),
    Operation(
        "delete_connection", "DELETE", "/connections/{name}", "connections:delete", "Delete a connection",
        connections.delete, connections.DeletedConnection, changes=True,
        description="Records that wait for it become dead letters; the answer says about how many.",
    ),
    Operation(
        "rotate_connection", "POST", "/connections/{name}/rotate", "connections:rotate", "Rotate a connection's token",
        connections.rotate, connections.ConnectionOutput, input=connection_rules.CredentialsRotation, creates=True,
        changes=True,
        description="Send the new token that the platform issued. It is tested first. The previous token is kept as a fallback "
        "for as long as the platform accepts both.",
    ),
    Operation(
        "expire_rotation", "POST", "/connections/{name}/rotation/expire", "connections:expire",
        "Delete a connection's previous token", connections.expire, connections.ConnectionOutput, changes=True,
        description="Ends a rotation early: only the new token is used.",
    ),
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
