"""A batch sends requests to other destinations while one of them has not answered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest

from portaria.connections import connection_store
from portaria.core.errors import AnswerLost
from portaria.core.http.messages import Request, Response
from portaria.delivery import backlogs
from portaria.delivery.pipeline import BatchOutcome, QueuedMessage
from portaria.delivery.stages import record_outcomes
from portaria.delivery.stages.destination_turns import MAX_DESTINATIONS
from portaria.platforms.marketo import persons
from tests.fakes import outgoing
from tests.fakes.outgoing import SentRequest
from tests.fakes.records import ingesting, waiting_records
from tests.fakes.records.contacts import DESTINATION, contact
from tests.fakes.records.ingesting import Harness, body, refusal

ACCEPTED = Response(202, {"x-request-id": "r"})
NAMES = "abcdefg"


class Destinations:
    """Subscriptions of Marketo, each with a route and a source of its own.

    `log` has "sent a" and "read a" in order, and `answers` the responses by destination.
    """

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.log: list[str] = []
        self.answers: dict[str, Response | Exception] = {}
        known = connection_store.get(harness.table, DESTINATION)
        for name in NAMES:
            connection_store.create(
                harness.table, replace(known, name=f"marketo-{name}", fields={"munchkin_id": f"123-ABC-{name}"})
            )
            harness.connect(f"kommo-{name}", "kommo")
            harness.route(name, source=f"connection:kommo-{name}", destination=f"marketo-{name}", keep_newest="none")

    def begin(self, request: Request, *, allowed_domain: str, owner: str) -> SentRequest:
        name = request.url.partition("/subscriptions/123-ABC-")[2].partition("/")[0]
        self.log.append(f"sent {name}")

        def read() -> Response:
            self.log.append(f"read {name}")
            answer = self.answers.get(name, ACCEPTED)
            if isinstance(answer, Exception):
                raise answer
            return answer

        return SentRequest(read, lambda: self.log.append(f"closed {name}"))

    def ingest(self, names: str, count: int = 1, **options: Any) -> BatchOutcome:
        """A message with so many contacts for each destination."""
        contacts = [contact(number) for number in range(1, count + 1)]
        return self.harness.ingest(
            *[QueuedMessage(f"m-{name}", body(contacts, connection=f"kommo-{name}")) for name in names], **options
        )

    def pauses(self, name: str) -> list[str]:
        return [each.reason for each in backlogs.status(self.harness.table, f"marketo-{name}").pauses]


@pytest.fixture
def marketo(monkeypatch: pytest.MonkeyPatch) -> Iterator[Destinations]:
    monkeypatch.setattr(persons, "MAX_OBJECTS", 1)
    with ingesting.harness() as harness:
        destinations = Destinations(harness)
        with outgoing.answering(harness.answer, destinations.begin):
            yield destinations


def test_turns_other_destination_is_sent_to_before_first_answers(marketo: Destinations) -> None:
    assert marketo.ingest("ab").waiting == {}
    assert marketo.log == ["sent a", "sent b", "read a", "read b"]


def test_turns_destination_with_several_requests_keeps_its_own_order(marketo: Destinations) -> None:
    """The first request is alone among those to its destination."""
    assert marketo.ingest("ab", 2).waiting == {}
    assert marketo.log == ["sent a", "sent b", "read a", "sent a", "read b", "sent b", "read a", "read b"]


def test_turns_no_more_than_five_destinations_at_a_time(marketo: Destinations) -> None:
    assert marketo.ingest(NAMES).waiting == {}
    in_progress = [marketo.log[: number + 1] for number in range(len(marketo.log))]
    most = max(sum(step[:4] == "sent" for step in log) - sum(step[:4] == "read" for step in log) for log in in_progress)
    assert (most, len(marketo.log)) == (MAX_DESTINATIONS, 2 * len(NAMES))


def test_turns_targets_of_one_destination_follow_each_other(marketo: Destinations) -> None:
    """Given two routes to one destination, then the second target's request waits for the response to the first one."""
    marketo.harness.route(
        "partition",
        source="connection:kommo-a",
        destination="marketo-a",
        options={"partition": "p"},
        keep_newest="none",
    )
    assert marketo.ingest("ab").waiting == {}
    assert marketo.log == ["sent a", "sent b", "read a", "sent a", "read b", "read a"]


@pytest.mark.parametrize(
    ("answer", "pauses"), [(refusal("4030801"), ["stopped"]), (refusal("4290801"), ["quota"]), (AnswerLost("lost"), [])]
)
def test_turns_refusal_stops_only_its_destination(
    marketo: Destinations, answer: Response | Exception, pauses: list[str]
) -> None:
    marketo.answers = {"a": answer}
    assert set(marketo.ingest("ab", 2).waiting) <= {"m-a"}
    assert marketo.log.count("sent a") == 1
    assert marketo.log.count("read b") == 2
    assert (marketo.pauses("a"), marketo.pauses("b")) == (pauses, [])
    assert {entry.waiting.destination for entry in waiting_records.entries(marketo.harness.table)} == {"marketo-a"}


def test_turns_failure_of_one_returns_its_message_and_gives_up_its_requests(marketo: Destinations) -> None:
    """Given two requests in progress, when the result of one cannot be recorded, then the other destination is not affected."""
    recorded = record_outcomes.OutcomeRecorder.record

    def failing(recorder: Any, destination: Any, target: Any, result: Any) -> None:
        if target.destination == "marketo-a" and marketo.log.count("read a") == 2:
            raise OSError
        recorded(recorder, destination, target, result)

    with patch.object(record_outcomes.OutcomeRecorder, "record", failing):
        outcome = marketo.ingest("ab", 4)
    assert set(outcome.waiting) == {"m-a"}
    assert [step for step in marketo.log if step.endswith("a")] == [
        "sent a",
        "read a",
        "sent a",
        "sent a",
        "read a",
        "closed a",
    ]
    assert marketo.log.count("read b") == 4


def test_turns_little_time_left_waits_for_each_response(marketo: Destinations) -> None:
    """A request of Marketo takes up to 23 s, and ten are left for the end of the batch."""
    assert marketo.ingest("ab", time_left_s=33.5).waiting == {}
    assert marketo.log == ["sent a", "read a", "sent b", "read b"]
