"""The operations on access to the API and the console: private integrations and console sessions."""

from __future__ import annotations

from http import HTTPStatus

from portaria.api.operation import Operation
from portaria.api.resources import console_sessions, private_integrations

CREATED, NO_CONTENT = HTTPStatus.CREATED, HTTPStatus.NO_CONTENT

OPERATIONS = [
    Operation(
        "list_private_integrations", "GET", "/private-integrations", "private-integrations:list",
        "List private integrations", private_integrations.list_page, private_integrations.PrivateIntegrationOutput,
        listing=True, managers_only=True,
        description="Tokens are not returned.",
    ),
    Operation(
        "create_private_integration", "POST", "/private-integrations", "private-integrations:create",
        "Create a private integration", private_integrations.create, private_integrations.PrivateIntegrationWithToken,
        input=private_integrations.PrivateIntegrationCreation, status=CREATED, creates=True, is_secret=True, changes=True,
        managers_only=True,
        description="The token is returned once, and again if the request is repeated with the same `Idempotency-Key`.",
    ),
    Operation(
        "show_private_integration", "GET", "/private-integrations/{id}", "private-integrations:show",
        "Get a private integration", private_integrations.get, private_integrations.PrivateIntegrationOutput,
        managers_only=True,
        description="The token is not returned.",
    ),
    Operation(
        "edit_private_integration", "PATCH", "/private-integrations/{id}", "private-integrations:edit",
        "Update a private integration", private_integrations.edit, private_integrations.PrivateIntegrationOutput,
        input=private_integrations.PrivateIntegrationEdit, edits=True, changes=True, managers_only=True,
        description="Changes name, description or scopes. The token stays; new scopes apply from its next request on.",
    ),
    Operation(
        "delete_private_integration", "DELETE", "/private-integrations/{id}", "private-integrations:delete",
        "Delete a private integration", private_integrations.delete, None, status=NO_CONTENT, changes=True,
        managers_only=True, description="Its tokens stop working at once.",
    ),
    Operation(
        "rotate_private_integration", "POST", "/private-integrations/{id}/rotate",
        "private-integrations:rotate", "Rotate a private integration's token", private_integrations.rotate,
        private_integrations.PrivateIntegrationWithToken, input=private_integrations.PrivateIntegrationRotation,
        creates=True, is_secret=True, changes=True, managers_only=True,
        description="The previous token works for seven more days, or stops working at once (`expire_now`).",
    ),
    Operation(
        "cancel_private_integration_rotation", "POST", "/private-integrations/{id}/rotation/cancel",
        "private-integrations:cancel", "Cancel a token rotation",
        private_integrations.cancel, private_integrations.PrivateIntegrationOutput, changes=True, managers_only=True,
        description="The previous token stays valid; the new one stops working.",
    ),
    Operation(
        "expire_private_integration_rotation", "POST", "/private-integrations/{id}/rotation/expire",
        "private-integrations:expire", "Revoke the previous token",
        private_integrations.expire, private_integrations.PrivateIntegrationOutput, changes=True, managers_only=True,
        description="Ends a rotation early: only the new token works.",
    ),
    Operation(
        "create_console_session", "POST", "/console-sessions", "console-sessions:create", "Create a link to the console",
        console_sessions.create, console_sessions.ConsoleLink, input=console_sessions.ConsoleSessionCreation, status=CREATED,
        creates=True, is_secret=True, changes=True, administrators_only=True,
        description="For AWS principals. The link opens the console in one browser, once, within two minutes.",
    ),
    Operation(
        "list_console_sessions", "GET", "/console-sessions", "console-sessions:list", "List console sessions",
        console_sessions.list_page, console_sessions.ConsoleSessionOutput, listing=True, administrators_only=True,
        description="Newest first. Sessions that have ended are listed for a day.",
    ),
    Operation(
        "revoke_console_session", "DELETE", "/console-sessions/{id}", "console-sessions:revoke", "Revoke a console session",
        console_sessions.revoke, None, status=NO_CONTENT, changes=True, administrators_only=True,
        description="Its browser is signed out with its next request.",
    ),
]  # fmt: skip
