"""Messages of the Records queues, as they are written. `record_mapping` reads them.

    {"version": 1, "connection": "kommo-acme-1", "object": "contacts", "origin": "event", "route": "people-to-marketo",
     "read_at": 1732272000123, "request": "6f1c…", "target": {…}, "trace": {…},
     "records": [{"key": "37054081", "updated_at": 1732271999, "data": {…}, "partial": true}]}

`connection` is where the records come from (for the front door: the private integration), `read_at` when they were read or
arrived (epoch milliseconds). Without a `route` they go every way that begins at the connection with the object; with a
`target` (destination, object, priority and options) they are in the destination's own shape already. `request` is the id that
the front door gave its caller, empty elsewhere; `trace` (correlation_id, request_source) is what the caller calls that
request, left out where it does not. A `partial` record comes from an event that has less than the source knows:
a key that its data lacks is unknown, not empty.

An integer that 64 bits cannot hold is written as text: most JSON readers, this project's workers among them, would turn it
into an inexact number.

Events must be answered within two seconds from a cold start, so this module imports only the standard library and `callbacks`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from portaria.core.callbacks import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VERSION = 1
# What brings records here.
EVENT, BACKFILL, RECONCILIATION, FRONT_DOOR = "event", "backfill", "reconciliation", "front_door"

# SQS takes 1 MiB a message; messages of records are filled to a quarter, so that a batch of many fits into Lambda's 6 MB.
# A front door's request of 1,000,000 bytes may be one record, with 40,000 for what a message says around it.
MAX_MESSAGE_BYTES = 1_040_000
MAX_BODY_BYTES = 240_000

# JSON can escape what a message cannot carry: half a surrogate pair is no UTF-8, and SQS refuses these two characters.
_HALF_PAIRS = re.compile("[\ud800-\udfff]")
_REFUSED_BY_SQS = {"\ufffe": "\\ufffe", "\uffff": "\\uffff"}
# No shorter number is beyond 64 bits.
_LONG_NUMBER = re.compile("[0-9]{19}")
LEAST_INTEGER, GREATEST_INTEGER = -(2**63), 2**64 - 1


def encode(message: dict[str, Any]) -> str:
    """JSON that SQS takes and every reader can decode; half a surrogate pair becomes U+FFFD.

    Raises `ValueError` for NaN and infinities, which are no JSON.
    """
    text = json.dumps(message, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = _HALF_PAIRS.sub("\ufffd", text)
    for refused, escaped in _REFUSED_BY_SQS.items():
        if refused in text:
            text = text.replace(refused, escaped)
    return text


def pack(
    records: Iterable[Record],
    *,
    connection: str,
    object: str,
    origin: str,
    read_at: int,
    route: str = "",
    request: str = "",
    target: dict[str, Any] | None = None,
    trace: dict[str, str] | None = None,
) -> list[str]:
    """Bodies of Records messages, each of `MAX_BODY_BYTES` at most.

    A record larger than that travels alone. One that no message can carry is named in its place, without its data, so
    that the next worker sets it aside where people look.
    """
    head: dict[str, Any] = {"version": VERSION, "connection": connection, "object": object, "origin": origin}
    head |= {"route": route, "read_at": read_at, "request": request}
    head |= ({"target": target} if target else {}) | ({"trace": trace} if trace else {})
    start = f'{encode(head)[:-1]},"records":['
    end = "]}"
    frame_bytes = len(start.encode()) + len(end)
    bodies: list[str] = []
    texts: list[str] = []
    size = frame_bytes
    for record in records:
        text = _record_text(record, MAX_MESSAGE_BYTES - frame_bytes)
        length = len(text.encode())
        if texts and size + 1 + length > MAX_BODY_BYTES:
            bodies.append(f"{start}{','.join(texts)}{end}")
            texts, size = [], frame_bytes
        size += length + (1 if texts else 0)
        texts.append(text)
    if texts:
        bodies.append(f"{start}{','.join(texts)}{end}")
    return bodies


def _record_text(record: Record, max_bytes: int) -> str:
    identity: dict[str, Any] = {"key": record.key, "updated_at": record.updated_at}
    partial = {"partial": True} if record.is_partial else {}
    try:
        text = encode({**identity, "data": record.data, **partial})
        if _LONG_NUMBER.search(text):
            text = encode({**identity, "data": _exact(record.data), **partial})
    except (ValueError, RecursionError):
        refused = {"reason": "record_unreadable", "detail": "the record cannot be written as JSON"}
        return encode({**identity, "refused": refused})
    length = len(text.encode())
    if length <= max_bytes:
        return text
    refused = {
        "reason": "record_too_large",
        "detail": f"the record has {length} bytes; a message can carry {max_bytes}",
    }
    return encode({**identity, "refused": refused})


def _exact(value: Any) -> Any:
    """A copy in which integers beyond 64 bits are texts of all their digits."""
    if isinstance(value, dict):
        return {name: _exact(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_exact(inner) for inner in value]
    return str(value) if type(value) is int and not LEAST_INTEGER <= value <= GREATEST_INTEGER else value
