"""Every operation of the API, one row each: its name, scope, input and output.

`router` runs them, `openapi` generates docs/openapi.yaml from them, and a test compares template.yaml with them.
"""

from __future__ import annotations

from http import HTTPStatus

from portaria.api import validation
from portaria.api.operation import ApiRequest, Operation, Reply
from portaria.api.resources import (
    audit,
    console_sessions,
    discovery,
    install_links,
    installs,
    oauth_clients,
    private_integrations,
)
from portaria.api.resources.actions import contacts, identifiers, sign_on
from portaria.api.resources.connections import (
    authorizations,
    calls,
    connection_tags,
    connection_tests,
    connections,
    event_addresses,
    proxied,
)
from portaria.api.resources.delivery import (
    backfills,
    dead_letter_deletions,
    dead_letters,
    destinations,
    receipts,
    route_previews,
    routes,
    sent_records,
)
from portaria.api.rules import connection_rules, install_link_rules, oauth_client_rules, route_rules
from portaria.api.webhook_operations import WEBHOOK_OPERATIONS

CREATED, NO_CONTENT = HTTPStatus.CREATED, HTTPStatus.NO_CONTENT

CALL = "call_connection"


def _show_contact(asked: ApiRequest) -> Reply:
    return Reply(contacts.show(asked.context.table, asked.context.tokens, asked.path["name"], asked.path["id"]))


def _upsert_contacts(asked: ApiRequest) -> Reply:
    return Reply(contacts.upsert(asked.context.table, asked.context.tokens, asked.path["name"], asked.sent))


def _register_identifiers(asked: ApiRequest) -> Reply:
    context = asked.context
    return Reply(identifiers.register(context.table, context.tokens, context.vault, asked.path["name"], asked.sent))


def _sign_on(asked: ApiRequest) -> Reply:
    context, name = asked.context, asked.path["name"]
    return Reply(sign_on.begin(context.table, context.vault, context.sealing_key_id, name, asked.sent, asked.api_url))


OPERATIONS = [
    # For clients of this API
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
    # OAuth clients
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
    # Connections
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
        "create_authorization", "POST", "/connections/{name}/authorizations", "authorizations:create",
        "Create an authorization link", authorizations.create, authorizations.Authorization,
        status=CREATED, creates=True, is_secret=True, changes=True,
        description="A person opens the link to grant access, in one browser, within 15 minutes. It is an install link for "
        "exactly this connection; `POST /install-links` has more options.",
    ),
    Operation(
        "replace_tags", "PUT", "/connections/{name}/tags", "tags:replace", "Replace a connection's tags",
        connection_tags.replace, connections.ConnectionOutput, input=connection_tags.TagsReplacement,
        edits=True, changes=True,
        description="Tags say which of your customers a connection belongs to. They are for attribution: keep secrets and bulk "
        "data elsewhere. Each event about the connection carries them.",
    ),
    Operation(
        "call_connection", "POST", "/connections/{name}/call", "connections:call", "Send a request through a connection",
        calls.call, calls.CallResponse, function=CALL, input=calls.CallRequest, max_bytes=calls.MAX_REQUEST_BYTES,
        creates=True, is_secret=True, at_most_once=True, changes=True,
        description="The request goes to the connection's API with its credential added. A response body that contains the "
        "credential is withheld.",
    ),
    *(
        Operation(
            f"{prefix}_{method.lower()}", method, path, "connections:call", f"Send a {method} to {what}",
            proxied.send, None, function=CALL, read=proxied.read, creates=True, is_secret=True, at_most_once=True, changes=True,
            description=description,
        )
        for prefix, path, what, description in (
            ("proxy", "/connections/{name}/proxy/{path+}", "a connection's API", proxied.DESCRIPTION),
            ("proxy_root", "/connections/{name}/proxy", "an API's root", proxied.ROOT_DESCRIPTION),
        )
        for method in proxied.METHODS
    ),
    Operation(
        "test_connection", "POST", "/connections/{name}/test", "connections:test", "Test a connection",
        connection_tests.test, connection_tests.ConnectionTest, function=CALL, creates=True, changes=True,
        description="Sends the platform's harmless request. Platforms without one (`is_testable` is false) answer 409 "
        "`not_offered`. A credential that the platform calls invalid ends the connection.",
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
    # What platforms offer
    Operation(
        "show_contact", "GET", "/connections/{name}/contacts/{id}", "contacts:show", "Get a contact",
        _show_contact, contacts.Contact, function=CALL,
        description="Reads the contact at the platform, with the platform's own fields.",
    ),
    Operation(
        "upsert_contacts", "POST", "/connections/{name}/contacts", "contacts:upsert", "Create or update contacts",
        _upsert_contacts, contacts.UpsertedContacts, function=CALL, input=contacts.ContactUpsert, max_bytes=1_000_000,
        creates=True, changes=True,
        description="The response has an outcome for each contact.",
    ),
    Operation(
        "register_identifiers", "POST", "/connections/{name}/identifiers", "identifiers:register",
        "Register user identifiers for single sign-on", _register_identifiers, identifiers.RegisteredIdentifiers, function=CALL,
        input=identifiers.IdentifierRegistration, max_bytes=1_000_000, creates=True, changes=True,
        description="The response has an outcome for each user.",
    ),
    Operation(
        "create_sso", "POST", "/connections/{name}/sso", "sso:create", "Create a single sign-on link",
        _sign_on, sign_on.SignOnLink, function=CALL, input=sign_on.SignOnRequest, status=CREATED, creates=True,
        is_secret=True, changes=True,
        description="The link works once, within two minutes. `deliver` can ask for the platform's own URLs instead.",
    ),
    # Routes
    Operation(
        "list_routes", "GET", "/routes", "routes:list", "List routes", routes.list_page, routes.RouteOutput, listing=True,
        filters={"source": route_rules.SOURCE, "destination": validation.Matching(validation.NAME, "a connection's name")},
        description="By name; with `destination`, by source and name.",
    ),
    Operation(
        "create_route", "POST", "/routes", "routes:create", "Create a route", routes.create, routes.RouteWithWarnings,
        input=route_rules.RouteCreation, status=CREATED, creates=True, changes=True,
        description="The mapping is checked. The response has warnings about what may be a mistake.",
    ),
    Operation(
        "preview_route", "POST", "/routes/preview", "routes:preview", "Get what a record becomes",
        route_previews.preview, route_previews.RoutePreview, input=route_previews.RoutePreviewRequest,
        description="Maps a sample record by a route that exists or that is given, and returns the objects and the request "
        "that the destination would get. Nothing is sent or stored.",
    ),
    Operation(
        "show_route", "GET", "/routes/{name}", "routes:show", "Get a route", routes.get, routes.RouteOutput,
        description="The mapping is returned as it was given.",
    ),
    Operation(
        "replace_route", "PUT", "/routes/{name}", "routes:replace", "Replace a route", routes.replace, routes.RouteWithWarnings,
        input=route_rules.RouteReplacement, edits=True, changes=True,
        description="Replaces all values. The response has warnings about what may be a mistake.",
    ),
    Operation(
        "delete_route", "DELETE", "/routes/{name}", "routes:delete", "Delete a route", routes.delete, None,
        status=NO_CONTENT, changes=True,
        description="Its connections stay.",
    ),
    Operation(
        "send_records", "POST", "/records", sent_records.SCOPE, "Send records through a route",
        sent_records.send, sent_records.AcceptedRecords, input=sent_records.RecordsSending,
        max_bytes=sent_records.MAX_BODY_BYTES, status=HTTPStatus.ACCEPTED, creates=True, changes=True,
        checks_scope=True,
        description="The records are in the source's shape; the route maps and delivers them. `id` finds their receipts. "
        "A record that cannot be delivered becomes a dead letter.",
    ),
    # Install links
    Operation(
        "create_install_link", "POST", "/install-links", "install-links:create", "Create an install link",
        install_links.create, install_links.InstallLinkWithUrl, input=install_link_rules.InstallLinkCreation, status=CREATED,
        creates=True, is_secret=True, changes=True,
        description="A customer opens `url` to install, to authorize one connection again (`connection`), or to say whose "
        "account installed (`account_id`). The tags are attached to the install and its connection; they are not in the URL.",
    ),
    Operation(
        "list_install_links", "GET", "/install-links", "install-links:list", "List install links",
        install_links.list_page, install_links.InstallLinkOutput, listing=True,
        description="Newest first, including those that ended in the last seven days. The URLs are not returned again.",
    ),
    Operation(
        "show_install_link", "GET", "/install-links/{id}", "install-links:show", "Get an install link",
        install_links.get, install_links.InstallLinkOutput,
        description="The URL is not returned again.",
    ),
    Operation(
        "delete_install_link", "DELETE", "/install-links/{id}", "install-links:delete", "Delete an install link",
        install_links.delete, None, status=NO_CONTENT, changes=True,
        description="The link cannot be opened any more. A browser that has opened it can finish for up to 30 minutes.",
    ),
    # Installs
    Operation(
        "list_installs", "GET", "/installs", "installs:list", "List installs",
        installs.list_page, installs.InstallOutput, listing=True, filters=installs.FILTERS,
        description="Newest first. `tag.customer_id` cannot be combined with other filters.",
    ),
    Operation(
        "show_install", "GET", "/installs/{id}", "installs:show", "Get an install", installs.get, installs.InstallOutput,
        description="Installs are kept for 90 days.",
    ),
    # Receipts
    Operation(
        "list_receipts", "GET", "/receipts", "receipts:list", "List receipts",
        receipts.list_page, receipts.ReceiptOutput, listing=True, filters=receipts.FILTERS,
        description="Newest first. Filter by one of `destination` (optionally with `record`), `request` and `correlation_id`; "
        "without one, the receipts of all connections are listed.",
    ),
    Operation(
        "show_receipt", "GET", "/receipts/{id}", "receipts:show", "Get a receipt",
        receipts.get, receipts.ReceiptWithRequests,
        description="Receipts are kept for 30 days.",
    ),
    # Destinations
    Operation(
        "list_destinations", "GET", "/destinations", "destinations:list",
        "List destinations", destinations.list_page, destinations.Destination, listing=True,
        description="Destinations that are paused or have waiting records.",
    ),
    Operation(
        "resume_destination", "POST", "/destinations/{name}/resume", "destinations:resume",
        "Resume a destination", destinations.resume, destinations.ResumedDestination, creates=True, changes=True,
        description="Its pauses end, and its waiting records are tried at once. If it still refuses, the next pause begins.",
    ),
    # Dead letters
    Operation(
        "list_dead_letters", "GET", "/dead-letters", "dead-letters:list", "List dead letters",
        dead_letters.list_page, dead_letters.DeadLetter, listing=True, filters=dead_letters.FILTERS,
        description="Newest first.",
    ),
    Operation(
        "show_dead_letter", "GET", "/dead-letters/{id}", "dead-letters:show", "Get a dead letter with its records",
        dead_letters.get, dead_letters.DeadLetterWithRecords,
        description="Values that look like credentials are shown as `***`.",
    ),
    Operation(
        "redrive_dead_letters", "POST", "/dead-letters/redrive", "dead-letters:redrive", "Redrive dead letters",
        dead_letters.redrive, dead_letters.RedriveOutcome, input=dead_letters.DeadLetterRedrive, creates=True, changes=True,
        description="Sends the records again, at most twenty dead letters a second. The response has an outcome for each; "
        "`dry_run` returns the outcomes and sends nothing.",
    ),
    Operation(
        "delete_dead_letters", "POST", "/dead-letters/delete", "dead-letters:delete", "Delete several dead letters",
        dead_letter_deletions.delete, dead_letter_deletions.DeletionOutcome, input=dead_letter_deletions.DeadLetterDeletion,
        creates=True, changes=True,
        description="`dry_run` returns the counts and deletes nothing.",
    ),
    Operation(
        "delete_dead_letter", "DELETE", "/dead-letters/{id}", "dead-letters:delete",
        "Delete a dead letter", dead_letters.delete, None, status=NO_CONTENT, changes=True,
        description="Its records are deleted with it.",
    ),
    # Private integrations
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
    # Console sessions
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
    *WEBHOOK_OPERATIONS,
    # Audit
    Operation(
        "list_audit", "GET", "/audit", "audit:list", "List audit entries",
        audit.list_page, audit.AuditEntry, listing=True, filters=audit.FILTERS,
        description="Newest first: who requested which change.",
    ),
]  # fmt: skip


def of(function: str) -> list[Operation]:
    """The operations that a function serves."""
    return [operation for operation in OPERATIONS if operation.function == function]
