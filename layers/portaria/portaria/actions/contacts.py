"""Reading and writing a platform's contacts through a connection. A platform supports it by `contacts`.

An upsert finds the contact by its email address or phone number, so an entry whose outcome is `unknown` may be sent again.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from portaria import platforms
from portaria.actions.bulk import Batch, EntryOutcome
from portaria.aws.table import Table
from portaria.connections import connection_store
from portaria.connections.tokens.cache import Token
from portaria.connections.tokens.provider import TokenProvider
from portaria.core.entities import Connection
from portaria.core.errors import NeedsReconnect, RateLimited, Rejected, Retryable, TokenRefused
from portaria.core.http.messages import Request
from portaria.platforms.protocols import Contacts

CREATED, UPDATED, REFUSED = "created", "updated", "refused"
OVERWRITES = "would take the place of all that the contact has: leave it out, or set overwrite_tags"

Contact = dict[str, Any]


def show(table: Table, token_provider: TokenProvider, name: str, contact_id: str) -> Contact:
    """One contact, with the platform's own fields.

    Raises `Rejected` (404 `unknown_connection`, `unknown_contact`; 409 `not_offered`, `missing_scope`, `wrong_location`,
    `needs_reconnect`) and `Retryable`.
    """
    connection = connection_store.get(table, name)
    offered = _contacts(connection)
    batch = Batch(token_provider, connection, 1)
    try:
        response = batch.send(lambda token: offered.contact_request(connection, token.credentials, contact_id))
        contact = offered.read_contact(response)
    except Rejected as rejected:
        raise _of_this_connection(rejected, connection) from None
    except Retryable as later:
        # A read changes nothing, so it may be repeated.
        raise later.replaced(answer_lost=False) from None
    return contact


def wrong(table: Table, name: str, contacts: list[Contact], *, overwrite: bool) -> list[tuple[str, str]]:
    """Validate contacts by the platform's rules before anything is sent; returns a field (`3.email`) and a sentence per error.

    Without `overwrite` they include the fields whose values would replace all values that a contact has. Raises `Rejected`
    (404 `unknown_connection`, 409 `not_offered`).
    """
    offered = _contacts(connection_store.get(table, name))
    errors: list[tuple[str, str]] = []
    for number, contact in enumerate(contacts):
        found = offered.check(contact)
        if not overwrite:
            found += [(field, OVERWRITES) for field in offered.OVERWRITTEN if field in contact]
        errors += [(f"{number}.{field}" if field else str(number), rule) for field, rule in found]
    return errors


def upsert(table: Table, token_provider: TokenProvider, name: str, contacts: list[Contact]) -> Batch:
    """Create or update each contact with one request each, and return the outcomes.

    Raises `Rejected` (404 `unknown_connection`; 409 as `show`) and `Retryable` if no contact has an outcome.
    """
    connection = connection_store.get(table, name)
    offered = _contacts(connection)

    def request(contact: Contact, token: Token) -> Request:
        return offered.upsert_request(connection, token.credentials, contact)

    batch = Batch(token_provider, connection, len(contacts))
    try:
        for number, contact in enumerate(contacts):
            try:
                response = batch.send(partial(request, contact))
                told = offered.read_upserted(response)
            except Retryable as lost:
                if not lost.answer_lost:
                    raise
                batch.lose([number], lost)
                continue
            batch.settle([number], EntryOutcome(told.outcome, told.reason, told.detail, told.id))
            pause_s = offered.pause_s(response)
            if pause_s is not None and number + 1 < len(contacts):
                raise RateLimited("the platform's limit was reached", after_s=pause_s)
    except Rejected as rejected:
        batch.give_up(_of_this_connection(rejected, connection))
    except Retryable as later:
        batch.give_up(later)
    return batch


def _contacts(connection: Connection) -> Contacts:
    platform = platforms.load(connection.platform)
    return platform.offer(platform.contacts)


def _of_this_connection(rejected: Rejected, connection: Connection) -> Rejected:
    """A refused token as `NeedsReconnect`: the refusal has ended the connection. Other errors stay as they are."""
    if not isinstance(rejected, TokenRefused):
        return rejected
    detail = f"{rejected.detail}: replace it with PUT /connections/{connection.name}/credentials"
    return NeedsReconnect(detail)
