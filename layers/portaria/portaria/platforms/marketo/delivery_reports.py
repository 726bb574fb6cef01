"""Marketo's Observability Data Stream, as Adobe I/O Events delivers it: what became of requests to the Data Ingestion API.

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

from portaria.core.entities import DeliveryEvent, Rejected, Reported, Request, SignedBy

# Adobe sends twenty events and 2 MB at most.
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
    """What a new registration's GET wants to have back. Raises `Rejected` (`bad_challenge`)."""
    challenges = query.get("challenge", [])
    if len(challenges) != 1 or not _CHALLENGE.fullmatch(challenges[0]):
        raise Rejected(
            "bad_challenge", "one challenge of 1 to 200 letters, digits and ._~+/=- is expected", field="challenge"
        )
    return challenges[0]


def validation_request(content: Any) -> Request | None:
    """The GET that a registration asks for where its challenge was not answered, or None where this is no such call.

    It is not signed, so it leads to Adobe's one page for it and nowhere else. Raises `Rejected` (`bad_validation_url`).
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
    """The signatures that came, each with where its key lies; either suffices. Raises `Rejected` (401 `bad_signature`).

    A key's path is checked as a whole before it is joined to the host: `.evil.example/x` would make another host of it.
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
    """Raises `Rejected` (403 `wrong_recipient`) for events that were meant for another client, or say for none.

    The header is not signed, so it can only rule out; what stands in each event is.
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
    """What the events of a delivery say, in both shapes in which they come; what cannot be read is `unknown`."""
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
    """Raises `Rejected` (`bad_events`) where this is no delivery of events."""
    events = content if isinstance(content, list) else [content]
    if not 0 < len(events) <= MAX_EVENTS or not all(isinstance(event, dict) for event in events):
        raise Rejected("bad_events", f"an event, or a list of 1 to {MAX_EVENTS} events, is expected")
    return events


def _body(event: dict[str, Any]) -> dict[str, Any]:
    """The CloudEvent: the event itself, or what Adobe has wrapped up."""
    wrapped = event.get("event")
    body = wrapped.get("body", wrapped) if isinstance(wrapped, dict) else event
    return body if isinstance(body, dict) else {}


def _requests(data: dict[str, Any]) -> tuple[dict[str, Reported], int]:
    """Each request's counts, of one that is named twice both, and how many could not be read."""
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
    """Counts by code, in addition to those that are known. Codes that are none, and too many, are one: `other`."""
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
    """An event's time in UTC, or an empty text."""
    try:
        moment = datetime.fromisoformat(value)
        return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    except (ValueError, TypeError, OverflowError):
        return ""


def read_content(body: bytes) -> Any:
    """The JSON of a call. Raises `Rejected` (413 `body_too_large`, 400 `bad_json`)."""
    if len(body) > MAX_BODY_BYTES:
        raise Rejected(
            "body_too_large", f"the body may have {MAX_BODY_BYTES:,} bytes; this has {len(body):,}", status=413
        )
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise Rejected("bad_json", "the body is not JSON") from None
