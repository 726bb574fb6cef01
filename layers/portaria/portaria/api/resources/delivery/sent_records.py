"""Sending records through a route: source-shaped records of a program, queued as those of an event or a backfill are."""

from __future__ import annotations

import json
import uuid
from typing import Annotated, Any

from pydantic import Field, WithJsonSchema

from portaria.api import validation
from portaria.api.operation import ApiRequest, Reply
from portaria.api.rules.stored_resources import Stored
from portaria.api.schemas import Output
from portaria.api.validation import Input, Matching, ResourceName
from portaria.aws import queues
from portaria.core import clock, record_messages
from portaria.core.callbacks import Record
from portaria.core.entities import Connection, Route
from portaria.core.errors import MissingScope, Rejected
from portaria.records import receipts, routes

SCOPE = "records:create"
MAX_BODY_BYTES = 1_000_000
MAX_RECORDS = 1_000
_KEY = Matching(r"[^\x00-\x1f\x7f]{1,400}", "the record's key at the source: 1 to 400 characters, none a control")

_Time = Annotated[str, validation.MOMENT, WithJsonSchema({"type": "string", "format": "date-time"})]


class SentRecord(Input):
    """One record in the source's shape."""

    key: Annotated[str, _KEY] = Field(description="The record's key at its source.")
    updated_at: _Time | None = Field(
        default=None, description="The time of the record's version. By default, the time of the request."
    )
    data: dict[str, Any] = Field(description="The record. The route's mapping applies to it.")


class RecordsSending(Input):
    """Records to send through a route."""

    route: ResourceName = Field(description="The name of the route.")
    connection: ResourceName | None = Field(
        default=None,
        description="The source connection. Needed if the route's source is an OAuth client, which has several.",
    )
    records: list[SentRecord] = Field(min_length=1, max_length=MAX_RECORDS, description="The records.")

    def audited(self) -> dict[str, Any]:
        """Without the records, which hold personal data."""
        return {"route": self.route, "connection": self.connection, "record_count": len(self.records)}


class AcceptedRecords(Output):
    """Records that are queued for delivery."""

    id: str = Field(description="The id that finds the receipts of the records: `GET /v1/receipts?request=ID`.")
    record_count: int = Field(description="How many records are queued.")


def send(asked: ApiRequest) -> Reply:
    """Raises `Rejected` (404 `unknown_route`; 403 `missing_scope`; 400 for the source, the destination or a record) and what
    AWS raises.

    Everything is checked first. The request is noted before its records are queued: after a death in between, its receipt
    counts records that never arrive, and the caller has no answer. After a death between two messages, some records are
    delivered twice if the caller repeats the request, which destinations tolerate.
    """
    sent: RecordsSending = asked.sent
    table = asked.context.table
    route = _route(asked, sent.route)
    known = Stored(table)
    source = _source(known, route, sent.connection)
    destination = known.connection(route.destination)
    routes.mapping(route, source, destination)
    request_id, now = str(uuid.uuid4()), clock.now()
    bodies = record_messages.pack(
        [_record(each, number, int(now.timestamp())) for number, each in enumerate(sent.records)],
        connection=source.name,
        object=route.object,
        origin=record_messages.FRONT_DOOR,
        read_at=int(now.timestamp() * 1000),
        route=route.name,
        request=request_id,
    )
    _refuse_unsendable(bodies)
    receipts.note_request(
        table,
        request_id,
        caller=asked.caller.id,
        destination=destination.name,
        object=routes.target(route, destination).object,
        count=len(sent.records),
    )
    queues.send(asked.context.records_queue_url, bodies, tenant=source.name)
    return Reply({"id": request_id, "record_count": len(sent.records)}, target=route.name)


def _route(asked: ApiRequest, name: str) -> Route:
    """Raises `Rejected`: 404 `unknown_route`, or 403 `missing_scope` for a caller with a scope for other destinations.

    Such a caller gets the same answer for a route that does not exist, so that it cannot find out which routes there are.
    """
    try:
        route = routes.get(asked.context.table, name)
    except Rejected:
        if asked.caller.allows(SCOPE):
            raise
        route = None
    if route is None or not asked.caller.allows(SCOPE, route.destination):
        raise MissingScope(f"the token lacks the scope {SCOPE}, or {SCOPE}@ and the name of this route's destination")
    return route


def _source(known: Stored, route: Route, name: str | None) -> Connection:
    """The connection that the records belong to. Raises `Rejected` (`connection_needed`, `other_source`)."""
    kind, _, of = route.source.partition(":")
    if kind == "connection":
        if name not in (None, of):
            raise Rejected("other_source", f"the source of this route is the connection {of}", field="connection")
        return known.connection(of)
    if name is None:
        detail = f"the source of this route is {route.source}: name one of its connections"
        raise Rejected("connection_needed", detail, field="connection")
    try:
        connection = known.connection(name)
    except Rejected as unknown:
        raise Rejected(unknown.reason, unknown.detail, field="connection") from None
    if f"{connection.platform}/{connection.client}" != of:
        raise Rejected("other_source", f"this connection is not one of {route.source}", field="connection")
    return connection


def _record(sent: SentRecord, number: int, now_s: int) -> Record:
    if not sent.updated_at:
        return Record(sent.key, now_s, sent.data)
    try:
        return Record(sent.key, int(clock.from_iso(sent.updated_at).timestamp()), sent.data)
    except (ValueError, OverflowError):
        field = f"records.{number}.updated_at"
        raise Rejected("bad_time", f"{field} must be a time such as 2026-01-31T23:59:59Z", field=field) from None


def _refuse_unsendable(bodies: list[str]) -> None:
    """Raises `Rejected` (`record_too_large`, `record_unreadable`) for a record that no message can carry."""
    for body in bodies:
        if '"refused":' not in body:
            continue
        for record in json.loads(body)["records"]:
            if "refused" in record:
                raise Rejected(record["refused"]["reason"], record["refused"]["detail"], field="records")
