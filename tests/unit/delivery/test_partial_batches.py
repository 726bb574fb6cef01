"""If a part of a batch fails, exactly that part is retried or becomes a dead letter. On AWS in memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given

from portaria.core import clock, record_messages
from portaria.core.errors import AnswerLost, Unreachable
from portaria.delivery.pipeline import QueuedMessage
from tests.fakes.records import ingesting
from tests.fakes.records.contacts import contact
from tests.fakes.records.ingesting import Harness, body, refusal
from tests.fakes.records.shuffled_events import Deliveries, check_newest_is_left, deliveries, origins

TEN = range(10)
WAYS = [set(way) for size in range(11) for way in itertools.combinations(TEN, size)]


@pytest.fixture
def harness() -> Iterator[Harness]:
    with ingesting.harness() as opened:
        yield opened


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A clock that stands still until a test changes `time["now"]`."""
    standing = {"now": datetime(2026, 3, 4, 18, 0, tzinfo=UTC)}
    monkeypatch.setattr(clock, "now", lambda: standing["now"])
    return standing


def test_partial_batch_combinations_are_1024() -> None:
    assert len(WAYS) == 1_024


def test_pipeline_failed_messages_wait_and_others_are_sent_in_every_combination(harness: Harness, long: bool) -> None:
    """The short version tries every fourth one."""
    # Given ten messages, each in a request of its own, some of which are answered with 500
    numbers = {f"part{number}": number for number in TEN}
    for part, number in numbers.items():
        harness.route(f"route{number}", options={"partition": part}, keep_newest="none")
    for way, failing in enumerate(WAYS if long else WAYS[::4]):
        harness.accepted.clear()
        harness.rule = lambda document, failing=failing: (  # type: ignore[misc]
            refusal("5000801") if numbers[document["partitionName"]] in failing else None
        )
        batch = [QueuedMessage(f"{way}-{n}", body([contact(n)], f"route{n}")) for n in TEN]
        # When they are ingested
        outcome = harness.ingest(*batch)
        # Then exactly those wait in the table, and the others were delivered
        assert outcome.waiting == {}
        assert {prefix.split("#")[1] for _, prefix in outcome.held} == {f"{way}-{number}" for number in failing}
        assert set(harness.state()) == {f"person{number}@example.com" for number in TEN if number not in failing}
    assert harness.letters() == []


def test_pipeline_refused_records_become_dead_letters_in_every_eighth_combination(harness: Harness) -> None:
    harness.route("people", keep_newest="none")
    for way, failing in enumerate(WAYS[::8]):
        harness.accepted.clear()
        bad = {f"person{number}@example.com" for number in failing}
        harness.rule = lambda document, bad=bad: (  # type: ignore[misc]
            refusal("4000802") if any(person["email"] in bad for person in document["persons"]) else None
        )
        outcome = harness.ingest(*[QueuedMessage(f"{way}-{n}", body([contact(n)], "people")) for n in TEN])
        assert outcome.waiting == {}
        assert outcome.counts["DeadLetters"] == len(failing)
        assert set(harness.state()) == {f"person{n}@example.com" for n in TEN if n not in failing}


def test_pipeline_dead_letter_has_record_reason_and_origin(harness: Harness) -> None:
    harness.route("people")
    harness.rule = lambda document: refusal("4000802")
    harness.ingest(QueuedMessage("m1", body([contact(1)], "people", read_at=77)))
    (letter,) = harness.letters()
    assert letter["reason"] == "refused_by_destination"
    assert letter["detail"] == "the destination refused this record with 4000802"
    assert (letter["route"], letter["origin"], letter["read_at"]) == ("people", record_messages.EVENT, 77)
    assert (letter["connection"], letter["destination"]) == ("kommo-acme-1001", "marketo-one")
    assert letter["records"][0]["data"] == contact(1)


@given(deliveries(), origins)
def test_pipeline_shuffled_and_duplicate_events_leave_newest_version(given_: Deliveries, origin: str) -> None:
    check_newest_is_left(given_, origin)


@pytest.mark.parametrize("lost", [True, False])
def test_pipeline_silent_destination_is_retried_three_times_then_dead_letter(
    harness: Harness, lost: bool, time: Any
) -> None:
    harness.route("people")
    harness.rule = lambda document: AnswerLost("…") if lost else Unreachable("…")
    assert harness.ingest(QueuedMessage("m1", body([contact(1)], "people"))).waiting == {}
    waits = []
    while found := harness.waits:
        waits.append(found["m1"])
        time["now"] += timedelta(seconds=found["m1"])
        harness.release()
    assert waits == [300, 1_800, 1_800]
    (letter,) = harness.letters()
    assert letter["reason"] == "gave_up"
    assert letter["detail"].startswith("the destination did not accept it in 4 attempts; the last one ended with")


def test_pipeline_rate_limited_destination_waits_without_using_attempts(harness: Harness, time: Any) -> None:
    harness.route("people")
    harness.rule = lambda document: refusal("429001")
    for receives in (1, 2):
        assert harness.ingest(QueuedMessage("m1", body([contact(1)], "people"), receives)).waiting == {"m1": None}
    # The third delay would be 20 s: the destination is paused, and each pause is twice as long as the one before
    assert harness.ingest(QueuedMessage("m1", body([contact(1)], "people"), 3)).waiting == {}
    waits = []
    for _ in range(7):
        waits.append(harness.waits["m1"])
        time["now"] += timedelta(seconds=waits[-1])
        harness.release()
    assert waits == [20, 40, 80, 160, 320, 600, 600]
    harness.rule = lambda document: refusal("5000801")
    time["now"] += timedelta(seconds=600)
    harness.release()
    assert harness.waits == {"m1": 300}
    assert harness.letters() == []
