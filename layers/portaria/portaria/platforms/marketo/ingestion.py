"""What all objects of the Data Ingestion API share: the host, the limits, and the meaning of responses.

https://experienceleague.adobe.com/en/docs/marketo-developer/marketo/rest/data-ingestion
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from portaria.core.callbacks import Secret
from portaria.core.entities import Answer, Connection, Disposition, Target, Trace
from portaria.core.errors import Rejected
from portaria.core.http.messages import Request, Response

# The members that every object's module has.
__all__ = [
    "MAX_BODY_BYTES",
    "MAX_OBJECTS",
    "NEEDS_STATIC_CREDENTIALS",
    "REQUESTS_IN_PROGRESS",
    "REQUESTS_PER_SECOND",
    "read_answer",
    "request",
]

HOST = "mkto-ingestion-api.adobe.io"
MAX_OBJECTS = 1_000
# Documented as "1 MB", which is at least 10^6.
MAX_BODY_BYTES = 1_000_000
REQUESTS_PER_SECOND: float | None = None
# Marketo queues what it accepts. No record of a batch is in two requests for the same object, and objects that others link to
# are sent before those. More than two gain little, and how many calls of this API may be concurrent is not documented.
REQUESTS_IN_PROGRESS = 2
NEEDS_STATIC_CREDENTIALS = False
REQUEST_SOURCE = "Portaria"
# The attribute that identifies a person in a list or a program.
MEMBER = ("leadId",)
MAX_WAIT_S = 3_600.0

# The meaning of each error code.
MEANINGS = {
    "401013": Disposition.TOKEN_AGAIN,
    "403010": Disposition.STOP,
    "404040": Disposition.STOP,
    "429001": Disposition.BACK_OFF,
    "4000801": Disposition.BAD_DATA,
    "4000802": Disposition.BAD_DATA,
    "4030801": Disposition.STOP,
    "4290801": Disposition.QUOTA,
    "5000801": Disposition.RETRY,
}
# The meaning of a response without a known code, such as a proxy's HTML.
STATUS_MEANINGS = {
    400: Disposition.BAD_DATA,
    401: Disposition.TOKEN_AGAIN,
    408: Disposition.RETRY,
    413: Disposition.BAD_DATA,
    429: Disposition.BACK_OFF,
}


def frame(fields: dict[str, Any], name: str) -> tuple[bytes, bytes]:
    """Return the bytes before and after a request's objects, which are separated by commas in the list `name`."""
    given = {key: value for key, value in fields.items() if value}
    text = json.dumps({**given, name: []}, ensure_ascii=False, separators=(",", ":"))
    return text[:-2].encode(), text[-2:].encode()


def request(
    connection: Connection, credentials: dict[str, Secret], target: Target, body: bytes, trace: Trace
) -> Request:
    """The target's object is the path below the subscription. `credentials` holds the `access_token`.

    Marketo accepts 255 characters of a correlation id and 50 of a source. Its Observability Data Stream reports both.
    """
    headers = {
        "Content-Type": "application/json",
        "Accept": "application/json",
        "X-Mkto-User-Token": credentials["access_token"].reveal(),
        "X-Correlation-Id": trace.correlation_id,
        "X-Request-Source": trace.request_source or REQUEST_SOURCE,
    }
    return Request(
        "POST",
        f"https://{HOST}/subscriptions/{connection.fields['munchkin_id']}/{target.object}",
        headers,
        body,
        read_timeout_s=20,
        max_response_bytes=100_000,
    )


def read_answer(response: Response) -> Answer:
    """202 is the only success: the request is accepted, and the outcome of its objects is reported later, if at all."""
    request_id = response.headers.get("x-request-id", "")[:255]
    if response.status == 202:
        return Answer(Disposition.ACCEPTED, "", request_id)
    code = _error_code(response.body)
    meaning = MEANINGS.get(code) or STATUS_MEANINGS.get(response.status) or _by_class(response.status)
    return Answer(meaning, code or str(response.status), request_id, _retry_after_s(response))


def is_blank(value: Any) -> bool:
    """Whether a value identifies nothing: None, or only white space."""
    return value is None or (isinstance(value, str) and not value.strip())


def findable(attributes: dict[str, Any], fields: Sequence[str]) -> dict[str, Any]:
    """Return the attributes, without white space around those that identify the object.

    It is not documented whether Marketo ignores white space. If it does, a request could contain one person twice; if it does
    not, one person would become two. Raises `Rejected` (`no_dedupe_value`) if the object has none of the fields.
    """
    found = False
    for field in fields:
        value = attributes.get(field)
        if type(value) is str and (trimmed := value.strip()) != value:
            attributes = {**attributes, field: trimmed}
            value = trimmed
        found = found or (value is not None and value != "")
    if not found:
        raise Rejected("no_dedupe_value", f"the record has no value for {' or '.join(fields)}")
    return attributes


def identity(attributes: dict[str, Any], fields: Sequence[str]) -> str:
    """Return what identifies an object within its target. Marketo compares text without regard to case."""
    if len(fields) == 1:
        return str(attributes.get(fields[0], "")).strip().lower()
    return "\x1f".join([str(attributes.get(field, "")).strip().lower() for field in fields])


def check_member(attributes: dict[str, Any], target: Target) -> dict[str, Any]:
    """A person in a list or a program. Raises `Rejected` (`no_dedupe_value`)."""
    return findable(attributes, MEMBER)


def member_identity(attributes: dict[str, Any], target: Target) -> str:
    return identity(attributes, MEMBER)


def _by_class(status: int) -> Disposition:
    """A 2xx other than 202 and a redirect come from a host in between, perhaps only for a while."""
    return Disposition.STOP if 400 <= status < 500 else Disposition.RETRY


def _error_code(body: bytes) -> str:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    code = fields.get("error_code") if isinstance(fields, dict) else None
    return str(code)[:32] if isinstance(code, str | int) else ""


def _retry_after_s(response: Response) -> float | None:
    asked_s = response.retry_after_s()
    return None if asked_s is None else min(MAX_WAIT_S, max(1.0, asked_s))
