"""Upserting LeadConnector's contacts from records, one in each request: there is no bulk request.

https://marketplace.gohighlevel.com/docs/ghl/contacts/upsert-contact. `contacts` builds the request and reads the response;
this module adapts both to a record destination.
"""

from __future__ import annotations

import json
import re
from typing import Any

from portaria.core.callbacks import Secret
from portaria.core.entities import Answer, Connection, Disposition, Target, Trace
from portaria.core.errors import Rejected, Retryable
from portaria.core.http.messages import Request, Response
from portaria.platforms.leadconnector import contacts, tokens
from portaria.platforms.leadconnector.destination import overwrites_tags

# Each record needs a request, so objects that are sent in bulk are sent first.
RANK = 2
MAX_OBJECTS = 1
FOUND_BY = ("email", "phone")
# Not documented. A contact with the longest values has less.
MAX_BODY_BYTES = 300_000
# A location accepts 100 requests in ten seconds from one app. A window of ten seconds touches 91 slots at most; the rest is for
# requests that are delayed after their slot, and for proxied calls with the same token. A location with a lower limit (a trial)
# says in its responses' headers when to pause.
REQUESTS_PER_SECOND: float | None = 9.0
# Two contacts can share a phone number; a second request would not see the contact that the first one creates.
REQUESTS_IN_PROGRESS = 1
NEEDS_STATIC_CREDENTIALS = False
# When the day begins is not documented, so the destination is tried again after this time.
DAY_OVER_WAIT_S = 7_200.0

# The meaning of each outcome of an upsert. After `no_verdict` the contact may have been written; writing it again is harmless.
# `refused` is any other 4xx that is not about a contact: the destination pauses, because otherwise each record would become a
# dead letter.
MEANINGS = {
    "created": Disposition.APPLIED,
    "updated": Disposition.APPLIED,
    "contact_refused": Disposition.BAD_DATA,
    "duplicate_contact": Disposition.BAD_DATA,
    "token_refused": Disposition.TOKEN_AGAIN,
    "missing_scope": Disposition.STOP,
    "wrong_location": Disposition.STOP,
    "wrong_token_type": Disposition.STOP,
    "refused": Disposition.STOP,
    "rate_limited": Disposition.BACK_OFF,
    "day_is_over": Disposition.QUOTA,
    "no_verdict": Disposition.RETRY,
}


def check(attributes: dict[str, Any], target: Target) -> dict[str, Any]:
    """Return a contact as LeadConnector accepts it. Whole numbers become text in text fields.

    A mapping makes `tags` as one text, separated by commas. They replace all tags of the contact, so without the route's
    `overwrite_tags` they are left out. Raises `Rejected` (`bad_value`) that names the field.
    """
    contact = {name: _text(name, value) for name, value in attributes.items()}
    # LeadConnector finds the contact by these. White space around them would create another contact.
    contact |= {name: contact[name].strip() for name in FOUND_BY if isinstance(contact.get(name), str)}
    if isinstance(tags := contact.get("tags"), str):
        contact["tags"] = [tag.strip() for tag in tags.split(",") if tag.strip()]
    if not overwrites_tags(target.option("overwrite_tags")):
        contact.pop("tags", None)
    if wrong := contacts.check(contact):
        field, rule = wrong[0]
        raise Rejected("bad_value", f"{field or 'the contact'} {rule}", field=field or None)
    return contact


def identity(attributes: dict[str, Any], target: Target) -> str:
    """Both, because the location's settings decide which of them is compared first."""
    return f"{attributes.get('email', '').strip().lower()}\x1f{attributes.get('phone', '').strip()}"


def frame(target: Target) -> tuple[bytes, bytes]:
    """The body is the contact itself."""
    return b"", b""


def request(
    connection: Connection, credentials: dict[str, Secret], target: Target, body: bytes, trace: Trace
) -> Request:
    """LeadConnector has no header for a trace."""
    return contacts.upsert_request(connection, credentials, json.loads(body))


def read_answer(response: Response) -> Answer:
    """Return the meaning by the table. LeadConnector's message can quote the contact, so only the fields in it are repeated."""
    detail = ""
    after_s = None
    try:
        told = contacts.read_upserted(response)
        code, detail = told.reason or told.outcome, told.detail
    except Rejected as rejected:
        code, detail = rejected.reason, rejected.detail
    except Retryable as later:
        code, detail, after_s = later.reason, later.detail, later.after_s
    if code == "no_verdict" and tokens.is_lasting(response):
        code = "refused"
        detail = (
            f"LeadConnector refuses every contact with {response.status}, for an unknown reason: check the "
            "private integration, its location and its plan"
        )
    if code == "rate_limited" and contacts.day_is_over(response):
        code, after_s = "day_is_over", DAY_OVER_WAIT_S
    if code == "contact_refused":
        named = [name for name in contacts.FIELDS if re.search(rf"\b{name}\b", detail)]
        about = f": what it says names {', '.join(named)}" if named else ""
        detail = f"LeadConnector refused the contact ({response.status}){about}"
    meaning = MEANINGS.get(code, Disposition.RETRY)
    pause_s = contacts.pause_s(response) if meaning is Disposition.APPLIED else None
    return Answer(
        meaning, "" if meaning is Disposition.APPLIED else code, _trace_id(response), after_s, pause_s, detail
    )


def _text(name: str, value: Any) -> Any:
    return str(value) if name in contacts.TEXTS and type(value) is int else value


def _trace_id(response: Response) -> str:
    trace_id = tokens.object_of(response.body).get("traceId")
    return trace_id if isinstance(trace_id, str) and re.fullmatch(r"[A-Za-z0-9_.:-]{1,255}", trace_id) else ""
