"""A location's events: webhooks of a marketplace app, which are signed, and of a workflow, which have a secret header.

https://marketplace.gohighlevel.com/docs/webhook/WebhookIntegrationGuide and
https://help.gohighlevel.com/support/solutions/articles/155000003299 (a workflow's webhook; the body of a Custom Webhook is
written by the user). A delivery must be answered within two seconds, so this module
imports as little as possible.

An app's webhook has the whole contact, without the fields that are not set. A workflow's webhook has what the user configured,
so its record is partial. The contact's custom fields are beside LeadConnector's own fields under names that the user chose, so
LeadConnector's names take precedence and there is no envelope.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from datetime import UTC, datetime

from portaria.core.callbacks import (
    MAX_AHEAD_S,
    MOST_SECONDS,
    EventAddress,
    Events,
    Record,
    WebhookDelivery,
    time_of_change,
)
from portaria.core.error_roots import Rejected

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    Node = dict[str, Any]

# The only status after which LeadConnector retries: six times, ten minutes apart.
# https://help.gohighlevel.com/support/solutions/articles/155000007071-automated-webhook-retries
RETRY_STATUS = 429

SIGNATURE_HEADER = "x-ghl-signature"
SECRET_HEADER = "X-Portaria-Secret"  # noqa: S105 - a header's name
# SubjectPublicKeyInfo; the key itself is its last 32 bytes (RFC 8410).
PUBLIC_KEY = "MCowBQYDK2VwAyEAi2HR1srL4o18O8BRa7gVJY7G7bupbN3H9AwJrHCDiOg="
_KEY_BYTES, _SIGNATURE_BYTES = 32, 64

# Retries are identical to the byte, the timestamp included, for an hour and ten minutes.
MAX_AGE_S = 2 * 60 * 60
MAX_ID_LENGTH = 200

# All of these have the contact's present state. https://github.com/GoHighLevel/highlevel-api-docs/issues/264
READ = ("ContactCreate", "ContactUpdate", "ContactDndUpdate", "ContactTagUpdate")
DELETED = ("ContactDelete",)
# Fields of an app's webhook that are not the contact's.
ENVELOPE = frozenset({"type", "timestamp", "webhookId", "deliveryId", "appId", "versionId", "data"})
# The workflow's names ← the API's.
API_NAMES = {
    "contact_id": "id",
    "contactId": "id",
    "location_id": "locationId",
    "first_name": "firstName",
    "last_name": "lastName",
    "full_name": "name",
    "company_name": "companyName",
    "postal_code": "postalCode",
    "date_created": "dateAdded",
}
# The contact's id in a workflow. `id` is an opportunity's id if an opportunity started the workflow.
WORKFLOW_IDS = ("contact_id", "contactId")
# Where a Custom Webhook can have the contact.
NESTED = ("contact", "data")
# Holds the user's fields that have the name of one of LeadConnector's fields.
USER_FIELDS = "userFields"
_ID = re.compile(r"[A-Za-z0-9]{1,64}")


def account_of(account_id: str, fields: dict[str, str]) -> str:
    """Events name the location."""
    return fields["location_id"]


def read(delivery: WebhookDelivery, address: EventAddress) -> Events:
    """Raises `Rejected`: 401 `not_proven`, `bad_signature`, `bad_secret`, `bad_time`; 415 `not_json`; 400 `bad_json`; and for a
    workflow's body 422 `no_contact_id`, `other_location`, which the workflow's log shows to its author.

    Of an app's webhooks, these are left out and counted: `deleted` (no destination deletes), `other` (INSTALL, UNINSTALL and
    all that carry no contact), `unreadable`, and those of a `foreign` location.
    """
    if SIGNATURE_HEADER in delivery.headers:
        _check_signature(delivery)
        return _read_app(delivery, address)
    _check_secret(delivery, address)
    return _read_workflow(delivery, address)


def _read_app(delivery: WebhookDelivery, address: EventAddress) -> Events:
    event = _object(delivery)
    inner = event.get("data")
    flat = {**event, **inner} if isinstance(inner, dict) else event
    kind = event.get("type", flat.get("type"))
    if kind in DELETED:
        return Events({}, {"deleted": 1})
    if kind not in READ:
        return Events({}, {"other": 1})
    sent_at = _seconds(event.get("timestamp", flat.get("timestamp")))
    _check_time(sent_at, delivery.received_at)
    contact = {API_NAMES.get(name, name): value for name, value in flat.items() if name not in ENVELOPE}
    said = _locations(event) + _locations(inner)
    if not said or any(location != address.account_id for location in said):
        return Events({}, {"foreign": 1})
    contact_id = contact.get("id")
    if not isinstance(contact_id, str) or not _ID.fullmatch(contact_id):
        return Events({}, {"unreadable": 1})
    # dateAdded never changes, so it cannot order versions.
    updated_at = time_of_change(_seconds(contact.get("dateUpdated")) or sent_at, delivery.received_at)
    record = Record(contact_id, updated_at, contact)
    return Events({"contacts": [record]}, {}, _delivery_id(flat, delivery.body))


def _read_workflow(delivery: WebhookDelivery, address: EventAddress) -> Events:
    """The record's version is the time of arrival, because a workflow has no timestamp."""
    event = _object(delivery)
    contact, nested_id = _contact_of(event)
    location = event.get("location")
    own = location.get("id") if isinstance(location, dict) else None
    if any(each != address.account_id for each in ([own] if own else _locations(event) + _locations(contact))):
        detail = "the body names another location than this connection's"
        raise Rejected("other_location", detail, field="location.id", status=422)
    ids = [event[name] for name in WORKFLOW_IDS if event.get(name)] or [nested_id]
    contact_id = ids[0]
    if not isinstance(contact_id, str) or not _ID.fullmatch(contact_id):
        detail = "the body needs the contact's id in LeadConnector as contact_id: {{contact.id}} in a Custom Webhook"
        raise Rejected("no_contact_id", detail, field="contact_id", status=422)
    record = Record(contact_id, delivery.received_at, _named_as_in_api(contact, contact_id), is_partial=True)
    return Events({"contacts": [record]}, {})


def _contact_of(event: Node) -> tuple[Node, Any]:
    """Return the fields of a workflow's contact, and the id among them."""
    if not any(event.get(name) for name in WORKFLOW_IDS):
        for name in NESTED:
            inner = event.get(name)
            found = [inner[key] for key in (*WORKFLOW_IDS, "id") if inner.get(key)] if isinstance(inner, dict) else []
            if isinstance(inner, dict) and found:
                rest = {key: value for key, value in event.items() if key not in (name, *inner)}
                return {**rest, **inner}, found[0]
    return event, event.get("id")


def _named_as_in_api(contact: Node, contact_id: str) -> Node:
    """The fields by the API's names. Where the user has a field of the same name, it stands in `USER_FIELDS`."""
    own = {API_NAMES[name]: value for name, value in contact.items() if name in API_NAMES} | {"id": contact_id}
    if isinstance(tags := contact.get("tags"), str):
        # A workflow writes them as one text, the API and an app's webhook as a list.
        contact = {**contact, "tags": [tag.strip() for tag in tags.split(",") if tag.strip()]}
    others = {name: value for name, value in contact.items() if name not in API_NAMES}
    users = {name: value for name, value in others.items() if name in own and value != own[name]}
    if not users:
        return {**others, **own}
    return {**others, **own, USER_FIELDS: {name: others[name] for name in (*users, USER_FIELDS) if name in others}}


def _check_signature(delivery: WebhookDelivery) -> None:
    try:
        signature = base64.b64decode(delivery.headers[SIGNATURE_HEADER], validate=True)
    except ValueError:
        signature = b""
    key = base64.b64decode(PUBLIC_KEY)[-_KEY_BYTES:]
    if len(signature) != _SIGNATURE_BYTES or not delivery.ed25519(key, signature, delivery.body):
        detail = "the signature is not LeadConnector's over this body"
        raise Rejected("bad_signature", detail, field="X-GHL-Signature", status=401)


def _check_secret(delivery: WebhookDelivery, address: EventAddress) -> None:
    given = delivery.headers.get(SECRET_HEADER.lower(), "")
    if not given:
        # The older RSA signature alone is refused: it is past its sunset, and a sender must not choose the weaker one.
        detail = f"events need X-GHL-Signature (an app's) or {SECRET_HEADER} (a workflow's)"
        raise Rejected("not_proven", detail, field=SECRET_HEADER, status=401)
    if not hmac.compare_digest(hashlib.sha256(given.encode(errors="replace")).hexdigest(), address.header_hash):
        raise Rejected("bad_secret", "the secret is not this address's", field=SECRET_HEADER, status=401)


def _object(delivery: WebhookDelivery) -> Node:
    if "json" not in delivery.headers.get("content-type", "").lower():
        raise Rejected("not_json", "events come as application/json", field="Content-Type", status=415)
    try:
        event = json.loads(delivery.body, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        event = None
    if not isinstance(event, dict):
        raise Rejected("bad_json", f"the body ({len(delivery.body)} bytes) is not a JSON object")
    return event


def _no_constant(name: str) -> NoReturn:
    raise ValueError("NaN and infinities are no JSON")


def _check_time(sent_at: int, received_at: int) -> None:
    if not received_at - MAX_AGE_S <= sent_at <= received_at + MAX_AHEAD_S:
        rule = f"timestamp must be at most {MAX_AGE_S} s old and {MAX_AHEAD_S} s ahead"
        detail = f"{rule}; it is {received_at - sent_at} s old" if sent_at else f"{rule}; there is none"
        raise Rejected("bad_time", detail, field="timestamp", status=401)


def _locations(node: Any) -> list[Any]:
    """Return the location ids of all places that can name one."""
    if not isinstance(node, dict):
        return []
    location = node.get("location")
    named = [node[name] for name in ("locationId", "location_id") if name in node]
    return named + ([location["id"]] if isinstance(location, dict) and "id" in location else [])


def _delivery_id(flat: Node, body: bytes) -> str:
    """Return LeadConnector's id of the delivery, or the body's digest if the id is invalid."""
    given = flat.get("webhookId")
    if isinstance(given, str) and 0 < len(given) <= MAX_ID_LENGTH:
        return given
    return hashlib.sha256(body).hexdigest()


def _seconds(moment: Any) -> int:
    """Return ISO 8601, epoch seconds or epoch milliseconds as epoch seconds; 0 for anything else."""
    if isinstance(moment, str) and re.fullmatch(r"[0-9]{9,14}", moment):
        moment = int(moment)
    if isinstance(moment, int) and not isinstance(moment, bool):
        return moment // 1_000 if moment > MOST_SECONDS else max(0, moment)
    try:
        read_time = datetime.fromisoformat(moment)
        return max(0, int((read_time if read_time.tzinfo else read_time.replace(tzinfo=UTC)).timestamp()))
    except (TypeError, ValueError, OverflowError):
        return 0
