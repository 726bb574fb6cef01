"""Backfills at the edges: messages in; pages over HTTP, progress in the table, records in the queue."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
import requests
import responses

from portaria.aws import queues, sqs_batch
from portaria.connections import connection_store
from portaria.connections.request_budget import RequestBudget
from portaria.connections.tokens import cache, provider
from portaria.core.entities import Route
from portaria.core.errors import Rejected, Retryable
from portaria.core.settings import BackfillRecordsSettings
from portaria.delivery import destination_pause, destination_states
from portaria.delivery.destination_pause import PauseReason
from portaria.outbound import http_client
from portaria.outbound.rate_limiter import RateLimiter
from portaria.platforms.kommo import pagination
from portaria.records import routes
from portaria.sources import backfill, page_reader, reconciliation
from tests.fakes.aws.moto_cloud import Cloud, cloud
from tests.fakes.crashes import Calls, Died, outgoing
from tests.fakes.records.contacts import DESTINATION, HOST, ROUTE, SOURCE, Listing, connect_kommo, contact, set_up

PLENTY_S = 60.0
PAGE_SIZE = 5
PROBLEM = {"Content-Type": "application/problem+json"}
NGINX = (403, {"Content-Type": "text/html"}, "<html>403 Forbidden</html>")


class Harness:
    """The backfills of one stack. `slept` has the pauses of its workers between requests."""

    def __init__(self, stack: Cloud, mock: responses.RequestsMock) -> None:
        self.stack = stack
        self.listing = Listing(mock, [contact(number) for number in range(1, 11)], page_size=PAGE_SIZE)
        self.route = set_up(stack)
        with patch.dict(os.environ, stack.environment):
            self.settings = BackfillRecordsSettings.from_env()

    def ready(self, generation: int = 1, connection: str = SOURCE) -> str:
        return json.dumps(
            {
                "version": "0",
                "detail-type": "connection.ready",
                "source": "portaria",
                "detail": {"connection": connection, "platform": "kommo", "client": "acme", "generation": generation},
            }
        )

    def take(self, body: str, time_left_s: float | Callable[[], float] = PLENTY_S) -> page_reader.ReadingOutcome:
        left = time_left_s if callable(time_left_s) else lambda: time_left_s
        return backfill.handle_message(body, self.settings, left)

    def start(self, generation: int = 1) -> str:
        """The backfill's message."""
        assert self.take(self.ready(generation)).started == 1
        (body,) = self.stack.receive("backfills")
        return body

    def item(self, generation: int = 1, route: str = ROUTE) -> dict[str, Any]:
        return self.stack.table.get(*backfill.key(SOURCE, route, generation)) or {}

    def queued(self) -> list[str]:
        """The keys of the records in the queue. Empties the queue."""
        bodies = self.stack.receive("bulk_records")
        return [record["key"] for body in bodies for record in json.loads(body)["records"]]


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


ALL = [str(number) for number in range(1, 11)]


def test_backfill_start_reconnected_source_clears_destination_pause(harness: Harness) -> None:
    destination_pause.begin(harness.stack.table, SOURCE, "", reason=PauseReason.STOPPED, code="401", for_s=1_800)
    assert harness.take(harness.ready(2)).state == "started"
    assert destination_states.find(harness.stack.table, SOURCE).pauses == ()


def test_backfill_of_an_earlier_version_continues_and_queues_all_contacts(harness: Harness) -> None:
    """Given an item with the number of its next page, as earlier versions stored it, then no contact is omitted."""
    body = harness.start()
    harness.take(body, lambda: 60.0 if not harness.listing.pages else 14.0)
    pk, sk = harness.item()["pk"], harness.item()["sk"]
    harness.stack.table.update(pk, sk, "SET next_page = :two REMOVE next_place, last_key", values={":two": 2})
    (following,) = harness.stack.receive("backfills")
    assert harness.take(following).state == "done"
    assert not {"next_page", "next_place"} & harness.item().keys()
    messages = [json.loads(each) for each in harness.stack.receive("bulk_records")]
    assert {record["key"] for each in messages for record in each["records"]} == {str(n) for n in range(1, 11)}


def test_backfill_connection_ready_queues_all_contacts(harness: Harness) -> None:
    harness.listing.contacts[4] = contact(5, company=7)
    started_ms = int(time.time() * 1000)
    outcome = harness.take(harness.start())
    assert (outcome.state, outcome.pages, outcome.records) == ("done", 3, 10)
    item = harness.item()
    assert (item["state"], item["pages"], item["records"]) == ("done", 3, 10)
    assert item["finished_at"] >= item["started_at"]
    assert "next_place" not in item
    bodies = harness.stack.receive("bulk_records")
    messages = [json.loads(body) for body in bodies]
    assert {message["route"] for message in messages} == {ROUTE}
    assert {message["connection"] for message in messages} == {SOURCE}
    assert {message["object"] for message in messages} == {"contacts"}
    assert {message["origin"] for message in messages} == {"backfill"}
    assert {started_ms <= message["read_at"] <= time.time() * 1000 for message in messages} == {True}
    found = {one["key"]: one["data"] for message in messages for one in message["records"]}
    assert list(found) == ALL
    assert found["5"]["_embedded"]["companies"] == [{"id": 7, "name": "Padaria Exemplo"}]


def test_backfill_account_without_contacts_is_done_with_no_records(harness: Harness) -> None:
    harness.listing.contacts = []
    assert harness.take(harness.start()).state == "done"
    assert harness.queued() == []


def test_backfill_connection_ready_starts_each_route_with_listable_object(harness: Harness) -> None:
    for name, object_name in (("own", "contacts"), ("odd", "tokens"), ("unknown", "leads")):
        routes.put(harness.stack.table, Route(name, f"connection:{SOURCE}", object_name, DESTINATION), new=True)
    routes.put(harness.stack.table, Route("other", "connection:kommo-acme-9", "contacts", DESTINATION), new=True)
    assert harness.take(harness.ready()).started == 2
    started = {json.loads(body)["route"] for body in harness.stack.receive("backfills")}
    assert started == {ROUTE, "own"}


def test_backfill_duplicate_event_starts_one_backfill(harness: Harness) -> None:
    # Given a running backfill, then its message is sent again, as the first may have been lost
    first = harness.start()
    assert harness.start() == first
    # Given a completed backfill, then nothing is sent
    harness.take(first)
    assert harness.take(harness.ready()).started == 0
    assert harness.stack.receive("backfills") == []
    # And a duplicate of its message reads nothing
    harness.queued()
    assert harness.take(first).state == "ignored"
    assert harness.queued() == []


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "7",
        "{}",
        '{"version":1,"connection":"c","route":"r"}',
        '{"detail-type":"connection.ready"}',
        '{"detail-type":"connection.ready","detail":{"connection":"gone","generation":1}}',
        '{"version":1,"connection":"c","route":"r","generation":1}',
    ],
)
def test_backfill_message_invalid_or_unknown_is_ignored(harness: Harness, body: str) -> None:
    assert harness.take(body).state == "ignored"
    assert harness.stack.receive("backfills") == []


def test_backfill_time_runs_out_continues_at_same_page_by_new_message(harness: Harness) -> None:
    # Given time for two pages
    body = harness.start()
    outcome = harness.take(body, lambda: 60.0 if len(harness.listing.pages) < 2 else 14.0)
    assert (outcome.state, outcome.pages) == ("running", 2)
    assert (harness.item()["next_place"], harness.item()["last_key"]) == (9, "8")
    # Then a new message continues with the rest
    (following,) = harness.stack.receive("backfills")
    assert following == body
    assert harness.take(following).state == "done"
    assert len(harness.listing.pages) == 3
    assert harness.queued() == ALL


@pytest.mark.parametrize("deleted", [[1], [1, 2, 3, 4, 5]])
def test_backfill_record_deleted_between_pages_hides_no_other(harness: Harness, deleted: list[int]) -> None:
    # Given a backfill that has read one page
    body = harness.start()
    harness.take(body, _seconds(2))
    assert harness.item()["pages"] == 1
    # When records of that page are deleted, which moves the later ones to the front
    harness.listing.contacts = [each for each in harness.listing.contacts if each["id"] not in deleted]
    # Then all others are queued
    assert harness.take(body).state == "done"
    assert set(harness.queued()) == set(ALL)


def test_backfill_of_earlier_version_continues_at_its_page(harness: Harness) -> None:
    # Given a backfill whose item has no last key
    body = harness.start()
    harness.take(body, _seconds(2))
    harness.stack.table.update(*backfill.key(SOURCE, ROUTE, 1), "REMOVE last_key")
    assert harness.take(body).state == "done"
    assert set(harness.queued()) == set(ALL)


def test_backfill_delivery_without_time_is_retried(harness: Harness) -> None:
    body = harness.start()
    with pytest.raises(Retryable, match="short_of_time"):
        harness.take(body, 14.0)
    assert harness.stack.receive("backfills") == []


@pytest.mark.parametrize(
    ("answer", "after_s"),
    [
        ((429, PROBLEM, json.dumps({"status": 429, "retry_after": 7})), 7),
        ((429, {"Retry-After": "30"}, ""), 30),
        (NGINX, 30),
        ((500, {}, ""), None),
        ((200, {}, "<html>"), None),
        (requests.exceptions.ReadTimeout(), None),
    ],
)
def test_backfill_page_read_failure_is_retried_at_same_page(
    harness: Harness, answer: Any, after_s: float | None
) -> None:
    body = harness.start()
    harness.listing.before = [answer]
    with pytest.raises(Retryable) as later:
        harness.take(body)
    assert later.value.after_s == after_s
    assert harness.item()["next_place"] == 1
    assert harness.take(body).state == "done"
    assert harness.queued() == ALL


def test_backfill_failure_after_progress_continues_by_delayed_message(harness: Harness) -> None:
    body = harness.start()
    seen: list[float] = []
    send = queues.send

    def watching(queue_url: str, bodies: list[str], *, delay_s: float = 0, tenant: str = "") -> None:
        if queue_url == harness.settings.backfills_queue_url:
            seen.append(delay_s)
            delay_s = 0
        send(queue_url, bodies, delay_s=delay_s, tenant=tenant)

    harness.listing.before = [None, (429, {"Retry-After": "9"}, ""), None, (500, {}, "")]
    with patch.object(queues, "send", watching):
        for _ in range(2):
            assert harness.take(body).state == "running"
            (body,) = harness.stack.receive("backfills")
        assert harness.take(body).state == "done"
    assert seen == [9, page_reader.PAUSE_S]
    assert harness.queued() == ALL


def test_sqs_batch_wait_s_doubles_from_five_seconds_to_five_minutes() -> None:
    assert [sqs_batch.wait_s(None, receives) for receives in (1, 2, 3, 7, 20)] == [5, 10, 20, 300, 300]
    assert sqs_batch.wait_s(30, 1) == 30
    assert sqs_batch.wait_s(1, 3) == 20


def test_backfill_worker_killed_at_any_call_completes_on_redelivery(harness: Harness) -> None:
    """Before and after each call, found by counting. At worst one page is queued twice, and counted once."""
    cases = 0
    for generation in range(1, 200):
        if not _dies_at_call(harness, generation):
            break
        cases += 1
    assert cases >= 2 * (3 * 3 + 3)


def _dies_at_call(harness: Harness, generation: int) -> bool:
    """Run a backfill in which the process crashes before or after call `generation // 2`."""
    cache.PROCESS_CACHE.clear()
    harness.listing.tokens.add(f"canary-access-{generation}")
    connect_kommo(harness.stack, generation)
    body = harness.start(generation)
    number, after = divmod(generation - 1, 2)
    with outgoing(Calls(number + 1, "after" if after else "before")):
        died = True
        with suppress(Died):
            harness.take(body)
            died = False
    state = harness.item(generation)["state"]
    assert state in ("running", "done")
    assert harness.take(body).state == ("done" if state == "running" else "ignored")
    item = harness.item(generation)
    assert (item["state"], item["pages"], item["records"]) == ("done", 3, 10)
    keys = harness.queued()
    assert set(keys) == set(ALL)
    assert len(keys) <= len(ALL) + PAGE_SIZE
    return died


def test_backfill_concurrent_workers_count_each_page_once(harness: Harness) -> None:
    # Given a worker that has read page 1 while another one advances the backfill
    body = harness.start()
    read = harness.listing.pages

    def overtake(self: Any, item: Any, page: Any, check_off: Any = backfill._BackfillReading._check_off) -> Any:
        if len(read) == 1:
            with patch.object(backfill._BackfillReading, "_check_off", check_off):
                assert harness.take(body, _seconds(1)).state == "running"
        return check_off(self, item, page)

    # When it marks the page as done, then it leaves the backfill alone for a while
    with (
        patch.object(backfill._BackfillReading, "_check_off", overtake),
        pytest.raises(Retryable, match="in_progress") as later,
    ):
        harness.take(body)
    assert later.value.after_s == backfill.LEAVE_TO_OTHER_S
    assert harness.item()["pages"] == 1
    assert harness.take(body).state == "done"
    assert harness.item()["records"] == 10
    assert set(harness.queued()) == set(ALL)


def _seconds(requests_left: int) -> Callable[[], float]:
    times = iter([PLENTY_S] * requests_left)
    return lambda: next(times, 0.0)


def test_backfill_reinstalled_connection_continues_with_newer_token(harness: Harness) -> None:
    body = harness.start()
    harness.take(body, _seconds(2))
    # Given a reinstall, after which the old token is refused
    connect_kommo(harness.stack, 2)
    harness.listing.tokens = {"canary-access-2"}
    assert harness.take(body).state == "done"
    assert harness.queued() == ALL


def test_backfill_reinstalled_during_a_page_does_not_fail(harness: Harness) -> None:
    body = harness.start()
    newer = provider.TokenProvider.refresh_after_401

    def reinstall(*given: Any) -> Any:
        connect_kommo(harness.stack, 2)
        return newer(*given)

    harness.listing.tokens = {"canary-access-2"}
    with patch.object(provider.TokenProvider, "refresh_after_401", reinstall):
        assert harness.take(body).state == "done"


def test_backfill_token_refused_fails_until_next_install(harness: Harness) -> None:
    body = harness.start()
    harness.listing.tokens = set()
    assert harness.take(body).state == "failed"
    item = harness.item()
    assert (item["state"], item["reason"]) == ("failed", "token_refused")
    assert item["finished_at"]
    # And the next install starts a new backfill
    connect_kommo(harness.stack, 2)
    harness.listing.tokens = {"canary-access-2"}
    assert harness.take(harness.start(2)).state == "done"
    assert harness.queued() == ALL


@pytest.mark.parametrize("status", [402, 403])
def test_backfill_account_that_refuses_to_be_read_fails_at_once(harness: Harness, status: int) -> None:
    body = harness.start()
    harness.listing.before = [(status, PROBLEM, json.dumps({"status": status}))]
    assert harness.take(body).state == "failed"
    item = harness.item()
    assert (item["state"], item["reason"]) == ("failed", "platform_refused")
    assert str(status) in item["detail"]
    assert harness.stack.receive("backfills") == []


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        (lambda harness: harness.stack.table.delete(*connection_store.key(SOURCE)), "unknown_connection"),
        (lambda harness: routes.delete(harness.stack.table, ROUTE), "unknown_route"),
        (
            lambda harness: harness.stack.table.put(
                connection_store.to_item(
                    replace(connection_store.get(harness.stack.table, SOURCE), state="needs_reconnect")
                )
            ),
            "needs_reconnect",
        ),
        (
            lambda harness: harness.stack.table.put(
                connection_store.to_item(
                    replace(connection_store.get(harness.stack.table, SOURCE), secret_id="portaria/grants/none")
                )
            ),
            "no_credentials",
        ),
    ],
)
def test_backfill_connection_or_route_unusable_fails_with_reason(
    harness: Harness, break_it: Callable[[Harness], None], reason: str
) -> None:
    body = harness.start()
    break_it(harness)
    assert harness.take(body).state == "failed"
    assert harness.item()["reason"] == reason
    assert harness.listing.pages == []


def test_backfill_oversized_contact_is_marked_refused_and_others_are_queued(harness: Harness) -> None:
    harness.listing.contacts[1]["name"] = "é" * 600_000
    assert harness.take(harness.start()).records == 10
    found = [one for body in harness.stack.receive("bulk_records") for one in json.loads(body)["records"]]
    assert [one["key"] for one in found] == ALL
    assert [one["key"] for one in found if "refused" in one] == ["2"]


def test_rate_limiter_wait_spaces_requests_evenly() -> None:
    times: list[float] = []
    now = 100.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    with (
        patch.object(time, "monotonic", lambda: now),
        patch.object(time, "sleep", sleep),
    ):
        limiter = RateLimiter(3.0)
        for took in (0.0, 0.1, 0.5, 0.0, 0.0):
            limiter.wait()
            times.append(round(now - 100, 3))
            now += took
    assert times == [0.0, 0.333, 0.667, 1.167, 1.5]


def test_backfill_requests_use_account_host_as_allowed_domain(harness: Harness) -> None:
    with patch.object(http_client, "send", wraps=http_client.send) as send:
        harness.take(harness.start())
    assert {call.kwargs["allowed_domain"] for call in send.call_args_list} == {HOST}


def test_backfill_records_are_queued_with_connection_as_tenant(harness: Harness) -> None:
    with patch.object(queues, "send", wraps=queues.send) as send:
        harness.take(harness.start())
    tenants = {call.args[0]: call.kwargs.get("tenant", "") for call in send.call_args_list}
    assert tenants[harness.settings.bulk_records_queue_url] == SOURCE
    assert harness.stack.receive("records") == []


def test_backfill_start_creates_reconciliation_from_that_time(harness: Harness) -> None:
    before = int(time.time())
    harness.start()
    (item,) = reconciliation.of_connection(harness.stack.table, SOURCE)
    assert (item["object"], item["cursor"]) == ("contacts", "")
    assert before <= item["since"] <= time.time()


class TestManualBackfills:
    def start(self, harness: Harness, route: str | None = None) -> dict[str, str]:
        connection = connection_store.get(harness.stack.table, SOURCE)
        return backfill.start(harness.stack.table, harness.settings.backfills_queue_url, connection, route)

    def test_backfill_manual_start_when_done_starts_again(self, harness: Harness) -> None:
        harness.take(harness.start())
        harness.queued()
        assert self.start(harness) == {ROUTE: "running"}
        item = harness.item()
        assert (item["state"], item["next_place"], item["pages"], item["records"]) == ("running", 1, 0, 0)
        assert "finished_at" not in item
        (body,) = harness.stack.receive("backfills")
        assert harness.take(body).state == "done"
        assert harness.queued() == ALL

    def test_backfill_manual_start_when_failed_clears_reason(self, harness: Harness) -> None:
        body = harness.start()
        harness.listing.tokens = set()
        assert harness.take(body).state == "failed"
        harness.listing.tokens = {"canary-access-1"}
        self.start(harness)
        assert {"reason", "detail", "finished_at"} & set(harness.item()) == set()
        (body,) = harness.stack.receive("backfills")
        assert harness.take(body).state == "done"

    def test_backfill_manual_start_when_running_sends_second_message(self, harness: Harness) -> None:
        body = harness.start()
        harness.take(body, _seconds(2))
        harness.stack.receive("backfills")
        assert self.start(harness) == {ROUTE: "running"}
        assert harness.item()["next_place"] == 6
        assert harness.stack.receive("backfills") == [body]

    def test_backfill_manual_start_of_older_generation_running_continues_it(self, harness: Harness) -> None:
        body = harness.start()
        connect_kommo(harness.stack, 4)
        self.start(harness)
        assert harness.stack.receive("backfills") == [body]
        assert harness.item(4) == {}

    def test_backfill_manual_start_of_route_created_later_reads_only_that_route(self, harness: Harness) -> None:
        harness.take(harness.start())
        routes.put(harness.stack.table, Route("late", f"connection:{SOURCE}", "contacts", DESTINATION), new=True)
        assert self.start(harness, "late") == {"late": "running"}
        (body,) = harness.stack.receive("backfills")
        assert json.loads(body)["route"] == "late"
        assert harness.item()["state"] == "done"

    def test_backfill_worker_of_previous_run_does_not_advance_the_new_one(self, harness: Harness) -> None:
        """Both are at page 1; the older one has read the list before it was restarted."""
        body = harness.start()

        def begin_anew(self: Any, item: Any, page: Any, check_off: Any = backfill._BackfillReading._check_off) -> Any:
            harness.stack.table.update(
                *backfill.key(SOURCE, ROUTE, 1), "SET started_at = :later", values={":later": "2999-01-01"}
            )
            return check_off(self, item, page)

        with (
            patch.object(backfill._BackfillReading, "_check_off", begin_anew),
            pytest.raises(Retryable, match="in_progress"),
        ):
            harness.take(body)
        assert harness.item()["next_place"] == 1

    @pytest.mark.parametrize(
        ("break_it", "route", "reason", "status"),
        [
            (lambda harness: None, "other", "unknown_route", 404),
            (lambda harness: routes.delete(harness.stack.table, ROUTE), None, "nothing_to_read", 409),
            (
                lambda harness: harness.stack.table.put(
                    connection_store.to_item(
                        replace(connection_store.get(harness.stack.table, SOURCE), state="needs_reconnect")
                    )
                ),
                None,
                "not_connected",
                409,
            ),
        ],
    )
    def test_backfill_manual_start_not_readable_is_refused_with_reason(
        self, harness: Harness, break_it: Callable[[Harness], None], route: str | None, reason: str, status: int
    ) -> None:
        break_it(harness)
        with pytest.raises(Rejected) as refused:
            self.start(harness, route)
        assert (refused.value.reason, refused.value.status) == (reason, status)
        assert harness.stack.receive("backfills") == []
