"""The operations that some platforms offer for a connection."""

from __future__ import annotations

from http import HTTPStatus

from portaria.api.operation import ApiRequest, Operation, Reply
from portaria.api.resources.actions import contacts, identifiers, sign_on

CREATED = HTTPStatus.CREATED
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
