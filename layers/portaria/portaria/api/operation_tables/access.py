"""The operations of discovery, OAuth clients, private integrations, console sessions and the audit trail."""

from __future__ import annotations

from http import HTTPStatus

from portaria.api.operation import Operation
from portaria.api.resources import (
    audit,
    console_sessions,
    discovery,
    oauth_clients,
    overview,
    private_integrations,
    stack_settings,
)
from portaria.api.rules import oauth_client_rules

CREATED, NO_CONTENT = HTTPStatus.CREATED, HTTPStatus.NO_CONTENT
CALL = "call_connection"

DISCOVERY = [
    Operation(
        "list_platforms", "GET", "/platforms", "", "List platforms", discovery.list_platforms, discovery.PlatformOutput,
        listing=True, description="What a form for connections and routes needs: kinds, fields, credentials, targets, options.",
    ),
    Operation(
        "show_platform", "GET", "/platforms/{platform}", "", "Get a platform",
        discovery.get_platform, discovery.PlatformOutput,
        description="What a form for its connections and routes needs.",
    ),
    Operation(
        "list_scopes", "GET", "/scopes", "", "List scopes", discovery.list_scopes, discovery.ScopeOutput, listing=True,
        description="Every scope that a private integration can have, on one page.",
    ),
    Operation(
        "show_caller", "GET", "/me", "", "Get the caller", discovery.show_caller, discovery.CallerOutput,
        description="Who the request's token or signature belongs to, and what it may do.",
    ),
]  # fmt: skip
STACK = [
    Operation(
        "show_overview", "GET", "/overview", "overview:show", "Get the overview", overview.show, overview.OverviewOutput,
        description="Counts by state, grants that end soonest, paused destinations, quotas, ages of queues and alarms. It "
        "reads at most 50 read units of DynamoDB, however large the table is.",
    ),
    Operation(
        "show_settings", "GET", "/settings", "settings:show", "Get the settings",
        stack_settings.show, stack_settings.SettingsOutput,
        description="The stack's parameters, limits and pages at AWS, and the doctor's checks of what the table holds.",
    ),
]  # fmt: skip
OAUTH_CLIENTS = [
    Operation(
        "list_oauth_clients", "GET", "/oauth-clients", "oauth-clients:list", "List OAuth clients",
        oauth_clients.list_page, oauth_clients.OAuthClientOutput, listing=True,
        description="Secrets are not returned.",
    ),
    Operation(
        "create_oauth_client", "POST", "/oauth-clients", "oauth-clients:create", "Create an OAuth client",
        oauth_clients.create, oauth_clients.OAuthClientWithWarnings, input=oauth_client_rules.OAuthClientCreation,
        status=CREATED,
        creates=True, changes=True,
        description="Registers an application with this stack. Enter the `redirect_uri` of the response at the platform.",
    ),
    Operation(
        "show_oauth_client", "GET", "/oauth-clients/{platform}/{client}", "oauth-clients:show", "Get an OAuth client",
        oauth_clients.get, oauth_clients.OAuthClientWithWarnings,
        description="`credentials_set` names the secrets that are stored; they are not returned.",
    ),
    Operation(
        "replace_oauth_client", "PUT", "/oauth-clients/{platform}/{client}", "oauth-clients:replace", "Replace an OAuth client",
        oauth_clients.replace, oauth_clients.OAuthClientWithWarnings, input=oauth_client_rules.OAuthClientReplacement,
        edits=True, changes=True,
        description="Connections that the platform's refusals ended are tried again with the new values.",
    ),
    Operation(
        "delete_oauth_client", "DELETE", "/oauth-clients/{platform}/{client}", "oauth-clients:delete", "Delete an OAuth client",
        oauth_clients.delete, None, status=NO_CONTENT, changes=True,
        description="It must have no connections and no routes (409 `client_in_use`).",
    ),
]  # fmt: skip
PRIVATE_INTEGRATIONS = [
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
]  # fmt: skip
CONSOLE_SESSIONS = [
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
AUDIT = [
    Operation(
        "list_audit", "GET", "/audit", "audit:list", "List audit entries",
        audit.list_page, audit.AuditEntry, listing=True, filters=audit.FILTERS,
        description="Newest first: who requested which change.",
    ),
]  # fmt: skip
