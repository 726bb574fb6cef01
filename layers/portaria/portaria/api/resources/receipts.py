"""Looking at receipts: what became of each request to a destination, by connection, by request and by record."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from portaria.api.router import ApiRequest, Filters, Reply, page
from portaria.api.schemas import Output
from portaria.api.validation import NAME, Matching
from portaria.core import clock
from portaria.core.entities import Rejected
from portaria.records import receipts
from portaria.records.receipts import AcceptedRequest, Receipt

FILTERS: Filters = {
    "connection": Matching(NAME, "the name of the destination, 3 to 64 of A-Z a-z 0-9 _ -"),
    "request": Matching(r"[\x21-\x7e]{1,255}", "an X-Request-Id, 1 to 255 printable ASCII characters"),
    "record": Matching(rf"{NAME}/[^\x00-\x1f]{{1,400}}", "a source and a record's key there with a / between them"),
    "state": receipts.STATES,
}
WAYS = "give a connection, with a record or a state if you like, or a request"


class FrontDoorRequest(Output):
    """A request that the front door took, of `count` records. `correlation_id` is what its caller sent."""

    id: str
    caller: str
    destination: str
    object: str
    count: int
    correlation_id: str
    accepted_at: str


class Shown(Output):
    """One request to a destination. `accepted` says that it was taken: `applied` and `failed` (by the destination's code) count
    what it has reported since, and need not add up to `count`. `unknown` says that not all was told before the deadline.

    `queued` is a request of the front door of which nothing has been sent yet; all that is not known of it is null.
    """

    receipt: str | None
    state: Literal["queued", "sent", "accepted", "applied", "failed", "unknown"]
    destination: str
    object: str
    routes: list[str]
    count: int
    bytes: int | None
    sent_at: str | None
    accepted_at: str | None
    deadline: str | None
    request_id: str | None
    code: str | None
    applied: int
    failed: dict[str, int]
    reported_at: str | None


class ReceiptWithRequests(Shown):
    """`requests` are the front door's whose records it carried."""

    requests: list[FrontDoorRequest]


def list_page(asked: ApiRequest) -> Reply:
    """Raises `Rejected` (`unclear_filters`, `bad_cursor`)."""
    given, now, table = asked.filters, clock.now(), asked.desk.table
    request, connection, record, state = (given.get(name, "") for name in ("request", "connection", "record", "state"))
    if bool(request) == bool(connection) or (record and not connection):
        raise Rejected("unclear_filters", f"{WAYS}; this has {', '.join(sorted(given)) or 'none'}", field="connection")
    ways: dict[str, Any] = {"cursor": asked.cursor, "limit": asked.limit}
    if record:
        found, cursor = receipts.by_record(table, connection, record, now, **ways)
    elif connection:
        found, cursor = receipts.by_destination(table, connection, now, state=state, **ways)
    else:
        found, cursor = receipts.by_request(table, request, now, **ways)
        waiting = receipts.noted(table, request) if not found and not asked.cursor else None
        if waiting and state in ("", receipts.QUEUED):
            return page([_queued(waiting)], None)
    return page([show(receipt) for receipt in found if state in ("", receipt.state)], cursor)


def get(asked: ApiRequest) -> Reply:
    """Raises `Rejected` (404 `unknown_receipt`)."""
    table, correlation_id = asked.desk.table, asked.path["receipt"]
    receipt = receipts.find(table, correlation_id, clock.now())
    if not receipt:
        raise Rejected("unknown_receipt", "there is no such receipt; they are kept for 30 days", status=404)
    requests = receipts.requests_of(table, correlation_id)
    return Reply(show(receipt) | {"requests": [_request(one) for one in requests]})


def show(receipt: Receipt) -> dict[str, Any]:
    """A receipt as the API tells it: null for what it has not come to."""
    return {
        "receipt": receipt.correlation_id,
        "state": receipt.state,
        "destination": receipt.destination,
        "object": receipt.object,
        "routes": list(receipt.routes),
        "count": receipt.count,
        "bytes": receipt.bytes,
        "sent_at": receipt.sent_at,
        "accepted_at": receipt.accepted_at or None,
        "deadline": clock.to_iso(datetime.fromtimestamp(receipt.deadline, UTC)),
        "request_id": receipt.request_id or None,
        "code": receipt.code or None,
        "applied": receipt.report.applied,
        "failed": receipt.report.failed,
        "reported_at": receipt.report.reported_at or None,
    }


def _queued(noted: AcceptedRequest) -> dict[str, Any]:
    told = dict.fromkeys(Shown.model_fields)
    return told | {
        "state": receipts.QUEUED,
        "destination": noted.destination,
        "object": noted.object,
        "routes": [],
        "count": noted.count,
        "accepted_at": noted.accepted_at,
        "applied": 0,
        "failed": {},
    }


def _request(noted: AcceptedRequest) -> dict[str, Any]:
    return {
        "id": noted.request_id,
        "caller": noted.caller,
        "destination": noted.destination,
        "object": noted.object,
        "count": noted.count,
        "correlation_id": noted.correlation_id,
        "accepted_at": noted.accepted_at,
    }
