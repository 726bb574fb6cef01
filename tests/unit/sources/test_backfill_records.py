"""The function that runs backfills: SQS events in; report, visibility, log and metrics out."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest
import responses

from portaria.aws import queues
from portaria.connections.request_budget import RequestBudget
from portaria.connections.tokens import cache
from portaria.platforms.kommo import pagination
from portaria.records import routes
from portaria.sources import backfill, reconciliation
from tests.fakes.aws import functions
from tests.fakes.aws.moto_cloud import Cloud, cloud
from tests.fakes.records.contacts import ROUTE, SOURCE, Listing, contact, set_up

PAGE_SIZE = 5


class Harness:
    def __init__(self, stack: Cloud, mock: responses.RequestsMock) -> None:
        self.stack = stack
        self.listing = Listing(mock, [contact(number) for number in range(1, 6)], page_size=PAGE_SIZE)
        set_up(stack)
        self.function = functions.load("backfill_records", stack.environment)
        self.log = io.StringIO()
        functions.log_to(self.log)
        self.waits: list[float] = []

    def handle(self, event: dict[str, Any], receives: int = 1) -> set[str]:
        self.waits = []
        for record in event["Records"]:
            record["attributes"]["ApproximateReceiveCount"] = str(receives)

        def give_back(queue_url: str, receipt_handle: str, after_s: float) -> None:
            assert queue_url == self.stack.environment["BACKFILLS_QUEUE_URL"]
            self.waits.append(after_s)

        with patch.object(queues, "give_back", give_back):
            return functions.reported(self.function.handler(event, functions.Context(60)))


@pytest.fixture
def harness() -> Iterator[Harness]:
    cache.PROCESS_CACHE.clear()
    with (
        cloud() as stack,
        responses.RequestsMock(assert_all_requests_are_fired=False) as mock,
        patch.object(RequestBudget, "wait"),
        patch.object(pagination, "PAGE_SIZE", PAGE_SIZE),
    ):
        yield Harness(stack, mock)


def test_backfill_records_sample_events_start_and_finish_a_backfill(
    harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    assert harness.handle(functions.sample("backfill_records", "connection_ready")) == set()
    assert len(harness.stack.receive("backfills")) == 1
    assert harness.handle(functions.sample("backfill_records", "next_pages")) == set()
    assert (harness.stack.table.get(*backfill.key(SOURCE, ROUTE, 1)) or {})["state"] == "done"
    metrics = capsys.readouterr().out
    assert '"BackfillsStarted":[1.0]' in metrics
    assert '"RecordsQueued":[5.0]' in metrics
    assert '"BackfillsDone":[1.0]' in metrics


def test_backfill_records_sample_events_start_and_finish_a_reconciliation(
    harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    harness.handle(functions.sample("backfill_records", "connection_ready"))
    for contact_of in harness.listing.contacts[:2]:
        contact_of["updated_at"] = int(time.time())
    harness.stack.table.update(
        *reconciliation.key(SOURCE, "contacts"),
        "SET due_at = :long_ago",
        values={":long_ago": "2020-01-01T00:00:00.000Z"},
    )
    harness.stack.receive("backfills")
    assert harness.handle(functions.sample("backfill_records", "reconcile_due")) == set()
    assert len(harness.stack.receive("backfills")) == 1
    assert harness.handle(functions.sample("backfill_records", "reconcile_contacts")) == set()
    metrics = capsys.readouterr().out
    assert '"ReconciliationsStarted":[1.0]' in metrics
    assert '"ReconciliationsDone":[1.0]' in metrics
    assert '"RecordsQueued":[2.0]' in metrics


def test_backfill_records_provider_failure_is_reported_and_delayed(harness: Harness) -> None:
    harness.handle(functions.sample("backfill_records", "connection_ready"))
    event = functions.sample("backfill_records", "next_pages")
    harness.listing.before = [(500, {}, ""), (429, {"Retry-After": "60"}, "")]
    assert harness.handle(event, receives=3) == {event["Records"][0]["messageId"]}
    assert harness.waits == [20]
    assert harness.handle(event, receives=4) == {event["Records"][0]["messageId"]}
    assert harness.waits == [60]
    assert harness.handle(event, receives=5) == set()


def test_backfill_records_unexpected_error_is_reported_and_logged_without_its_text(harness: Harness) -> None:
    event = functions.sample("backfill_records", "connection_ready")
    with patch.object(routes, "for_connection", side_effect=ZeroDivisionError("person1@example.com")):
        assert len(harness.handle(event)) == 1
    assert harness.waits == [5]
    assert "ZeroDivisionError" in harness.log.getvalue()
    assert "example.com" not in harness.log.getvalue()


def test_backfill_records_log_holds_no_record_and_no_token(
    harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    harness.handle(functions.sample("backfill_records", "connection_ready"))
    harness.listing.before = [(500, {}, "person1@example.com canary")]
    harness.handle(functions.sample("backfill_records", "next_pages"))
    harness.handle(functions.sample("backfill_records", "next_pages"))
    output = capsys.readouterr()
    text = harness.log.getvalue() + output.out + output.err
    assert "backfill_completed" in text
    for secret in ("example.com", "canary", "Person", "+1555"):
        assert secret not in text
