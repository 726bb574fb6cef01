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
    """Contacts to create or update."""

    contacts: list[dict[str, Any]] = Field(
        min_length=1, max_length=50, description="The contacts, with the platform's field names."
    )
    overwrite_tags: bool = Field(
        default=False,
        description="Whether `tags` of a contact replace all its tags. A contact may have `tags` only if this is true.",
    )

    def audited(self) -> dict[str, Any]:
        return {"contacts": len(self.contacts), "overwrite_tags": self.overwrite_tags}


class Contact(Output):
    """A contact as the platform returns it."""

    id: str = Field(description="The contact's id at the platform.")
    fields: dict[str, Any] = Field(description="The contact's fields, with the platform's names.")


class ContactOutcome(Output):
    """What became of one contact."""

    outcome: Literal["created", "updated", "refused", "unknown", "not_sent"] = Field(
        description="`created`, `updated`, `refused` by the platform, `unknown` (no complete response came) or `not_sent`. "
        "Contacts that are `unknown` or `not_sent` can be sent again.",
    )
    id: str | None = Field(
        description="The contact's id at the platform. For a duplicate, the id of the existing contact. Null if it is not "
        "known.",
    )
    reason: str | None = Field(description="Why the contact was not created or updated.")
    detail: str | None = Field(description="A sentence about the reason, for people.")


class UpsertedContacts(Output):
    """One outcome for each contact, in the order of the request."""

    contacts: list[ContactOutcome] = Field(description="The outcomes.")
    retry_after_s: float | None = Field(
        description="How many seconds the platform asks to wait before the next request. Null if it does not."
    )


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
