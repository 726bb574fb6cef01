"""Receipts: the outcome of each request to a destination, and of each accepted data ingestion request.

    sent → accepted (the outcome is not known yet) → applied, or failed by code, as the destination reports
         → applied immediately, if the destination's answer says so
         → failed with the destination's code

An open receipt reads as `unknown` after its deadline. What a destination reports later (`report`) is stored beside the
receipts, by account and by the destination's own id of the request, because a report may arrive before the receipt has that id.
Reading joins the two. The records of a request are stored as fingerprints, in one item for each request.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from portaria.aws.table import Conflict, Item, Table
from portaria.connections import connection_store
from portaria.core import clock
from portaria.core.entities import NO_TRACE, Trace
from portaria.records import record_index

LIST = "RECEIPTS"
# The listing of data ingestion requests by the correlation id of their caller (see `correlations`).
BY_CORRELATION = "CORRELATION"
# The longest documented time that a destination retries on its own is 6.5 hours (platforms/marketo).
DEADLINE = timedelta(hours=24)
KEPT_FOR = timedelta(days=30)
SENT, ACCEPTED, APPLIED, FAILED, UNKNOWN = "sent", "accepted", "applied", "failed", "unknown"
# The state of a data ingestion request without any request to a destination yet.
QUEUED = "queued"
STATES = (QUEUED, SENT, ACCEPTED, APPLIED, FAILED, UNKNOWN)
# An attribute a code, so that several reports add up.
_FAILED = "failed#"


@dataclass(frozen=True)
class Report:
    """A destination's reports about a request so far. The counts need not add up to the number of records that were sent."""

    applied: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    reported_at: str = ""

    @property
    def total(self) -> int:
        return self.applied + sum(self.failed.values())


@dataclass(frozen=True)
class Receipt:
    """`state` is sent, accepted, applied, failed or unknown. Times are ISO 8601, `deadline` is epoch seconds.

    `request_id` is the destination's, `code` its reason for refusing the whole request, `report` what it reported later.
    `trace` is the caller's, if all records came from one data ingestion request.
    """

    correlation_id: str
    destination: str
    object: str
    routes: tuple[str, ...]
    count: int
    bytes: int
    state: str
    sent_at: str
    deadline: int
    accepted_at: str = ""
    request_id: str = ""
    code: str = ""
    report: Report = Report()
    trace: Trace = NO_TRACE


@dataclass(frozen=True)
class AcceptedRequest:
    """An accepted data ingestion request: `count` records for a destination, at `accepted_at` (ISO 8601)."""

    request_id: str
    caller: str
    destination: str
    object: str
    count: int
    trace: Trace
    accepted_at: str


def key(correlation_id: str) -> tuple[str, str]:
    return f"RECEIPT#{correlation_id}", "RECEIPT"


def correlation_id(destination: str, object_name: str, message_ids: Iterable[str], body: bytes) -> str:
    """The id of a request: a hash of its destination, object and body, and of the messages that it is sent for.

    Two objects of a destination can get the same body: only the URL tells the custom objects of Marketo apart. A redelivery
    that makes the same request finds the same receipt; a redelivery of a part makes another request with another receipt; and
    the same records in new messages (a redrive, a second backfill) are never mistaken for a repetition.
    """
    digest = hashlib.sha256(f"{destination}\n{object_name}".encode())
    for message_id in sorted(set(message_ids)):
        digest.update(b"\n" + message_id.encode())
    digest.update(b"\n\n" + body)
    return digest.hexdigest()[:40]


def open_receipt(
    table: Table,
    correlation_id: str,
    *,
    destination: str,
    object: str,
    routes: Iterable[str],
    count: int,
    size: int,
    keys: Iterable[str],
    requests: Iterable[str],
    trace: Trace = NO_TRACE,
) -> None:
    """Store that a request is about to be sent, with the keys of its records (`{source}/{key}`) and its data ingestion
    requests.

    Raises `Conflict` if it was sent and accepted before, and what AWS raises. The receipt is written first, then the indexes
    by which it is found. After a death in between, nothing was sent, and a redelivery writes all of them again.
    """
    now = clock.now()
    pk, sk = key(correlation_id)
    sent_at = clock.to_iso(now)
    expires_at = int((now + KEPT_FOR).timestamp())
    item: Item = {
        "pk": pk,
        "sk": sk,
        "list_pk": f"{LIST}#{destination}",
        "list_sk": f"{sent_at}#{correlation_id}",
        "correlation_id": correlation_id,
        "destination": destination,
        "object": object,
        "routes": sorted(set(routes)),
        "count": count,
        "bytes": size,
        "state": SENT,
        "sent_at": sent_at,
        "deadline": int((now + DEADLINE).timestamp()),
        "expires_at": expires_at,
        **_trace_item(trace),
    }
    table.put(
        item,
        condition="attribute_not_exists(pk) OR (#state <> :accepted AND #state <> :applied)",
        values={":accepted": ACCEPTED, ":applied": APPLIED},
        names={"#state": "state"},
    )
    beside: list[Item] = [
        {
            "pk": sent_pk(destination, sent_at[:10]),
            "sk": f"{sent_at}#{correlation_id}",
            "keys": record_index.packed(keys),
            "expires_at": expires_at,
        }
    ]
    requests = sorted(set(requests) - {""})
    if requests:
        beside.append({"pk": pk, "sk": "REQUESTS", "requests": requests, "expires_at": expires_at})
    beside += [
        {"pk": f"REQUEST#{request}", "sk": f"RECEIPT#{correlation_id}", "expires_at": expires_at}
        for request in requests
    ]
    table.put_all(beside)


def accept(table: Table, correlation_id: str, request_id: str, *, applied: bool = False) -> None:
    """Close a receipt: the destination has accepted the request; with `applied`, also applied it. Raises what AWS raises."""
    values: Item = {
        ":state": APPLIED if applied else ACCEPTED,
        ":request_id": request_id,
        ":now": clock.to_iso(clock.now()),
    }
    expression = "SET #state = :state, request_id = :request_id, accepted_at = :now"
    if request_id:
        # The index by which it is found with the destination's id.
        expression += ", #source = :source"
        values[":source"] = f"request:{request_id}"
    names = {"#state": "state"} | ({"#source": "source"} if request_id else {})
    table.update(*key(correlation_id), expression, values=values, names=names)


def fail(table: Table, correlation_id: str, code: str, request_id: str) -> None:
    """Close a receipt: the request failed. A receipt that another worker has closed as accepted stays as it is."""
    try:
        table.update(
            *key(correlation_id),
            "SET #state = :failed, code = :code, request_id = :request_id",
            condition="#state = :sent",
            values={":failed": FAILED, ":sent": SENT, ":code": code, ":request_id": request_id},
            names={"#state": "state"},
        )
    except Conflict:
        return


def note_request(
    table: Table,
    request_id: str,
    *,
    caller: str,
    destination: str,
    object: str,
    count: int,
    trace: Trace = NO_TRACE,
) -> None:
    """Store an accepted data ingestion request, listed by its correlation id, in one write. Raises what AWS raises."""
    now = clock.now()
    pk, sk = noted_key(request_id)
    accepted_at = clock.to_iso(now)
    item: Item = {
        "pk": pk,
        "sk": sk,
        "request_id": request_id,
        "caller": caller,
        "destination": destination,
        "object": object,
        "count": count,
        "correlation_id": trace.correlation_id,
        "request_source": trace.request_source,
        "accepted_at": accepted_at,
        "expires_at": int((now + KEPT_FOR).timestamp()),
    }
    if trace.correlation_id:
        item |= {"list_pk": f"{BY_CORRELATION}#{trace.correlation_id}", "list_sk": f"{accepted_at}#{request_id}"}
    table.put(item)


def _trace_item(trace: Trace) -> Item:
    """On a receipt, whose own id is called `correlation_id`."""
    return {f"caller_{name}": value for name, value in trace.fields.items()}


def report(
    table: Table, subscription: str, request_id: str, event_id: str, *, applied: int, failed: dict[str, int], at: str
) -> None:
    """Add a destination's event about a request: once, however often and in whatever order events are delivered.

    `at` is the event's own time (ISO 8601). An event has all that it says about one request. Raises what AWS raises.
    """
    codes = sorted(failed)
    values: Item = {":event": {f"{event_id} {at}"}, ":known": f"{event_id} {at}", ":applied": applied}
    values |= {f":code{number}": failed[code] for number, code in enumerate(codes)}
    values |= {":expires_at": int((clock.now() + KEPT_FOR).timestamp())}
    names = {"#events": "events", "#applied": "applied", "#expires_at": "expires_at"}
    names |= {f"#code{number}": f"{_FAILED}{code}" for number, code in enumerate(codes)}
    added = "".join(f", #code{number} :code{number}" for number in range(len(codes)))
    try:
        table.update(
            *_report_key(subscription, request_id),
            f"ADD #events :event, #applied :applied{added} SET #expires_at = :expires_at",
            condition="NOT contains(#events, :known)",
            values=values,
            names=names,
        )
    except Conflict:
        return


def _report_key(subscription: str, request_id: str) -> tuple[str, str]:
    return f"REPORT#{subscription}#{request_id}", "REPORT"


def sent_pk(destination: str, day: str) -> str:
    return f"SENT#{destination}#{day}"


# How many items of a listing one call reads at most, so that it ends well within its function's time.
MAX_READ, PAGE_SIZE = 2_000, 100


def noted_key(request_id: str) -> tuple[str, str]:
    return f"REQUEST#{request_id}", "NOTED"


def read_noted(item: Item) -> AcceptedRequest:
    return AcceptedRequest(
        item["request_id"],
        item["caller"],
        item["destination"],
        item["object"],
        int(item["count"]),
        Trace(item["correlation_id"], item.get("request_source", "")),
        item["accepted_at"],
    )


def read_all(table: Table, items: list[Item], now: datetime) -> list[Receipt]:
    """Receipts with what their destinations have reported, in the order of the items."""
    accounts: dict[str, str] = {}
    for destination in {item["destination"] for item in items if item["state"] == ACCEPTED}:
        connection = connection_store.find(table, destination)
        accounts[destination] = connection.account_id if connection else ""
    keys = {
        item["correlation_id"]: _report_key(accounts[item["destination"]], item["request_id"])
        for item in items
        if item["state"] == ACCEPTED and item.get("request_id")
    }
    reports = table.get_many(dict.fromkeys(keys.values()))
    return [read(item, now, reports.get(keys.get(item["correlation_id"], ("", "")))) for item in items]


def read(item: Item, now: datetime, reported: Item | None = None) -> Receipt:
    """A receipt from its item. An open one reads as `unknown` after its deadline, so no sweep is needed."""
    receipt = Receipt(
        correlation_id=item["correlation_id"],
        destination=item["destination"],
        object=item.get("object", ""),
        routes=tuple(item["routes"]),
        count=item["count"],
        bytes=item["bytes"],
        state=item["state"],
        sent_at=item["sent_at"],
        deadline=item["deadline"],
        accepted_at=item.get("accepted_at", ""),
        request_id=item.get("request_id", ""),
        code=item.get("code", ""),
        report=_read_report(reported) if reported else Report(),
        trace=Trace(item.get("caller_correlation_id", ""), item.get("caller_request_source", "")),
    )
    if receipt.state == ACCEPTED and receipt.report.total >= max(receipt.count, 1):
        return replace(receipt, state=FAILED if receipt.report.failed else APPLIED)
    if receipt.state in (SENT, ACCEPTED) and now.timestamp() > receipt.deadline:
        return replace(receipt, state=UNKNOWN)
    return receipt


def _read_report(item: Item) -> Report:
    failed = {name.removeprefix(_FAILED): count for name, count in item.items() if name.startswith(_FAILED) and count}
    times = [event.rpartition(" ")[2] for event in item.get("events", ())]
    return Report(item.get("applied", 0), dict(sorted(failed.items())), max(times, default=""))
