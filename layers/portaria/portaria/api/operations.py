"""Every operation of the API, one row each: what it is called, who may, what goes in and what comes out.

`router` carries them out, `openapi` writes docs/openapi.yaml from them, and a test holds template.yaml against them.
"""

from __future__ import annotations

from http import HTTPStatus

from portaria.api.resources import (
    audit,
    authorizations,
    backfills,
    calls,
    connections,
    contacts,
    dead_letters,
    event_addresses,
    identifiers,
    installs,
    oauth_clients,
    private_integrations,
    receipts,
    routes,
    sign_on,
)
from portaria.api.router import ApiRequest, Operation, Reply

CREATED, NO_CONTENT = HTTPStatus.CREATED, HTTPStatus.NO_CONTENT
CONFLICT, TOO_LARGE = HTTPStatus.CONFLICT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE
BAD_GATEWAY, TIMED_OUT = HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT

CALL = "call_connection"


def _show_contact(asked: ApiRequest) -> Reply:
    return Reply(contacts.show(asked.desk.table, asked.desk.tokens, asked.path["name"], asked.path["contact"]))


def _upsert_contacts(asked: ApiRequest) -> Reply:
    return Reply(contacts.upsert(asked.desk.table, asked.desk.tokens, asked.path["name"], asked.sent))


def _register_identifiers(asked: ApiRequest) -> Reply:
    desk = asked.desk
    return Reply(identifiers.register(desk.table, desk.tokens, desk.vault, asked.path["name"], asked.sent))


def _sign_on(asked: ApiRequest) -> Reply:
    desk, name = asked.desk, asked.path["name"]
    return Reply(sign_on.begin(desk.table, desk.vault, desk.sealing_key_id, name, asked.sent, asked.api_url))


OPERATIONS = [
    # OAuth clients
    Operation(
        "list_oauth_clients", "GET", "/oauth-clients", "clients:list", "List OAuth clients",
        oauth_clients.list_page, oauth_clients.Shown, listing=True,
    ),
    Operation(
        "create_oauth_client", "POST", "/oauth-clients", "clients:create", "Register an OAuth client",
        oauth_clients.create, oauth_clients.Advised, input=oauth_clients.Creation, status=CREATED,
        creates=True, changes=True, statuses=(CONFLICT,),
    ),
    Operation(
        "show_oauth_client", "GET", "/oauth-clients/{platform}/{client}", "clients:show", "Show an OAuth client",
        oauth_clients.get, oauth_clients.Advised,
    ),
    Operation(
        "replace_oauth_client", "PUT", "/oauth-clients/{platform}/{client}", "clients:replace", "Replace an OAuth client",
        oauth_clients.replace, oauth_clients.Advised, input=oauth_clients.Replacement,
        edits=True, changes=True, statuses=(CONFLICT,),
    ),
    Operation(
        "delete_oauth_client", "DELETE", "/oauth-clients/{platform}/{client}", "clients:delete", "Delete an OAuth client",
        oauth_clients.delete, None, status=NO_CONTENT, changes=True, statuses=(CONFLICT,),
    ),
    # Connections
    Operation(
        "list_connections", "GET", "/connections", "connections:list", "List connections",
        connections.list_page, connections.Shown, listing=True,
    ),
    Operation(
        "create_connection", "POST", "/connections", "connections:create", "Create a connection",
        connections.create, connections.Shown, input=connections.Creation, status=CREATED,
        description="Credentials are tried first, where the platform has a way to, and stored only if they work.",
        creates=True, changes=True, statuses=(CONFLICT,),
    ),
    Operation(
        "show_connection", "GET", "/connections/{name}", "connections:show", "Show a connection",
        connections.get, connections.Shown, description="Its secrets read `*****`.",
    ),
    Operation(
        "replace_connection", "PUT", "/connections/{name}", "connections:replace", "Replace a connection's credentials",
        connections.replace, connections.Shown, input=connections.Replacement,
        edits=True, changes=True, statuses=(CONFLICT,),
    ),
    Operation(
        "delete_connection", "DELETE", "/connections/{name}", "connections:delete", "Delete a connection",
        connections.delete, None, status=NO_CONTENT, changes=True, statuses=(CONFLICT,),
    ),
    Operation(
        "rotate_connection", "POST", "/connections/{name}/rotate", "connections:rotate", "Hand in a platform's new token",
        connections.rotate, connections.Shown, input=connections.Rotation, changes=True, statuses=(CONFLICT,),
        description="It is tried first; the old one stays in reserve while the platform lets both work.",
    ),
    Operation(
        "expire_rotation", "POST", "/connections/{name}/rotate/expire", "connections:expire",
        "End the old token of a rotation", connections.expire, connections.Shown, changes=True, statuses=(CONFLICT,),
    ),
    Operation(
        "authorize_connection", "GET", "/connections/{name}/authorize", "connections:authorize",
        "Make the link in which a person gives their consent", authorizations.begin, authorizations.Shown,
        changes=True, statuses=(CONFLICT,),
        description="The link opens once and lives 15 minutes; that of an application with an install page does not end.",
    ),
    Operation(
        "call_connection", "POST", "/connections/{name}/call", "connections:call", "Call the API behind a connection",
        calls.call, calls.Shown, function=CALL, input=calls.Called, max_bytes=calls.MAX_REQUEST_BYTES, changes=True,
        description="The connection's credential is put on just before the request leaves; a body that repeats it is withheld.",
        statuses=(CONFLICT, BAD_GATEWAY, TIMED_OUT),
    ),
    Operation(
        "create_events_address", "POST", "/connections/{name}/events", "connections:events",
        "Make the address that a connection's events come to", event_addresses.create, event_addresses.Shown,
        status=CREATED, changes=True, statuses=(CONFLICT,),
        description="The address, and the secret of its header, are told this once; those before work for another hour.",
    ),
    Operation(
        "start_backfill", "POST", "/connections/{name}/backfills", "connections:backfill",
        "Have all of a connection's records read", backfills.start, backfills.BackfillsStarted,
        input=backfills.BackfillWanted,
        status=HTTPStatus.ACCEPTED, changes=True, statuses=(CONFLICT,),
        description="For every route that begins at the connection, or for one. One that runs goes on, one that has ended "
        "begins anew.",
    ),
    Operation(
        "list_backfills", "GET", "/connections/{name}/backfills", "connections:backfills",
        "Show a connection's backfills and reconciliations", backfills.show, backfills.Backfills,
    ),
    # What platforms offer
    Operation(
        "show_contact", "GET", "/connections/{name}/contacts/{contact}", "contacts:show", "Read a contact",
        _show_contact, contacts.Contact, function=CALL, statuses=(CONFLICT, BAD_GATEWAY, TIMED_OUT),
    ),
    Operation(
        "upsert_contacts", "POST", "/connections/{name}/contacts", "contacts:upsert", "Create or update contacts",
        _upsert_contacts, contacts.Upserted, function=CALL, input=contacts.Upsert, max_bytes=1_000_000, changes=True,
        description="Each contact has an outcome of its own.", statuses=(CONFLICT, BAD_GATEWAY, TIMED_OUT),
    ),
    Operation(
        "register_identifiers", "POST", "/connections/{name}/identifiers", "identifiers:register",
        "Register users' identifiers", _register_identifiers, identifiers.Registered, function=CALL,
        input=identifiers.Registration, max_bytes=1_000_000, changes=True,
        description="Each user has an outcome of their own.", statuses=(CONFLICT, BAD_GATEWAY, TIMED_OUT),
    ),
    Operation(
        "create_sso", "POST", "/connections/{name}/sso", "sso:create", "Sign a user on",
        _sign_on, sign_on.SignOn, function=CALL, input=sign_on.SignOnRequest, status=CREATED, changes=True,
        description="A link that works once, within two minutes, or the platform's own addresses.",
        statuses=(CONFLICT, BAD_GATEWAY, TIMED_OUT),
    ),
    # Routes
    Operation(
        "list_routes", "GET", "/routes", "routes:list", "List routes", routes.list_page, routes.Shown, listing=True,
    ),
    Operation(
        "create_route", "POST", "/routes", "routes:create", "Create a route", routes.create, routes.Written,
        input=routes.Creation, status=CREATED, creates=True, changes=True, statuses=(CONFLICT,),
    ),
    Operation("show_route", "GET", "/routes/{name}", "routes:show", "Show a route", routes.get, routes.Shown),
    Operation(
        "replace_route", "PUT", "/routes/{name}", "routes:replace", "Replace a route", routes.replace, routes.Written,
        input=routes.Replacement, edits=True, changes=True, statuses=(CONFLICT,),
    ),
    Operation(
        "delete_route", "DELETE", "/routes/{name}", "routes:delete", "Delete a route", routes.delete, None,
        status=NO_CONTENT, changes=True,
    ),
    # Installs
    Operation(
        "list_installs", "GET", "/installs", "installs:list", "List installs, the newest first",
        installs.list_page, installs.Shown, listing=True, filters={"state": installs.STATES},
    ),
    Operation(
        "show_install", "GET", "/installs/{install}", "installs:show", "Show an install", installs.get, installs.Shown,
    ),
    # Receipts
    Operation(
        "list_receipts", "GET", "/receipts", "receipts:list", "List receipts by connection, request or record",
        receipts.list_page, receipts.Shown, listing=True, filters=receipts.FILTERS,
        description="Give a destination as `connection`, with a `record` of it or a `state`, or a `request`.",
    ),
    Operation(
        "show_receipt", "GET", "/receipts/{receipt}", "receipts:show", "Show a receipt",
        receipts.get, receipts.ReceiptWithRequests,
    ),
    # Dead letters
    Operation(
        "list_dead_letters", "GET", "/dead-letters", "dead-letters:list", "List dead letters, the newest first",
        dead_letters.list_page, dead_letters.Shown, listing=True, filters=dead_letters.FILTERS,
    ),
    Operation(
        "show_dead_letter", "GET", "/dead-letters/{letter}", "dead-letters:show", "Show a dead letter with its records",
        dead_letters.get, dead_letters.DeadLetterWithRecords,
        description="What looks like a credential reads `***`.",
    ),
    Operation(
        "redrive_dead_letters", "POST", "/dead-letters/redrive", "dead-letters:redrive", "Send dead letters again",
        dead_letters.redrive, dead_letters.RedriveOutcome, input=dead_letters.Redrive, changes=True,
        description="At most twenty a second. Each letter has an outcome of its own; `dry_run` tells it and sends nothing.",
    ),
    Operation(
        "delete_dead_letter", "DELETE", "/dead-letters/{letter}", "dead-letters:delete",
        "Delete a dead letter and its records", dead_letters.delete, None, status=NO_CONTENT, changes=True,
        statuses=(CONFLICT,),
    ),
    # Private integrations
    Operation(
        "list_private_integrations", "GET", "/private-integrations", "private-integrations:list",
        "List private integrations", private_integrations.list_page, private_integrations.Shown,
        listing=True, managers_only=True,
    ),
    Operation(
        "create_private_integration", "POST", "/private-integrations", "private-integrations:create",
        "Create a private integration", private_integrations.create, private_integrations.WithToken,
        input=private_integrations.Creation, status=CREATED, creates=True, changes=True, managers_only=True,
        description="The token is told this once. A creation that is repeated with its Idempotency-Key answers null for it.",
    ),
    Operation(
        "show_private_integration", "GET", "/private-integrations/{integration}", "private-integrations:show",
        "Show a private integration", private_integrations.get, private_integrations.Shown, managers_only=True,
    ),
    Operation(
        "edit_private_integration", "PATCH", "/private-integrations/{integration}", "private-integrations:edit",
        "Edit a private integration", private_integrations.edit, private_integrations.Shown,
        input=private_integrations.Edit, edits=True, changes=True, managers_only=True, statuses=(CONFLICT,),
        description="Name, description and scopes change without a new token, from the next call on.",
    ),
    Operation(
        "delete_private_integration", "DELETE", "/private-integrations/{integration}", "private-integrations:delete",
        "Delete a private integration", private_integrations.delete, None, status=NO_CONTENT, changes=True,
        managers_only=True, description="Its tokens work no more from the moment of the answer.",
    ),
    Operation(
        "rotate_private_integration", "POST", "/private-integrations/{integration}/rotate",
        "private-integrations:rotate", "Rotate a private integration's token", private_integrations.rotate,
        private_integrations.WithToken, input=private_integrations.Rotation, changes=True, managers_only=True,
        description="Both tokens work for seven days, or only the new one at once (`expire_now`).", statuses=(CONFLICT,),
    ),
    Operation(
        "cancel_private_integration_rotation", "POST", "/private-integrations/{integration}/rotate/cancel",
        "private-integrations:cancel", "Cancel a rotation: the old token stays, the new one ends",
        private_integrations.cancel, private_integrations.Shown, changes=True, managers_only=True, statuses=(CONFLICT,),
    ),
    Operation(
        "expire_private_integration_rotation", "POST", "/private-integrations/{integration}/rotate/expire",
        "private-integrations:expire", "End a rotation: the old token ends now",
        private_integrations.expire, private_integrations.Shown, changes=True, managers_only=True, statuses=(CONFLICT,),
    ),
    # Audit
    Operation(
        "list_audit", "GET", "/audit", "audit:list", "Read the audit trail, the newest first",
        audit.list_page, audit.Shown, listing=True,
    ),
]  # fmt: skip


def of(function: str) -> list[Operation]:
    """The operations that a function serves."""
    return [operation for operation in OPERATIONS if operation.function == function]
