"""Records on their way: packed into messages, mapped, coalesced, and put together into requests that are full.

Nothing here talks to anyone. A record that cannot go on is isolated as `SetAside`, with its reason; the others go on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import jmespath
import orjson
from jmespath.exceptions import JMESPathError

from portaria import queues
from portaria.contract import Record, Rejected, Route

VERSION = 1
# What a record that is alone in its message may bring it to: SQS takes 1 MiB, and dead letters add their reason.
MAX_RECORD_MESSAGE_BYTES = queues.MAX_MESSAGE_BYTES


@dataclass(frozen=True)
class Message:
    """A message of the Records queue. `records` are as they came; `read_record` checks each by itself."""

    id: str
    connection: str
    route: str
    object: str
    origin: str
    records: list[Any]


@dataclass(frozen=True)
class Target:
    """What records must share to travel in one request."""

    destination: str
    object: str
    dedupe_fields: tuple[str, ...]
    partition: str
    priority: str


class Outgoing(NamedTuple):
    """One mapped record, encoded as it will stand in a request's body, and where it came from."""

    message: Message
    source: dict[str, Any]
    key: str
    updated_at: int
    encoded: bytes


class SetAside(NamedTuple):
    """Records of one message that cannot go on. `detail` names the field, limit and size, never a value."""

    message: Message
    records: list[Any]
    reason: str
    detail: str


def pack(connection: str, route: Route, origin: str, records: Iterable[Record]) -> list[str]:
    """Bodies of Records messages, each of `queues.MAX_BODY_BYTES` at most.

    A record larger than that travels alone. One that no message can carry is named in its place, without its data, so
    that the next worker sets it aside where people look.
    """
    head = queues.encode(
        {"version": VERSION, "connection": connection, "route": route.name, "object": route.object, "origin": origin}
    )
    head = f'{head[:-1]},"records":['
    tail = "]}"
    frame_bytes = len(head.encode()) + len(tail)
    bodies: list[str] = []
    texts: list[str] = []
    size = frame_bytes
    for record in records:
        text = _record_text(record, MAX_RECORD_MESSAGE_BYTES - frame_bytes)
        length = len(text.encode())
        if texts and size + 1 + length > queues.MAX_BODY_BYTES:
            bodies.append(f"{head}{','.join(texts)}{tail}")
            texts, size = [], frame_bytes
        size += length + (1 if texts else 0)
        texts.append(text)
    if texts:
        bodies.append(f"{head}{','.join(texts)}{tail}")
    return bodies


def _record_text(record: Record, max_bytes: int) -> str:
    identity = {"key": record.key, "updated_at": record.updated_at}
    try:
        text = queues.encode({**identity, "data": record.data})
    except (ValueError, RecursionError):
        refused = {"reason": "record_unreadable", "detail": "the record cannot be written as JSON"}
        return queues.encode({**identity, "refused": refused})
    length = len(text.encode())
    if length <= max_bytes:
        return text
    refused = {
        "reason": "record_too_large",
        "detail": f"the record has {length} bytes; a message can carry {max_bytes}",
    }
    return queues.encode({**identity, "refused": refused})


def read_message(message_id: str, body: str) -> Message:
    """Raises `Rejected` (`message_unreadable`) for anything that is not a Records message."""
    try:
        fields = orjson.loads(body)
        if fields["version"] != VERSION or not isinstance(fields["records"], list):
            raise ValueError
        names = {name: fields[name] for name in ("connection", "route", "object", "origin")}
        if not all(isinstance(name, str) for name in names.values()):
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise Rejected("message_unreadable", f"this is no Records message of version {VERSION}") from None
    return Message(id=message_id, records=fields["records"], **names)


def read_record(record: Any) -> Record:
    """Raises `Rejected`: with the reason of whoever could not pack it, or `record_unreadable`."""
    try:
        if refused := record.get("refused"):
            raise Rejected(str(refused["reason"]), str(refused["detail"]))
        key, updated_at, data = record["key"], record["updated_at"], record["data"]
    except (AttributeError, KeyError, TypeError):
        raise Rejected("record_unreadable", "a record needs a key, updated_at and data") from None
    if not isinstance(key, str) or type(updated_at) is not int or not isinstance(data, dict):
        raise Rejected("record_unreadable", "a record's key is text, updated_at a whole number and data an object")
    return Record(key, updated_at, data)


class Mapping:
    """Each destination attribute's JMESPath expression, compiled. Make one with `mapping_of`, which keeps it.

    Raises `Rejected` (`bad_mapping`) that names the attribute whose expression cannot be read.
    """

    def __init__(self, expressions: Iterable[tuple[str, str]]) -> None:
        self._expressions: list[tuple[str, Any]] = []
        for attribute, expression in expressions:
            try:
                self._expressions.append((attribute, jmespath.compile(expression)))
            except JMESPathError as error:
                raise Rejected(
                    "bad_mapping",
                    f"the expression of {attribute} cannot be read: {type(error).__name__}",
                    field=attribute,
                ) from None

    def apply(self, data: dict[str, Any]) -> dict[str, Any]:
        """The destination's attributes. What is null or empty at the source is left out, so it erases nothing.

        Raises `Rejected` (`mapping_failed`, `bad_value`) that names the attribute.
        """
        attributes: dict[str, Any] = {}
        for attribute, expression in self._expressions:
            try:
                value = expression.search(data)
            except JMESPathError as error:
                raise Rejected(
                    "mapping_failed", f"the mapping of {attribute} failed: {type(error).__name__}", field=attribute
                ) from None
            if value is None or value == "":
                continue
            if not isinstance(value, str | int | float):
                raise Rejected(
                    "bad_value",
                    f"{attribute} must be text, a number or a boolean; the mapping gives a {type(value).__name__}",
                    field=attribute,
                )
            attributes[attribute] = value
        return attributes


@lru_cache(maxsize=512)
def _kept_mapping(expressions: tuple[tuple[str, str], ...]) -> Mapping:
    return Mapping(expressions)


def mapping_of(expressions: dict[str, str]) -> Mapping:
    """Compiled once a process for each different set of expressions."""
    return _kept_mapping(tuple(expressions.items()))


def map_record(message: Message, source: Any, mapping: Mapping, dedupe_fields: Sequence[str]) -> Outgoing:
    """Raises `Rejected` where the record cannot go on."""
    record = read_record(source)
    attributes = mapping.apply(record.data)
    if not any(field in attributes for field in dedupe_fields):
        raise Rejected("no_dedupe_value", f"the record has no value for {' or '.join(dedupe_fields)}")
    try:
        encoded = orjson.dumps(attributes)
    except orjson.JSONEncodeError:
        raise Rejected("bad_value", "an attribute cannot be written as JSON") from None
    return Outgoing(message, source, record.key, record.updated_at, encoded)


def coalesce(outgoing: Iterable[Outgoing]) -> list[Outgoing]:
    """The newest version of each record of a route, the later one of equals; oldest first, so that the newest wins."""
    newest: dict[tuple[str, str, str], Outgoing] = {}
    for one in outgoing:
        identity = (one.message.connection, one.message.route, one.key)
        known = newest.get(identity)
        if known is None or known.updated_at <= one.updated_at:
            newest[identity] = one
    return sorted(newest.values(), key=lambda one: one.updated_at)


def fill(
    outgoing: Iterable[Outgoing], *, frame_bytes: int, max_objects: int, max_bytes: int
) -> tuple[list[list[Outgoing]], list[SetAside]]:
    """Cut records into requests as full as the limits allow; `frame_bytes` is what stands around them in the body.

    What alone would pass the limit is set aside.
    """
    chunks: list[list[Outgoing]] = []
    too_large: list[SetAside] = []
    chunk: list[Outgoing] = []
    size = frame_bytes
    for one in outgoing:
        length = len(one.encoded)
        if frame_bytes + length > max_bytes:
            detail = f"the record has {length} bytes in a request; {max_bytes - frame_bytes} are allowed"
            too_large.append(SetAside(one.message, [one.source], "record_too_large", detail))
            continue
        if chunk and (len(chunk) == max_objects or size + 1 + length > max_bytes):
            chunks.append(chunk)
            chunk, size = [], frame_bytes
        size += length + (1 if chunk else 0)
        chunk.append(one)
    if chunk:
        chunks.append(chunk)
    return chunks, too_large
