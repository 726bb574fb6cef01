"""Scopes: what a private integration may do. There is one scope for each operation, and one for the data ingestion endpoint.

A scope of an operation on one connection can be narrowed to a connection by its name: `connections:call@crm`. A scope to send
records is narrowed to their destination: `records:create@marketo-main`.
"""

from __future__ import annotations

import re

# Each scope and what it allows.
SCOPES = {
    "overview:show": "Get the overview",
    "settings:show": "Get the settings",
    "oauth-clients:list": "List OAuth clients",
    "oauth-clients:show": "Get an OAuth client",
    "oauth-clients:create": "Create an OAuth client",
    "oauth-clients:replace": "Replace an OAuth client",
    "oauth-clients:delete": "Delete an OAuth client",
    "connections:list": "List connections",
    "connections:show": "Get a connection",
    "connections:create": "Create a connection",
    "connections:delete": "Delete a connection",
    "connections:rotate": "Rotate a connection's token",
    "connections:expire": "Delete a connection's previous token",
    "connections:call": "Send a request through a connection",
    "connections:test": "Test a connection",
    "connections:renew": "Renew a connection's tokens now",
    "credentials:replace": "Replace a connection's credentials",
    "authorizations:create": "Create an authorization link",
    "tags:replace": "Replace a connection's tags",
    "event-addresses:create": "Create a webhook URL for events",
    "backfills:create": "Start a connection's backfills",
    "backfills:list": "List a connection's backfills and reconciliations",
    "reconciliations:create": "Start a connection's reconciliations now",
    "sample-records:list": "List sample records of a connection",
    "contacts:show": "Get a contact",
    "contacts:upsert": "Create or update contacts",
    "identifiers:register": "Register user identifiers for single sign-on",
    "sso:create": "Create a single sign-on link",
    "records:send": "Send records to the data ingestion endpoint",
    "records:create": "Send records through a route",
    "routes:list": "List routes",
    "routes:show": "Get a route",
    "routes:preview": "Preview what a record becomes",
    "routes:create": "Create a route",
    "routes:replace": "Replace a route",
    "routes:delete": "Delete a route",
    "install-links:list": "List install links",
    "install-links:show": "Get an install link",
    "install-links:create": "Create an install link",
    "install-links:delete": "Delete an install link",
    "installs:list": "List installs",
    "installs:show": "Get an install",
    "receipts:list": "List receipts",
    "receipts:show": "Get a receipt",
    "destinations:list": "List destinations",
    "destinations:resume": "Resume a destination",
    "dead-letters:list": "List dead letters",
    "dead-letters:show": "Get a dead letter with its records",
    "dead-letters:redrive": "Redrive dead letters",
    "dead-letters:delete": "Delete a dead letter",
    "private-integrations:list": "List private integrations",
    "private-integrations:show": "Get a private integration",
    "private-integrations:create": "Create a private integration with at most its own scopes",
    "private-integrations:edit": "Update one that has at most its own scopes",
    "private-integrations:delete": "Delete one that has at most its own scopes",
    "private-integrations:rotate": "Rotate the token of one that has at most its own scopes",
    "private-integrations:cancel": "Cancel the token rotation of one that has at most its own scopes",
    "private-integrations:expire": "Revoke the previous token of one that has at most its own scopes",
    "webhooks:list": "List webhooks",
    "webhooks:show": "Get a webhook",
    "webhooks:create": "Create a webhook",
    "webhooks:replace": "Replace a webhook",
    "webhooks:delete": "Delete a webhook",
    "webhooks:rotate": "Rotate the secret of a webhook",
    "webhooks:test": "Send a test event to a webhook",
    "webhook-deliveries:list": "List the deliveries of a webhook",
    "webhook-deliveries:show": "Get a delivery with its attempts and payload",
    "webhook-deliveries:redeliver": "Send deliveries again",
    "audit:list": "List audit entries",
}
NARROWABLE = frozenset(
    {
        *(f"connections:{what}" for what in ("show", "delete", "rotate", "expire", "call", "test", "renew")),
        *("credentials:replace", "tags:replace", "authorizations:create", "event-addresses:create"),
        *("backfills:create", "backfills:list", "reconciliations:create", "sample-records:list"),
        *("contacts:show", "contacts:upsert", "identifiers:register", "sso:create"),
        *("records:send", "records:create", "destinations:resume"),
    }
)  # fmt: skip
# Scopes that only console sessions can have.
ADMINISTRATORS_ONLY = {
    "console-sessions:create": "Create a link to the console",
    "console-sessions:list": "List console sessions",
    "console-sessions:revoke": "Revoke a console session",
}
# Scopes of operations that change nothing.
READING = frozenset(
    scope for scope in (*SCOPES, *ADMINISTRATORS_ONLY) if scope.rpartition(":")[2] in ("list", "show", "preview")
)
_CONNECTION = re.compile(r"[A-Za-z0-9_-]{3,64}")


def check(text: str) -> str:
    """Raises `ValueError` with the rule in words."""
    name, at, connection = text.partition("@")
    if name not in SCOPES:
        raise ValueError("is not a scope; the API reference lists them")
    if at and name not in NARROWABLE:
        raise ValueError(f"{name} cannot be narrowed to a connection")
    if at and not _CONNECTION.fullmatch(connection):
        raise ValueError("has no valid connection name after the @: 3 to 64 of A-Z a-z 0-9 _ -")
    return text
