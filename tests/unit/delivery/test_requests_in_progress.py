"""A batch sends its next request before it has read the response to the previous one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import Mock

import orjson
import pytest

from portaria.core.errors import AnswerLost, Unreachable
from portaria.core.http.messages import Request, Response
from portaria.delivery import backlogs, quotas, retry_schedule
from portaria.delivery.pipeline import BatchOutcome, QueuedMessage
from portaria.platforms.marketo import persons
from tests.fakes import outgoing
from tests.fakes.outgoing import SentRequest
from tests.fakes.records import ingesting, waiting_records
from tests.fakes.records.contacts import DESTINATION, contact
from tests.fakes.records.ingesting import Harness, body, refusal

ACCEPTED = Response(202, {"x-request-id": "r"})
Answer = Callable[[], Response]


class Destination:
    """Marketo with one record in each request. `log` has "sent 1" and "read 1" for the record with the key 1, in order.

    `answers` has the responses to requests, by record key. A request with an `unreachable` record cannot be sent.
    """

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.log: list[str] = []
        self.answers: dict[int, Response | Exception] = {}
        self.unreachable: set[int] = set()
        self.accepted: list[int] = []
        harness.route("people", keep_newest="none")

    def begin(self, request: Request, *, allowed_domain: str, owner: str) -> SentRequest:
        numbers = [int(one["email"][6:].partition("@")[0]) for one in orjson.loads(request.body or b"")["persons"]]
        name = "+".join(map(str, numbers))
        if self.unreachable & set(numbers):
            raise Unreachable("connection refused")
        self.log.append(f"sent {name}")

        def read() -> Response:
            self.log.append(f"read {name}")
            answer = next((self.answers[number] for number in numbers if number in self.answers), ACCEPTED)
            if isinstance(answer, Exception):
                raise answer
            if answer is ACCEPTED:
                self.accepted.extend(numbers)
            return answer

        return SentRequest(read, lambda: self.log.append(f"closed {name}"))

    def ingest(self, count: int, **options: Any) -> BatchOutcome:
        contacts = [contact(number) for number in range(1, count + 1)]
        return self.harness.ingest(QueuedMessage("m1", body(contacts)), **options)

    @property
    def pauses(self) -> list[tuple[str, str]]:
        return [(each.reason, each.code) for each in backlogs.status(self.harness.table, DESTINATION).pauses]


@pytest.fixture
def marketo(monkeypatch: pytest.MonkeyPatch) -> Iterator[Destination]:
    monkeypatch.setattr(persons, "MAX_OBJECTS", 1)
    monkeypatch.setattr(persons, "REQUESTS_IN_PROGRESS", 2)
    with ingesting.harness() as harness:
        destination = Destination(harness)
        with outgoing.answering(harness.answer, destination.begin):
            yield destination


def test_sender_several_requests_sends_next_before_last_response_is_read(marketo: Destination) -> None:
    assert marketo.ingest(4).waiting == {}
    assert marketo.log == ["sent 1", "read 1", "sent 2", "sent 3", "read 2", "sent 4", "read 3", "read 4"]


def test_sender_platform_without_concurrent_requests_reads_each_response_first(
    marketo: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(persons, "REQUESTS_IN_PROGRESS", 1)
    marketo.ingest(2)
    assert marketo.log == ["sent 1", "read 1", "sent 2", "read 2"]


def test_sender_little_time_left_reads_each_response_first(marketo: Destination) -> None:
    marketo.ingest(3, time_left_s=33.5)
    assert marketo.log == ["sent 1", "read 1", "sent 2", "read 2", "sent 3", "read 3"]


@pytest.mark.parametrize("code", ["4290801", "4030801", "429001"])
def test_sender_first_request_refused_sends_no_other(marketo: Destination, code: str) -> None:
    marketo.answers = {1: refusal(code)}
    marketo.ingest(4)
    assert marketo.log == ["sent 1", "read 1"]


def test_sender_refusal_beside_another_request_stops_after_both(marketo: Destination) -> None:
    """Given two requests in progress, when the first one is refused, then the other counts and nothing else is sent."""
    marketo.answers = {2: refusal("4290801")}
    outcome = marketo.ingest(5)
    assert marketo.log == ["sent 1", "read 1", "sent 2", "sent 3", "read 2", "read 3"]
    assert marketo.accepted == [1, 3]
    assert (outcome.waiting, marketo.pauses) == ({}, [("quota", "4290801")])
    assert sorted(waiting_records.keys(marketo.harness.table)) == ["2", "4", "5"]


def test_sender_second_answer_does_not_shorten_pause_of_the_first(marketo: Destination) -> None:
    marketo.answers = {2: refusal("4290801"), 3: refusal("429001", **{"retry-after": "1"})}
    assert marketo.ingest(5).waiting == {}
    assert marketo.pauses == [("quota", "4290801")]
    assert sorted(waiting_records.keys(marketo.harness.table)) == ["2", "3", "4", "5"]


def test_sender_lost_answer_beside_another_request_keeps_both(marketo: Destination) -> None:
    marketo.answers = {2: AnswerLost("no answer came")}
    outcome = marketo.ingest(5)
    assert marketo.accepted == [1, 3]
    assert (set(outcome.waiting), sorted(waiting_records.keys(marketo.harness.table))) == ({"m1"}, ["2"])
    marketo.answers = {}
    with waiting_records.later(minutes=10):
        marketo.harness.release()
    assert marketo.accepted == [1, 3, 2]
    # Requests that were accepted before are not sent again.
    assert marketo.ingest(5).waiting == {}
    assert marketo.accepted == [1, 3, 2, 4, 5]


def test_sender_invalid_record_beside_another_request_becomes_the_only_dead_letter(
    marketo: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(persons, "MAX_OBJECTS", 4)
    marketo.answers = {6: refusal("4000802")}
    assert marketo.ingest(16).waiting == {}
    assert sorted(marketo.accepted) == [number for number in range(1, 17) if number != 6]
    assert [record["key"] for letter in marketo.harness.letters() for record in letter["records"]] == ["6"]
    # After the refusal, one at a time until one is accepted.
    assert marketo.log[:7] == [
        *("sent 1+2+3+4", "read 1+2+3+4", "sent 5+6+7+8", "sent 9+10+11+12"),
        *("read 5+6+7+8", "read 9+10+11+12", "sent 5+6"),
    ]


def test_sender_request_not_sent_gives_back_its_quota_only(marketo: Destination) -> None:
    marketo.unreachable = {3}
    given_back: list[int] = []
    give_back = quotas.Ledger.give_back

    def counted(ledger: quotas.Ledger, subscription: str, day: str, shares: Any) -> None:
        given_back.append(sum(shares.values()))
        give_back(ledger, subscription, day, shares)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(quotas.Ledger, "give_back", counted)
        marketo.ingest(3)
    assert (marketo.accepted, given_back) == ([1, 2], [1])


def test_sender_request_that_fails_at_once_is_handled_before_the_next(marketo: Destination) -> None:
    marketo.unreachable = {2}
    marketo.ingest(4)
    assert marketo.log == ["sent 1", "read 1"]


def test_pipeline_result_not_recorded_closes_request_in_progress_and_returns_message(
    marketo: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given two requests in progress, when a pause cannot be decided on, then no connection is left with an unread response."""
    marketo.answers = {2: refusal("5000801")}
    monkeypatch.setattr(retry_schedule.Schedule, "next", Mock(side_effect=OSError))
    assert set(marketo.ingest(4).waiting) == {"m1"}
    assert marketo.log == ["sent 1", "read 1", "sent 2", "sent 3", "read 2", "closed 3"]


def test_sender_token_refused_beside_another_request_is_renewed_once(marketo: Destination) -> None:
    refused = refusal("401013")
    marketo.answers = {2: refused, 3: refused}
    tokens = 0
    answer = marketo.harness.answer

    def counted(request: Request, **named: Any) -> Response:
        nonlocal tokens
        tokens += 1
        marketo.answers = {}
        return answer(request, **named)

    with outgoing.answering(counted, marketo.begin):
        assert marketo.ingest(4).waiting == {}
    assert set(marketo.accepted) == {1, 2, 3, 4}
    assert tokens <= 2
