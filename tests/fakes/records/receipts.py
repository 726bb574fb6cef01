"""Receipts of requests to a destination, and notes of accept_records."""

from __future__ import annotations

from portaria.aws.table import Table
from portaria.core.entities import NO_TRACE, Trace
from portaria.records import receipts

BODY = b'{"persons":[{"email":"person1@example.com"}]}'


ID = receipts.correlation_id("marketo-one", "persons", ["m1"], BODY)


def open_receipt(
    table: Table,
    correlation_id: str = ID,
    *,
    destination: str = "marketo-one",
    count: int = 1,
    keys: tuple[str, ...] = ("kommo-acme/1",),
    requests: tuple[str, ...] = (),
    trace: Trace = NO_TRACE,
) -> None:
    receipts.open_receipt(
        table,
        correlation_id,
        destination=destination,
        object="persons",
        routes=["people", "people", "leads"],
        count=count,
        size=len(BODY),
        keys=list(keys),
        requests=list(requests),
        trace=trace,
    )


def note(table: Table, request_id: str, correlation_id: str = "theirs") -> None:
    receipts.note_request(
        table,
        request_id,
        caller="0123456789",
        destination="marketo-one",
        object="persons",
        count=3,
        trace=Trace(correlation_id),
    )
