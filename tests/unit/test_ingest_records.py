"""Batches of records to Marketo, at the edges: SQS envelopes in, HTTP, table and dead letters out."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from unittest.mock import DEFAULT, patch

import pytest
import requests
import responses
from botocore.client import BaseClient
from botocore.exceptions import ClientError

from portaria import connections, ingestion, queues, receipts, records, routes, tokens, uninstalls
from portaria.contract import Record, Route
from tests.fakes import functions
from tests.fakes.aws import Cloud, cloud
from tests.fakes.marketo import Marketo, error, refuse_persons
from tests.fakes.people import DESTINATION, ROUTE, SOURCE, contact, person, set_up

WAYS = [set(way) for size in range(7) for way in itertools.combinations(range(6), size)]
TIMEOUT = requests.exceptions.ReadTimeout("read timed out")


def message(contacts: list[dict[str, Any]], route: Route, connection: str = SOURCE) -> str:
    """One Records message as backfill_records sends it."""
    packed = records.pack(
        connection, route, "backfill", [Record(str(one["id"]), one["updated_at"], one) for one in contacts]
    )
    assert len(packed) == 1
    return packed[0]


class Desk:
    """The ingestion of one stack."""

    def __init__(self, stack: Cloud, marketo: Marketo) -> None:
        self.stack, self.marketo = stack, marketo
        self.route = set_up(stack)
        self.function = functions.load("ingest_records", stack.environment)
        self.waits: dict[str, float] = {}
        self.log = io.StringIO()
        functions.log_to(self.log)

    def add_route(self, name: str, **changes: Any) -> Route:
        route = replace(self.route, name=name, **changes)
        routes.put(self.stack.table, route, new=True)
        return route

    def ingest(self, bodies: dict[str, str], *, receives: int = 1, time_left_s: float = 120.0) -> set[str]:
        """The ids of the messages that are reported as failed; `waits` is how long each was sent away for."""
        self.waits = {}

        def give_back(queue_url: str, receipt_handle: str, after_s: float) -> None:
            assert queue_url == self.stack.environment["RECORDS_QUEUE_URL"]
            self.waits[receipt_handle.removeprefix("handle-")] = after_s

        event = functions.sqs_event(bodies, "records", receives)
        with patch.object(queues, "give_back", give_back):
            answer = self.function.handler(event, functions.Context(time_left_s))
        assert set(self.waits) == functions.reported(answer)
        return functions.reported(answer)

    def dead_letters(self) -> list[dict[str, Any]]:
        return [json.loads(body) for body in self.stack.receive("records_set_aside")]

    def receipts(self) -> list[dict[str, Any]]:
        return list(self.stack.table.query_all(f"RECEIPTS#{DESTINATION}", index="listing"))


@pytest.fixture
def desk() -> Iterator[Desk]:
    tokens.PROCESS.clear()
    with cloud() as stack, responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield Desk(stack, Marketo(mock))


@pytest.fixture
def without_receipts() -> Iterator[None]:
    """Receipts have their own tests; without their writes hundreds of batches take seconds."""
    with patch.multiple(receipts, open_receipt=DEFAULT, accept=DEFAULT, fail=DEFAULT):
        yield


def refusing(matches: Callable[[str, dict[str, Any]], bool]) -> Any:
    """AWS calls that match fail as when a service throttles."""
    call = BaseClient._make_api_call

    def make_api_call(client: Any, operation: str, parameters: dict[str, Any]) -> Any:
        if matches(operation, parameters):
            raise ClientError({"Error": {"Code": "ThrottlingException", "Message": "Rate exceeded"}}, operation)
        return call(client, operation, parameters)

    return patch.object(BaseClient, "_make_api_call", make_api_call)


def test_a_batch_becomes_one_request_with_a_receipt(desk: Desk) -> None:
    bodies = {f"m{number}": message([contact(number)], desk.route) for number in range(1, 41)}

    assert desk.ingest(bodies) == set()

    assert len(desk.marketo.requests) == 1
    document = desk.marketo.accepted[0]
    assert document["priority"] == "normal"
    assert document["dedupeFields"] == {"field1": "email"}
    assert "partitionName" not in document
    assert desk.marketo.persons == [person(number) for number in range(1, 41)]
    sent = desk.marketo.requests[0]
    assert sent.headers["X-Request-Source"] == "Portaria"
    (receipt,) = desk.receipts()
    assert receipt["correlation_id"] == sent.headers["X-Correlation-Id"]
    assert (receipt["state"], receipt["request_id"], receipt["count"]) == ("accepted", "request-1", 40)
    assert receipt["bytes"] == len(sent.body or "")
    assert receipt["routes"] == [ROUTE]


def test_records_of_a_connection_that_was_removed_meanwhile_still_arrive(desk: Desk) -> None:
    body = message([contact(1)], desk.route)
    source = connections.get(desk.stack.table, SOURCE)
    uninstalls.delete(desk.stack.table, desk.stack.environment["UNINSTALLS_QUEUE_URL"], source)
    assert desk.ingest({"m": body}) == set()
    assert desk.marketo.emails == ["person1@example.com"]
    assert desk.dead_letters() == []


def test_a_full_day_of_mixed_messages_is_cut_at_a_thousand_objects(desk: Desk) -> None:
    bodies = {
        f"m{start}": message([contact(number) for number in range(start, start + 250)], desk.route)
        for start in range(1, 2_500, 250)
    }
    assert desk.ingest(bodies) == set()
    assert [len(document["persons"]) for document in desk.marketo.accepted] == [1_000, 1_000, 500]
    assert sorted(desk.marketo.emails) == sorted(f"person{number}@example.com" for number in range(1, 2_501))


def test_high_priority_goes_first_in_its_own_request_with_its_partition(desk: Desk) -> None:
    urgent = desk.add_route("urgent", priority="high", partition="EMEA", dedupe_fields=("email", "firstName"))
    desk.ingest({"m1": message([contact(1)], desk.route), "m2": message([contact(2)], urgent)})
    first, second = desk.marketo.accepted
    assert first["priority"] == "high"
    assert first["partitionName"] == "EMEA"
    assert first["dedupeFields"] == {"field1": "email", "field2": "firstName"}
    assert second["priority"] == "normal"


def test_of_two_versions_of_a_record_the_newest_goes(desk: Desk) -> None:
    old, new = contact(1, updated_at=100), {**contact(1, updated_at=200), "last_name": "Newest"}
    assert desk.ingest({"m1": message([new], desk.route), "m2": message([old, contact(2)], desk.route)}) == set()
    assert [(one["email"], one["lastName"]) for one in desk.marketo.persons] == [
        ("person1@example.com", "Newest"),
        ("person2@example.com", "Person2"),
    ]


@pytest.mark.usefixtures("without_receipts")
def test_the_reported_set_is_the_failed_set_in_all_64_ways(desk: Desk) -> None:
    # Given six messages, each in a request of its own, of which some are answered with 500
    numbers = {f"part{number}": number for number in range(6)}
    routes_by_number = {n: desk.add_route(f"route{n}", partition=part) for part, n in numbers.items()}
    for way, failing in enumerate(WAYS):
        desk.marketo.accepted.clear()
        desk.marketo.rule = lambda document, failing=failing: (  # type: ignore[misc]
            error("5000801") if numbers[document["partitionName"]] in failing else None
        )
        bodies = {f"{way}-{n}": message([contact(n)], routes_by_number[n]) for n in range(6)}
        # When they are ingested
        reported = desk.ingest(bodies)
        # Then exactly those come back, and after the fault the rest arrives
        assert reported == {f"{way}-{number}" for number in failing}
        desk.marketo.rule = lambda document: None
        assert desk.ingest({message_id: bodies[message_id] for message_id in sorted(reported)}, receives=2) == set()
        assert sorted(desk.marketo.emails) == [f"person{number}@example.com" for number in range(6)]


@pytest.mark.usefixtures("without_receipts")
def test_bad_records_are_set_aside_one_by_one_in_all_64_ways(desk: Desk) -> None:
    for way, failing in enumerate(WAYS):
        desk.marketo.accepted.clear()
        desk.marketo.rule = refuse_persons({f"person{number}@example.com" for number in failing})
        bodies = {f"{way}-{n}": message([contact(n)], desk.route) for n in range(6)}

        assert desk.ingest(bodies) == set()

        assert sorted(desk.marketo.emails) == [f"person{n}@example.com" for n in range(6) if n not in failing]
        letters = desk.dead_letters()
        assert sorted(letter["records"][0]["key"] for letter in letters) == sorted(map(str, failing))
        for letter in letters:
            assert letter["reason"] == "refused_by_destination"
            assert "4000802" in letter["detail"]
            assert letter["records"][0]["data"] == contact(int(letter["records"][0]["key"]))


@pytest.mark.usefixtures("without_receipts")
def test_what_goes_wrong_in_six_different_ways_reports_only_what_is_not_dealt_with(desk: Desk) -> None:
    """Message 0 is unreadable, 1 has lost its route, 2 has no e-mail address, 3 is refused by Marketo, 4 leads to a
    destination that is gone, 5 to one whose grant has ended; each only where it is in `failing`."""
    lost = desk.add_route("lost", destination="nowhere")
    stale = connections.get(desk.stack.table, DESTINATION)
    connections.create(desk.stack.table, replace(stale, name="stale", state="needs_reconnect"))
    ended = desk.add_route("ended", destination="stale")
    wrong = {
        0: "not a message",
        1: message([contact(1)], replace(desk.route, name="deleted")),
        2: message([contact(2, email=None)], desk.route),
        3: message([contact(3)], desk.route),
        4: message([contact(4)], lost),
        5: message([contact(5)], ended),
    }
    reasons = {1: "unknown_route", 2: "no_dedupe_value", 3: "refused_by_destination"}
    for way, failing in enumerate(WAYS):
        desk.marketo.accepted.clear()
        desk.marketo.rule = refuse_persons({"person3@example.com"} if 3 in failing else set())
        bodies = {f"{way}-{n}": wrong[n] if n in failing else message([contact(n)], desk.route) for n in range(6)}

        assert desk.ingest(bodies) == {f"{way}-{number}" for number in failing & {0, 4, 5}}

        assert sorted(desk.marketo.emails) == [f"person{n}@example.com" for n in range(6) if n not in failing]
        assert {int(letter["records"][0]["key"]): letter["reason"] for letter in desk.dead_letters()} == {
            number: reasons[number] for number in failing & {1, 2, 3}
        }


def test_one_bad_record_of_a_thousand_stands_alone_after_twenty_requests(desk: Desk) -> None:
    desk.marketo.rule = refuse_persons({"person617@example.com"}, "4000801")
    bodies = {
        f"m{start}": message([contact(number) for number in range(start, start + 250)], desk.route)
        for start in range(0, 1_000, 250)
    }
    assert desk.ingest(bodies) == set()
    assert len(desk.marketo.requests) <= 1 + 2 * 10
    assert len(set(desk.marketo.emails)) == 999
    (letter,) = desk.dead_letters()
    assert letter["records"][0]["key"] == "617"
    # And every request has its receipt: refused ones with the code
    states = {receipt["state"] for receipt in desk.receipts()}
    assert states == {"accepted", "failed"}
    assert {receipt["code"] for receipt in desk.receipts() if receipt["state"] == "failed"} == {"4000801"}


def test_a_dead_letter_can_be_put_back_as_it_is(desk: Desk) -> None:
    desk.marketo.rule = refuse_persons({"person1@example.com"})
    desk.ingest({"m1": message([contact(1)], desk.route)})
    (letter,) = desk.stack.receive("records_set_aside")
    desk.marketo.rule = lambda document: None
    assert desk.ingest({"m2": letter}) == set()
    assert desk.marketo.persons == [person(1)]


def test_where_everything_is_refused_the_search_ends_and_everything_is_kept(desk: Desk) -> None:
    desk.marketo.rule = lambda document: error("4000801")
    bodies = {
        f"m{start}": message([contact(number) for number in range(start, start + 100)], desk.route)
        for start in range(0, 400, 100)
    }
    with patch.object(ingestion, "MAX_BISECT_REQUESTS", 20):
        assert desk.ingest(bodies) == set()
    assert len(desk.marketo.requests) <= 20 + 10
    letters = desk.dead_letters()
    assert len(letters) < 100
    assert sorted(int(one["key"]) for letter in letters for one in letter["records"]) == list(range(400))


def test_a_token_that_has_ended_is_renewed_once_and_the_records_go(desk: Desk) -> None:
    desk.ingest({"m1": message([contact(1)], desk.route)})
    desk.marketo.good_from = 2
    assert desk.ingest({"m2": message([contact(2)], desk.route)}) == set()
    assert desk.marketo.tokens == 2
    assert desk.marketo.emails == ["person1@example.com", "person2@example.com"]


def test_a_token_is_asked_for_once_for_many_requests(desk: Desk) -> None:
    for number in range(5):
        desk.ingest({f"m{number}": message([contact(number)], desk.route)})
    assert desk.marketo.tokens == 1


def test_where_the_new_token_is_refused_too_nothing_is_lost(desk: Desk) -> None:
    desk.marketo.good_from = 99
    bodies = {f"m{n}": message([contact(n)], desk.add_route(f"r{n}", partition=f"p{n}")) for n in range(4)}
    assert desk.ingest(bodies) == set(bodies)
    assert len(desk.marketo.requests) == 2
    assert desk.dead_letters() == []


@pytest.mark.parametrize("code", ["403010", "4030801", "404040"])
def test_a_destination_that_refuses_for_good_is_left_alone_and_nothing_is_lost(
    capsys: pytest.CaptureFixture[str], desk: Desk, code: str
) -> None:
    desk.marketo.rule = lambda document: error(code)
    bodies = {f"m{n}": message([contact(n)], desk.add_route(f"r{n}", partition=f"p{n}")) for n in range(4)}
    assert desk.ingest(bodies) == set(bodies)
    assert len(desk.marketo.requests) == 1
    assert desk.dead_letters() == []
    assert f'"code":"{code}"' in desk.log.getvalue()
    assert '"DestinationsStopped":[1.0]' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "wait_s"),
    [
        (error("429001"), 5),
        (error("429001", {"Retry-After": "77"}), 77),
        (error("4290801"), 10_800),
        (error("5000801"), 5),
        ((503, {"Content-Type": "text/html"}, "<html>unavailable</html>"), 5),
        ((200, {}, "<html>sign in to the network</html>"), 5),
        (TIMEOUT, 5),
        (requests.exceptions.ConnectTimeout("no"), 5),
        (requests.exceptions.ConnectionError("reset"), 5),
    ],
)
def test_a_destination_that_cannot_now_gets_the_records_later(desk: Desk, answer: Any, wait_s: float) -> None:
    desk.marketo.before = [answer]
    body = {"m1": message([contact(1)], desk.route)}
    assert desk.ingest(body) == {"m1"}
    assert desk.waits == {"m1": wait_s}
    assert desk.ingest(body, receives=2) == set()
    assert desk.marketo.persons == [person(1)]
    assert desk.receipts()[0]["state"] == "accepted"


def test_waits_grow_with_the_receives_whatever_a_short_retry_after_says() -> None:
    assert [ingestion.wait_s(None, receives) for receives in (1, 2, 3, 4, 5, 6, 7, 10)] == [
        5, 15, 45, 135, 405, 1_215, 1_800, 1_800,
    ]  # fmt: skip
    assert ingestion.wait_s(1, 4) == 135
    assert ingestion.wait_s(10_800, 1) == 10_800
    assert ingestion.wait_s(0, 9) == 0


def test_a_message_that_arrives_twice_is_sent_once(desk: Desk) -> None:
    body = {"m1": message([contact(1)], desk.route)}
    assert desk.ingest(body) == set()
    assert desk.ingest(body, receives=2) == set()
    assert len(desk.marketo.requests) == 1
    assert len(desk.receipts()) == 1


def test_a_redelivered_part_of_a_batch_gets_its_own_receipt(desk: Desk) -> None:
    # Given a batch whose second request fails
    bodies = {
        f"m{start}": message([contact(number) for number in range(start, start + 250)], desk.route)
        for start in range(0, 1_250, 250)
    }
    desk.marketo.rule = lambda document: error("5000801") if len(document["persons"]) == 250 else None
    (failed,) = desk.ingest(bodies)
    # When its message comes again
    desk.marketo.rule = lambda document: None
    assert desk.ingest({failed: bodies[failed]}, receives=2) == set()
    # Then what failed and what succeeds are one receipt, beside the first request's
    assert sorted((receipt["count"], receipt["state"]) for receipt in desk.receipts()) == [
        (250, "accepted"),
        (1_000, "accepted"),
    ]
    assert len(desk.marketo.persons) == 1_250


def test_a_receipt_that_cannot_be_written_before_sending_holds_the_records(desk: Desk) -> None:
    body = {"m1": message([contact(1)], desk.route)}
    with refusing(lambda operation, call: operation == "PutItem"):
        assert desk.ingest(body) == {"m1"}
    assert desk.marketo.requests == []
    assert desk.ingest(body) == set()


def test_a_receipt_that_cannot_be_closed_after_202_does_not_send_again(desk: Desk) -> None:
    with refusing(lambda operation, call: operation == "UpdateItem"):
        assert desk.ingest({"m1": message([contact(1)], desk.route)}) == set()
    assert len(desk.marketo.requests) == 1
    assert desk.receipts()[0]["state"] == "sent"


def test_an_answer_that_was_lost_leaves_the_receipt_open(desk: Desk) -> None:
    desk.marketo.before = [TIMEOUT]
    desk.ingest({"m1": message([contact(1)], desk.route)})
    assert desk.receipts()[0]["state"] == "sent"


def test_dead_letters_that_cannot_be_written_hold_their_messages_only(desk: Desk) -> None:
    bodies = {"m1": message([contact(1, email=None)], desk.route), "m2": message([contact(2)], desk.route)}
    with refusing(lambda operation, call: operation == "SendMessage"):
        assert desk.ingest(bodies) == {"m1"}
    assert desk.marketo.emails == ["person2@example.com"]


def test_a_table_that_does_not_answer_holds_everything(desk: Desk) -> None:
    bodies = {f"m{number}": message([contact(number)], desk.route) for number in range(3)}
    with refusing(lambda operation, call: operation == "GetItem"):
        assert desk.ingest(bodies) == set(bodies)


def test_a_failure_nobody_thought_of_holds_its_own_destination_only(desk: Desk) -> None:
    other = replace(connections.get(desk.stack.table, DESTINATION), name="other")
    connections.create(desk.stack.table, other)
    bodies = {
        "m1": message([contact(1)], desk.route),
        "m2": message([contact(2)], desk.add_route("second", destination="other")),
    }
    send = receipts.open_receipt

    def breaking(table: Any, correlation_id: str, destination: str, *rest: Any) -> None:
        if destination == DESTINATION:
            raise ZeroDivisionError("person1@example.com")
        send(table, correlation_id, destination, *rest)

    with patch.object(receipts, "open_receipt", breaking):
        assert desk.ingest(bodies) == {"m1"}
    assert desk.marketo.emails == ["person2@example.com"]


def test_without_the_time_for_an_answer_nothing_is_sent(desk: Desk) -> None:
    assert desk.ingest({"m1": message([contact(1)], desk.route)}, time_left_s=20) == {"m1"}
    assert desk.marketo.requests == []


def test_no_record_and_no_token_reaches_the_log(capsys: pytest.CaptureFixture[str], desk: Desk) -> None:
    desk.marketo.rule = refuse_persons({"person1@example.com"})
    desk.add_route("strict", mapping={"email": "abs(name)"})
    bodies = {
        "m1": message([contact(1), contact(2), contact(3, email=None)], desk.route),
        "m2": message([contact(4)], replace(desk.route, name="strict")),
        "m3": '{"email": "person5@example.com"}',
    }
    desk.ingest(bodies)
    with patch.object(receipts, "open_receipt", side_effect=ValueError("person6@example.com")):
        desk.ingest({"m6": message([contact(6)], desk.route)})
    output = capsys.readouterr()
    text = desk.log.getvalue() + output.out + output.err
    assert "a request was accepted" in text
    assert "request-1" in text
    for secret in ("example.com", "canary", "Person", "+1555"):
        assert secret not in text


def test_the_sample_events_are_what_the_function_takes(desk: Desk) -> None:
    for name, people in (("one_contact", 1), ("two_messages", 3)):
        desk.marketo.accepted.clear()
        answer = desk.function.handler(functions.sample("ingest_records", name), functions.Context())
        assert answer == {"batchItemFailures": []}
        assert len(desk.marketo.persons) == people
