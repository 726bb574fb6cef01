"""Batches of records for Marketo, at the edges: SQS events in; HTTP, table and dead letters out."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
import requests
import responses

from portaria.aws import queues
from portaria.connections import connection_store
from portaria.connections.tokens import cache
from portaria.core import record_messages
from portaria.core.callbacks import Record
from portaria.core.entities import Route
from portaria.delivery import retry_schedule
from portaria.delivery.retry_schedule import LONGEST_IN_QUEUE_S
from portaria.delivery.stages import send
from portaria.installs import uninstall
from portaria.records import dead_letters, receipts, routes
from tests.fakes.aws import functions
from tests.fakes.aws.errors import refusing
from tests.fakes.aws.moto_cloud import Cloud, cloud
from tests.fakes.platforms.marketo import Marketo, error, refuse_persons
from tests.fakes.records import waiting_records
from tests.fakes.records.contacts import DESTINATION, ROUTE, SOURCE, contact, person, set_up

TIMEOUT = requests.exceptions.ReadTimeout("read timed out")


def message(
    contacts: list[dict[str, Any]],
    route: Route,
    connection: str = SOURCE,
    *,
    origin: str = record_messages.BACKFILL,
    read_at: int = 1,
) -> str:
    """One Records message with a route, as backfill_records sends it."""
    packed = record_messages.pack(
        [Record(str(one["id"]), one["updated_at"], one) for one in contacts],
        connection=connection, object="contacts", origin=origin, read_at=read_at, route=route.name,
    )  # fmt: skip
    assert len(packed) == 1
    return packed[0]


class Harness:
    """The ingestion function of one stack."""

    def __init__(self, stack: Cloud, marketo: Marketo) -> None:
        self.stack, self.marketo = stack, marketo
        self.route = set_up(stack)
        self.function = functions.load("ingest_records", stack.environment)
        self.releasing = functions.load("release_records", stack.environment)
        self.waits: dict[str, float] = {}
        self.seen: set[str] = set()
        self.log = io.StringIO()
        functions.log_to(self.log)

    def add_route(self, name: str, **changes: Any) -> Route:
        route = replace(self.route, name=name, **changes)
        routes.put(self.stack.table, route, new=True)
        return route

    def ingest(
        self, bodies: dict[str, str], *, receives: int = 1, time_left_s: float = 120.0, queue: str = "records"
    ) -> set[str]:
        """The ids of the messages that are reported as failed. `waits` has the delay of each, in seconds."""
        self.waits = {}

        def give_back(queue_url: str, receipt_handle: str, after_s: float) -> None:
            assert queue_url == self.stack.environment[f"{queue.upper()}_QUEUE_URL"]
            self.waits[receipt_handle.removeprefix("handle-")] = after_s

        event = functions.sqs_event(bodies, queue, receives)
        with patch.object(queues, "give_back", give_back):
            answer = self.function.handler(event, functions.Context(time_left_s))
        assert set(self.waits) == functions.reported(answer)
        return functions.reported(answer)

    @property
    def held(self) -> dict[str, float]:
        """The seconds before each message that waits in the table is tried again, by message id."""
        return waiting_records.waits(self.stack.table)

    def release(self, **later: float) -> None:
        """Release the waiting records after this time."""
        with waiting_records.later(**later):
            waiting_records.release_by(self.releasing, self.stack)

    def dead_letters(self) -> list[dict[str, Any]]:
        """All dead letters; each is returned only the first time."""
        table, found = self.stack.table, []
        for head in table.query_all(dead_letters.LIST, index="listing"):
            if head["pk"] not in self.seen:
                self.seen.add(head["pk"])
                parts = table.query_all(head["pk"], sk_prefix="PART#")
                found.append(head | dead_letters.joined([part["data"] for part in parts]))
        return found

    def receipts(self) -> list[dict[str, Any]]:
        return list(self.stack.table.query_all(f"RECEIPTS#{DESTINATION}", index="listing"))


@pytest.fixture
def harness() -> Iterator[Harness]:
    cache.PROCESS_CACHE.clear()
    with cloud() as stack, responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield Harness(stack, Marketo(mock))


def test_ingest_records_batch_is_one_request_with_one_receipt(harness: Harness) -> None:
    bodies = {f"m{number}": message([contact(number)], harness.route) for number in range(1, 41)}

    assert harness.ingest(bodies) == set()

    assert len(harness.marketo.requests) == 1
    document = harness.marketo.accepted[0]
    assert document["priority"] == "normal"
    assert document["dedupeFields"] == {"field1": "email"}
    assert "partitionName" not in document
    assert harness.marketo.persons == [person(number) for number in range(1, 41)]
    sent = harness.marketo.requests[0]
    assert sent.headers["X-Request-Source"] == "Portaria"
    (receipt,) = harness.receipts()
    assert receipt["correlation_id"] == sent.headers["X-Correlation-Id"]
    assert (receipt["state"], receipt["request_id"], receipt["count"]) == ("accepted", "request-1", 40)
    assert receipt["bytes"] == len(sent.body or "")
    assert receipt["routes"] == [ROUTE]


def test_ingest_records_source_deleted_meanwhile_is_still_sent(harness: Harness) -> None:
    body = message([contact(1)], harness.route)
    source = connection_store.get(harness.stack.table, SOURCE)
    uninstall.delete(harness.stack.table, harness.stack.environment["UNINSTALLS_QUEUE_URL"], source)
    assert harness.ingest({"m": body}) == set()
    assert harness.marketo.emails == ["person1@example.com"]
    assert harness.dead_letters() == []


def test_ingest_records_requests_are_limited_to_1000_objects(harness: Harness) -> None:
    bodies = {
        f"m{start}": message([contact(number) for number in range(start, start + 250)], harness.route)
        for start in range(1, 2_500, 250)
    }
    assert harness.ingest(bodies) == set()
    assert [len(document["persons"]) for document in harness.marketo.accepted] == [1_000, 1_000, 500]
    assert sorted(harness.marketo.emails) == sorted(f"person{number}@example.com" for number in range(1, 2_501))


def test_ingest_records_high_priority_is_sent_first_with_its_partition(harness: Harness) -> None:
    urgent = harness.add_route(
        "urgent", priority="high", options={"partition": "EMEA"}, dedupe_fields=("email", "firstName")
    )
    harness.ingest({"m1": message([contact(1)], harness.route), "m2": message([contact(2)], urgent)})
    first, second = harness.marketo.accepted
    assert first["priority"] == "high"
    assert first["partitionName"] == "EMEA"
    assert first["dedupeFields"] == {"field1": "email", "field2": "firstName"}
    assert second["priority"] == "normal"


def test_ingest_records_two_versions_of_a_record_sends_newest(harness: Harness) -> None:
    old, new = contact(1, updated_at=100), {**contact(1, updated_at=200), "last_name": "Newest"}
    assert (
        harness.ingest({"m1": message([new], harness.route), "m2": message([old, contact(2)], harness.route)}) == set()
    )
    assert [(one["email"], one["lastName"]) for one in harness.marketo.persons] == [
        ("person1@example.com", "Newest"),
        ("person2@example.com", "Person2"),
    ]


def test_ingest_records_mixed_failures_become_dead_letters_or_wait(harness: Harness) -> None:
    """Message 0 is unreadable, 1 has lost its route, 2 has no e-mail address, 3 is refused by Marketo, 4 has a deleted
    destination, 5 has one whose grant has ended, and 6 is valid.
    """
    lost = harness.add_route("lost", destination="nowhere")
    stale = connection_store.get(harness.stack.table, DESTINATION)
    connection_store.create(harness.stack.table, replace(stale, name="stale", state="needs_reconnect"))
    ended = harness.add_route("ended", destination="stale")
    harness.marketo.rule = refuse_persons({"person3@example.com"})
    bodies = {
        "0": "not a message",
        "1": message([contact(1)], replace(harness.route, name="deleted")),
        "2": message([contact(2, email=None)], harness.route),
        "3": message([contact(3)], harness.route),
        "4": message([contact(4)], lost),
        "5": message([contact(5)], ended),
        "6": message([contact(6)], harness.route),
    }
    assert harness.ingest(bodies) == set()
    assert harness.held == pytest.approx({"5": 1_800}, abs=5)
    assert harness.marketo.emails == ["person6@example.com"]
    letters = harness.dead_letters()
    assert {letter["records"][0]["key"]: letter["reason"] for letter in letters if letter["records"]} == {
        "1": "unknown_route", "2": "no_dedupe_value", "3": "refused_by_destination", "4": "unknown_connection",
    }  # fmt: skip
    assert [(letter["reason"], letter["raw"]) for letter in letters if not letter["records"]] == [
        ("message_unreadable", "not a message")
    ]


def test_ingest_records_one_refused_record_of_1000_is_isolated(harness: Harness) -> None:
    harness.marketo.rule = refuse_persons({"person617@example.com"}, "4000801")
    bodies = {
        f"m{start}": message([contact(number) for number in range(start, start + 250)], harness.route)
        for start in range(0, 1_000, 250)
    }
    assert harness.ingest(bodies) == set()
    assert len(harness.marketo.requests) <= 1 + 2 * 10
    assert len(set(harness.marketo.emails)) == 999
    (letter,) = harness.dead_letters()
    assert letter["records"][0]["key"] == "617"
    # And each request has a receipt, refused ones with their code
    states = {receipt["state"] for receipt in harness.receipts()}
    assert states == {"accepted", "failed"}
    assert {receipt["code"] for receipt in harness.receipts() if receipt["state"] == "failed"} == {"4000801"}


def test_ingest_records_all_refused_stops_isolation_and_keeps_every_record(harness: Harness) -> None:
    harness.marketo.rule = lambda document: error("4000801")
    bodies = {
        f"m{start}": message([contact(number) for number in range(start, start + 100)], harness.route)
        for start in range(0, 400, 100)
    }
    with patch.object(send, "MAX_BISECT_REQUESTS", 20):
        assert harness.ingest(bodies) == set()
    assert len(harness.marketo.requests) <= 20 + 10
    letters = harness.dead_letters()
    assert len(letters) < 100
    assert sorted(int(one["key"]) for letter in letters for one in letter["records"]) == list(range(400))


def test_ingest_records_expired_token_is_renewed_once_and_records_sent(harness: Harness) -> None:
    harness.ingest({"m1": message([contact(1)], harness.route)})
    harness.marketo.good_from = 2
    assert harness.ingest({"m2": message([contact(2)], harness.route)}) == set()
    assert harness.marketo.tokens == 2
    assert harness.marketo.emails == ["person1@example.com", "person2@example.com"]


def test_ingest_records_token_is_requested_once_for_many_requests(harness: Harness) -> None:
    for number in range(5):
        harness.ingest({f"m{number}": message([contact(number)], harness.route)})
    assert harness.marketo.tokens == 1


def test_ingest_records_new_token_refused_too_keeps_records_waiting(harness: Harness) -> None:
    harness.marketo.good_from = 99
    bodies = {
        f"m{n}": message([contact(n)], harness.add_route(f"r{n}", options={"partition": f"p{n}"})) for n in range(4)
    }
    assert harness.ingest(bodies) == set()
    assert set(harness.held) == set(bodies)
    assert len(harness.marketo.requests) == 2
    assert harness.dead_letters() == []


@pytest.mark.parametrize("code", ["403010", "4030801", "404040"])
def test_ingest_records_permanent_refusal_pauses_destination_and_keeps_records(
    capsys: pytest.CaptureFixture[str], harness: Harness, code: str
) -> None:
    harness.marketo.rule = lambda document: error(code)
    bodies = {
        f"m{n}": message([contact(n)], harness.add_route(f"r{n}", options={"partition": f"p{n}"})) for n in range(4)
    }
    assert harness.ingest(bodies) == set()
    assert harness.held == pytest.approx(dict.fromkeys(bodies, 1_800), abs=5)
    assert len(harness.marketo.requests) == 1
    assert harness.dead_letters() == []
    assert f'"code":"{code}"' in harness.log.getvalue()
    assert '"DestinationsStopped":[1.0]' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "wait_s"),
    [
        (error("429001"), 5),
        (error("429001", {"Retry-After": "77"}), 77),
        (error("5000801"), 300),
        ((503, {"Content-Type": "text/html"}, "<html>unavailable</html>"), 300),
        ((200, {}, "<html>sign in to the network</html>"), 300),
        (TIMEOUT, 300),
        (requests.exceptions.ConnectTimeout("no"), 300),
        (requests.exceptions.ConnectionError("reset"), 300),
    ],
)
def test_ingest_records_temporary_failure_delays_records_and_sends_them_later(
    harness: Harness, answer: Any, wait_s: float
) -> None:
    harness.marketo.before = [answer]
    body = {"m1": message([contact(1)], harness.route)}
    if wait_s <= LONGEST_IN_QUEUE_S:
        assert harness.ingest(body) == {"m1"}
        assert harness.waits == {"m1": wait_s}
        assert harness.ingest(body, receives=2) == set()
    else:
        assert harness.ingest(body) == set()
        assert harness.held == pytest.approx({"m1": wait_s}, abs=5)
        harness.release(seconds=wait_s + 5)
    assert harness.held == {}
    assert harness.marketo.persons == [person(1)]
    assert harness.receipts()[0]["state"] == "accepted"


def test_pipeline_wait_s_grows_with_receives_and_respects_retry_after() -> None:
    assert [retry_schedule.wait_s(None, receives) for receives in (1, 2, 3, 4, 5, 6, 7, 10)] == [
        5, 10, 20, 40, 80, 160, 320, 600,
    ]  # fmt: skip
    assert retry_schedule.wait_s(1, 4) == 40
    assert retry_schedule.wait_s(10_800, 1) == 10_800
    assert retry_schedule.wait_s(0, 9) == 0


def test_ingest_records_duplicate_delivery_is_sent_once(harness: Harness) -> None:
    body = {"m1": message([contact(1)], harness.route)}
    assert harness.ingest(body) == set()
    assert harness.ingest(body, receives=2) == set()
    assert len(harness.marketo.requests) == 1
    assert len(harness.receipts()) == 1


def test_ingest_records_failed_part_of_batch_is_redelivered_with_own_receipt(harness: Harness) -> None:
    # Given a batch whose second request fails
    bodies = {
        f"m{start}": message([contact(number) for number in range(start, start + 250)], harness.route)
        for start in range(0, 1_250, 250)
    }
    harness.marketo.rule = lambda document: error("5000801") if len(document["persons"]) == 250 else None
    assert harness.ingest(bodies) == set()
    assert len(harness.held) == 1
    # When its message is sent again
    harness.marketo.rule = lambda document: None
    harness.release(minutes=6)
    # Then the failed and the successful request share one receipt, beside that of the first request
    assert sorted((receipt["count"], receipt["state"]) for receipt in harness.receipts()) == [
        (250, "accepted"),
        (1_000, "accepted"),
    ]
    assert len(harness.marketo.persons) == 1_250


def test_ingest_records_receipt_write_failure_before_sending_sends_nothing(harness: Harness) -> None:
    body = {"m1": message([contact(1)], harness.route)}
    with refusing("PutItem"):
        assert harness.ingest(body) == {"m1"}
    assert harness.marketo.requests == []
    assert harness.ingest(body) == set()


def test_ingest_records_receipt_update_failure_after_202_does_not_send_again(harness: Harness) -> None:
    with refusing("UpdateItem", where=lambda call: call["Key"]["pk"]["S"].startswith("RECEIPT#")):
        assert harness.ingest({"m1": message([contact(1)], harness.route)}) == set()
    assert len(harness.marketo.requests) == 1
    assert harness.receipts()[0]["state"] == "sent"


def test_ingest_records_lost_answer_leaves_receipt_open(harness: Harness) -> None:
    harness.marketo.before = [TIMEOUT]
    harness.ingest({"m1": message([contact(1)], harness.route)})
    assert harness.receipts()[0]["state"] == "sent"


def test_ingest_records_dead_letter_write_failure_returns_only_its_message(harness: Harness) -> None:
    bodies = {"m1": message([contact(1, email=None)], harness.route), "m2": message([contact(2)], harness.route)}
    with refusing("PutItem", where=lambda call: "DEAD_LETTER#" in call["Item"]["pk"]["S"]):
        assert harness.ingest(bodies) == {"m1"}
    assert harness.marketo.emails == ["person2@example.com"]


def test_ingest_records_table_read_failure_returns_every_message(harness: Harness) -> None:
    bodies = {f"m{number}": message([contact(number)], harness.route) for number in range(3)}
    with refusing("GetItem"):
        assert harness.ingest(bodies) == set(bodies)


def test_ingest_records_unexpected_error_returns_only_messages_of_its_destination(harness: Harness) -> None:
    other = replace(connection_store.get(harness.stack.table, DESTINATION), name="other")
    connection_store.create(harness.stack.table, other)
    bodies = {
        "m1": message([contact(1)], harness.route),
        "m2": message([contact(2)], harness.add_route("second", destination="other")),
    }
    send = receipts.open_receipt

    def breaking(table: Any, correlation_id: str, *, destination: str, **rest: Any) -> None:
        if destination == DESTINATION:
            raise ZeroDivisionError("person1@example.com")
        send(table, correlation_id, destination=destination, **rest)

    with patch.object(receipts, "open_receipt", breaking):
        assert harness.ingest(bodies) == {"m1"}
    assert harness.marketo.emails == ["person2@example.com"]


def test_ingest_records_too_little_time_sends_nothing(harness: Harness) -> None:
    assert harness.ingest({"m1": message([contact(1)], harness.route)}, time_left_s=20) == {"m1"}
    assert harness.marketo.requests == []


def test_ingest_records_log_holds_no_record_and_no_token(capsys: pytest.CaptureFixture[str], harness: Harness) -> None:
    harness.marketo.rule = refuse_persons({"person1@example.com"})
    harness.add_route("strict", mapping={"email": "abs(name)"})
    bodies = {
        "m1": message([contact(1), contact(2), contact(3, email=None)], harness.route),
        "m2": message([contact(4)], replace(harness.route, name="strict")),
        "m3": '{"email": "person5@example.com"}',
    }
    harness.ingest(bodies)
    with patch.object(receipts, "open_receipt", side_effect=ValueError("person6@example.com")):
        harness.ingest({"m6": message([contact(6)], harness.route)})
    output = capsys.readouterr()
    text = harness.log.getvalue() + output.out + output.err
    assert "request_accepted" in text
    assert "request-1" in text
    for secret in ("example.com", "canary", "Person", "+1555"):
        assert secret not in text


def test_ingest_records_sample_events_are_sent(harness: Harness) -> None:
    for name, people in (("one_contact", 1), ("two_messages", 3)):
        harness.marketo.accepted.clear()
        answer = harness.function.handler(functions.sample("ingest_records", name), functions.Context())
        assert answer == {"batchItemFailures": []}
        assert len(harness.marketo.persons) == people
