"""Listing and showing receipts: the outcome of each request to a destination, by connection, request and record."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from portaria import platforms
from portaria.api.operation import ApiRequest, Filters, Reply, page
from portaria.api.rules import named, record_filters
from portaria.api.schemas import Output, Time
from portaria.api.validation import NAME, Matching
from portaria.aws.table import Table
from portaria.connections import connection_store
from portaria.core import clock
from portaria.core.errors import Rejected
from portaria.records import correlations, newest_receipts, receipt_search, receipts, record_index
from portaria.records.receipts import AcceptedRequest, Receipt

# What the data ingestion endpoint accepts for one.
CORRELATION_ID = r"[^\x00-\x1f\x7f-\x9f]{1,255}"
FILTERS: Filters = {
    "destination": Matching(NAME, "the name of the destination: 3 to 64 of A-Z a-z 0-9 _ -"),
    "request": record_filters.REQUEST,
    "correlation_id": Matching(
        CORRELATION_ID,
        "the X-Correlation-Id of a data ingestion request, 1 to 255 characters without control characters",
    ),
    "record": record_filters.RECORD,
    "email": record_filters.EMAIL,
    "state": receipts.STATES,
}
# How many pages are searched for receipts with the name of something that does not exist.
MAX_SEARCHES = 10
WAYS = "give at most one of destination (optionally with record or email), request and correlation_id, and optionally state"


class RecordsRequest(Output):
    """A request with records that a program sent: to the data ingestion endpoint, or by `send_records`."""

    id: str = Field(description="The request's `X-Request-Id`.")
    caller: str = Field(description="The private integration that sent it: `private-integration:` and its id.")
    destination: str = Field(description="The name of the connection that the records go to.")
    object: str = Field(description="The destination's object.")
    record_count: int = Field(description="How many records the request had.")
    correlation_id: str | None = Field(description="The caller's `X-Correlation-Id`.")
    request_source: str | None = Field(description="The caller's `X-Request-Source`.")
    accepted_at: Time | None = Field(description="When the request was accepted.")


class ReceiptOutput(Output):
    """The outcome of one request to a destination. Kept for 30 days. A value is null if it is not known yet."""

    id: str | None = Field(description="The receipt's id. Null for `queued`.")
    state: Literal["queued", "sent", "accepted", "applied", "failed", "unknown"] = Field(
        description="`queued` (accepted from a program, not sent yet), `sent`, `accepted` (the destination has taken it), "
        "`applied`, `failed`, or `unknown` (not every outcome was reported before the deadline).",
    )
    destination: str = Field(description="The name of the connection that the records went to.")
    object: str = Field(description="The destination's object.")
    routes: list[str] = Field(description="The names of the routes that the records took.")
    record_count: int = Field(description="How many records the request had.")
    byte_count: int | None = Field(description="The size of the request's body in bytes.")
    sent_at: Time | None = Field(description="When the request was sent.")
    accepted_at: Time | None = Field(
        description="When the destination accepted it or, for `queued`, when the program's request was accepted."
    )
    deadline: Time | None = Field(description="Until when the destination's reports are awaited.")
    request_id: str | None = Field(description="The destination's id of the request.")
    correlation_id: str | None = Field(
        description="The `X-Correlation-Id` of the program's request, if all records came from one."
    )
    request_source: str | None = Field(
        description="The `X-Request-Source` of the program's request, if all records came from one."
    )
    code: str | None = Field(description="The destination's error code.")
    applied_count: int = Field(description="How many records the destination has reported as applied.")
    failure_counts: dict[str, int] = Field(
        description="How many records the destination has reported as failed, by its own code. Together with `applied_count` "
        "they need not add up to `record_count`.",
    )
    reported_at: Time | None = Field(description="When the destination's last report came.")


class ReceiptWithRequests(ReceiptOutput):
    """A receipt and the programs' requests whose records it carried."""

    requests: list[RecordsRequest] = Field(description="The programs' requests, several if records were merged.")


def list_page(asked: ApiRequest) -> Reply:
    """Raises `Rejected` (`unclear_filters`, `bad_cursor`, 404 `unknown_connection`)."""
    given, now, table = asked.filters, clock.now(), asked.context.table
    record, email, state = given.get("record", ""), given.get("email", ""), given.get("state", "")
    request, connection, correlation_id = (given.get(name, "") for name in ("request", "destination", "correlation_id"))
    if [bool(request), bool(connection), bool(correlation_id)].count(True) > 1 or (
        (record or email) and (not connection or (record and email))
    ):
        detail = f"{WAYS}; the request has {', '.join(sorted(given)) or 'none'}"
        raise Rejected("unclear_filters", detail, field="destination")
    ways: dict[str, Any] = {"cursor": asked.cursor, "limit": asked.limit}
    if not (request or connection or correlation_id):
        found, cursor = newest_receipts.newest(table, _destinations(table), now, **ways)
        return page([show(receipt) for receipt in found if state in ("", receipt.state)], cursor)
    if record or email:
        wanted = record or record_index.of_email(email)
        found, cursor = receipt_search.by_record(table, connection, wanted, now, **ways)
    elif connection:
        found, cursor = receipt_search.by_destination(table, connection, now, state=state, **ways)
    elif correlation_id:
        results, cursor = correlations.search(table, correlation_id, now, **ways)
        rows = [_queued(each) if isinstance(each, AcceptedRequest) else show(each) for each in results]
        return page([row for row in rows if state in ("", row["state"])], cursor)
    else:
        found, cursor = receipt_search.by_request(table, request, now, **ways)
        waiting = receipt_search.noted(table, request) if not found and not asked.cursor else None
        if waiting and state in ("", receipts.QUEUED):
            return page([_queued(waiting)], None)
    if not found and not asked.cursor:
        _require_names(table, connection, record, now)
    return page([show(receipt) for receipt in found if state in ("", receipt.state)], cursor)


def _destinations(table: Table) -> list[str]:
    """The connections that records can be sent to."""
    return connection_store.names_of(table, [each.name for each in platforms.every() if each.route_rules])


def _require_names(table: Table, connection: str, record: str, now: datetime) -> None:
    """For filters that matched nothing so far. A name that receipts have is known, also after its connection was deleted.

    Raises `Rejected` (404 `unknown_connection`).
    """
    try:
        named.require(table, connection=connection, record=record)
    except Rejected as unknown:
        cursor: str | None = None
        for _ in range(MAX_SEARCHES):
            if record:
                kept, cursor = receipt_search.by_record(table, connection, record, now, limit=1, cursor=cursor)
            else:
                kept, cursor = receipt_search.by_destination(table, connection, now, limit=1, cursor=cursor)
            if kept:
                return
            if not cursor:
                raise unknown.replaced(field="record" if unknown.field == "record" else "destination") from None


def get(asked: ApiRequest) -> Reply:
    """Raises `Rejected` (404 `unknown_receipt`)."""
    table, correlation_id = asked.context.table, asked.path["id"]
    receipt = receipt_search.find(table, correlation_id, clock.now())
    if not receipt:
        raise Rejected("unknown_receipt", "there is no receipt with this id; receipts are kept for 30 days", status=404)
    requests = receipt_search.requests_of(table, correlation_id)
    return Reply(show(receipt) | {"requests": [_request(one) for one in requests]})


def show(receipt: Receipt) -> dict[str, Any]:
    """A receipt as the API tells it: null for what it has not come to."""
    return {
        "id": receipt.correlation_id,
        "state": receipt.state,
        "destination": receipt.destination,
        "object": receipt.object,
        "routes": list(receipt.routes),
        "record_count": receipt.count,
        "byte_count": receipt.bytes,
        "sent_at": receipt.sent_at,
        "accepted_at": receipt.accepted_at or None,
        "deadline": clock.epoch_to_iso(receipt.deadline),
        "request_id": receipt.request_id or None,
        "correlation_id": receipt.trace.correlation_id or None,
        "request_source": receipt.trace.request_source or None,
        "code": receipt.code or None,
        "applied_count": receipt.report.applied,
        "failure_counts": receipt.report.failed,
        "reported_at": receipt.report.reported_at or None,
    }


def _queued(noted: AcceptedRequest) -> dict[str, Any]:
    told = dict.fromkeys(ReceiptOutput.model_fields)
    return told | {
        "state": receipts.QUEUED,
        "destination": noted.destination,
        "object": noted.object,
        "routes": [],
        "record_count": noted.count,
        "accepted_at": noted.accepted_at,
        "correlation_id": noted.trace.correlation_id or None,
        "request_source": noted.trace.request_source or None,
        "applied_count": 0,
        "failure_counts": {},
    }


def _request(noted: AcceptedRequest) -> dict[str, Any]:
    return {
        "id": noted.request_id,
        "caller": noted.caller,
        "destination": noted.destination,
        "object": noted.object,
        "record_count": noted.count,
        "correlation_id": noted.trace.correlation_id,
        "request_source": noted.trace.request_source,
        "accepted_at": noted.accepted_at,
    }
