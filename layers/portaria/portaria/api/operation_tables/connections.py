"""The operations of installs and connections, and of what their platforms offer."""

from __future__ import annotations

from http import HTTPStatus

from portaria.api.operation import ApiRequest, Operation, Reply
from portaria.api.resources import (
    install_links,
    installs,
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
    reconciliations,
    renewals,
    sample_records,
)
from portaria.api.resources.delivery import (
    backfills,
)
from portaria.api.rules import connection_rules, install_link_rules

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


CONNECTIONS = [
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
        "renew_connection", "POST", "/connections/{name}/renew", "connections:renew", "Renew a connection's tokens now",
        renewals.renew, connections.ConnectionOutput, function=CALL, creates=True, changes=True,
        description="The tokens are renewed as the schedule renews them: by one worker at a time, which uses the refresh token "
        "once. A connection without a refresh token answers 409 `not_offered`.",
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
    Operation(
        "list_sample_records", "GET", "/connections/{name}/sample-records", "sample-records:list",
        "List sample records of a connection", sample_records.list_page, sample_records.SampleRecord, function=CALL,
        listing=True, filters=sample_records.FILTERS,
        description="Recent records of the account, read at its platform, in the shape that a mapping receives: for previews "
        "of routes. On one page, without records of more than 20,000 characters. `object` is `contacts` by default.",
    ),
]  # fmt: skip
PLATFORM_ACTIONS = [
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
]  # fmt: skip
INSTALL_LINKS = [
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
]  # fmt: skip
INSTALLS = [
    Operation(
        "list_installs", "GET", "/installs", "installs:list", "List installs",
        installs.list_page, installs.InstallOutput, listing=True, filters=installs.FILTERS,
        description="Newest first. `tag.customer_id` cannot be combined with other filters.",
    ),
    Operation(
        "show_install", "GET", "/installs/{id}", "installs:show", "Get an install", installs.get, installs.InstallOutput,
        description="Installs are kept for 90 days.",
    ),
]  # fmt: skip
