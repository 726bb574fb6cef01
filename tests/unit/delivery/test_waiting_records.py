"""Records that wait in the table: what is stored, the order in which they are sent, and a crash at each step."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

import pytest
from botocore.exceptions import ClientError

from portaria.aws import queues
from portaria.connections import connection_store
from portaria.core import clock, record_messages
from portaria.core.callbacks import Record
from portaria.core.settings import ReleaseRecordsSettings
from portaria.delivery import (
    backlogs,
    destination_pause,
    destination_states,
    record_release,
    retry_schedule,
    waiting_entries,
    waiting_lists,
)
from portaria.delivery.backlogs import LEASE_S
from portaria.delivery.destination_pause import PauseReason
from portaria.delivery.pipeline import QueuedMessage
from portaria.delivery.stages import record_outcomes
from portaria.delivery.waiting_lists import WaitingList
from portaria.installs import uninstall
from portaria.platforms.marketo import daily_quota, persons
from portaria.records import dead_letters
from portaria.records.dead_letters import LetterFilter
from portaria.records.mapping import record_mapping
from tests.fakes.crashes import Died
from tests.fakes.records import ingesting, waiting_records
from tests.fakes.records.contacts import DESTINATION, SOURCE, contact
from tests.fakes.records.dying import Dying
from tests.fakes.records.ingesting import Harness, body, refusal
from tests.simulation.aws.cloud import InTurn
from tests.simulation.faults import throttled

NOON = datetime(2026, 3, 4, 18, 0, tzinfo=UTC)
LIVE = WaitingList(DESTINATION, "persons", waiting_lists.LIVE, SOURCE)


@pytest.fixture
def harness() -> Iterator[Harness]:
    with ingesting.harness() as opened:
        opened.route("people", keep_newest="none")
        yield opened


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A clock that stands still until a test changes `time["now"]`."""
    standing = {"now": NOON}
    monkeypatch.setattr(clock, "now", lambda: standing["now"])
    monkeypatch.setattr(clock, "sleep", lambda seconds: None)
    return standing


@pytest.fixture
def closed(harness: Harness, time: Any) -> Harness:
    """Marketo refuses everything until an operator acts, so it is paused for half an hour."""
    harness.rule = lambda document: refusal("4030801")
    harness.ingest(QueuedMessage("first", body([contact(1)], read_at=1)))
    return harness


def version(number: int, of: int) -> str:
    """A message about a contact that arrived at this time, with the time in its last name."""
    return body([contact(of, updated_at=7) | {"last_name": str(number)}], read_at=number)


def names(harness: Harness) -> list[str]:
    return [person["lastName"] for person in harness.persons]


def open_again(harness: Harness, time: Any, minutes: float = 31) -> None:
    harness.rule = lambda document: None
    time["now"] += timedelta(minutes=minutes)


# ---------------------------------------------------------------------------------------------------------------- storage


def test_pipeline_paused_destination_stores_message_narrowed_to_route(closed: Harness) -> None:
    sent = body([contact(2), contact(3)], read_at=77)
    outcome = closed.ingest(QueuedMessage("m1", sent))
    assert outcome.waiting == {}
    assert outcome.counts["RecordsHeld"] == 2
    (_, entry) = waiting_records.entries(closed.table)
    assert (entry.message_id, entry.order, entry.records, entry.waiting) == ("m1", 77, 2, LIVE)
    # Restricted to its route, otherwise the same
    assert json.loads(entry.body) == json.loads(sent) | {"route": "people"}
    assert len(closed.requests) == 1


def test_pipeline_duplicate_delivery_to_paused_destination_waits_once(closed: Harness) -> None:
    for receives in (1, 2):
        closed.ingest(QueuedMessage("m1", body([contact(2)], read_at=77), receives))
    assert waiting_records.keys(closed.table) == ["1", "2"]


def test_pipeline_message_delivered_again_does_not_count_its_waiting_records_again(closed: Harness, time: Any) -> None:
    """Given records for a paused object, when their message returns for a busy one, then they are counted once."""
    closed.route("cars", target="customobjects/car_c", mapping={"vin": "to_string(id)"}, dedupe_fields=("vin",))
    closed.rule = lambda document: refusal("429001")
    for receives in (1, 2):
        outcome = closed.ingest(QueuedMessage("m1", body([contact(2), contact(3)], read_at=77), receives))
        assert list(outcome.waiting) == ["m1"]
    assert destination_states.find(closed.table, DESTINATION).records == 3
    open_again(closed, time)
    closed.release()
    assert destination_states.find(closed.table, DESTINATION).records == 0


def test_pipeline_paused_object_waits_and_other_routes_are_sent(closed: Harness) -> None:
    closed.route("cars", target="customobjects/car_c", mapping={"vin": "to_string(id)"}, dedupe_fields=("vin",))
    closed.rule = lambda document: None
    closed.ingest(QueuedMessage("m1", body([contact(2)], read_at=77)))
    assert [path for path, _ in closed.accepted] == ["customobjects/car_c"]
    assert [entry.route for entry in waiting_records.entries(closed.table)] == ["people", "people"]


def test_pipeline_live_and_bulk_records_wait_in_separate_lists(closed: Harness) -> None:
    closed.ingest(QueuedMessage("m1", body([contact(2)], "people", origin=record_messages.BACKFILL)), bulk=True)
    kinds = [head.waiting.kind for head in waiting_lists.heads(closed.table, DESTINATION)]
    assert kinds == [waiting_lists.BULK, waiting_lists.LIVE]


def test_waiting_records_mebibyte_message_is_split_and_sent_whole(closed: Harness, time: Any) -> None:
    """Given the largest record, then it is cut into parts that fit into items, and sent unchanged."""
    noise = random.Random(1)
    text = "".join(chr(noise.randrange(0x4E00, 0x9FFF)) for _ in range(340_000))
    data = {"email": "a@example.com", "note": text}
    target = {"destination": DESTINATION, "object": "persons", "priority": "normal", "options": {}}
    (large,) = record_messages.pack(
        [Record("a@example.com", 1, data)], connection="pi-7", object="persons", origin=record_messages.FRONT_DOOR, read_at=5,
        target=target,
    )  # fmt: skip
    assert len(large.encode()) > 1_000_000
    closed.ingest(QueuedMessage("m1", large))
    parts = [item for key, item in closed.cloud.items.items() if "m1" in key[1]]
    assert len(parts) == 3
    assert all(len(part["content"]["B"]) < 400_000 for part in parts)
    open_again(closed, time)
    with patch.object(persons, "MAX_BODY_BYTES", 2_000_000):
        closed.release()
    assert data in closed.persons
    assert not any("m1" in key[1] for key in closed.cloud.items)


def test_waiting_records_of_one_message_held_apart_do_not_replace_each_other(harness: Harness) -> None:
    """Given a waiting record, when another record of its message must wait, then both wait. A repeated record waits once."""
    fields = json.loads(body([contact(1)], "people"))
    fields["records"] = [{"key": str(n), "updated_at": 1, "data": contact(n)} for n in (0, 1)]
    message = record_mapping.read_message("m1", record_messages.encode(fields))
    for some in (message.records[:1], message.records[1:], message.records[:1]):
        waiting_entries.put(harness.table, waiting_entries.HeldRecords(LIVE, message, "people", some, 1))
    found, _ = waiting_entries.read(harness.table, LIVE, limit=10)
    assert sorted(record["key"] for entry in found for record in json.loads(entry.body)["records"]) == ["0", "1"]


# ------------------------------------------------------------------------------------------------------- order of records


@pytest.fixture
def merged(harness: Harness) -> list[QueuedMessage]:
    """Messages of two sources about one person, each with its own name for the address, and a route for each source."""
    harness.connect("kommo-two", "kommo")
    given = {"object": "leads", "target": "persons", "keep_newest": "none"}
    harness.route("of-one", **given, mapping={"email": "mail", "lastName": "last_name"})
    harness.route(
        "of-two", **given, source="connection:kommo-two", mapping={"email": "address", "firstName": "first_name"}
    )
    leads = {
        SOURCE: {"mail": "a@example.com", "last_name": "Silva"},
        "kommo-two": {"address": "a@example.com", "first_name": "Ana"},
    }
    return [
        QueuedMessage(
            f"m{number}", body([lead | {"id": number, "updated_at": number}], connection=source, object="leads")
        )
        for number, (source, lead) in enumerate(leads.items(), 1)
    ]


def test_release_merged_record_is_mapped_by_the_route_of_each_source(
    harness: Harness, time: Any, merged: list[QueuedMessage]
) -> None:
    """Given one person of two sources whose request is refused, when it is sent again, then both sources' values arrive."""
    harness.rule = lambda document: refusal("5000801")
    harness.ingest(*merged)
    assert len(harness.requests) == 1
    assert sorted(entry.route for entry in waiting_records.entries(harness.table)) == ["of-one", "of-two"]
    open_again(harness, time, minutes=6)
    harness.release()
    assert harness.letters() == []
    assert harness.state() == {"a@example.com": {"email": "a@example.com", "firstName": "Ana", "lastName": "Silva"}}


def test_pipeline_merged_record_becomes_a_dead_letter_for_the_route_of_each_source(
    harness: Harness, merged: list[QueuedMessage]
) -> None:
    harness.rule = lambda document: refusal("4000802")
    harness.ingest(*merged)
    assert {(letter["connection"], letter["route"]) for letter in harness.letters()} == {
        (SOURCE, "of-one"), ("kommo-two", "of-two")
    }  # fmt: skip


def test_release_record_with_two_routes_to_one_object_has_the_attributes_of_both(harness: Harness, time: Any) -> None:
    """Given two routes of a source to one object, when the merged record has waited, then no route's values are lost."""
    mail = "custom_fields_values[?field_code=='EMAIL'] | [0].values[0].value"
    harness.route("names", keep_newest="none", mapping={"email": mail, "nickName": "name"})
    harness.rule = lambda document: refusal("5000801")
    harness.ingest(QueuedMessage("m1", body([contact(1)])))
    assert len(harness.requests) == 1
    open_again(harness, time, minutes=6)
    harness.release()
    assert set(harness.state()["person1@example.com"]) == {"email", "firstName", "lastName", "phone", "nickName"}


def test_release_sends_records_of_each_source_in_order_of_arrival(closed: Harness, time: Any) -> None:
    for number in (5, 3, 4, 2):
        closed.ingest(QueuedMessage(f"m{number}", version(number, of=number)))
    assert [entry.order for entry in waiting_records.entries(closed.table)] == [1, 2, 3, 4, 5]
    closed.ingest(QueuedMessage("newest", version(6, of=3)))
    open_again(closed, time)
    closed.release()
    assert sorted(names(closed)) == ["2", "4", "5", "6", "Person1"]
    assert closed.state()["person3@example.com"]["lastName"] == "6"


def test_release_running_appends_new_records_behind_waiting_ones(closed: Harness, time: Any) -> None:
    """Given a list of which one batch was sent, when a new record arrives, then it is sent after the rest."""
    for number in range(2, 60):
        closed.ingest(QueuedMessage(f"m{number}", version(number, of=number)))
    open_again(closed, time)
    first = len(waiting_records.entries(closed.table))

    def arrive(document: Any) -> None:
        closed.rule = lambda document: None
        assert closed.ingest(QueuedMessage("new", version(99, of=99))).waiting == {}
        assert names(closed) == []

    closed.rule = arrive
    closed.release()
    assert len(closed.persons) == first + 1
    assert names(closed)[-1] == "99"


def test_pipeline_source_over_its_quota_share_waits_and_other_source_is_sent(harness: Harness, time: Any) -> None:
    """Given a source that has used up its share of a quota, then its records wait, and those of another source are sent."""
    other = "kommo-other-1"
    harness.connect(other, "kommo")
    harness.route("other", source=f"connection:{other}", keep_newest="none")
    with patch.object(daily_quota, "DAILY_QUOTA", 100):
        harness.ingest(QueuedMessage("theirs-too", body([contact(6)], connection=other)))
        for number in range(10):
            people = [contact(1_000 * number + each) for each in range(11)]
            harness.ingest(QueuedMessage(f"mine-{number}", body(people)))
        assert {entry.waiting.source for entry in waiting_records.entries(harness.table)} == {SOURCE}
        sent = len(harness.persons)
        mine, theirs = body([contact(7)]), body([contact(8)], connection=other)
        assert harness.ingest(QueuedMessage("more", mine), QueuedMessage("theirs", theirs)).waiting == {}
    assert {entry.waiting.source for entry in waiting_records.entries(harness.table)} == {SOURCE}
    assert [person["email"] for person in harness.persons[sent:]] == ["person8@example.com"]


def test_release_source_whose_record_was_merged_with_one_over_its_share_does_not_wait(
    harness: Harness, time: Any
) -> None:
    """Given a person of two sources, when the newer one has used up its share of a quota, then the other one is sent."""
    other = "kommo-other-1"
    harness.connect(other, "kommo")
    harness.route("other", source=f"connection:{other}", keep_newest="none")
    with patch.object(daily_quota, "DAILY_QUOTA", 100):
        harness.ingest(QueuedMessage("theirs-too", body([contact(6)], connection=other)))
        for number in range(10):
            mine = [contact(1_000 * number + each, updated_at=1_800_000_000) for each in range(11)]
            theirs = body([contact(1_000 * number)], connection=other)
            harness.ingest(QueuedMessage(f"mine-{number}", body(mine)), QueuedMessage(f"theirs-{number}", theirs))
        assert {entry.waiting.source for entry in waiting_records.entries(harness.table)} == {SOURCE, other}
        time["now"] += timedelta(minutes=1)
        harness.release()
        assert {entry.waiting.source for entry in waiting_records.entries(harness.table)} == {SOURCE}
        harness.ingest(QueuedMessage("theirs-later", body([contact(8)], connection=other)))
        time["now"] += timedelta(minutes=1)
        harness.release()
    assert harness.persons[-1]["email"] == "person8@example.com"
    assert {entry.waiting.source for entry in waiting_records.entries(harness.table)} == {SOURCE}


def test_release_sends_live_records_before_bulk_records(closed: Harness, time: Any) -> None:
    closed.ingest(
        QueuedMessage("b", body([contact(8)], "people", origin=record_messages.BACKFILL, read_at=1)), bulk=True
    )
    closed.ingest(QueuedMessage("l", body([contact(9)], read_at=2)))
    open_again(closed, time)
    closed.release()
    assert [person["email"] for person in closed.persons] == [f"person{number}@example.com" for number in (1, 9, 8)]


# --------------------------------------------------------------------------------------------------------- paused or not


def test_release_destination_still_refusing_gets_one_request_per_attempt(closed: Harness, time: Any) -> None:
    for number in range(2, 200):
        closed.ingest(QueuedMessage(f"m{number}", version(number, of=number)))
    for _ in range(5):
        time["now"] += timedelta(minutes=31)
        assert closed.release() == ["swept", "waiting"]
    assert len(closed.requests) == 6
    assert len(waiting_records.entries(closed.table)) == 199
    assert closed.release() == ["swept"]


def test_release_failing_record_waits_and_others_are_sent(harness: Harness, time: Any) -> None:
    """A 500 may be caused by the record: it waits alone, and later records are sent."""
    harness.rule = lambda document: refusal("5000801") if document["persons"][0]["lastName"] == "1" else None
    harness.ingest(QueuedMessage("bad", version(1, of=1)))
    harness.ingest(QueuedMessage("good", version(2, of=2)))
    assert names(harness) == ["2"]
    assert harness.waits == {"bad": 300}


def test_release_after_try_now_ends_pauses_and_sends_records(closed: Harness, time: Any) -> None:
    backlogs.try_now(closed.table, DESTINATION)
    closed.rule = lambda document: None
    closed.release()
    assert len(closed.persons) == 1


def test_release_deleted_destination_turns_waiting_records_into_dead_letters(harness: Harness, time: Any) -> None:
    target = {"destination": DESTINATION, "object": "persons", "priority": "normal", "options": {}}
    (front,) = record_messages.pack(
        [Record("a@example.com", 1, {"email": "a@example.com"})], connection="pi-7", object="persons",
        origin=record_messages.FRONT_DOOR, read_at=5, target=target,
    )  # fmt: skip
    harness.rule = lambda document: refusal("4290801")
    harness.ingest(QueuedMessage("event", body([contact(1)])), QueuedMessage("program", front))
    uninstall.delete(harness.table, harness.cloud.url("uninstalls"), connection_store.get(harness.table, DESTINATION))
    backlogs.try_now(harness.table, DESTINATION)
    harness.release()
    assert waiting_records.entries(harness.table) == []
    assert sorted((letter["reason"], letter["connection"]) for letter in harness.letters()) == [
        ("connection_removed", SOURCE), ("connection_removed", "pi-7"),
    ]  # fmt: skip


def test_release_sweep_reports_count_and_age_of_waiting_records(closed: Harness, time: Any) -> None:
    closed.ingest(QueuedMessage("m1", body([contact(2), contact(3)])))
    time["now"] += timedelta(minutes=10)
    settings: Any = closed.cloud.settings(ReleaseRecordsSettings)
    swept = record_release.handle_message('{"sweep": ""}', settings, lambda: 120.0)
    assert (swept.queued, swept.records, swept.oldest_s) == (0, 3, 600)


@pytest.mark.parametrize("message", ["", "{}", "[]", "null", '{"drain": "nowhere"}', '"sweep"'])
def test_release_invalid_message_is_ignored(harness: Harness, message: str) -> None:
    settings: Any = harness.cloud.settings(ReleaseRecordsSettings)
    assert record_release.handle_message(message, settings, lambda: 120.0).state in ("ignored", "swept")


# -------------------------------------------------------------------------------------------------------------- crashes


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", range(1, 9))
def test_pipeline_worker_killed_at_any_write_of_waiting_records_loses_nothing(
    closed: Harness, time: Any, at: int, after: bool
) -> None:
    """Given a message of another source, which needs a new list, so that every write takes part."""
    other = "kommo-other-1"
    closed.connect(other, "kommo")
    closed.route("other", source=f"connection:{other}", keep_newest="none")
    message = body([contact(2), contact(3)], connection=other, read_at=77)
    died = False
    with Dying(closed.cloud, at, after=after), patch("portaria.aws.table.ThreadPoolExecutor", InTurn):
        try:
            closed.ingest(QueuedMessage("m1", message))
        except Died:
            died = True
    if died:
        assert closed.ingest(QueuedMessage("m1", message, 2)).waiting == {}
    assert sorted(waiting_records.keys(closed.table)) == ["1", "2", "3"]
    open_again(closed, time)
    closed.release()
    assert sorted(person["email"] for person in closed.persons) == [f"person{n}@example.com" for n in (1, 2, 3)]
    assert waiting_records.entries(closed.table) == []


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", range(1, 13))
def test_release_worker_killed_at_any_write_is_completed_by_next_worker(
    closed: Harness, time: Any, at: int, after: bool
) -> None:
    closed.ingest(QueuedMessage("m1", body([contact(2)], read_at=2)))
    open_again(closed, time)
    with Dying(closed.cloud, at, after=after), patch("portaria.aws.table.ThreadPoolExecutor", InTurn):
        try:
            closed.release()
        except Died:
            closed.cloud.queues.clear()
    # No other worker takes part until the crashed worker's lease has ended
    for _ in range(4):
        time["now"] += timedelta(seconds=LEASE_S + 2)
        closed.release()
    assert set(closed.state()) == {"person1@example.com", "person2@example.com"}
    status = backlogs.status(closed.table, DESTINATION)
    # The next request ends a pause whose time is over.
    assert (status.backlog, status.closed_until("persons") > time["now"].timestamp()) == (None, False)
    assert not any(pk.startswith("WAITING#") for pk, _ in closed.cloud.items)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", range(1, 5))
def test_resume_killed_at_any_write_is_completed_by_repeating(closed: Harness, time: Any, at: int, after: bool) -> None:
    """Given two pauses, so that the crash can be between them; the destination accepts records again."""
    destination_pause.begin(closed.table, DESTINATION, "", reason=PauseReason.QUOTA, code="", for_s=7_200)
    closed.rule = lambda document: None
    url = closed.cloud.url("waiting_records")
    with Dying(closed.cloud, at, after=after), patch("portaria.aws.table.ThreadPoolExecutor", InTurn):
        try:
            destination_states.resume(closed.table, url, destination_states.find(closed.table, DESTINATION))
        except Died:
            assert waiting_records.keys(closed.table) == ["1"]
    destination_states.resume(closed.table, url, destination_states.find(closed.table, DESTINATION))
    closed.release()
    assert [person["email"] for person in closed.persons] == ["person1@example.com"]
    assert waiting_records.entries(closed.table) == []


def test_resume_destination_still_refusing_keeps_records_and_pause(closed: Harness, time: Any) -> None:
    for _ in range(5):
        destination_states.resume(
            closed.table, closed.cloud.url("waiting_records"), destination_states.find(closed.table, DESTINATION)
        )
        closed.release()
        (pause,) = backlogs.status(closed.table, DESTINATION).pauses
        assert pause.until == time["now"].timestamp() + record_outcomes.STOPPED_WAIT_S
        time["now"] += timedelta(minutes=1)
    assert waiting_records.keys(closed.table) == ["1"]
    assert closed.letters() == []


def test_resume_during_drain_keeps_next_try_due(closed: Harness, time: Any) -> None:
    """Given a drain in progress when the pauses end, then its end does not postpone the next try."""
    open_again(closed, time, minutes=0)
    backlog = backlogs.claim(closed.table, DESTINATION)
    assert backlog
    destination_states.resume(
        closed.table, closed.cloud.url("waiting_records"), destination_states.find(closed.table, DESTINATION)
    )
    far = int(time["now"].timestamp()) + 1_800
    assert not backlogs.release(closed.table, backlog, arrivals=backlog.arrivals, next_at=far, since=0)


def test_release_destination_drained_by_another_worker_is_ignored(closed: Harness, time: Any) -> None:
    open_again(closed, time)
    assert backlogs.claim(closed.table, DESTINATION) is not None
    backlogs.try_now(closed.table, DESTINATION)
    assert closed.release() == ["swept", "ignored"]
    assert closed.persons == []


def test_release_record_stored_while_list_is_closed_is_sent(closed: Harness, time: Any) -> None:
    """Given a drain that found a list empty, when a worker that saw the list open adds an entry, then the entry is found."""
    open_again(closed, time)
    close = waiting_lists.close_list

    def late(table: Any, head: Any) -> None:
        message = record_mapping.read_message("late", body([contact(2)], "people"))
        waiting_entries.put(table, waiting_entries.HeldRecords(LIVE, message, "people", message.records, 1))
        close(table, head)

    with patch.object(waiting_lists, "close_list", late):
        closed.release()
    assert len(closed.persons) == 1
    # The worker crashed before it could report them
    time["now"] += timedelta(seconds=LEASE_S + 2)
    closed.release()
    assert [person["email"] for person in closed.persons] == ["person1@example.com", "person2@example.com"]


def test_release_entry_failing_unexpectedly_becomes_dead_letter_and_rest_is_sent(closed: Harness, time: Any) -> None:
    closed.ingest(QueuedMessage("m2", body([contact(2)], read_at=2)))
    open_again(closed, time)
    identity = persons.identity

    def failing(attributes: Any, target: Any) -> str:
        if attributes["email"] == "person1@example.com":
            raise ZeroDivisionError
        return identity(attributes, target)

    with patch.object(persons, "identity", failing):
        for _ in range(record_release.MAX_TRIES):
            closed.release()
            time["now"] += timedelta(seconds=record_release.TRY_AGAIN_S + 1)
    assert [person["email"] for person in closed.persons] == ["person2@example.com"]
    (letter,) = closed.letters()
    assert (letter["reason"], letter["records"][0]["key"]) == (dead_letters.GAVE_UP, "1")
    assert waiting_records.entries(closed.table) == []
    found, _ = dead_letters.list_page(closed.table, LetterFilter(connection=DESTINATION))
    assert [head.id for head in found] == [letter["id"]]
    assert "the log of release_records" in letter["detail"]


def test_release_entries_of_one_message_failing_unexpectedly_become_a_dead_letter_each(
    closed: Harness, time: Any
) -> None:
    """Given two waiting entries of one message, when both fail for good, then each has its own dead letter."""
    fields = json.loads(body([contact(2)], "people", read_at=2))
    fields["records"] = [{"key": str(n), "updated_at": 1, "data": contact(n)} for n in (2, 3)]
    message = record_mapping.read_message("m2", record_messages.encode(fields))
    for some in (message.records[:1], message.records[1:]):
        waiting_entries.put(closed.table, waiting_entries.HeldRecords(LIVE, message, "people", some, 2))
    open_again(closed, time)
    with patch.object(persons, "identity", side_effect=ZeroDivisionError):
        for _ in range(2 * record_release.MAX_TRIES):
            closed.release()
            time["now"] += timedelta(seconds=record_release.TRY_AGAIN_S + 1)
    assert sorted(record["key"] for letter in closed.letters() for record in letter["records"]) == ["1", "2", "3"]
    assert waiting_records.entries(closed.table) == []


def test_release_two_failing_destinations_get_all_attempts_each(harness: Harness, time: Any) -> None:
    """Given a record for two destinations that fail, when all waits have passed, then each was tried as often as promised."""
    other = replace(connection_store.get(harness.table, DESTINATION), name="marketo-two")
    connection_store.create(harness.table, other)
    harness.route("second", destination=other.name, keep_newest="none")
    harness.rule = lambda document: refusal("5000801")
    harness.ingest(QueuedMessage("m1", body([contact(1)])))
    for minutes in (5, 30, 30):
        assert harness.letters() == []
        time["now"] += timedelta(minutes=minutes, seconds=1)
        harness.release()
    assert len(harness.requests) == 2 * 4
    assert {(letter["reason"], letter["destination"]) for letter in harness.letters()} == {
        (dead_letters.GAVE_UP, DESTINATION), (dead_letters.GAVE_UP, other.name)
    }  # fmt: skip
    assert waiting_records.entries(harness.table) == []


def test_pipeline_message_that_returns_for_a_busy_object_uses_up_no_attempts_of_a_failing_one(
    harness: Harness, time: Any
) -> None:
    """Given a record for an object that fails and one that is busy, then the first gets all of its attempts."""
    harness.route("cars", target="customobjects/car_c", mapping={"vin": "to_string(id)"}, dedupe_fields=("vin",))
    harness.rule = lambda document: refusal("5000801") if "persons" in document else refusal("429001")
    receives = 1
    while harness.ingest(QueuedMessage("m1", body([contact(1)]), receives)).waiting:
        time["now"] += timedelta(seconds=retry_schedule.wait_s(None, receives))
        receives += 1
    assert receives == 3
    assert [entry.route for entry in waiting_records.entries(harness.table) if entry.waiting.is_retry] == ["people"]
    harness.rule = lambda document: refusal("5000801") if "persons" in document else None
    harness.requests.clear()
    for minutes in (5, 30, 30):
        assert harness.letters() == []
        time["now"] += timedelta(minutes=minutes, seconds=1)
        harness.release()
    assert len([document for _, document in harness.requests if "persons" in document]) == 3
    assert [letter["reason"] for letter in harness.letters()] == [dead_letters.GAVE_UP]
    assert waiting_records.entries(harness.table) == []


def test_release_entry_that_kills_workers_becomes_dead_letter_and_rest_is_sent(closed: Harness, time: Any) -> None:
    for number in (2, 3):
        closed.ingest(QueuedMessage(f"m{number}", body([contact(number)], read_at=number)))
    open_again(closed, time)
    identity = persons.identity

    def killing(attributes: Any, target: Any) -> str:
        if attributes["email"] == "person2@example.com":
            raise Died
        return identity(attributes, target)

    with patch.object(persons, "identity", killing):
        for _ in range(record_release.MAX_UNFINISHED + 4):
            try:
                with patch.object(backlogs, "release", return_value=True):
                    closed.release()
            except Died:
                closed.cloud.queues.clear()
            time["now"] += timedelta(seconds=LEASE_S + 2)
    assert {person["email"] for person in closed.persons} == {"person1@example.com", "person3@example.com"}
    (letter,) = closed.letters()
    assert letter["records"][0]["key"] == "2"


def test_waiting_records_remove_table_throttled_is_retried(closed: Harness, time: Any) -> None:
    found = waiting_records.entries(closed.table)
    refusals = iter([True, True])

    def carry(name: str, call: Any) -> Any:
        if name == "dynamodb.delete_item" and next(refusals, False):
            raise throttled(name)
        return call()

    closed.cloud.carry = carry
    waiting_entries.remove(closed.table, found)
    assert waiting_records.entries(closed.table) == []


def test_pipeline_waiting_record_write_failure_returns_messages(closed: Harness) -> None:
    with patch.object(waiting_entries, "put", side_effect=OSError):
        assert closed.ingest(QueuedMessage("m1", body([contact(2)])), QueuedMessage("m2", body([contact(3)]))).waiting == {
            "m1": None, "m2": None,
        }  # fmt: skip


def test_destination_pause_end_keeps_pause_that_began_later(harness: Harness, time: Any) -> None:
    pauses: list[destination_pause.DestinationPause] = []
    for for_s in (60, 600):
        destination_pause.begin(harness.table, DESTINATION, "persons", reason=PauseReason.BUSY, code="", for_s=for_s)
        pauses += backlogs.status(harness.table, DESTINATION).pauses
    destination_pause.end(harness.table, pauses[0])
    assert backlogs.status(harness.table, DESTINATION).pauses == (pauses[1],)


def test_destination_pause_begin_while_another_worker_ends_it_is_stored_whole(closed: Harness, time: Any) -> None:
    """Given a passed pause that one worker prolongs while another one ends it, then the destination has a readable pause."""
    (pause,) = backlogs.status(closed.table, DESTINATION).pauses
    time["now"] += timedelta(minutes=31)
    straight = closed.cloud.carry

    def carry(name: str, call: Any) -> Any:
        try:
            return call()
        except ClientError:
            closed.cloud.carry = straight
            destination_pause.end(closed.table, pause)
            raise

    closed.cloud.carry = carry
    is_new = destination_pause.begin(
        closed.table, DESTINATION, pause.object, reason=pause.reason, code=pause.code, for_s=60
    )
    (after,) = backlogs.status(closed.table, DESTINATION).pauses
    assert is_new
    assert (after.reason, after.object, after.for_s) == (pause.reason, pause.object, 60)


def test_pipeline_wait_longer_than_15_seconds_is_stored_in_table(harness: Harness) -> None:
    """Only short delays stay in SQS, whatever a destination asks for."""
    harness.rule = lambda document: refusal("429001", **{"retry-after": "15"})
    outcome = harness.ingest(QueuedMessage("m1", body([contact(1)])))
    assert retry_schedule.wait_s(outcome.waiting["m1"], 1) == 15
    harness.rule = lambda document: refusal("429001", **{"retry-after": "16"})
    assert harness.ingest(QueuedMessage("m2", body([contact(2)]))).waiting == {}
    assert harness.waits["m2"] == pytest.approx(16, abs=2)
    assert queues.MAX_HIDDEN_S == 39_600
