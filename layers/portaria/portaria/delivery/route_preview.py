"""Previews of a route: the attributes of a sample record and the request that would be sent. Nothing is sent or stored.

The record takes the way of a real one: it is packed into a message, read from it, mapped, checked and encoded by the same
functions, within the same limits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import orjson

from portaria import platforms
from portaria.core import record_messages
from portaria.core.callbacks import Record, Secret
from portaria.core.entities import NO_TRACE, Connection, Route
from portaria.core.errors import Rejected
from portaria.records import routes
from portaria.records.mapping import record_mapping, request_filling
from portaria.records.mapping.record_mapping import OutgoingRecord, RejectedRecord

# Stands for each credential in the request.
_MASK = "***"


@dataclass(frozen=True)
class PreviewedRequest:
    """`body` is JSON. The request has no headers here, because they hold the credentials."""

    method: str
    path: str
    body: Any


@dataclass(frozen=True)
class Preview:
    """`refused` says why the record would become a dead letter; then there is no request."""

    attributes: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    request: PreviewedRequest | None = None
    refused: Rejected | None = None


class _Placeholders(dict[str, Secret]):
    """Placeholders for credentials of any name."""

    def __missing__(self, name: str) -> Secret:
        return Secret(_MASK)


def preview(route: Route, source_platform: str, destination: Connection, data: dict[str, Any]) -> Preview:
    """Raises `Rejected` if the route itself cannot be used: its destination, target or mapping."""
    target = routes.target(route, destination)
    mapping = record_mapping.mapping_of(routes.mapping_from(route, source_platform, destination))
    platform = platforms.load(destination.platform)
    destination_object = platform.require(platform.destination_object(target.object_type))
    attributes: dict[str, Any] = {}
    try:
        source = _sample(route, data)
        mapped = mapping.apply(source.record["data"])
        attributes = destination_object.check(mapped, target)
        outgoing = OutgoingRecord(destination_object.identity(attributes, target), attributes, (source,), (route.name,))
    except Rejected as refused:
        return Preview(attributes, refused=refused)
    expected = routes.mapping_from(route, source_platform, destination)
    warnings = tuple(f"mapping.{name}: the record has no value for it" for name in expected if name not in mapped)
    before, after = destination_object.frame(target)
    (filled,) = request_filling.fill(
        [outgoing],
        frame_bytes=len(before) + len(after),
        max_objects=destination_object.MAX_OBJECTS,
        max_bytes=destination_object.MAX_BODY_BYTES,
    )
    if isinstance(filled, RejectedRecord):
        return Preview(attributes, warnings, refused=Rejected(filled.reason, filled.detail))
    body = before + filled.text + after
    request = destination_object.request(destination, _Placeholders(), target, body, NO_TRACE)
    sent = PreviewedRequest(request.method, urlsplit(request.url).path, orjson.loads(request.body or b"null"))
    return Preview(attributes, warnings, sent)


def _sample(route: Route, data: dict[str, Any]) -> record_mapping.Source:
    """The record as a worker reads it. Raises `Rejected` if no message can carry it."""
    (body,) = record_messages.pack(
        [Record("sample", 0, data)],
        connection="sample",
        object=route.object,
        origin=record_messages.EVENT,
        read_at=0,
        route=route.name,
    )
    message = record_mapping.read_message("sample", body)
    return record_mapping.read_record(message, 0, message.records[0])
