"""What a webhook may be: its fields as callers send them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

from portaria.api.validation import Input, Matching
from portaria.core import event_catalogue
from portaria.notifications import webhook_urls

MAX_EVENTS = 50
_NO_CONTROL = r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]"
Description = Annotated[str, Matching(rf"{_NO_CONTROL}{{0,200}}", "at most 200 characters, none a control")]


def _selector(text: str) -> str:
    if not event_catalogue.is_selector(text):
        raise PydanticCustomError(
            "rule", "must be the name of an event, all events of a family such as connection.*, or *"
        )
    return text


Url = Annotated[str, StringConstraints(min_length=1, max_length=webhook_urls.MAX_LENGTH)]
Selectors = Annotated[list[Annotated[str, AfterValidator(_selector)]], Field(min_length=1, max_length=MAX_EVENTS)]


class WebhookCreation(Input):
    """A webhook to create."""

    url: Url = Field(description="An https URL of a public host.")
    events: Selectors = Field(
        description="Names of events (`connection.ready`), families (`connection.*`), or `*` for all of them."
    )
    description: Description | None = Field(default=None, description="What it is for.")

    def audited(self) -> dict[str, Any]:
        """For the audit trail: a query string may hold a token."""
        return self.model_dump() | {"url": webhook_urls.shown(self.url)}


class WebhookReplacement(WebhookCreation):
    """What a webhook becomes."""

    enabled: bool = Field(default=True, description="Whether events are sent to it. Enables one that was disabled.")


class WebhookRotation(Input):
    """How the secret is replaced."""

    expire_now: bool = Field(
        default=False, description="Whether the previous secret stops signing at once, not after a day."
    )

    def audited(self) -> dict[str, Any]:
        return self.model_dump()
