"""Reading a location's events: a marketplace app's webhooks, which are signed, and a workflow's, which carry a secret header.

https://marketplace.gohighlevel.com/docs/webhook/WebhookIntegrationGuide and
https://help.gohighlevel.com/support/solutions/articles/155000003299 (a workflow's Custom Webhook, whose body is the user's to
make). This part is on the events' path: it imports as little as it can.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from datetime import UTC, datetime
from typing import Any, NoReturn

from portaria.intake import Delivery, EventAddress, Events, Record, Rejected

# The only status after which LeadConnector comes again: six times, ten minutes apart.
# https://help.gohighlevel.com/support/solutions/articles/155000007071-automated-webhook-retries
RETRY_STATUS = 429

SIGNATURE_HEADER = "x-ghl-signature"
SECRET_HEADER = "X-Portaria-Secret"  # noqa: S105 - a header's name
# SubjectPublicKeyInfo; the key itself is its last 32 bytes (RFC 8410).
PUBLIC_KEY = "MCowBQYDK2VwAyEAi2HR1srL4o18O8BRa7gVJY7G7bupbN3H9AwJrHCDiOg="
_KEY_BYTES, _SIGNATURE_BYTES = 32, 64

# A delivery that is tried again is the same to the byte, its time included, for an hour and ten minutes.
MAX_AGE_S = 2 * 60 * 60
MAX_AHEAD_S = 5 * 60
MAX_ID_LENGTH = 200
# The year 2286; what is more counts milliseconds.
_MOST_SECONDS = 10_000_000_000

READ = ("ContactCreate", "ContactUpdate")
DELETED = ("ContactDelete",)
# What stands around a contact and is none of it.
ENVELOPE = frozenset({"type", "timestamp", "webhookId", "deliveryId", "appId", "versionId", "data"})
# How a workflow calls what the API calls otherwise.
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
_ID = re.compile(r"[A-Za-z0-9]{1,64}")

Node = dict[str, Any]


def account_of(account_id: str, fields: dict[str, str]) -> str:
    """What events of a connection must name as their account: the location."""
    return fields["location_id"]


def read(delivery: Delivery, address: EventAddress) -> Events:
    """Raises `Rejected`: 401 `not_proven`, `bad_signature`, `bad_secret`, `bad_time`; 415 `not_json`; 400 `bad_json`.

    What is no contact's present state is left out and counted: `deleted` (no destination deletes), `other` (INSTALL, UNINSTALL
    and whatever else there is), `unreadable`, and a `foreign` location's.
    """
    signed = SIGNATURE_HEADER in delivery.headers
    if signed:
        _check_signature(delivery)
    else:
        _check_secret(delivery, address)
    event = _object(delivery)
    inner = event.get("data")
    flat = {**event, **inner} if isinstance(inner, dict) else event
    kind = event.get("type", flat.get("type"))
    if kind in DELETED:
        return Events({}, {"deleted": 1})
    # What a workflow sends is its user's to make: it need not say what it is.
    if kind not in READ and signed:
        return Events({}, {"other": 1})
    sent_at = _seconds(event.get("timestamp", flat.get("timestamp")))
    if signed:
        _check_time(sent_at, delivery.received_at)
    contact = {API_NAMES.get(name, name): value for name, value in flat.items() if name not in ENVELOPE}
    said = _locations(event) + _locations(inner)
    if any(location != address.account_id for location in said) or (signed and not said):
        return Events({}, {"foreign": 1})
    contact_id = contact.get("id")
    if not isinstance(contact_id, str) or not _ID.fullmatch(contact_id):
        return Events({}, {"unreadable": 1})
    # dateAdded stays the same for ever, so it says nothing of versions. A time to come would keep later ones out.
    updated_at = _seconds(contact.get("dateUpdated")) or sent_at or delivery.received_at
    record = Record(contact_id, min(updated_at, delivery.received_at + MAX_AHEAD_S), contact)
    return Events({"contacts": [record]}, {}, _delivery_id(flat, delivery.body) if signed else "")


def _check_signature(delivery: Delivery) -> None:
    try:
        signature = base64.b64decode(delivery.headers[SIGNATURE_HEADER], validate=True)
    except ValueError:
        signature = b""
    key = base64.b64decode(PUBLIC_KEY)[-_KEY_BYTES:]
    if len(signature) != _SIGNATURE_BYTES or not delivery.ed25519(key, signature, delivery.body):
        detail = "the signature is not LeadConnector's over this body"
        raise Rejected("bad_signature", detail, field="X-GHL-Signature", status=401)


def _check_secret(delivery: Delivery, address: EventAddress) -> None:
    given = delivery.headers.get(SECRET_HEADER.lower(), "")
    if not given:
        # Also where the older RSA signature stands alone: it is past its sunset, and nobody is to choose the weaker one.
        detail = f"events need X-GHL-Signature (an app's) or {SECRET_HEADER} (a workflow's)"
        raise Rejected("not_proven", detail, field=SECRET_HEADER, status=401)
    if not hmac.compare_digest(hashlib.sha256(given.encode(errors="replace")).hexdigest(), address.header_hash):
        raise Rejected("bad_secret", "the secret is not this address's", field=SECRET_HEADER, status=401)


def _object(delivery: Delivery) -> Node:
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
    """Every place where a location may be named, with what it says."""
    if not isinstance(node, dict):
        return []
    location = node.get("location")
    named = [node[name] for name in ("locationId", "location_id") if name in node]
    return named + ([location["id"]] if isinstance(location, dict) and "id" in location else [])


def _delivery_id(flat: Node, body: bytes) -> str:
    """LeadConnector's id of the delivery; one that is none is replaced by the body's digest."""
    given = flat.get("webhookId")
    if isinstance(given, str) and 0 < len(given) <= MAX_ID_LENGTH:
        return given
    return hashlib.sha256(body).hexdigest()


def _seconds(moment: Any) -> int:
    """ISO 8601, epoch seconds or epoch milliseconds as seconds; 0 for anything else."""
    if isinstance(moment, str) and re.fullmatch(r"[0-9]{9,14}", moment):
        moment = int(moment)
    if isinstance(moment, int) and not isinstance(moment, bool):
        return moment // 1_000 if moment > _MOST_SECONDS else max(0, moment)
    try:
        read_time = datetime.fromisoformat(moment)
        return max(0, int((read_time if read_time.tzinfo else read_time.replace(tzinfo=UTC)).timestamp()))
    except (TypeError, ValueError, OverflowError):
        return 0
