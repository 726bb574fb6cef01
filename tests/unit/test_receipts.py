"""What became of a request, through repetition, races and time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from portaria import clock, receipts
from portaria.table import Conflict, Table
from tests.fakes.aws import cloud

BODY = b'{"persons":[{"email":"person1@example.com"}]}'
ID = receipts.correlation_id("marketo-one", ["m1"], BODY)


@pytest.fixture
def table() -> Iterator[Table]:
    with cloud() as stack:
        yield stack.table


def open_receipt(table: Table) -> None:
    receipts.open_receipt(table, ID, "marketo-one", ["people", "people", "leads"], 1, len(BODY))


def state(table: Table, after: timedelta = timedelta()) -> str:
    receipt = receipts.find(table, ID, clock.now() + after)
    assert receipt
    return receipt.state


def test_the_id_is_decided_by_what_is_sent_where_and_for_which_messages() -> None:
    assert len(ID) <= 255
    assert receipts.correlation_id("marketo-one", ["m2", "m1", "m2"], BODY) == receipts.correlation_id(
        "marketo-one", iter(["m1", "m2"]), BODY
    )
    others = [
        receipts.correlation_id("marketo-two", ["m1"], BODY),
        receipts.correlation_id("marketo-one", ["m2"], BODY),
        receipts.correlation_id("marketo-one", ["m1", "m2"], BODY),
        receipts.correlation_id("marketo-one", ["m1"], BODY + b" "),
    ]
    assert len({ID, *others}) == 5


def test_an_accepted_request_keeps_its_request_id(table: Table) -> None:
    open_receipt(table)
    assert state(table) == "sent"
    receipts.accept(table, ID, "request-1")
    receipt = receipts.find(table, ID, clock.now())
    assert receipt
    assert (receipt.state, receipt.request_id, receipt.count, receipt.bytes) == ("accepted", "request-1", 1, len(BODY))
    assert receipt.routes == ("leads", "people")
    assert receipt.accepted_at >= receipt.sent_at


def test_a_request_that_was_accepted_is_not_opened_again(table: Table) -> None:
    open_receipt(table)
    receipts.accept(table, ID, "request-1")
    with pytest.raises(Conflict):
        open_receipt(table)
    assert state(table) == "accepted"


def test_a_refused_request_may_be_sent_again_on_the_same_receipt(table: Table) -> None:
    open_receipt(table)
    receipts.fail(table, ID, "5000801", "request-1")
    receipt = receipts.find(table, ID, clock.now())
    assert receipt
    assert (receipt.state, receipt.code, receipt.request_id) == ("failed", "5000801", "request-1")
    open_receipt(table)
    receipts.accept(table, ID, "request-2")
    receipt = receipts.find(table, ID, clock.now())
    assert receipt
    assert (receipt.state, receipt.code, receipt.request_id) == ("accepted", "", "request-2")


def test_a_slower_worker_does_not_undo_an_acceptance(table: Table) -> None:
    open_receipt(table)
    receipts.accept(table, ID, "request-1")
    receipts.fail(table, ID, "5000801", "request-2")
    assert state(table) == "accepted"


def test_an_open_receipt_is_unknown_after_its_deadline(table: Table) -> None:
    open_receipt(table)
    for accepted in (False, True):
        if accepted:
            receipts.accept(table, ID, "request-1")
        assert state(table, timedelta(hours=23, minutes=59)) == ("accepted" if accepted else "sent")
        assert state(table, timedelta(hours=24, minutes=1)) == "unknown"


def test_a_refusal_stays_known(table: Table) -> None:
    open_receipt(table)
    receipts.fail(table, ID, "4000802", "")
    assert state(table, timedelta(days=2)) == "failed"


def test_receipts_are_listed_by_destination_and_time(table: Table) -> None:
    open_receipt(table)
    (item,) = table.query_all("RECEIPTS#marketo-one", index="listing")
    assert item["correlation_id"] == ID
    assert item["list_sk"] == item["sent_at"]
    assert item["expires_at"] > item["deadline"]


def test_there_is_no_receipt_for_what_was_never_sent(table: Table) -> None:
    assert receipts.find(table, "none", clock.now()) is None
