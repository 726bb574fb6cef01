"""Marketo's Observability Data Stream, as Adobe I/O Events delivers it: the outcomes of requests to the Data Ingestion API.

https://experienceleague.adobe.com/en/docs/marketo-developer/marketo/data-ingestion/observability-data-stream
https://developer.adobe.com/events/docs/guides
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from portaria.core.entities import DeliveryEvent, Reported, SignedBy
from portaria.core.errors import Rejected
from portaria.core.http.messages import Request

# Adobe sends at most twenty events and 2 MB.
MAX_BODY_BYTES = 2_000_000
MAX_EVENTS = 100
VALIDATION_DOMAIN = "csm.adobe.io"
KEYS_DOMAIN = "static.adobeioevents.com"

_VALIDATION_PATH = "/csm/registrations/validate"
_KEY_PATH = re.compile(r"/prod/keys/pub-key-[0-9a-zA-Z-]{1,80}\.pem")
_CHALLENGE = re.compile(r"[0-9A-Za-z._~+/=-]{1,200}")
_TYPE = "com.adobe.platform.marketo.observability."
_RECIPIENTS = ("recipientclientid", "recipient_client_id")
_ID = re.compile(r"[\x21-\x7e]{1,255}")
_CODE = re.compile(r"[0-9A-Za-z_.-]{1,32}")
MAX_CODES = 50
MAX_COUNT = 10_000_000
MAX_QUOTA = 1_000_000_000


def read_challenge(query: Mapping[str, list[str]]) -> str:
    """Return the challenge of a new registration's GET, which the response repeats. Raises `Rejected` (`bad_challenge`)."""
    challenges = query.get("challenge", [])
    if len(challenges) != 1 or not _CHALLENGE.fullmatch(challenges[0]):
        raise Rejected(
            "bad_challenge", "one challenge of 1 to 200 letters, digits and ._~+/=- is expected", field="challenge"
        )
    return challenges[0]


def validation_request(content: Any) -> Request | None:
    """Return the GET that a registration requests if its challenge was not answered, or None for other content.

    The content is not signed, so only Adobe's validation page is accepted. Raises `Rejected` (`bad_validation_url`).
    """
    if not isinstance(content, dict) or "validationUrl" not in content:
        return None
    url = content["validationUrl"]
    if isinstance(url, str) and len(url) <= 2_000 and re.fullmatch(r"[\x21-\x7e]+", url):
        try:
            parts = urlsplit(url)
        except ValueError:
            parts = urlsplit("")
        if (parts.scheme, parts.netloc, parts.path) == ("https", VALIDATION_DOMAIN, _VALIDATION_PATH):
            return Request("GET", url, connect_timeout_s=2, read_timeout_s=4, max_response_bytes=100_000)
    detail = (
        f"validationUrl must be https://{VALIDATION_DOMAIN}{_VALIDATION_PATH} with a query, 2,000 characters at most"
    )
    raise Rejected("bad_validation_url", detail, field="validationUrl")


def read_signatures(headers: Mapping[str, str]) -> list[SignedBy]:
    """Return the signatures, each with the request for its key. One suffices. Raises `Rejected` (401 `bad_signature`).

    The whole path of a key is checked before it is joined to the host: `.evil.example/x` would change the host.
    """
    found: list[SignedBy] = []
    for number in (1, 2):
        signature, path = (
            headers.get(name, "")
            for name in (f"x-adobe-digital-signature-{number}", f"x-adobe-public-key{number}-path")
        )
        if not signature or not _KEY_PATH.fullmatch(path) or len(signature) > 2_000:
            continue
        try:
            raw = base64.b64decode(signature, validate=True)
        except ValueError:
            continue
        key = Request(
            "GET",
            f"https://{KEYS_DOMAIN}{path}",
            connect_timeout_s=1.5,
            read_timeout_s=2,
            total_timeout_s=3,
            max_response_bytes=20_000,
        )
        found.append(SignedBy(raw, key))
    if not found:
        raise Rejected("bad_signature", "no signature came with a key of Adobe's", field="headers", status=401)
    return found


def check_recipient(content: Any, headers: Mapping[str, str], client_id: str) -> None:
    """Raises `Rejected` (403 `wrong_recipient`) for events to another client, and for events that name none.

    The header is not signed, so it can only exclude an event. The name inside each event is signed.
    """
    given = [value for name in _RECIPIENTS if (value := headers.get(name))]
    for event in _listed(content):
        inside = [event[name] for name in _RECIPIENTS if name in event]
        body = _body(event)
        inside += [body[name] for name in _RECIPIENTS if name in body]
        if not inside or any(recipient != client_id for recipient in (*given, *inside)):
            detail = "each event must name the client id that AdobeClientId was set to as its recipientclientid"
            raise Rejected("wrong_recipient", detail, field="recipientclientid", status=403)


def read_events(content: Any) -> Iterator[DeliveryEvent]:
    """Yield the events of a delivery, in both documented shapes. Unreadable events have the kind `unknown`."""
    for event in _listed(content):
        body = _body(event)
        event_id, kind, data = event.get("eventid", body.get("id")), body.get("type"), body.get("data")
        is_ours = isinstance(kind, str) and kind.startswith(_TYPE)
        if not is_ours or not isinstance(data, dict) or not isinstance(event_id, str) or not _ID.fullmatch(event_id):
            yield DeliveryEvent("unknown")
            continue
        account = data.get("munchkinId")
        account = account.upper()[:64] if isinstance(account, str) else ""
        name, at = str(kind).removeprefix(_TYPE)[:32], _moment(body.get("time"))
        requests, unreadable = _requests(data) if name == "results" else ({}, 0)
        quota = data.get("quota") if name == "status" else None
        quota_left = quota if type(quota) is int and 0 <= quota <= MAX_QUOTA else None
        yield DeliveryEvent(name, event_id, account, at, requests, unreadable, quota_left)


def _listed(content: Any) -> list[dict[str, Any]]:
    """Raises `Rejected` (`bad_events`) if the content is not a list of events."""
    events = content if isinstance(content, list) else [content]
    if not 0 < len(events) <= MAX_EVENTS or not all(isinstance(event, dict) for event in events):
        raise Rejected("bad_events", f"an event, or a list of 1 to {MAX_EVENTS} events, is expected")
    return events


def _body(event: dict[str, Any]) -> dict[str, Any]:
    """Return the CloudEvent: the event itself, or the one inside Adobe's envelope."""
    wrapped = event.get("event")
    body = wrapped.get("body", wrapped) if isinstance(wrapped, dict) else event
    return body if isinstance(body, dict) else {}


def _requests(data: dict[str, Any]) -> tuple[dict[str, Reported], int]:
    """Return the counts by request, added up if a request is named twice, and how many could not be read."""
    requests: dict[str, Reported] = {}
    unreadable = 0
    listed = data.get("requests")
    for request in listed if isinstance(listed, list) else []:
        request_id = request.get("requestId") if isinstance(request, dict) else None
        records = request.get("records") if isinstance(request, dict) else None
        if not isinstance(request_id, str) or not _ID.fullmatch(request_id) or not isinstance(records, dict):
            unreadable += 1
            continue
        known = requests.get(request_id, Reported(0, {}))
        applied = known.applied + _count(records.get("created")) + _count(records.get("updated"))
        requests[request_id] = Reported(applied, _failed(records.get("failed"), known.failed))
    return requests, unreadable


def _failed(by_code: Any, known: dict[str, int]) -> dict[str, int]:
    """Add counts by code to known ones. Invalid codes, and codes beyond the limit, are counted as `other`."""
    failed = dict(known)
    counts = by_code.items() if isinstance(by_code, dict) else [("other", by_code)]
    for code, count in counts:
        is_code = _CODE.fullmatch(code) and (code in failed or len(failed) < MAX_CODES)
        if number := _count(count):
            name = code if is_code else "other"
            failed[name] = failed.get(name, 0) + number
    return failed


def _count(value: Any) -> int:
    return min(value, MAX_COUNT) if type(value) is int and value > 0 else 0


def _moment(value: Any) -> str:
    """Return an event's time in UTC, or an empty text."""
    try:
        moment = datetime.fromisoformat(value)
        return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    except (ValueError, TypeError, OverflowError):
        return ""


def read_content(body: bytes) -> Any:
    """Return the body's JSON. Raises `Rejected` (413 `body_too_large`, 400 `bad_json`)."""
    if len(body) > MAX_BODY_BYTES:
        raise Rejected(
            "body_too_large", f"the body may have {MAX_BODY_BYTES:,} bytes; this has {len(body):,}", status=413
        )
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise Rejected("bad_json", "the body is not JSON") from None
