"""The correlation id and the request source of a caller of accept_records, from the call to the receipt."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import orjson
import pytest

from portaria.core import clock, record_messages
from portaria.core.callbacks import Record
from portaria.core.entities import Trace
from portaria.core.errors import Rejected
from portaria.delivery.pipeline import QueuedMessage
from portaria.records import correlations, dead_letter_redrive, dead_letters, receipt_search, receipts
from portaria.records.mapping import record_mapping
from portaria.records.receipts import AcceptedRequest, Receipt
from tests.fakes.records import ingesting
from tests.fakes.records.contacts import DESTINATION, contact
from tests.fakes.records.ingesting import Harness, body, refusal

TARGET = {"destination": DESTINATION, "object": "persons", "priority": "normal", "options": {"field1": "email"}}
NIGHTLY = {"correlation_id": "nightly-7", "request_source": "export"}


@pytest.fixture
def harness() -> Iterator[Harness]:
    with ingesting.harness() as opened:
        yield opened


def call(harness: Harness, request: str, trace: dict[str, str], *emails: str) -> QueuedMessage:
    """What accept_records stores and sends for a call: a note and a message."""
    receipts.note_request(
        harness.table, request,
        caller="private-integration:pi-7", destination=DESTINATION, object="persons", count=len(emails), trace=Trace(**trace),
    )  # fmt: skip
    (packed,) = record_messages.pack(
        [Record(email, 1_700_000_000, {"email": email}) for email in emails or (f"{request}@example.com",)],
        connection="pi-7", object="persons", origin=record_messages.FRONT_DOOR, read_at=5, request=request, target=TARGET,
        trace=trace,
    )  # fmt: skip
    return QueuedMessage(f"message-{request}", packed)


def sent(harness: Harness) -> list[tuple[str, str]]:
    """The two headers of each request to Marketo."""
    return [(each.headers["X-Correlation-Id"], each.headers["X-Request-Source"]) for each in harness.sent]


def found(harness: Harness, correlation_id: str, **ways: Any) -> list[Receipt | AcceptedRequest]:
    return correlations.search(harness.table, correlation_id, clock.now(), **ways)[0]


def receipt_of(harness: Harness, request: str) -> Receipt:
    (receipt,), _ = receipt_search.of_call(harness.table, request, clock.now())
    return receipt


# --- requests to Marketo


def test_trace_of_one_call_is_sent_with_its_records(harness: Harness) -> None:
    harness.ingest(call(harness, "r-1", NIGHTLY, "a@example.com", "b@example.com"))
    assert sent(harness) == [("nightly-7", "export")]
    assert receipt_of(harness, "r-1").trace == Trace("nightly-7", "export")


def test_trace_missing_headers_use_receipt_id_and_default_source(harness: Harness) -> None:
    harness.ingest(call(harness, "r-1", {}))
    receipt = receipt_of(harness, "r-1")
    assert sent(harness) == [(receipt.correlation_id, "Portaria")]
    assert receipt.trace == Trace()


def test_trace_one_header_only_uses_default_for_the_other(harness: Harness) -> None:
    harness.ingest(call(harness, "r-1", {"request_source": "export"}))
    assert sent(harness) == [(receipt_of(harness, "r-1").correlation_id, "export")]


def test_trace_of_two_messages_of_one_call_is_sent_with_both(harness: Harness) -> None:
    first, second = call(harness, "r-1", NIGHTLY, "a@example.com"), call(harness, "r-1", NIGHTLY, "b@example.com")
    harness.ingest(first, QueuedMessage("other", second.body))
    assert sent(harness) == [("nightly-7", "export")]


@pytest.mark.parametrize("other", [{"correlation_id": "daily"}, {}, NIGHTLY])
def test_trace_of_merged_calls_uses_receipt_id_and_receipt_lists_them(harness: Harness, other: dict[str, str]) -> None:
    harness.ingest(call(harness, "r-1", NIGHTLY), call(harness, "r-2", other))
    receipt = receipt_of(harness, "r-1")
    assert sent(harness) == [(receipt.correlation_id, "Portaria")]
    assert receipt.trace == Trace()
    listed = {each.request_id: each.trace for each in receipt_search.requests_of(harness.table, receipt.correlation_id)}
    assert listed == {"r-1": Trace(**NIGHTLY), "r-2": Trace(**other)}


def test_trace_of_call_merged_with_event_uses_receipt_id(harness: Harness) -> None:
    harness.route("people")
    harness.ingest(call(harness, "r-1", NIGHTLY), QueuedMessage("event", body([contact(1)])))
    assert len(harness.sent) == 1
    assert sent(harness) == [(receipt_of(harness, "r-1").correlation_id, "Portaria")]


@pytest.mark.parametrize("value", ["noturna-é", "a\x7f", " a", "a\tb", "a\r\nX-Mkto-User-Token: b"])
def test_trace_value_invalid_as_header_is_stored_and_not_sent(harness: Harness, value: str) -> None:
    assert harness.ingest(call(harness, "r-1", {"correlation_id": value, "request_source": value})).waiting == {}
    receipt = receipt_of(harness, "r-1")
    assert sent(harness) == [(receipt.correlation_id, "Portaria")]
    assert receipt.trace == Trace(value, value)


# --- waiting and failed records


def test_trace_of_waiting_records_is_kept(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    now = clock.now()
    harness.rule = lambda document: refusal("4290801")
    harness.ingest(call(harness, "r-1", NIGHTLY))
    harness.rule = lambda document: None
    monkeypatch.setattr(clock, "now", lambda: now + timedelta(days=2))
    harness.release()
    assert len(harness.accepted) == 1
    assert sent(harness) == [("nightly-7", "export")] * 2
    assert receipt_of(harness, "r-1").trace == Trace(**NIGHTLY)


def test_trace_of_dead_letter_is_kept_when_redriven(harness: Harness) -> None:
    harness.rule = lambda document: refusal("4000802")
    harness.ingest(call(harness, "r-1", NIGHTLY))
    harness.rule = lambda document: None
    (letter,) = harness.letters()
    assert redriven(harness, letter["id"]).trace == Trace(**NIGHTLY)


def test_trace_of_unhandled_message_is_kept_when_redriven(harness: Harness) -> None:
    delivery = call(harness, "r-1", NIGHTLY)
    letter = dead_letters.of_message(delivery.id, delivery.body)
    dead_letters.put(harness.table, letter)
    assert redriven(harness, letter.id).trace == Trace(**NIGHTLY)


def redriven(harness: Harness, letter_id: str) -> record_mapping.Message:
    url = harness.cloud.url("records")
    outcome = dead_letter_redrive.redrive(harness.table, url, letter_id, again=False, dry_run=False)
    assert outcome.outcome == dead_letters.REDRIVEN
    (queued,) = harness.cloud.queues["records"]
    return record_mapping.read_message("again", queued.body)


def test_redrive_dead_letter_stored_without_trace_has_empty_trace(harness: Harness) -> None:
    delivery = call(harness, "r-1", {})
    letter = dead_letters.of_message(delivery.id, delivery.body)
    dead_letters.put(harness.table, letter)
    pk, sk = dead_letters.part_key(letter.id, 0)
    content = dead_letters.joined([harness.table.get(pk, sk)["data"]])  # type: ignore[index]
    del content["trace"]
    harness.table.put({"pk": pk, "sk": sk, "data": zlib.compress(orjson.dumps(content))})
    assert redriven(harness, letter.id).trace == Trace()


@pytest.mark.parametrize("trace", ["text", ["a"], 7])
def test_read_message_invalid_trace_is_refused(trace: Any) -> None:
    message = {"version": 1, "connection": "c", "object": "o", "origin": "event", "records": [], "trace": trace}
    with pytest.raises(Rejected) as refused:
        record_mapping.read_message("m", orjson.dumps(message).decode())
    assert refused.value.reason == "message_unreadable"


# --- lookup


def test_correlation_search_returns_queued_calls_and_receipts_newest_first(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = clock.now()
    for number in range(3):
        monkeypatch.setattr(clock, "now", lambda number=number: now + timedelta(minutes=number))
        delivery = call(harness, f"r-{number}", NIGHTLY)
        if number != 1:
            harness.ingest(delivery)
    call(harness, "r-other", {"correlation_id": "nightly-70"})
    rows = found(harness, "nightly-7")
    assert [each.request_id if isinstance(each, AcceptedRequest) else "sent" for each in rows] == [
        "sent",
        "r-1",
        "sent",
    ]
    assert [each.trace for each in rows] == [Trace(**NIGHTLY)] * 3
    assert found(harness, "nightly") == []


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 50])
def test_correlation_search_pages_return_each_row_once(harness: Harness, limit: int) -> None:
    """Calls with several receipts, calls without one, and a page that ends within a call."""
    expected = set()
    for number in range(7):
        delivery = call(harness, f"r-{number}", NIGHTLY)
        expected |= {f"r-{number}"} if number % 3 == 0 else set()
        for part in range(number % 3):
            harness.ingest(QueuedMessage(f"{delivery.id}-{part}", delivery.body))
    expected |= {
        receipt.correlation_id
        for n in range(7)
        for receipt in receipt_search.of_call(harness.table, f"r-{n}", clock.now())[0]
    }
    rows: list[str] = []
    cursor = None
    for _ in range(20):
        page, cursor = correlations.search(harness.table, "nightly-7", clock.now(), cursor=cursor, limit=limit)
        assert len(page) <= limit
        rows += [each.request_id if isinstance(each, AcceptedRequest) else each.correlation_id for each in page]
        if not cursor:
            break
    assert not cursor
    assert sorted(rows) == sorted(expected)
    assert len(expected) > 7


def test_correlation_search_cursor_of_longest_id_fits_api_limit(harness: Harness) -> None:
    long_id = "é" * 255
    for number in range(3):
        call(harness, f"r-{number}", {"correlation_id": long_id})
    page, cursor = correlations.search(harness.table, long_id, clock.now(), limit=1)
    assert len(page) == 1
    assert cursor
    assert len(cursor) < 300


@pytest.mark.parametrize("cursor", ["nonsense", "WyIiLCAiIl0", "WzEsIDJd", "e30"])
def test_correlation_search_forged_cursor_is_refused(harness: Harness, cursor: str) -> None:
    with pytest.raises(Rejected) as refused:
        correlations.search(harness.table, "nightly-7", clock.now(), cursor=cursor)
    assert refused.value.reason == "bad_cursor"
