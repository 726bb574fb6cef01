"""The delivery of records: order, fan-out, and the effect of each response of a destination. On AWS in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import Mock, patch

import pytest

from portaria.connections import connection_store
from portaria.connections.tokens import provider
from portaria.connections.vault import Vault
from portaria.core import clock, record_messages
from portaria.core.callbacks import Record, Secret
from portaria.core.entities import Connection
from portaria.core.errors import AnswerLost, Unreachable
from portaria.core.http.messages import Request, Response
from portaria.delivery import backlogs, host_pauses, quotas, version_guard, waiting_entries
from portaria.delivery.pipeline import QueuedMessage
from portaria.delivery.stages import deduplicate, host_gate
from portaria.outbound.rate_limiter import RateLimiter
from portaria.platforms.marketo import daily_quota, persons
from portaria.records import receipt_search, receipts, record_index
from tests.fakes import outgoing
from tests.fakes.records import ingesting, waiting_records
from tests.fakes.records.contacts import DESTINATION, SOURCE, contact, person
from tests.fakes.records.ingesting import MUNCHKIN, Harness, body, refusal
from tests.simulation.aws.cloud import PREFIX

NOON = datetime(2026, 3, 4, 18, 0, tzinfo=UTC)


@pytest.fixture
def harness() -> Iterator[Harness]:
    with ingesting.harness() as opened:
        yield opened


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A clock that stands still until a test changes `time["now"]`."""
    standing = {"now": NOON}
    monkeypatch.setattr(clock, "now", lambda: standing["now"])
    return standing


def front_door(objects: list[dict[str, Any]], target: dict[str, Any], *, request: str = "r-1", key: str = "") -> str:
    records = [
        Record(key or str(each.get("email", number)), 1_700_000_000, each) for number, each in enumerate(objects)
    ]
    origin = record_messages.FRONT_DOOR
    (packed,) = record_messages.pack(
        records, connection="pi-7", object="persons", origin=origin, read_at=5, request=request, target=target
    )
    return packed


def to(object_name: str, priority: str = "normal", **options: str) -> dict[str, Any]:
    return {"destination": DESTINATION, "object": object_name, "priority": priority, "options": options}


# --- destinations


def test_pipeline_event_follows_every_route_of_its_connection(harness: Harness) -> None:
    harness.route("people")
    harness.route("cars", target="customobjects/car_c", mapping={"vin": "to_string(id)"}, dedupe_fields=("vin",))
    harness.route("of-companies", object="companies", mapping={"externalCompanyId": "to_string(id)"}, dedupe_fields=())
    outcome = harness.ingest(QueuedMessage("m1", body([contact(1)])))
    assert outcome.waiting == {}
    assert harness.accepted == [
        ("persons", {"priority": "normal", "dedupeFields": {"field1": "email"}, "persons": [person(1)]}),
        ("customobjects/car_c", {"priority": "normal", "customObjects": [{"vin": "1"}]}),
    ]


def test_pipeline_equal_bodies_for_two_custom_objects_are_both_sent(harness: Harness) -> None:
    """Given two custom objects with the same mapping, when a contact arrives, then each gets a request and a receipt."""
    for name in ("car_c", "lead_c"):
        mapping = {"vin": "to_string(id)"}
        harness.route(name, target=f"customobjects/{name}", mapping=mapping, dedupe_fields=("vin",))
    harness.ingest(QueuedMessage("m1", body([contact(1)])))
    assert [path for path, _ in harness.accepted] == ["customobjects/car_c", "customobjects/lead_c"]
    found, _ = receipt_search.by_destination(harness.table, DESTINATION, clock.now())
    assert {(receipt.object, receipt.state) for receipt in found} == {
        ("customobjects/car_c", "accepted"), ("customobjects/lead_c", "accepted")
    }  # fmt: skip


def test_pipeline_event_without_route_is_counted_and_consumed(harness: Harness) -> None:
    outcome = harness.ingest(QueuedMessage("m1", body([contact(1), contact(2)])))
    assert (outcome.waiting, outcome.counts["RecordsWithoutRoute"]) == ({}, 2)
    assert harness.letters() == []


def test_pipeline_route_to_unknown_connection_does_not_block_other_routes(harness: Harness) -> None:
    harness.route("people")
    harness.route("gone", destination="nowhere")
    assert harness.ingest(QueuedMessage("m1", body([contact(1)]))).waiting == {}
    assert harness.persons == [person(1)]
    assert [(letter["route"], letter["reason"]) for letter in harness.letters()] == [("gone", "unknown_connection")]


def test_pipeline_order_is_high_priority_then_persons_then_linked_objects(harness: Harness) -> None:
    bodies = [
        front_door([{"leadId": 7}], to("lists", list_id="3")),
        front_door([{"vin": "1"}], to("customobjects/car_c")),
        front_door([{"email": "a@example.com"}], to("persons")),
        front_door([{"vin": "2"}], to("customobjects/car_c", "high")),
        front_door([{"email": "b@example.com"}], to("persons", "high")),
    ]
    harness.ingest(*[QueuedMessage(str(number), each) for number, each in enumerate(bodies)])
    order = [path for path, _ in harness.accepted]
    assert order[:3] == ["persons", "customobjects/car_c", "persons"]
    assert set(order[3:]) == {"lists", "customobjects/car_c"}


@pytest.mark.parametrize(
    ("target", "sent", "document"),
    [
        (to("persons", field1="email", field2="firstName", partition="EMEA"), {"email": "a@example.com"},
         {"priority": "normal", "partitionName": "EMEA", "dedupeFields": {"field1": "email", "field2": "firstName"},
          "persons": [{"email": "a@example.com"}]}),
        (to("persons"), {"email": "a@example.com"}, {"priority": "normal", "persons": [{"email": "a@example.com"}]}),
        (to("customobjects/car_c", "high", dedupe_by="marketoGUID"), {"marketoGUID": "g", "n": 1},
         {"priority": "high", "dedupeBy": "marketoGUID", "customObjects": [{"marketoGUID": "g", "n": 1}]}),
        (to("companies", action="updateOnly", dedupe_by="idField"), {"id": 5},
         {"action": "updateOnly", "dedupeBy": "idField", "input": [{"id": 5}]}),
        (to("programmembers", program_id="12", status="Registered"), {"leadId": 7},
         {"programs": [{"programId": 12, "status": "Registered", "members": [{"leadId": 7}]}]}),
        (to("programmembers/delete", program_id="12"), {"leadId": 7},
         {"programs": [{"programId": 12, "members": [{"leadId": 7}]}]}),
        (to("lists/remove", list_id="3"), {"leadId": 7}, {"listId": 3, "input": [{"leadId": 7}]}),
    ],
)  # fmt: skip
def test_pipeline_data_ingestion_message_is_sent_in_adobe_form(
    harness: Harness, target: dict[str, Any], sent: dict[str, Any], document: dict[str, Any]
) -> None:
    harness.ingest(QueuedMessage("m1", front_door([sent], target)))
    assert harness.accepted == [(target["object"], document)]


def test_pipeline_partial_upserts_of_one_person_are_merged(harness: Harness) -> None:
    first = front_door([{"email": "a@example.com", "firstName": "Ana", "city": "Recife"}], to("persons"))
    second = front_door([{"email": "A@example.com", "firstName": "Anna"}], to("persons")).replace(
        '"read_at":5', '"read_at":6'
    )
    outcome = harness.ingest(QueuedMessage("2", second), QueuedMessage("1", first))
    assert harness.persons == [{"email": "A@example.com", "firstName": "Anna", "city": "Recife"}]
    assert outcome.counts["RecordsCoalesced"] == 1


def test_pipeline_create_only_companies_are_not_merged(harness: Harness) -> None:
    both = [{"externalCompanyId": "1", "company": "A"}, {"externalCompanyId": "1", "company": "B"}]
    harness.ingest(QueuedMessage("m1", front_door(both, to("companies", action="createOnly"))))
    assert harness.accepted[0][1]["input"] == both


def test_pipeline_refused_records_with_one_key_become_dead_letters_with_their_own_data(harness: Harness) -> None:
    """Given two records with the same key that are refused with different codes, then none replaces the other one."""
    codes = {"A": "4000801", "B": "4000802"}
    harness.rule = lambda document: refusal(codes[document["input"][0]["company"]])
    both = [{"externalCompanyId": "1", "company": "A"}, {"externalCompanyId": "1", "company": "B"}]
    harness.ingest(QueuedMessage("m1", front_door(both, to("companies", action="createOnly"), key="1")))
    letters = harness.letters()
    assert sorted(record["data"]["company"] for letter in letters for record in letter["records"]) == ["A", "B"]


# --- order over time


def test_pipeline_older_event_after_newer_is_superseded(harness: Harness) -> None:
    harness.route("people")
    new, old = {**contact(1, updated_at=200), "first_name": "New"}, contact(1, updated_at=100)
    harness.ingest(QueuedMessage("1", body([new])))
    outcome = harness.ingest(QueuedMessage("2", body([old])))
    assert (outcome.waiting, outcome.counts["RecordsSuperseded"]) == ({}, 1)
    assert [one["firstName"] for one in harness.persons] == ["New"]


def test_pipeline_backfill_respects_event_versions_and_stores_none(harness: Harness) -> None:
    harness.route("people")
    harness.ingest(QueuedMessage("1", body([contact(1, updated_at=200)])))
    page = [{**contact(1, updated_at=100), "first_name": "Old"}, contact(2, updated_at=300)]
    harness.ingest(QueuedMessage("2", body(page, "people", origin=record_messages.BACKFILL)), bulk=True)
    harness.ingest(QueuedMessage("3", body([{**contact(2, updated_at=250), "first_name": "Late"}])))
    assert [(one["email"], one["firstName"]) for one in harness.persons] == [
        ("person1@example.com", "Test"), ("person2@example.com", "Test"), ("person2@example.com", "Late"),
    ]  # fmt: skip


def test_pipeline_backfill_with_keep_newest_all_stores_versions(harness: Harness) -> None:
    harness.route("people", keep_newest="all")
    harness.ingest(
        QueuedMessage("1", body([contact(2, updated_at=300)], "people", origin=record_messages.BACKFILL)), bulk=True
    )
    harness.ingest(QueuedMessage("2", body([contact(2, updated_at=250)])))
    assert len(harness.persons) == 1


def test_pipeline_keep_newest_none_sends_every_version(harness: Harness) -> None:
    harness.route("people", keep_newest="none")
    for number, updated_at in enumerate((300, 250)):
        harness.ingest(QueuedMessage(str(number), body([contact(2, updated_at=updated_at)])))
    assert len(harness.persons) == 2


def test_pipeline_reconciliation_sends_only_records_that_no_event_delivered(harness: Harness) -> None:
    harness.route("people")
    harness.ingest(QueuedMessage("1", body([contact(1, updated_at=100)], read_at=100_500)))
    missed = [contact(1, updated_at=100), contact(2, updated_at=100)]
    harness.ingest(QueuedMessage("2", body(missed, origin=record_messages.RECONCILIATION, read_at=999_000)), bulk=True)
    assert [one["email"] for one in harness.persons] == ["person1@example.com", "person2@example.com"]


def test_pipeline_same_second_changes_keep_the_later_arrival(harness: Harness) -> None:
    harness.route("people")
    late, early = {**contact(1), "first_name": "Late"}, contact(1)
    harness.ingest(QueuedMessage("1", body([late], read_at=9)))
    harness.ingest(QueuedMessage("2", body([early], read_at=7)))
    assert [one["firstName"] for one in harness.persons] == ["Late"]


@pytest.mark.parametrize("origin", [record_messages.EVENT, record_messages.RECONCILIATION])
def test_pipeline_worker_killed_after_version_mark_is_sent_on_redelivery(harness: Harness, origin: str) -> None:
    harness.route("people")
    message = body([contact(1)], origin=origin)
    # The worker crashes before it has written that the message waits: the message is received again
    harness.rule = lambda document: AnswerLost("…")
    with patch.object(waiting_entries, "put", side_effect=OSError):
        assert harness.ingest(QueuedMessage("1", message)).waiting == {"1": None}
    harness.rule = lambda document: None
    assert harness.ingest(QueuedMessage("1", message, 2)).waiting == {}
    assert person(1) in harness.persons


@pytest.mark.parametrize(("keep_newest", "names"), [("events", ["New"]), ("all", ["New"]), ("none", ["New", "Test"])])
def test_pipeline_record_superseded_during_slow_batch_is_not_sent(
    harness: Harness, time: Any, keep_newest: str, names: list[str]
) -> None:
    """Given a batch of two requests, when a newer version of a record of the second is sent during the first, then it stays."""
    harness.route("people", keep_newest=keep_newest)
    last = persons.MAX_OBJECTS + 1
    old = [contact(number, updated_at=100) for number in range(1, last + 1)]
    newer = {**contact(last, updated_at=200), "first_name": "New"}

    def overtake(document: Any) -> None:
        harness.rule = lambda document: None
        time["now"] += timedelta(seconds=deduplicate.MARKS_HOLD_S)
        assert harness.ingest(QueuedMessage("new", body([newer]))).waiting == {}

    harness.rule = overtake
    halves = [body(old[: last // 2], read_at=1), body(old[last // 2 :], read_at=2)]
    outcome = harness.ingest(*(QueuedMessage(str(number), half) for number, half in enumerate(halves)))
    assert outcome.waiting == {}
    assert outcome.counts["RecordsSuperseded"] == 2 - len(names)
    assert [one["firstName"] for one in harness.persons if one["email"] == f"person{last}@example.com"] == names


def test_pipeline_record_superseded_while_the_quota_is_reserved_is_not_sent(
    harness: Harness, time: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given two batches with a change of one contact each, when the newer one is sent first, then the older one is not."""
    harness.route("people")
    reserve = quotas.Ledger.reserve

    def reserve_late(ledger: quotas.Ledger, *given: Any, **named: Any) -> Any:
        monkeypatch.setattr(quotas.Ledger, "reserve", reserve)
        newer = {**contact(1, updated_at=200), "first_name": "New"}
        assert harness.ingest(QueuedMessage("new", body([newer]))).waiting == {}
        time["now"] += timedelta(seconds=deduplicate.MARKS_HOLD_S)
        return reserve(ledger, *given, **named)

    monkeypatch.setattr(quotas.Ledger, "reserve", reserve_late)
    outcome = harness.ingest(QueuedMessage("old", body([contact(1, updated_at=100)])))
    assert outcome.waiting == {}
    assert outcome.counts["RecordsSuperseded"] == 1
    assert [one["firstName"] for one in harness.persons] == ["New"]


def used_count(harness: Harness) -> int:
    return quotas.used_count(harness.table, MUNCHKIN, "2026-03-04")


def close_host(harness: Harness, patches: pytest.MonkeyPatch) -> None:
    """Another worker pauses the host while the quota is reserved."""
    reserve = quotas.Ledger.reserve

    def reserve_late(ledger: quotas.Ledger, *given: Any, **named: Any) -> Any:
        patches.setattr(host_gate, "REMEMBERED_S", 0.0)
        host_pauses.begin(harness.table, "mkto-ingestion-api.adobe.io")
        return reserve(ledger, *given, **named)

    patches.setattr(quotas.Ledger, "reserve", reserve_late)


def fail_marks(harness: Harness, patches: pytest.MonkeyPatch) -> None:
    patches.setattr(deduplicate, "MARKS_HOLD_S", 0.0)
    patches.setattr(version_guard, "overtaken", Mock(side_effect=ConnectionError))


def fail_log_in(harness: Harness, patches: pytest.MonkeyPatch) -> None:
    patches.setattr(provider.TokenProvider, "token", Mock(side_effect=AnswerLost("no token came")))


def fail_receipt(harness: Harness, patches: pytest.MonkeyPatch) -> None:
    patches.setattr(receipts, "open_receipt", Mock(side_effect=ConnectionError))


def refuse_connection(harness: Harness, patches: pytest.MonkeyPatch) -> None:
    patches.setattr(harness, "rule", lambda document: Unreachable("connection refused"))


def overtake(harness: Harness, patches: pytest.MonkeyPatch) -> None:
    patches.setattr(deduplicate, "MARKS_HOLD_S", 0.0)
    patches.setattr(version_guard, "overtaken", Mock(return_value={0}))


@pytest.mark.parametrize(
    "hinder",
    [close_host, fail_marks, fail_log_in, fail_receipt, refuse_connection, overtake],
    ids=lambda each: each.__name__,
)
def test_pipeline_quota_of_request_that_was_not_sent_is_used_for_the_next_one(
    harness: Harness, time: Any, hinder: Callable[[Harness, pytest.MonkeyPatch], None]
) -> None:
    harness.route("people")
    with pytest.MonkeyPatch.context() as patches:
        hinder(harness, patches)
        harness.ingest(QueuedMessage("1", body([contact(1)])))
    assert harness.accepted == []
    assert used_count(harness) == 1
    time["now"] += timedelta(hours=1)
    harness.release()
    harness.ingest(QueuedMessage("2", body([contact(2)])))
    assert person(2) in harness.persons
    assert used_count(harness) == len(harness.persons)


@pytest.mark.parametrize(
    "answer",
    [AnswerLost("no answer came"), refusal("5000801"), refusal("429001"), None],
    ids=["lost", "500", "429", "202"],
)
def test_pipeline_quota_of_request_that_may_have_arrived_is_not_given_back(
    harness: Harness, time: Any, answer: Any
) -> None:
    harness.route("people")
    harness.rule = lambda document: answer
    harness.ingest(QueuedMessage("1", body([contact(1)])))
    harness.rule = lambda document: None
    time["now"] += timedelta(hours=1)
    harness.ingest(QueuedMessage("2", body([contact(2)])))
    assert len(harness.requests) == used_count(harness) == 2


def test_pipeline_quota_of_request_that_is_refused_with_its_token_is_not_given_back(
    harness: Harness, time: Any
) -> None:
    """The second attempt does not reach the host, but the first one did."""
    harness.route("people")
    answers: list[Any] = [Response(401, {}, b""), Unreachable("connection refused")]
    harness.rule = lambda document: answers.pop(0)
    harness.ingest(QueuedMessage("1", body([contact(1)])))
    assert answers == []
    harness.rule = lambda document: None
    time["now"] += timedelta(hours=1)
    harness.ingest(QueuedMessage("2", body([contact(2)])))
    assert used_count(harness) == 2


def test_pipeline_quota_of_request_that_was_accepted_before_is_given_back_once(harness: Harness, time: Any) -> None:
    """A message is delivered again after its request was accepted, so its second reservation is not needed."""
    harness.route("people", keep_newest="none")
    for _ in range(3):
        harness.ingest(QueuedMessage("1", body([contact(1)])))
    assert len(harness.accepted) == 1
    assert used_count(harness) == 2
    harness.ingest(QueuedMessage("2", body([contact(2)])))
    harness.ingest(QueuedMessage("3", body([contact(3)])))
    assert (len(harness.accepted), used_count(harness)) == (3, 3)


def test_pipeline_quota_of_overtaken_record_is_given_back_and_that_of_the_sent_one_is_not(
    harness: Harness, time: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.route("people")
    with pytest.MonkeyPatch.context() as patches:
        overtake(harness, patches)
        harness.ingest(QueuedMessage("1", body([contact(1), contact(2)])))
    assert (harness.persons, used_count(harness)) == ([person(2)], 2)
    harness.ingest(QueuedMessage("2", body([contact(3)])))
    assert used_count(harness) == 2
    harness.ingest(QueuedMessage("3", body([contact(4)])))
    assert used_count(harness) == 3


def test_pipeline_version_recheck_failure_sends_nothing(
    harness: Harness, time: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.route("people")
    read = persons.frame

    def slow(target: Any) -> tuple[bytes, bytes]:
        time["now"] += timedelta(seconds=deduplicate.MARKS_HOLD_S)
        return read(target)

    def unreachable(*_: Any) -> None:
        raise ConnectionError

    monkeypatch.setattr(persons, "frame", slow)
    monkeypatch.setattr(version_guard, "overtaken", unreachable)
    assert harness.ingest(QueuedMessage("1", body([contact(1)]))).waiting == {"1": None}
    assert harness.requests == []


# --- responses


def test_pipeline_daily_quota_exhausted_pauses_destination_until_reset(harness: Harness, time: Any) -> None:
    harness.route("people")
    harness.rule = lambda document: refusal("4290801")
    assert harness.ingest(QueuedMessage("1", body([contact(1)]))).waiting == {}
    # Midnight in Chicago is twelve hours away
    assert 43_200 <= harness.waits["1"] <= 43_261
    # Nothing more is sent until then, of any object
    assert harness.ingest(QueuedMessage("2", front_door([{"vin": "1"}], to("customobjects/car_c")))).waiting == {}
    assert set(harness.waits) == {"1", "2"}
    time["now"] = NOON + timedelta(hours=11)
    assert harness.release() == ["swept"]
    assert len(harness.requests) == 1
    # Then a drain ends the pause
    harness.rule = lambda document: None
    time["now"] = NOON + timedelta(hours=12, minutes=2)
    harness.release()
    assert harness.persons == [person(1)]
    assert harness.waits == {}
    # Nothing waits in the end
    time["now"] += timedelta(seconds=backlogs.LEASE_S + 2)
    assert harness.release() == ["swept", "drained"]
    assert backlogs.status(harness.table, DESTINATION) == ((), None)


@pytest.mark.parametrize("code", ["4030801", "404040"])
def test_pipeline_permanent_refusal_pauses_object_and_emits_one_event(harness: Harness, time: Any, code: str) -> None:
    harness.rule = lambda document: refusal(code) if "customObjects" in document else None
    car, someone = (
        front_door([{"vin": "1"}], to("customobjects/car_c")),
        front_door([{"email": "a@example.com"}], to("persons")),
    )
    first = harness.ingest(QueuedMessage("1", car), QueuedMessage("2", someone))
    assert first.waiting == {}
    assert first.counts["DestinationsStopped"] == 1
    assert harness.waits == {"1": 1_800}
    harness.ingest(QueuedMessage("3", car))
    assert len([path for path, _ in harness.requests if path == "customobjects/car_c"]) == 1
    # Half an hour later one request tries it again, and no second notification is sent
    time["now"] = NOON + timedelta(minutes=31)
    assert harness.release() == ["swept", "waiting"]
    assert len([path for path, _ in harness.requests if path == "customobjects/car_c"]) == 2
    assert [detail for kind, detail in harness.cloud.heard() if kind == "destination.stopped"] == [
        {"connection": DESTINATION, "object": "customobjects/car_c", "code": code, "detail": "", "tags": {}}
    ]
    time["now"] = NOON + timedelta(minutes=62)
    harness.rule = lambda document: None
    harness.release()
    assert [document["customObjects"] for path, document in harness.accepted if "customObjects" in document] == [
        [{"vin": "1"}]
    ]


def test_pipeline_daily_quota_is_not_exceeded(harness: Harness, time: Any) -> None:
    harness.route("people")
    with patch.object(daily_quota, "DAILY_QUOTA", 100):
        bodies = [body([contact(number) for number in range(start, start + 30)]) for start in range(1, 151, 30)]
        outcomes = [harness.ingest(QueuedMessage(str(number), each)) for number, each in enumerate(bodies)]
    assert len(harness.persons) <= 100
    assert [outcome.waiting for outcome in outcomes] == [{}] * 5
    assert len({person["email"] for person in harness.persons}) + len(waiting_records.keys(harness.table)) == 150
    assert quotas.used(harness.table, MUNCHKIN, "2026-03-04").objects == len(harness.persons)


def test_pipeline_quota_reservation_failure_returns_message_unsent(harness: Harness) -> None:
    harness.route("people")
    with patch.object(quotas.Ledger, "reserve", side_effect=OSError):
        assert harness.ingest(QueuedMessage("1", body([contact(1)]))).waiting == {"1": None}
    assert harness.requests == []


# --- receipts


def test_receipt_search_finds_receipt_by_record_and_by_request(harness: Harness) -> None:
    harness.route("people")
    harness.ingest(QueuedMessage("1", body([contact(41)])))
    harness.ingest(QueuedMessage("2", front_door([{"email": "a@example.com"}], to("persons"), request="their-request")))
    by_email, _ = receipt_search.by_record(
        harness.table, DESTINATION, record_index.of_email("PERSON41@example.com"), clock.now()
    )
    found, _ = receipt_search.by_record(harness.table, DESTINATION, f"{SOURCE}/41", clock.now())
    assert by_email == found
    assert [one.request_id for one in found] == ["request-1"]
    found, _ = receipt_search.by_request(harness.table, "their-request", clock.now())
    assert [one.request_id for one in found] == ["request-2"]


def test_pipeline_costly_mapping_becomes_dead_letter_and_other_route_is_sent(harness: Harness) -> None:
    harness.route("people")
    harness.route("costly", mapping={"email": "[@,@][]" + " | [@,@][]" * 18 + " | [0].name"})
    assert harness.ingest(QueuedMessage("1", body([contact(1)]))).waiting == {}
    assert harness.persons == [person(1)]
    (letter,) = harness.letters()
    assert (letter["route"], letter["reason"]) == ("costly", "mapping_too_costly")


def test_pipeline_dedupe_value_with_white_space_is_deduplicated(harness: Harness) -> None:
    harness.route("people")
    spaced = contact(1, email=" person1@example.com ", updated_at=1_700_000_001) | {"id": 2, "first_name": "Newer"}
    harness.ingest(QueuedMessage("1", body([contact(1), spaced])))
    ((_, document),) = harness.accepted
    assert [(one["email"], one["firstName"]) for one in document["persons"]] == [("person1@example.com", "Newer")]


def test_pipeline_wrong_token_type_pauses_destination_after_one_request(harness: Harness) -> None:
    """LeadConnector with an agency token, for 20 contacts."""
    secret_id = Vault(PREFIX).grant_id("marketek")
    Vault(PREFIX).create(secret_id, {"token": Secret("canary-pit")})
    fields = {"location_id": "loc1"}
    domain = "services.leadconnectorhq.com"
    connection_store.create(
        harness.table,
        Connection("marketek", "leadconnector", "bearer", domain, "connected", 1, secret_id, fields=fields),
    )
    harness.route("people", destination="marketek", dedupe_fields=())
    refusal = Response(401, {}, b'{"statusCode":401,"message":"Token\'s user type mismatch!"}')
    asked: list[Request] = []

    def answer(request: Request, *, allowed_domain: str, owner: str) -> Response:
        asked.append(request)
        return refusal

    with outgoing.answering(answer), patch.object(RateLimiter, "wait"):
        deliveries = [QueuedMessage(str(number), body([contact(number)])) for number in range(20)]
        outcome = harness.ingest(*deliveries)
    assert (len(asked), outcome.waiting, harness.letters()) == (1, {}, [])
    status = backlogs.status(harness.table, "marketek")
    assert [(pause.reason, pause.code) for pause in status.pauses] == [("stopped", "wrong_token_type")]
    assert status.backlog
    assert status.backlog.records == 20


def test_pipeline_parts_of_one_message_sends_no_superseded_record(harness: Harness) -> None:
    """Given two parts of a message, as a drain has them, when the record of one is outdated, then only the other is sent."""
    harness.route("people")
    harness.ingest(QueuedMessage("newer", body([contact(5, updated_at=9)])))
    harness.accepted.clear()
    outcome = harness.ingest(
        QueuedMessage("m1", body([contact(5, updated_at=8)])), QueuedMessage("m1", body([contact(6, updated_at=8)]))
    )
    assert outcome.counts["RecordsSuperseded"] == 1
    assert [person["email"] for person in harness.persons] == ["person6@example.com"]
