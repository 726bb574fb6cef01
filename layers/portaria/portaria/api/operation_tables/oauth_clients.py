"""The operations of OAuth clients."""

from __future__ import annotations

from http import HTTPStatus

from portaria.api.operation import Operation
from portaria.api.resources import oauth_clients
from portaria.api.rules import oauth_client_rules

CREATED, NO_CONTENT = HTTPStatus.CREATED, HTTPStatus.NO_CONTENT

OPERATIONS = [
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
