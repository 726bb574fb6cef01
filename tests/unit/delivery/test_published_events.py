"""Events of the delivery of records: paused and resumed destinations, a low quota, and dead letters by the minute."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch
from zoneinfo import ZoneInfo

import pytest

from portaria.aws import event_bus
from portaria.core import clock, event_catalogue
from portaria.core.errors import Retryable
from portaria.delivery import destination_pause, destination_states, quota_warnings, quotas
from portaria.delivery.destination_pause import PauseReason
from portaria.delivery.pipeline import QueuedMessage
from portaria.platforms.marketo import daily_quota
from portaria.records import dead_letter_counts, dead_letters
from tests.fakes.records import ingesting
from tests.fakes.records.contacts import DESTINATION, contact
from tests.fakes.records.ingesting import Harness, body, refusal
from tests.fakes.virtual_time import VirtualClock

NOON = datetime(2026, 1, 5, 18, tzinfo=UTC)


@pytest.fixture
def time() -> Iterator[VirtualClock]:
    virtual = VirtualClock(NOON)
    with virtual.installed():
        yield virtual


@pytest.fixture
def harness(time: VirtualClock) -> Iterator[Harness]:
    with ingesting.harness() as made:
        made.route("people")
        yield made


PAUSE_EVENTS = (event_catalogue.DESTINATION_PAUSED, event_catalogue.DESTINATION_RESUMED)


def resume(harness: Harness) -> None:
    destination_states.resume(
        harness.table, harness.cloud.url("waiting_records"), destination_states.find(harness.table, DESTINATION)
    )


def told(harness: Harness, kind: str) -> list[dict[str, Any]]:
    return [detail for heard, detail in harness.cloud.heard() if heard == kind]


def test_destination_that_refuses_is_paused_once_and_resumed(harness: Harness, time: VirtualClock) -> None:
    harness.rule = lambda document: refusal("4030801")
    harness.ingest(QueuedMessage("1", body([contact(1)])))
    harness.ingest(QueuedMessage("2", body([contact(2)])))
    (paused,) = told(harness, event_catalogue.DESTINATION_PAUSED)
    assert (paused["connection"], paused["reason"], paused["code"]) == (DESTINATION, "stopped", "4030801")
    assert clock.from_iso(paused["until"]) == NOON + timedelta(minutes=30)
    assert told(harness, event_catalogue.DESTINATION_RESUMED) == []
    harness.rule = lambda document: None
    time.advance(minutes=31)
    harness.release()
    (resumed,) = told(harness, event_catalogue.DESTINATION_RESUMED)
    assert (resumed["connection"], resumed["object"], resumed["reason"]) == (
        DESTINATION,
        paused["object"],
        "stopped",
    )
    assert clock.from_iso(resumed["paused_since"]) == NOON


def test_destination_that_another_worker_paused_again_is_not_reported_as_resumed(
    harness: Harness, time: VirtualClock
) -> None:
    """Given a passed pause, when a request is accepted after another worker has prolonged the pause, then it stays."""
    harness.rule = lambda document: refusal("4030801")
    harness.ingest(QueuedMessage("1", body([contact(1)])))
    time.advance(minutes=31)

    def prolong(document: dict[str, Any]) -> None:
        destination_pause.begin(harness.table, DESTINATION, "persons", reason=PauseReason.STOPPED, code="1", for_s=60)

    harness.rule = prolong
    harness.release()
    assert [state for state in destination_states.find(harness.table, DESTINATION).pauses if state.for_s == 60]
    assert told(harness, event_catalogue.DESTINATION_RESUMED) == []


def test_destination_that_a_person_resumes_is_reported_when_it_accepts_records(
    harness: Harness, time: VirtualClock
) -> None:
    harness.rule = lambda document: refusal("4030801")
    harness.ingest(QueuedMessage("1", body([contact(1)])))
    time.advance(minutes=1)
    resume(harness)
    assert [len(told(harness, kind)) for kind in PAUSE_EVENTS] == [1, 0]
    # Still refused: one pause, reported once.
    harness.release()
    resume(harness)
    harness.rule = lambda document: None
    harness.release()
    assert [len(told(harness, kind)) for kind in PAUSE_EVENTS] == [1, 1]
    (resumed,) = told(harness, event_catalogue.DESTINATION_RESUMED)
    assert clock.from_iso(resumed["paused_since"]) == NOON


def test_low_quota_is_told_once_a_day(harness: Harness, time: VirtualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daily_quota, "DAILY_QUOTA", 10)
    for number in range(1, 8):
        harness.ingest(QueuedMessage(str(number), body([contact(number)])))
    assert told(harness, event_catalogue.QUOTA_LOW) == []
    for number in (8, 9, 10):
        harness.ingest(QueuedMessage(str(number), body([contact(number)])))
        time.advance(40)
    (low,) = told(harness, event_catalogue.QUOTA_LOW)
    assert (low["day"], low["left_percent"]) == ("2026-01-05", 10)


def test_low_quota_of_a_batch_that_ends_after_the_reset_is_told_for_the_day_before(
    harness: Harness, time: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a request that begins before the quota's reset and ends behind it, then the new day has all of its quota."""
    monkeypatch.setattr(daily_quota, "DAILY_QUOTA", 10)
    today = quotas.day_of(ZoneInfo(harness.settings.quota_time_zone), clock.now())
    time.advance(today.ends - clock.now().timestamp() - quotas.CLOSING_S - 5)
    harness.rule = lambda document: time.advance(60)
    harness.ingest(QueuedMessage("1", body([contact(number) for number in range(9)])))
    harness.rule = lambda document: None
    (low,) = told(harness, event_catalogue.QUOTA_LOW)
    assert (low["day"], low["left_percent"]) == (today.name, 10)
    for number in range(11, 20):
        harness.ingest(QueuedMessage(str(number), body([contact(number)])))
    assert len(told(harness, event_catalogue.QUOTA_LOW)) == 2


def test_low_quota_bus_failure_is_told_with_the_next_batch(harness: Harness) -> None:
    table = harness.table
    with patch.object(event_bus, "put", side_effect=Retryable("bus_unavailable", "no")):
        quota_warnings.publish(table, "portaria", {("123-ABC-456", "2026-01-05"): 3})
    assert table.get(*quota_warnings.key("123-ABC-456", "2026-01-05")) is None
    quota_warnings.publish(table, "portaria", {("123-ABC-456", "2026-01-05"): 3, ("other", "2026-01-05"): 20})
    quota_warnings.publish(table, "portaria", {("123-ABC-456", "2026-01-05"): 2})
    assert [detail["left_percent"] for detail in told(harness, event_catalogue.QUOTA_LOW)] == [3]


class TestDeadLetters:
    def refuse(self, harness: Harness, *numbers: int) -> None:
        """Records without an e-mail address, by which persons are told apart."""
        records = [contact(number) | {"custom_fields_values": []} for number in numbers]
        harness.ingest(QueuedMessage(f"message-{numbers}", body(records)))

    def test_dead_letters_of_a_minute_are_one_event(self, harness: Harness, time: VirtualClock) -> None:
        self.refuse(harness, 1, 2)
        time.advance(20)
        self.refuse(harness, 3)
        assert sum(letter["count"] for letter in harness.letters()) == 3
        assert dead_letter_counts.publish(harness.table, "portaria") == 0, "the minute is not over"
        time.advance(60)
        assert dead_letter_counts.publish(harness.table, "portaria") == 1
        assert dead_letter_counts.publish(harness.table, "portaria") == 0
        (event,) = told(harness, event_catalogue.RECORD_DEAD_LETTERED)
        (reason,) = {letter["reason"] for letter in harness.letters()}
        assert event == {
            "route": "people",
            "reason": reason,
            "record_count": 3,
            "minute": "2026-01-05T18:00:00.000Z",
        }

    def test_unreadable_message_is_reported(self, harness: Harness, time: VirtualClock) -> None:
        harness.ingest(QueuedMessage("1", "not a message"))
        time.advance(60)
        dead_letter_counts.publish(harness.table, "portaria")
        (event,) = told(harness, event_catalogue.RECORD_DEAD_LETTERED)
        assert (event["route"], event["reason"], event["record_count"]) == ("", "message_unreadable", 1)

    def test_count_that_failed_returns_the_message_and_writes_no_letter(self, harness: Harness) -> None:
        with patch.object(dead_letter_counts, "add", side_effect=RuntimeError):
            records = [contact(1) | {"custom_fields_values": []}]
            outcome = harness.ingest(QueuedMessage("1", body(records)))
        assert set(outcome.waiting) == {"1"}
        assert harness.letters() == []

    def test_death_after_the_count_tells_at_least_the_letter(self, harness: Harness, time: VirtualClock) -> None:
        with patch.object(dead_letters, "put", side_effect=RuntimeError):
            self.refuse(harness, 1)
        self.refuse(harness, 1)
        time.advance(60)
        dead_letter_counts.publish(harness.table, "portaria")
        (event,) = told(harness, event_catalogue.RECORD_DEAD_LETTERED)
        assert event["record_count"] == 2
        assert len(harness.letters()) == 1

    def test_bus_failure_keeps_the_count(self, harness: Harness, time: VirtualClock) -> None:
        self.refuse(harness, 1)
        time.advance(60)
        with (
            patch.object(event_bus, "put", side_effect=Retryable("bus_unavailable", "no")),
            pytest.raises(Retryable),
        ):
            dead_letter_counts.publish(harness.table, "portaria")
        assert dead_letter_counts.publish(harness.table, "portaria") == 1

    def test_count_that_grows_while_it_is_published_keeps_the_rest(self, harness: Harness, time: VirtualClock) -> None:
        self.refuse(harness, 1)
        begun = time.passed_s
        time.advance(60)
        put = event_bus.put

        def slowly(*arguments: Any) -> None:
            put(*arguments)
            time.passed_s = begun
            dead_letter_counts.add(harness.table, {("people", arguments[2]["reason"]): 5})
            time.passed_s = begun + 60

        with patch.object(event_bus, "put", slowly):
            dead_letter_counts.publish(harness.table, "portaria")
        dead_letter_counts.publish(harness.table, "portaria")
        counts = [event["record_count"] for event in told(harness, event_catalogue.RECORD_DEAD_LETTERED)]
        assert counts == [1, 5]
