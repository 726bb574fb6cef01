"""LeadConnector's contacts: read by id, and created or updated by e-mail address or phone number.

https://marketplace.gohighlevel.com/docs/ghl/contacts/get-contact and
https://marketplace.gohighlevel.com/docs/ghl/contacts/upsert-contact. The scopes are contacts.readonly and contacts.write.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any
from urllib.parse import quote

from portaria.core.callbacks import Secret
from portaria.core.entities import Connection
from portaria.core.errors import MissingScope, RateLimited, Rejected, Retryable, TokenRefused
from portaria.core.http.messages import Request, Response
from portaria.platforms.leadconnector import tokens
from portaria.platforms.leadconnector.tokens import Trouble
from portaria.platforms.values import UpsertedContact

TEXTS = (
    "firstName", "lastName", "name", "email", "phone", "address1", "city", "state", "postalCode", "country", "website",
    "timezone", "source", "companyName", "assignedTo",
)  # fmt: skip
FIELDS: tuple[str, ...] = (*TEXTS, "dnd", "tags", "customFields")
# Marketo's attribute ← a JMESPath expression over a contact as events have it.
DEFAULT_MAPPING = {
    "firstName": "firstName || name",
    "lastName": "lastName",
    "email": "email",
    "phone": "phone",
    "company": "companyName",
}
# The contact has these values afterwards, and no others.
OVERWRITTEN: tuple[str, ...] = ("tags",)
CUSTOM_FIELD = ("id", "key", "field_value")
MAX_TEXT_LENGTH = 1_000
MAX_TAG_LENGTH = 255
MAX_LIST_LENGTH = 100

READ_SCOPE, WRITE_SCOPE = "contacts.readonly", "contacts.write"
# The length of LeadConnector's rate limit window. When its day begins is not documented.
WINDOW_S = 10.0
DAY_OVER_WAIT_S = 3_600.0
MAX_MESSAGES = 5
MAX_MESSAGE_LENGTH = 200
_DUPLICATE = "this location does not allow duplicated contacts"


def check(contact: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the field and a sentence for each problem of a contact. The sentences quote no value."""
    errors: list[tuple[str, str]] = []
    if unknown := len(contact.keys() - set(FIELDS)):
        errors.append(("", f"holds {unknown} unknown: only {', '.join(FIELDS)}"))
    for name in TEXTS:
        value = contact.get(name, "")
        if not isinstance(value, str):
            errors.append((name, "must be text"))
        elif len(value) > MAX_TEXT_LENGTH or not _is_utf8(value):
            errors.append((name, f"may have {MAX_TEXT_LENGTH:,} characters; this has {len(value):,}"))
    if not isinstance(contact.get("dnd", False), bool):
        errors.append(("dnd", "must be true or false"))
    if not _are(contact.get("tags", []), lambda tag: isinstance(tag, str) and 0 < len(tag) <= MAX_TAG_LENGTH):
        rule = f"must be a list of at most {MAX_LIST_LENGTH} texts of 1 to {MAX_TAG_LENGTH} characters"
        errors.append(("tags", rule))
    if not _are(contact.get("customFields", []), _is_custom_field):
        rule = f"must be a list of at most {MAX_LIST_LENGTH} objects of id or key, and a field_value that is not nested"
        errors.append(("customFields", rule))
    # Without them each upsert would create another contact.
    if not errors and not contact.get("email") and not contact.get("phone"):
        errors.append(("", "needs an email or a phone, by which LeadConnector finds the contact"))
    return errors


def contact_request(connection: Connection, credentials: dict[str, Secret], contact_id: str) -> Request:
    return _request(connection, credentials, "GET", f"/contacts/{quote(contact_id, safe='')}")


def upsert_request(connection: Connection, credentials: dict[str, Secret], contact: dict[str, Any]) -> Request:
    body = json.dumps({**contact, "locationId": connection.fields["location_id"]}).encode()
    return _request(connection, credentials, "POST", "/contacts/upsert", body)


def read_contact(response: Response) -> dict[str, Any]:
    """Return the contact with LeadConnector's own fields.

    Raises `Rejected` (404 `unknown_contact`; 409 `token_refused`, `missing_scope`, `wrong_location`) and `Retryable`.
    """
    _refuse(response, READ_SCOPE)
    content = tokens.object_of(response.body)
    contact = content.get("contact")
    if response.status == 200 and isinstance(contact, dict):
        return contact
    # Third parties report 400, 404 and 422 for an unknown id.
    if response.status in (400, 404, 422) and content:
        raise Rejected("unknown_contact", "LeadConnector has no contact with this id in this location", status=404)
    raise _no_verdict(response)


def read_upserted(response: Response) -> UpsertedContact:
    """Raises `Rejected` (409 `token_refused`, `missing_scope`, `wrong_location`) for what is not about the contact.

    Raises `Retryable` too: with `answer_lost` the contact may have been written.
    """
    _refuse(response, WRITE_SCOPE)
    content = tokens.object_of(response.body)
    contact = content.get("contact")
    if response.status in (200, 201) and isinstance(contact, dict) and isinstance(contact.get("id"), str):
        is_new = content.get("new", response.status == 201)
        return UpsertedContact("created" if is_new is True else "updated", contact["id"])
    messages = _messages(content)
    if response.status == 400 and messages and messages[0].lower().startswith(_DUPLICATE):
        meta = content.get("meta")
        found = meta.get("contactId") if isinstance(meta, dict) else None
        other = found if isinstance(found, str) and re.fullmatch(r"[A-Za-z0-9]{1,64}", found) else ""
        return UpsertedContact(
            "refused", other, "duplicate_contact", "another contact has this e-mail address or phone number already"
        )
    if response.status in (400, 413, 422) and content:
        told = "; ".join(messages) or "without a word"
        return UpsertedContact(
            "refused", "", "contact_refused", f"LeadConnector refused the contact ({response.status}): {told}"
        )
    raise _no_verdict(response)


def pause_s(response: Response) -> float | None:
    """Return the seconds to wait if this was the last request that the limits allow, otherwise None."""
    if day_is_over(response):
        return DAY_OVER_WAIT_S
    if response.headers.get("x-ratelimit-remaining", "").strip() != "0":
        return None
    interval = response.headers.get("x-ratelimit-interval-milliseconds", "").strip()
    return min(tokens.MAX_WAIT_S, max(1.0, int(interval) / 1000)) if re.fullmatch("[0-9]{1,9}", interval) else WINDOW_S


def day_is_over(response: Response) -> bool:
    """Whether the location's daily limit is used up."""
    return response.headers.get("x-ratelimit-daily-remaining", "").strip() == "0"


def _request(
    connection: Connection, credentials: dict[str, Secret], method: str, path: str, body: bytes | None = None
) -> Request:
    return Request(
        method,
        f"https://{tokens.HOST}{path}",
        {
            **tokens.call_headers(connection),
            "Authorization": f"Bearer {credentials['token'].reveal()}",
            "Accept": "application/json",
            **({} if body is None else {"Content-Type": "application/json"}),
        },
        body,
        max_response_bytes=1_000_000,
    )


def _refuse(response: Response, scope: str) -> None:
    """Raise the error of a response about the token, the location or the rate limit. The request had no effect then."""
    match tokens.trouble(response):
        case Trouble.DEAD:
            raise TokenRefused("LeadConnector refused the token", status=409)
        case Trouble.NO_SCOPE:
            detail = (
                f"the token lacks LeadConnector's scope {scope}: add it to the private integration in LeadConnector"
            )
            raise MissingScope(detail, status=409)
        case Trouble.NOT_THIS_LOCATION:
            raise Rejected("wrong_location", "the token does not have access to this location", status=409)
        case Trouble.WRONG_TYPE:
            raise tokens.wrong_type()
    if response.status == 429:
        wait_s = pause_s(response)
        if wait_s is None or "retry-after" in response.headers:
            wait_s = tokens.retry_after_s(response)
        raise RateLimited("LeadConnector's rate limit is reached (429)", after_s=wait_s)


def _no_verdict(response: Response) -> Retryable:
    """A 401 that is not about the token is a timeout within LeadConnector: as after a 5xx, the work may have been done."""
    lost = response.status in (200, 201, 401, 408) or response.status >= 500
    return Retryable("no_verdict", f"LeadConnector answered {response.status} without a reason", answer_lost=lost)


def _messages(content: dict[str, object]) -> list[str]:
    """Return LeadConnector's messages, which name the fields. Characters that are not printable are removed."""
    said = content.get("message")
    texts = said if isinstance(said, list) else [said]
    kept = [re.sub(r"[^\x20-\x7e\xa0-\ud7ff]+", " ", text).strip() for text in texts if isinstance(text, str)]
    return [text[:MAX_MESSAGE_LENGTH] for text in kept if text][:MAX_MESSAGES]


def _is_utf8(text: str) -> bool:
    return not re.search(r"[\ud800-\udfff]", text)


def _is_custom_field(value: Any) -> bool:
    if not isinstance(value, dict) or value.keys() - set(CUSTOM_FIELD) or "field_value" not in value:
        return False
    names = [value[name] for name in ("id", "key") if name in value]
    if not names or not all(isinstance(name, str) and 0 < len(name) <= MAX_TAG_LENGTH for name in names):
        return False
    field_value = value["field_value"]
    if isinstance(field_value, dict):
        return all(map(_is_simple, field_value.values()))
    return all(map(_is_simple, field_value)) if isinstance(field_value, list) else _is_simple(field_value)


def _is_simple(value: Any) -> bool:
    """Whether a value is a JSON scalar. `1e999` is read as an infinite number, which JSON cannot represent."""
    return isinstance(value, str | bool | int | None) or (isinstance(value, float) and math.isfinite(value))


def _are(value: Any, is_one: Any) -> bool:
    return isinstance(value, list) and len(value) <= MAX_LIST_LENGTH and all(is_one(each) for each in value)
