"""Reconciliations at the edges: messages in; changes over HTTP, progress in the table, records in the queue."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

import pytest
import responses

from portaria.aws import due_index, queues
from portaria.aws.table import Item
from portaria.connections import connection_store, oauth_clients
from portaria.connections.request_budget import BudgetExhausted, RequestBudget
from portaria.connections.tokens import cache
from portaria.connections.vault import Vault
from portaria.core import clock
from portaria.core.callbacks import OAuthClient, Secret
from portaria.core.entities import Route
from portaria.core.errors import Retryable
from portaria.core.settings import BackfillRecordsSettings
from portaria.outbound.request_slots import Priority
from portaria.platforms.kommo import pagination
from portaria.records import reconciliation_schedule, reconciliation_wakeups, reread_requests, routes
from portaria.sources import backfill, page_reader, reconciliation
from portaria.webhooks import event_receiver
from tests.fakes.api.manage import empty
from tests.fakes.aws.moto_cloud import PREFIX, Cloud, cloud
from tests.fakes.crashes import Calls, Died, outgoing
from tests.fakes.records.contacts import DESTINATION, ROUTE, SOURCE, Listing, connect_kommo, contact, set_up

DUE = json.dumps({"reconcile": "due"})
START = datetime(2026, 3, 1, 12, tzinfo=UTC)
PLENTY_S = 60.0


class Harness:
    """The reconciliations of one stack, whose backfill started at `START`, with four contacts a page.

    `now` is the time, for the platform as well.
    """

    def __init__(self, stack: Cloud, mock: responses.RequestsMock) -> None:
        self.stack = stack
        self.now = START
        self.listing = Listing(mock, [contact(number) for number in range(1, 6)])
        self.listing.take_webhooks(mock)
        set_up(stack)
        with patch.dict(os.environ, stack.environment):
            self.settings = BackfillRecordsSettings.from_env()

    def use_endpoints(self, endpoints: str) -> None:
        self.settings = BackfillRecordsSettings(**{**vars(self.settings), "event_endpoints": endpoints})

    def begin(self) -> None:
        """As a backfill does when it starts."""
        reconciliation.begin(self.stack.table, connection_store.get(self.stack.table, SOURCE), "contacts")

    def change(self, number: int, seconds: float = 0) -> None:
        """A contact is created or changed this many seconds ago, and its event is lost."""
        self.listing.contacts = [each for each in self.listing.contacts if each["id"] != number]
        updated_at = int(self.now.timestamp() - seconds)
        self.listing.contacts.append(contact(number, updated_at=updated_at))

    def take(self, body: str, time_left_s: float | Callable[[], float] = PLENTY_S) -> page_reader.ReadingOutcome:
        left = time_left_s if callable(time_left_s) else lambda: time_left_s
        return backfill.handle_message(body, self.settings, left)

    def due(self, after: timedelta = timedelta(hours=1)) -> list[str]:
        """The messages that a sweep queues after this time."""
        self.now += after
        self.take(DUE)
        return self.stack.receive("backfills")

    def reconcile(self, after: timedelta = timedelta(hours=1)) -> set[str]:
        """The keys of the records that the next reconciliation queues, in all its runs."""
        waiting = self.due(after)
        assert waiting
        while waiting:
            self.take(waiting.pop(0))
            waiting += self.stack.receive("backfills")
        return set(self.queued())

    @property
    def item(self) -> Item:
        return self.stack.table.get(*reconciliation.key(SOURCE, "contacts")) or {}

    def queued(self) -> list[str]:
        """The keys of the records in the queue. Empties the queue."""
        bodies = self.stack.receive("bulk_records")
        return [record["key"] for body in bodies for record in json.loads(body)["records"]]


@pytest.fixture(scope="module")
def stack() -> Iterator[Cloud]:
    with cloud() as stack:
        yield stack


@pytest.fixture
def harness(stack: Cloud) -> Iterator[Harness]:
    cache.PROCESS_CACHE.clear()
    reconciliation_wakeups.forget()
    with (
        responses.RequestsMock(assert_all_requests_are_fired=False) as mock,
        patch.object(RequestBudget, "wait"),
        patch.object(reconciliation, "SPREAD_S", 0),
        patch.object(pagination, "PAGE_SIZE", 4),
    ):
        harness = Harness(stack, mock)
        with patch.object(clock, "now", lambda: harness.now):
            harness.begin()
            yield harness
    empty()
    for queue in ("backfills", "bulk_records"):
        stack.receive(queue)


def test_reconciliation_due_queues_changed_contacts(harness: Harness) -> None:
    harness.now += timedelta(minutes=10)
    harness.change(3)
    harness.change(77)
    (body,) = harness.due()
    outcome = harness.take(body)
    assert (outcome.state, outcome.pages, outcome.records) == ("reconciled", 1, 2)
    (queued,) = harness.stack.receive("bulk_records")
    message = json.loads(queued)
    assert (message["connection"], message["object"], message["origin"]) == (SOURCE, "contacts", "reconciliation")
    # It uses all routes of the source, whatever route the backfill was for.
    assert message["route"] == ""
    assert message["read_at"] == int(harness.now.timestamp() * 1000)
    assert {record["key"] for record in message["records"]} == {"3", "77"}
    assert harness.stack.receive("records") == []


# --- an event lacked what a mapping needs


def test_reconciliation_sweep_reads_account_with_reread_request(harness: Harness) -> None:
    harness.reconcile()
    harness.now += timedelta(minutes=1)
    harness.change(3)
    reread_requests.request(harness.stack.table, SOURCE, "contacts", int(harness.now.timestamp()))
    assert harness.reconcile(timedelta(minutes=1)) == {"3"}
    assert reread_requests.find(harness.stack.table, SOURCE, "contacts") is None
    assert harness.due(timedelta(minutes=1)) == []


def test_reread_request_during_reading_is_read_by_next_sweep(harness: Harness) -> None:
    harness.reconcile()
    reread_requests.request(harness.stack.table, SOURCE, "contacts", int(harness.now.timestamp()))
    (body,) = harness.due(timedelta(minutes=1))

    def event_arrives() -> None:
        harness.now += timedelta(seconds=2)
        reread_requests.request(harness.stack.table, SOURCE, "contacts", int(harness.now.timestamp()))

    harness.listing.meanwhile = event_arrives
    harness.take(body)
    harness.listing.meanwhile = lambda: None
    harness.change(4)
    assert harness.reconcile(timedelta(minutes=1)) == {"4"}


def test_reread_request_with_message_queued_before_settlement_is_read(harness: Harness) -> None:
    harness.reconcile()
    reread_requests.request(harness.stack.table, SOURCE, "contacts", int(harness.now.timestamp()))
    (body,) = harness.due(timedelta(minutes=1))
    # Another worker completes a reading that began before the request.
    settled = {":settled_at": clock.to_iso(harness.now + timedelta(seconds=5))}
    key = reconciliation.key(SOURCE, "contacts")
    harness.stack.table.update(*key, "SET settled_at = :settled_at", values=settled)
    harness.change(5)
    assert harness.take(body).state == "reconciled"


def test_reread_request_without_backfill_starts_reconciliation(harness: Harness) -> None:
    harness.stack.table.delete(*reconciliation.key(SOURCE, "contacts"))
    harness.change(3)
    changed_at = int(harness.now.timestamp())
    harness.now += timedelta(hours=2)
    reread_requests.request(harness.stack.table, SOURCE, "contacts", changed_at)
    assert harness.reconcile(timedelta(minutes=1)) == {"3"}
    assert [item["object"] for item in reconciliation.of_connection(harness.stack.table, SOURCE)] == ["contacts"]


@pytest.mark.parametrize("is_older_first", [True, False])
def test_reread_requests_of_old_and_new_event_start_reconciliation_at_the_older(
    harness: Harness, is_older_first: bool
) -> None:
    # Given a route that is newer than the account's last backfill
    harness.stack.table.delete(*reconciliation.key(SOURCE, "contacts"))
    # And an event that Kommo has delivered an hour late, beside one of now
    harness.change(3, seconds=3_600)
    harness.change(4)
    now = int(harness.now.timestamp())
    for changed_at in (now - 3_600, now) if is_older_first else (now, now - 3_600):
        reread_requests.request(harness.stack.table, SOURCE, "contacts", changed_at)
    # Then both contacts are read
    assert harness.reconcile(timedelta(minutes=1)) == {"3", "4"}


def test_reread_request_that_is_overdue_keeps_its_place_when_repeated(harness: Harness) -> None:
    first = clock.to_iso(harness.now)
    for _ in range(3):
        reread_requests.request(harness.stack.table, SOURCE, "contacts", int(harness.now.timestamp()))
        harness.now += timedelta(minutes=1)
    request = reread_requests.find(harness.stack.table, SOURCE, "contacts")
    assert request
    assert request["due_at"] == first
    assert request["requested_at"] == int(harness.now.timestamp()) - 60


def test_reread_request_of_removed_connection_is_deleted(harness: Harness) -> None:
    reread_requests.request(harness.stack.table, SOURCE, "contacts", int(harness.now.timestamp()))
    connection = connection_store.get(harness.stack.table, SOURCE)
    harness.stack.table.put(connection_store.to_item(replace(connection, state="removed")))
    for body in harness.due(timedelta(minutes=1)):
        assert harness.take(body).state == "ended"
    assert reread_requests.find(harness.stack.table, SOURCE, "contacts") is None


def test_reconciliation_record_version_is_at_most_time_of_reading(harness: Harness) -> None:
    harness.change(3, seconds=-14_400)
    (body,) = harness.due(timedelta(hours=1))
    harness.take(body)
    (queued,) = harness.stack.receive("bulk_records")
    message = json.loads(queued)
    assert [record["updated_at"] for record in message["records"]] == [message["read_at"] // 1_000]


def test_reconciliation_starts_at_previous_start_minus_overlap(harness: Harness) -> None:
    harness.now += timedelta(minutes=10)
    harness.change(3)
    assert harness.reconcile() == {"3"}
    assert harness.item["since"] == int(harness.now.timestamp())
    # Changes dated earlier that appear in the list only now
    harness.change(4, seconds=reconciliation.OVERLAP_S - 1)
    harness.change(5, seconds=reconciliation.OVERLAP_S + 1)
    assert harness.reconcile() == {"4"}
    assert harness.reconcile() == set()


def test_reconciliation_reads_changes_during_backfill(harness: Harness) -> None:
    harness.change(1)
    assert harness.reconcile() == {"1"}


def test_reconciliation_reads_all_pages_without_gaps(harness: Harness) -> None:
    harness.now += timedelta(minutes=10)
    for number in range(10, 21):
        harness.change(number, seconds=100 - number // 2)
    assert harness.reconcile() == {str(number) for number in range(10, 21)}
    assert (harness.item["cursor"], "asked_at" in harness.item) == ("", False)


@pytest.mark.parametrize("count", [4, 9])
def test_reconciliation_second_that_fills_pages_is_read_completely(harness: Harness, count: int) -> None:
    """An import: all contacts have the same second. There are others before and after it."""
    harness.now += timedelta(minutes=10)
    harness.change(50, seconds=60)
    for number in range(100, 100 + count):
        harness.change(number, seconds=40)
    harness.change(60, seconds=20)
    assert harness.reconcile() == {"50", "60", *(str(number) for number in range(100, 100 + count))}


@pytest.mark.parametrize(("same_second", "moment"), [(False, 1), (True, 3)])
def test_reconciliation_record_changed_during_reading_hides_no_other(
    harness: Harness, moment: int, same_second: bool
) -> None:
    """A changed contact moves to the end of the list, and the following ones move up. test_kommo_changes has more cases."""
    harness.now += timedelta(minutes=10)
    for number in range(10, 24):
        harness.change(number, seconds=100 if same_second else 100 - number)
    requests = 0

    def meanwhile() -> None:
        nonlocal requests
        requests += 1
        if requests == moment + 1:
            harness.now += timedelta(seconds=1)
            harness.change(10)
            harness.change(12)

    harness.listing.meanwhile = meanwhile
    found = harness.reconcile()
    harness.listing.meanwhile = lambda: None
    assert found | harness.reconcile() >= {str(number) for number in range(10, 24)}
    assert found >= {str(number) for number in range(10, 24)} - {"10", "12"}


def test_reconciliation_of_constantly_changing_account_ends(harness: Harness) -> None:
    numbers = iter(range(1_000, 9_000))

    def meanwhile() -> None:
        harness.now += timedelta(seconds=1)
        for _ in range(6):
            harness.change(next(numbers))

    harness.now += timedelta(minutes=10)
    asked_at = harness.now + timedelta(hours=1)
    harness.listing.meanwhile = meanwhile
    assert "1000" in harness.reconcile()
    assert len(harness.listing.pages) < 10
    # The next reconciliation reads what changed meanwhile.
    assert harness.item["since"] == int(asked_at.timestamp())


def test_reconciliation_worker_killed_at_any_call_completes_on_redelivery(harness: Harness) -> None:
    """Before and after each call, found by counting: its message is received again."""
    cases = 0
    while _dies_at_call(harness, cases):
        cases += 1
    assert cases >= 2 * (3 * 3 + 3)


def _dies_at_call(harness: Harness, case: int) -> bool:
    cache.PROCESS_CACHE.clear()
    harness.now += timedelta(hours=1)
    wanted = range(100, 110)
    for number in wanted:
        harness.change(number, seconds=number)
    (body,) = harness.due(timedelta(minutes=5))
    number, after = divmod(case, 2)
    with outgoing(Calls(number + 1, "after" if after else "before")):
        died = True
        with suppress(Died):
            harness.take(body)
            died = False
    assert harness.take(body).state in ("reconciled", "ignored")
    keys = harness.queued()
    assert {str(number) for number in wanted} == set(keys)
    # At most one page twice, and the records that end one page and begin the next.
    assert len(keys) <= len(wanted) + 3 + 4
    assert harness.item["cursor"] == ""
    return died


def test_reconciliation_queue_failure_keeps_start_time(harness: Harness) -> None:
    since = harness.item["since"]
    harness.change(3)
    (body,) = harness.due()
    with patch.object(queues, "send", side_effect=Retryable("queue_unavailable", "no")):
        with pytest.raises(Retryable):
            harness.take(body)
        assert harness.item["since"] == since
    assert harness.take(body).records == 1


def test_reconciliation_time_runs_out_continues_at_same_place_by_new_message(harness: Harness) -> None:
    harness.now += timedelta(minutes=10)
    for number in range(10, 20):
        harness.change(number, seconds=100 - number)
    (body,) = harness.due()
    asked_at = int(harness.now.timestamp())
    assert harness.take(body, lambda: 60.0 if len(harness.listing.pages) < 2 else 14.0).state == "reconciling"
    assert harness.item["cursor"]
    (following,) = harness.stack.receive("backfills")
    assert following == body
    harness.now += timedelta(minutes=1)
    assert harness.take(following).state == "reconciled"
    assert set(harness.queued()) == {str(number) for number in range(10, 20)}
    # All runs are one reconciliation: the next one reads what changed after the first run began.
    assert harness.item["since"] == asked_at


def test_reconciliation_without_progress_is_retried(harness: Harness) -> None:
    (body,) = harness.due()
    harness.listing.before = [(429, {"Retry-After": "30"}, "")]
    with pytest.raises(Retryable, match="rate_limited") as later:
        harness.take(body)
    assert later.value.after_s == 30
    with pytest.raises(Retryable, match="short_of_time"):
        harness.take(body, 14.0)
    assert harness.take(body).state == "reconciled"


def test_reconciliation_concurrent_workers_only_one_advances(harness: Harness) -> None:
    harness.change(3)
    (body,) = harness.due()
    move_on = reconciliation._Reconciling._move_on

    def overtake(self: Any, *given: Any) -> None:
        with patch.object(reconciliation._Reconciling, "_move_on", move_on):
            assert harness.take(body).state == "reconciled"
        move_on(self, *given)

    with patch.object(reconciliation._Reconciling, "_move_on", overtake):
        assert harness.take(body).state == "ignored"
    assert harness.queued() == ["3", "3"]
    assert harness.item["since"] == int(harness.now.timestamp())


def test_reconciliation_accumulated_messages_are_read_once(harness: Harness) -> None:
    """Given a queue that is full for hours, then sweeps queue what is still due again."""
    (first,) = harness.due()
    (second,) = harness.due()
    assert first != second
    assert harness.take(first).state == "reconciled"
    assert harness.due(timedelta(minutes=10)) == []
    # A message that was queued while the other waited requests nothing new.
    requests = len(harness.listing.pages)
    assert harness.take(first).state == "ignored"
    assert harness.take(second).state in ("reconciled", "ignored")
    assert len(harness.listing.pages) <= requests + 1


def test_reconciliation_sweep_queues_due_ones_in_pages_once(harness: Harness) -> None:
    for number in range(2, 7):
        connection = replace(connection_store.get(harness.stack.table, SOURCE), name=f"kommo-acme-{number}")
        reconciliation.begin(harness.stack.table, connection, "contacts")
    assert harness.due(timedelta(minutes=1)) == []
    with patch.object(due_index, "PAGE_SIZE", 4):
        first = harness.due()
        assert len(first) == 5
        (rest,) = [body for body in first if json.loads(body)["reconcile"] == "due"]
        assert harness.take(rest).started == 2
        second = harness.stack.receive("backfills")
        assert harness.due(timedelta(0)) == []
    wanted = [json.loads(body)["reconcile"] for body in [*first, *second] if body != rest]
    assert len({one["connection"] for one in wanted}) == 6


def test_reconciliation_sweep_killed_before_queueing_queues_again_later(harness: Harness) -> None:
    harness.now += timedelta(hours=1)
    with patch.object(queues, "send", side_effect=Died), pytest.raises(Died):
        harness.take(DUE)
    assert harness.due(timedelta(minutes=5)) == []
    assert len(harness.due(reconciliation.QUEUE_AGAIN)) == 1


# --- the interval


def waits(harness: Harness) -> timedelta:
    return datetime.fromisoformat(harness.item["due_at"]) - harness.now


def test_reconciliation_after_change_is_due_within_least_interval(harness: Harness) -> None:
    for _ in range(5):
        harness.change(3)
        harness.reconcile()
        assert timedelta(0) < waits(harness) <= timedelta(minutes=30)


def test_reconciliation_idle_account_is_read_less_often_down_to_the_bound(harness: Harness) -> None:
    harness.reconcile(timedelta(hours=80))
    # A first reading so late is within one interval of the bound; the following ones are exactly one interval apart.
    for _ in range(3):
        harness.reconcile(waits(harness))
        assert waits(harness) == pytest.approx(timedelta(hours=12), abs=timedelta(seconds=1))


def test_reconciliation_interval_is_at_most_a_quarter_of_idle_time(harness: Harness) -> None:
    begun_at = harness.now
    readings = 0
    while harness.now < begun_at + timedelta(days=3):
        harness.reconcile(max(timedelta(seconds=1), datetime.fromisoformat(harness.item["due_at"]) - harness.now))
        assert waits(harness) <= max(timedelta(minutes=30), (harness.now - begun_at) / 4)
        readings += 1
    # Every half hour there would be 144.
    assert readings < 36


def test_reconciliation_change_found_makes_idle_account_be_read_often_again(harness: Harness) -> None:
    harness.reconcile(timedelta(hours=80))
    harness.now += waits(harness)
    harness.change(3, seconds=600)
    assert harness.reconcile(timedelta(0)) == {"3"}
    assert waits(harness) <= timedelta(minutes=30)


def test_reconciliation_change_found_by_an_interrupted_reading_counts(harness: Harness) -> None:
    harness.now += timedelta(hours=80)
    for number in range(10, 21):
        harness.change(number, seconds=100 - number)
    calls = iter([60.0] * 3)
    (body,) = harness.due(timedelta(0))
    assert harness.take(body, lambda: next(calls, 0.0)).state == "reconciling"
    (body,) = harness.stack.receive("backfills")
    harness.listing.contacts = []
    harness.take(body)
    assert waits(harness) <= timedelta(minutes=30)


def test_reconciliation_record_found_again_or_dated_in_the_future_is_no_change(harness: Harness) -> None:
    harness.change(4, seconds=-14 * 86_400)
    harness.reconcile(timedelta(hours=80))
    harness.change(5, seconds=reconciliation.OVERLAP_S - 10)
    assert {"4", "5"} >= harness.reconcile(timedelta(hours=12))
    assert waits(harness) > timedelta(minutes=30)


def test_reconciliation_item_of_older_version_is_read_and_gets_its_change_time(harness: Harness) -> None:
    harness.stack.table.update(*reconciliation.key(SOURCE, "contacts"), "REMOVE changed_at")
    harness.change(3)
    assert harness.reconcile() == {"3"}
    assert harness.item["changed_at"] >= harness.item["since"] - 3_600
    assert waits(harness) <= timedelta(minutes=30)


# --- live events


def wake(harness: Harness) -> None:
    bounds = reconciliation_schedule.Bounds.of_minutes("30", "720")
    reconciliation_wakeups.wake(harness.stack.table, SOURCE, "contacts", bounds)


def test_wakeup_makes_idle_account_due_within_least_interval(harness: Harness) -> None:
    harness.reconcile(timedelta(hours=80))
    harness.reconcile(waits(harness))
    wake(harness)
    assert waits(harness) <= timedelta(minutes=30)
    harness.change(3)
    assert harness.reconcile(waits(harness)) == {"3"}
    assert waits(harness) <= timedelta(minutes=30)


def test_wakeup_writes_once_in_the_time_that_a_reading_covers(harness: Harness) -> None:
    harness.reconcile(timedelta(hours=80))
    with patch.object(type(harness.stack.table), "update", side_effect=harness.stack.table.update) as update:
        for _ in range(100):
            wake(harness)
        assert update.call_count == 1
        harness.now += timedelta(hours=2, seconds=1)
        wake(harness)
        assert update.call_count > 1


def test_wakeup_during_reading_is_not_overwritten_by_idle_interval(harness: Harness) -> None:
    (body,) = harness.due(timedelta(hours=80))
    harness.listing.meanwhile = lambda: wake(harness)
    assert harness.take(body).state == "reconciled"
    assert waits(harness) <= timedelta(minutes=30)


def test_wakeup_of_overdue_account_does_not_postpone_it(harness: Harness) -> None:
    harness.now += timedelta(hours=80)
    due_at = harness.item["due_at"]
    wake(harness)
    assert harness.item["due_at"] == due_at
    assert harness.item["changed_at"] == int(harness.now.timestamp())


def test_wakeup_without_reconciliation_begins_one(harness: Harness) -> None:
    # Given an account that was connected before its route was created
    harness.stack.table.delete(*reconciliation.key(SOURCE, "contacts"))
    # When an event arrives, and the next one is lost
    wake(harness)
    assert harness.item == {}
    harness.change(3)
    # Then the lost change is found
    assert harness.reconcile(timedelta(minutes=1)) == {"3"}
    assert waits(harness) <= timedelta(minutes=30)


# --- the budget


def refusing(after_s: float, allowed: int = 0) -> Any:
    """A budget with room for so many requests."""
    left = [allowed]

    def wait(*_: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise BudgetExhausted("used up", after_s=after_s)

    return patch.object(RequestBudget, "wait", wait)


def test_reconciliation_without_budget_waits_in_the_index_and_keeps_its_start(harness: Harness) -> None:
    since = harness.item["since"]
    harness.change(3)
    (body,) = harness.due()
    with refusing(20):
        assert harness.take(body).state == "waiting"
    assert harness.item["since"] == since
    assert harness.stack.receive("backfills") == []
    assert harness.due(timedelta(seconds=19)) == []
    assert harness.reconcile(timedelta(seconds=1)) == {"3"}


def test_reconciliation_budget_ends_between_pages_continues_at_the_same_page(harness: Harness) -> None:
    harness.now += timedelta(minutes=10)
    for number in range(10, 21):
        harness.change(number, seconds=100 - number // 2)
    (body,) = harness.due()
    with refusing(20, allowed=2):
        assert harness.take(body).state == "waiting"
    found = set(harness.queued())
    assert found < {str(number) for number in range(10, 21)}
    cursor = harness.item["cursor"]
    assert cursor
    assert found | harness.reconcile(timedelta(seconds=20)) == {str(number) for number in range(10, 21)}


def test_reconciliation_without_budget_killed_before_postponing_is_queued_again(harness: Harness) -> None:
    harness.change(3)
    (body,) = harness.due()
    with refusing(20), patch.object(type(harness.stack.table), "update", side_effect=Died), pytest.raises(Died):
        harness.take(body)
    assert harness.reconcile(reconciliation.QUEUE_AGAIN) == {"3"}


def test_reconciliation_sweep_queues_no_more_than_the_budget_serves(harness: Harness) -> None:
    for number in range(2, 8):
        connection = replace(connection_store.get(harness.stack.table, SOURCE), name=f"kommo-acme-{number}")
        reconciliation.begin(harness.stack.table, connection, "contacts")
    with patch.object(due_index, "PAGE_SIZE", 2), patch.object(reconciliation, "SWEEP_LIMIT", 5):
        queued, waiting = [], harness.due()
        while waiting:
            for body in waiting:
                if json.loads(body)["reconcile"] == "due":
                    harness.take(body)
                else:
                    queued.append(body)
            waiting = harness.stack.receive("backfills")
        assert len(queued) == 5
        # The rest is due at the next sweep.
        rest = [json.loads(body)["reconcile"] for body in harness.due(timedelta(minutes=1))]
        assert len([one for one in rest if one != "due"]) == 2


def test_reconciliation_token_refused_is_delayed_and_keeps_start_time(harness: Harness) -> None:
    since = harness.item["since"]
    harness.change(3)
    harness.listing.tokens = set()
    (body,) = harness.due()
    assert harness.take(body).state == "put_off"
    assert harness.item["since"] == since
    assert harness.due(timedelta(minutes=5)) == []
    harness.listing.tokens = {"canary-access-1"}
    assert harness.reconcile() == {"3"}


@pytest.mark.parametrize("status", [402, 403])
def test_reconciliation_account_that_refuses_to_be_read_is_delayed_and_keeps_start_time(
    harness: Harness, status: int
) -> None:
    # Given an unpaid account, or one whose user has lost the permission
    since = harness.item["since"]
    harness.change(3)
    refusal = (status, {"Content-Type": "application/problem+json"}, json.dumps({"status": status}))
    harness.listing.before = [refusal]
    # When it is read, then no message stays in the queue, and the account is read at its next interval
    (body,) = harness.due()
    assert harness.take(body).state == "put_off"
    assert harness.item["since"] == since
    assert harness.due(timedelta(minutes=5)) == []
    # And once it can be read, the changes since then are found
    assert harness.reconcile() == {"3"}


def test_reconciliation_invalid_cursor_restarts_from_beginning(harness: Harness) -> None:
    harness.change(3)
    harness.stack.table.update(
        *reconciliation.key(SOURCE, "contacts"),
        "SET #cursor = :other",
        names={"#cursor": "cursor"},
        values={":other": "an older version's"},
    )
    assert harness.reconcile() == set()
    assert harness.reconcile() == {"3"}


def test_reconciliation_reinstalled_connection_continues_with_newer_token(harness: Harness) -> None:
    (body,) = harness.due()
    connect_kommo(harness.stack, 2)
    harness.listing.tokens = {"canary-access-2"}
    assert harness.take(body).state == "reconciled"


def test_reconciliation_connection_needing_reconnect_is_delayed_until_reconnected(harness: Harness) -> None:
    harness.change(3)
    healthy = connection_store.get(harness.stack.table, SOURCE)
    harness.stack.table.put(connection_store.to_item(replace(healthy, state="needs_reconnect")))
    (body,) = harness.due()
    assert harness.take(body).state == "put_off"
    assert harness.listing.pages == []
    assert harness.due(timedelta(hours=3)) == []
    # Connected again: its backfill starts, and the postponed reconciliation continues from where it was.
    since = harness.item["since"]
    harness.stack.table.put(connection_store.to_item(healthy))
    harness.begin()
    assert harness.item["since"] == since
    assert harness.reconcile() == {"3"}


@pytest.mark.parametrize(
    "end",
    [
        lambda harness: harness.stack.table.delete(*connection_store.key(SOURCE)),
        lambda harness: harness.stack.table.put(
            connection_store.to_item(replace(connection_store.get(harness.stack.table, SOURCE), state="removed"))
        ),
    ],
)
def test_reconciliation_without_connection_ends(harness: Harness, end: Callable[[Harness], None]) -> None:
    (body,) = harness.due()
    end(harness)
    assert harness.take(body).state == "ended"
    assert harness.item == {}
    assert harness.take(body).state == "ignored"


def test_reconciliation_continues_where_it_was_when_its_route_is_created_again(harness: Harness) -> None:
    # Given an account that is due while its only route is deleted
    route = routes.get(harness.stack.table, ROUTE)
    harness.change(3)
    (body,) = harness.due()
    routes.delete(harness.stack.table, ROUTE)
    assert harness.take(body).state == "ignored"
    assert harness.listing.pages == []
    assert harness.due(timedelta(hours=3)) == []
    # When the route is created again, then the changes before it are found
    routes.put(harness.stack.table, route, new=True)
    assert harness.reconcile(timedelta(hours=21)) == {"3"}


def test_reconciliation_without_route_for_long_reads_recent_changes_only(harness: Harness) -> None:
    route = routes.get(harness.stack.table, ROUTE)
    routes.delete(harness.stack.table, ROUTE)
    harness.change(3)
    for _ in range(30):
        harness.reconcile(timedelta(days=1))
    harness.change(4)
    routes.put(harness.stack.table, route, new=True)
    assert harness.reconcile(timedelta(days=1)) == {"4"}


def test_reconciliation_begun_again_while_ending_is_kept(harness: Harness) -> None:
    (body,) = harness.due()
    routes.delete(harness.stack.table, ROUTE)
    find = routes.for_connection

    def begun_meanwhile(*given: Any) -> Any:
        found = find(*given)
        harness.now += timedelta(seconds=1)
        harness.begin()
        return found

    with patch.object(routes, "for_connection", begun_meanwhile):
        harness.take(body)
    assert harness.item
    assert waits(harness) <= timedelta(minutes=15)


def test_reconciliation_begin_twice_keeps_start_time(harness: Harness) -> None:
    item = harness.item
    harness.now += timedelta(minutes=4)
    harness.begin()
    assert harness.item | {"begun_at": ""} == item | {"begun_at": ""}


def test_reconciliation_begin_object_without_changes_is_ignored(harness: Harness) -> None:
    reconciliation.begin(harness.stack.table, connection_store.get(harness.stack.table, SOURCE), "leads")
    reconciliation.begin(harness.stack.table, connection_store.get(harness.stack.table, DESTINATION), "contacts")
    assert len(reconciliation.of_connection(harness.stack.table, SOURCE)) == 1
    assert reconciliation.of_connection(harness.stack.table, DESTINATION) == []


def test_reconciliation_companies_are_read_separately(harness: Harness) -> None:
    table = harness.stack.table
    routes.put(table, Route("firms", f"connection:{SOURCE}", "companies", DESTINATION), new=True)
    reconciliation.begin(table, connection_store.get(table, SOURCE), "companies")
    company = {"id": 9, "name": "Padaria", "updated_at": int(harness.now.timestamp()), "custom_fields_values": None}
    harness.listing.company_list = [company]
    bodies = harness.due()
    assert len(bodies) == 2
    for body in bodies:
        assert harness.take(body).state == "reconciled"
    (queued,) = harness.stack.receive("bulk_records")
    assert json.loads(queued)["object"] == "companies"
    assert json.loads(queued)["records"] == [{"key": "9", "updated_at": company["updated_at"], "data": company}]


@pytest.mark.parametrize(
    "body",
    [{"reconcile": {}}, {"reconcile": 7}, {"reconcile": {"connection": "c", "object": "o"}}, {"reconcile": None}],
)
def test_reconciliation_message_invalid_is_ignored(harness: Harness, body: dict[str, Any]) -> None:
    assert harness.take(json.dumps(body)).state == "ignored"


def test_reconciliation_and_backfill_requests_share_one_budget(harness: Harness) -> None:
    waits: list[tuple[RequestBudget, Priority, str]] = []

    def wait(budget: RequestBudget, priority: Priority, account: str) -> None:
        waits.append((budget, priority, account))

    with patch.object(RequestBudget, "wait", wait):
        (body,) = harness.due()
        harness.take(body)
        harness.take(json.dumps({"detail-type": "connection.ready", "detail": {"connection": SOURCE, "generation": 1}}))
        (body,) = [each for each in harness.stack.receive("backfills") if "route" in each]
        harness.take(body)
    assert len(waits) == len(harness.listing.pages) >= 2
    assert len({budget for budget, _, _ in waits}) == 1
    assert {(priority, account) for _, priority, account in waits} == {
        (Priority.RECONCILIATION, SOURCE),
        (Priority.BACKFILL, SOURCE),
    }


class TestResubscription:
    """Kommo ends a subscription after too many failed deliveries."""

    @pytest.fixture(autouse=True)
    def client(self, harness: Harness) -> None:
        oauth_clients.put(
            harness.stack.table,
            OAuthClient("kommo", "acme", "client-1", "https://api.example.com/live/install/kommo/acme"),
            new=True,
        )
        vault = Vault(PREFIX)
        credentials = vault.read(vault.grant_id("install-1")) or {}
        vault.add(vault.grant_id("install-1"), "0" * 32, {**credentials, "webhook_key": Secret("canary" + "k" * 37)})

    def test_reconciliation_subscribes_webhooks_to_current_address(self, harness: Harness) -> None:
        harness.reconcile()
        (subscribed,) = harness.listing.webhooks
        base, _, key = subscribed["destination"].rpartition("/")
        assert base == f"https://api.example.com/live/events/kommo/{SOURCE}"
        assert {"update_contact", "update_company"} <= set(subscribed["settings"])
        address = harness.stack.table.get(event_receiver.partition(SOURCE), event_receiver.SK) or {}
        assert address["keys"][0].split(":")[0] == event_receiver.digest(key)

    def test_reconciliation_subscribes_webhooks_at_most_once_per_hour(self, harness: Harness) -> None:
        for _ in range(4):
            harness.reconcile(timedelta(minutes=35))
        assert len(harness.listing.webhooks) == 2

    def test_reconciliation_of_changed_endpoint_moves_subscription_once(self, harness: Harness) -> None:
        """The subscription at the new endpoint is made before the old one is deleted."""
        url = "https://abc.lambda-url.us-east-1.on.aws"
        harness.use_endpoints(f"{url}/,api")
        for _ in range(3):
            harness.reconcile(timedelta(minutes=61))
        destinations = {webhook["destination"] for webhook in harness.listing.webhooks}
        (destination,) = destinations
        path = destination.removeprefix(url)
        assert path.startswith(f"/events/kommo/{SOURCE}/")
        assert harness.listing.unsubscribed == [f"https://api.example.com/live{path}"]
        harness.use_endpoints(f"api,{url}/")
        # The account is idle by now, so it is subscribed once a day.
        harness.reconcile(timedelta(hours=25))
        assert harness.listing.webhooks[-1]["destination"] == f"https://api.example.com/live{path}"
        assert harness.listing.unsubscribed[1:] == [destination]

    def test_reconciliation_by_both_versions_of_a_gradual_deployment_leaves_one_subscription(
        self, harness: Harness
    ) -> None:
        url = "https://abc.lambda-url.us-east-1.on.aws"
        # Given an account that the new version has moved, and that the old version has subscribed again
        for endpoints in ("api", f"{url}/,api", "api"):
            harness.use_endpoints(endpoints)
            harness.reconcile()
        # When only the new version runs
        harness.use_endpoints(f"{url}/,api")
        harness.reconcile()
        # Then the subscription of the old version is deleted
        calls = [webhook["destination"] for webhook in harness.listing.webhooks]
        assert calls[-1].startswith(url)
        assert harness.listing.unsubscribed[1:] == [calls[-2]]

    def test_reconciliation_of_changed_endpoint_refused_keeps_old_subscription(self, harness: Harness) -> None:
        harness.use_endpoints("https://abc.lambda-url.us-east-1.on.aws/,api")
        harness.listing.subscribe_status = 500
        harness.reconcile()
        assert harness.listing.unsubscribed == []
        harness.listing.subscribe_status = 201
        harness.reconcile(timedelta(minutes=61))
        assert len(harness.listing.unsubscribed) == 1

    def test_reconciliation_webhooks_refused_still_reconciles(self, harness: Harness) -> None:
        harness.change(3)
        harness.listing.subscribe_status = 402
        assert harness.reconcile() == {"3"}
        assert harness.listing.webhooks == []


def test_reconciliation_connection_without_webhook_key_is_not_subscribed(harness: Harness) -> None:
    harness.reconcile()
    assert harness.listing.webhooks == []
