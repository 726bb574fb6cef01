"""A platform's contacts over the API: one by its id, several made or changed."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field

from portaria.actions import contacts
from portaria.api.schemas import Output
from portaria.api.validation import MAX_ERRORS, Input, InvalidInput
from portaria.aws.table import Table
from portaria.connections.tokens.provider import TokenProvider
from portaria.core.errors import Rejected


class ContactUpsert(Input):
    """`contacts` use the platform's field names. `tags` replace all tags of a contact, so they are accepted only with
    `overwrite_tags`."""

    contacts: list[dict[str, Any]] = Field(min_length=1, max_length=50)
    overwrite_tags: bool = False

    def audited(self) -> dict[str, Any]:
        return {"contacts": len(self.contacts), "overwrite_tags": self.overwrite_tags}


class Contact(Output):
    """`fields` are the platform's, with its names."""

    id: str
    fields: dict[str, Any]


class ContactOutcome(Output):
    """`id` is the platform's id; for a duplicate, the id of the existing contact. Contacts whose outcome is `unknown` or
    `not_sent` can be sent again."""

    outcome: Literal["created", "updated", "refused", "unknown", "not_sent"]
    id: str | None
    reason: str | None
    detail: str | None


class UpsertedContacts(Output):
    """One outcome for each contact, in the same order. `retry_after_s` is the wait that the platform requested, or null."""

    contacts: list[ContactOutcome]
    retry_after_s: float | None


def show(table: Table, token_provider: TokenProvider, name: str, contact_id: str) -> dict[str, Any]:
    """Raises `Rejected` (404 `unknown_contact` also for what cannot be an id), and as `contacts.show`."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", contact_id):
        raise Rejected("unknown_contact", "this is not a contact's id", status=404)
    return {"id": contact_id, "fields": contacts.show(table, token_provider, name, contact_id)}


def upsert(table: Table, token_provider: TokenProvider, name: str, sent: ContactUpsert) -> dict[str, Any]:
    """Raises `Rejected` (400 `invalid_input` for a contact that is none, or would lose its tags), and as `contacts.upsert`."""
    wrong = contacts.wrong(table, name, sent.contacts, overwrite=sent.overwrite_tags)
    errors = [(f"contacts.{field}", f"contacts.{field} {rule}") for field, rule in wrong[:MAX_ERRORS]]
    if errors:
        raise InvalidInput(errors)
    batch = contacts.upsert(table, token_provider, name, sent.contacts)
    shown = [
        {"outcome": became.outcome, "id": became.id or None, "reason": became.reason, "detail": became.detail}
        for became in batch.outcomes
    ]
    return {"contacts": shown, "retry_after_s": batch.after_s}
