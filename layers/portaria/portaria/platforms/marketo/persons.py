"""Upserting persons through the Data Ingestion API.

https://experienceleague.adobe.com/en/docs/marketo-developer/marketo/rest/data-ingestion
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from portaria.contract import Answer, Connection, Meaning, Request, Response, Secret

HOST = "mkto-ingestion-api.adobe.io"
MAX_OBJECTS = 1_000
# "1 MB": whether 10^6 or 2^20 is not said, so the smaller one.
MAX_BODY_BYTES = 1_000_000
REQUEST_SOURCE = "Portaria"
# When the day's quota is reset is not said either: looked at every 3 h, the ten receives of a message outlast a day.
QUOTA_WAIT_S = 10_800.0
MAX_WAIT_S = 3_600.0

MEANINGS = {
    "401013": Meaning.TOKEN_AGAIN,
    "403010": Meaning.STOP,
    "404040": Meaning.STOP,
    "429001": Meaning.BACK_OFF,
    "4000801": Meaning.BAD_DATA,
    "4000802": Meaning.BAD_DATA,
    "4030801": Meaning.STOP,
    "4290801": Meaning.QUOTA,
    "5000801": Meaning.RETRY,
}
# For an answer without a code that is known, such as a proxy's HTML.
STATUS_MEANINGS = {
    400: Meaning.BAD_DATA,
    401: Meaning.TOKEN_AGAIN,
    408: Meaning.RETRY,
    413: Meaning.BAD_DATA,
    429: Meaning.BACK_OFF,
}


def frame(dedupe_fields: Sequence[str], partition: str, priority: str) -> tuple[bytes, bytes]:
    """What stands before and after the persons, who are separated by commas, in a request's body."""
    body = {
        "priority": priority,
        **({"partitionName": partition} if partition else {}),
        "dedupeFields": {f"field{number}": name for number, name in enumerate(dedupe_fields, 1)},
    }
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return f'{text[:-1]},"persons":['.encode(), b"]}"


def request(connection: Connection, access_token: Secret, body: bytes, correlation_id: str) -> Request:
    headers = {
        "Content-Type": "application/json",
        "Accept": "application/json",
        "X-Mkto-User-Token": access_token.reveal(),
        "X-Correlation-Id": correlation_id,
        "X-Request-Source": REQUEST_SOURCE,
    }
    return Request(
        "POST",
        f"https://{HOST}/subscriptions/{connection.fields['munchkin_id']}/persons",
        headers,
        body,
        read_timeout_s=20,
        max_response_bytes=100_000,
    )


def read_answer(response: Response) -> Answer:
    """202 is the one success: the request has been taken, and what becomes of its persons is told later, if at all."""
    request_id = response.headers.get("x-request-id", "")[:255]
    if response.status == 202:
        return Answer(Meaning.ACCEPTED, "", request_id)
    code = _error_code(response.body)
    meaning = MEANINGS.get(code) or STATUS_MEANINGS.get(response.status) or _by_class(response.status)
    after_s = QUOTA_WAIT_S if meaning is Meaning.QUOTA else _retry_after_s(response)
    return Answer(meaning, code or str(response.status), request_id, after_s)


def _by_class(status: int) -> Meaning:
    """A 2xx other than 202 or a redirect is no answer of this API: something stands between, perhaps not for long."""
    return Meaning.STOP if 400 <= status < 500 else Meaning.RETRY


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
