"""Every operation of the API, one row each: its name, scope, input and output.

`router` runs them, `openapi` generates docs/openapi.yaml from them, and a test compares template.yaml with them.
"""

from __future__ import annotations

from portaria.api.operation import Operation
from portaria.api.operation_tables import access, connections, delivery, webhooks

OPERATIONS: list[Operation] = [
    *access.DISCOVERY,
    *access.STACK,
    *access.OAUTH_CLIENTS,
    *connections.CONNECTIONS,
    *connections.PLATFORM_ACTIONS,
    *delivery.ROUTES,
    *connections.INSTALL_LINKS,
    *connections.INSTALLS,
    *delivery.RECEIPTS,
    *delivery.DESTINATIONS,
    *delivery.DEAD_LETTERS,
    *access.PRIVATE_INTEGRATIONS,
    *access.CONSOLE_SESSIONS,
    *webhooks.WEBHOOKS,
    *access.AUDIT,
]


def of(function: str) -> list[Operation]:
    """The operations that a function serves."""
    return [operation for operation in OPERATIONS if operation.function == function]
