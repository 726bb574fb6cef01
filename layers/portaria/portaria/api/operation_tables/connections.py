"""The operations of connections themselves that the function `manage` carries out."""

from __future__ import annotations

from http import HTTPStatus

from portaria.api.operation import Operation
from portaria.api.resources.connections import connections
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
]  # fmt: skip
