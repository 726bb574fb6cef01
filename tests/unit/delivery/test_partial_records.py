"""Events with fewer fields than the API: what they contain is sent, no fallback overwrites a value, and nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from unittest.mock import patch
from urllib.parse import urlencode

import pytest

from portaria.core import clock, record_messages
from portaria.core.callbacks import EventAddress, Record
from portaria.core.callbacks import WebhookDelivery as Hook
from portaria.core.errors import AnswerLost, Rejected
from portaria.delivery import waiting_entries
from portaria.delivery.pipeline import QueuedMessage
from portaria.platforms.kommo import contacts, events
from portaria.records import reread_requests
from portaria.records.mapping.record_mapping import mapping_of
from tests.fakes.records.contacts import SOURCE
from tests.fakes.records.ingesting import Harness, harness, refusal

CHANGED = 1_732_271_999
ARRIVED = CHANGED + 1
DEFAULT = mapping_of(contacts.DEFAULT_MAPPING)


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Harness]:
    monkeypatch.setattr(clock, "now", lambda: datetime.fromtimestamp(ARRIVED, UTC))
    with harness() as opened:
        yield opened


def whole(**changes: Any) -> dict[str, Any]:
    """A contact as the API lists it."""
    return {
        "id": 37054081,
        "name": "Maria Souza",
        "first_name": "Maria",
        "last_name": "Souza",
        "updated_at": CHANGED,
        "custom_fields_values": [
            {
                "field_id": 735651,
                "field_name": "Email",
                "field_code": "EMAIL",
                "field_type": "multitext",
                "values": [{"value": "maria@example.com", "enum_id": 718333, "enum_code": "WORK"}],
            }
        ],
        "_embedded": {"tags": [], "companies": []},
        **changes,
    }


def event(**changes: str) -> Record:
    """The same contact as a captured event has it. `changes` are further form fields."""
    start = "contacts[update][0]"
    form = {
        "account[id]": "1001",
        f"{start}[id]": "37054081",
        f"{start}[name]": "Maria Souza",
        f"{start}[updated_at]": str(CHANGED),
        f"{start}[last_modified]": str(CHANGED),
        f"{start}[type]": "contact",
        f"{start}[custom_fields][0][id]": "735651",
        f"{start}[custom_fields][0][name]": "Email",
        f"{start}[custom_fields][0][code]": "EMAIL",
        f"{start}[custom_fields][0][values][0][value]": "maria@example.com",
        f"{start}[custom_fields][0][values][0][enum]": "718333",
    }
    form |= {f"{start}{name}": value for name, value in changes.items()}
    headers = {"content-type": events.CONTENT_TYPE}
    hook = Hook(headers, urlencode(form).encode(), ARRIVED, lambda *_: False)
    (record,) = events.read(hook, EventAddress("1001")).records["contacts"]
    return record


def custom_field(number: int, name: str, value: str, place: str = "[values][0][value]") -> dict[str, str]:
    start = f"[custom_fields][{number}]"
    return {f"{start}[id]": f"9{number}", f"{start}[name]": name, f"{start}{place}": value}


def send(worker: Harness, record: Record, origin: str, read_at: int) -> Any:
    (body,) = record_messages.pack([record], connection=SOURCE, object="contacts", origin=origin, read_at=read_at)
    return worker.ingest(QueuedMessage(f"{origin}-{read_at}", body))


def of_api(**changes: Any) -> Record:
    contact = whole(**changes)
    return Record(str(contact["id"]), contact["updated_at"], contact)


# --- one contact, by a backfill, an event and a reconciliation


def test_pipeline_event_without_first_name_keeps_first_name_of_backfill(worker: Harness) -> None:
    worker.route("people")
    send(worker, of_api(updated_at=CHANGED - 499), record_messages.BACKFILL, (CHANGED - 400) * 1_000)
    send(worker, event(), record_messages.EVENT, ARRIVED * 1_000)
    assert worker.state()["maria@example.com"] == {
        "firstName": "Maria", "lastName": "Souza", "email": "maria@example.com",
    }  # fmt: skip
    assert "firstName" not in worker.persons[1]


def test_pipeline_complete_record_of_same_second_follows_partial_event_once(worker: Harness) -> None:
    worker.route("people")
    send(worker, event(), record_messages.EVENT, ARRIVED * 1_000)
    renamed = of_api(first_name="Mariana")
    for read_at in (ARRIVED + 60, ARRIVED + 1_860):
        send(worker, renamed, record_messages.RECONCILIATION, read_at * 1_000)
    assert [person.get("firstName") for person in worker.persons] == [None, "Mariana"]


def test_pipeline_partial_event_does_not_overwrite_complete_record_of_same_second(worker: Harness) -> None:
    worker.route("people")
    send(worker, of_api(), record_messages.RECONCILIATION, (ARRIVED + 60) * 1_000)
    send(worker, event(), record_messages.EVENT, ARRIVED * 1_000)
    assert len(worker.persons) == 1


def test_pipeline_partial_event_worker_killed_is_sent_on_redelivery(worker: Harness) -> None:
    worker.route("people")
    worker.rule = lambda document: AnswerLost("…")
    with patch.object(waiting_entries, "put", side_effect=OSError):
        assert send(worker, event(), record_messages.EVENT, ARRIVED * 1_000).waiting
    worker.rule = lambda document: None
    send(worker, event(), record_messages.EVENT, ARRIVED * 1_000)
    assert {person["email"] for person in worker.persons} == {"maria@example.com"}


def test_pipeline_waiting_partial_event_stays_partial_when_released(
    worker: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.route("people")
    worker.rule = lambda document: refusal("4030801")
    send(worker, event(), record_messages.EVENT, ARRIVED * 1_000)
    send(worker, of_api(), record_messages.RECONCILIATION, (ARRIVED + 60) * 1_000)
    worker.rule = lambda document: None
    monkeypatch.setattr(clock, "now", lambda: datetime.fromtimestamp(ARRIVED + 7_200, UTC))
    worker.release()
    assert worker.state()["maria@example.com"] == {
        "firstName": "Maria", "lastName": "Souza", "email": "maria@example.com",
    }  # fmt: skip


def test_pipeline_partial_event_requests_reread_of_account(worker: Harness) -> None:
    worker.route("people")
    outcome = send(worker, event(), record_messages.EVENT, ARRIVED * 1_000)
    request = reread_requests.find(worker.table, SOURCE, "contacts")
    assert outcome.counts["RecordsIncomplete"] == 1
    assert request
    assert (request["due_at"], request["changed_at"]) == (clock.to_iso(clock.now()), CHANGED)


def test_pipeline_partial_events_of_one_batch_request_reread_from_the_oldest(worker: Harness) -> None:
    worker.route("people")
    older, start = CHANGED - 3_600, "[last_modified]"
    records = [event(), event(**{"[id]": "2", "[updated_at]": str(older), start: str(older)})]
    (body,) = record_messages.pack(
        records, connection=SOURCE, object="contacts", origin=record_messages.EVENT, read_at=ARRIVED * 1_000
    )
    worker.ingest(QueuedMessage("both", body))
    request = reread_requests.find(worker.table, SOURCE, "contacts")
    assert request
    assert request["changed_at"] == older


def test_pipeline_event_with_all_mapped_fields_requests_no_reread(worker: Harness) -> None:
    worker.route("people", mapping={"email": contacts.DEFAULT_MAPPING["email"], "fullName": "name"})
    send(worker, event(), record_messages.EVENT, ARRIVED * 1_000)
    send(worker, of_api(), record_messages.RECONCILIATION, (ARRIVED + 60) * 1_000)
    assert reread_requests.find(worker.table, SOURCE, "contacts") is None
    assert worker.persons == [{"email": "maria@example.com", "fullName": "Maria Souza"}]


def test_pipeline_event_without_dedupe_value_waits_for_complete_record(worker: Harness) -> None:
    work = "custom_fields_values[?field_code=='EMAIL'].values[] | [?enum_code=='WORK'].value | [0]"
    worker.route("people", mapping={"email": work, "lastName": "last_name"})
    assert not send(worker, event(), record_messages.EVENT, ARRIVED * 1_000).waiting
    assert (worker.persons, worker.letters()) == ([], [])
    send(worker, of_api(), record_messages.RECONCILIATION, (ARRIVED + 60) * 1_000)
    assert worker.persons == [{"email": "maria@example.com", "lastName": "Souza"}]


# --- what an event determines


@pytest.mark.parametrize(
    ("form", "expression"),
    [
        ({}, "first_name || name"),
        ({}, "not_null(first_name, name)"),
        ({}, "custom_fields_values[?field_type=='multitext'].values[].value | [0] || 'none'"),
        ({}, "_embedded.companies[0].name || 'no company'"),
        ({}, "length(@)"),
        ({}, "keys(@) | [0]"),
        ({}, "to_string(@)"),
        ({}, "* | [0]"),
        ({}, "to_string(custom_fields_values)"),
        ({"[linked_company_id]": "12"}, "_embedded.companies[0].name || 'no company'"),
        (custom_field(1, "Newsletter", "1"), "custom_fields_values[?field_name=='Newsletter'].values[].value | [0]"),
        (custom_field(1, "Newsletter", "0"), "custom_fields_values[?field_name=='Newsletter'].values[].value | [0]"),
        (custom_field(1, "Born", "02.02.1978"), "custom_fields_values[?field_name=='Born'].values[].value | [0]"),
    ],
)  # fmt: skip
def test_apply_partial_expression_using_missing_field_is_omitted(form: dict[str, str], expression: str) -> None:
    assert mapping_of({"x": expression}).apply_partial(event(**form).data) == ({}, True)


@pytest.mark.parametrize(
    ("form", "expression", "found"),
    [
        ({}, "name", "Maria Souza"),
        ({}, "name || first_name", "Maria Souza"),
        ({}, "to_string(id)", "37054081"),
        ({}, contacts.DEFAULT_MAPPING["email"], "maria@example.com"),
        ({}, "length(custom_fields_values)", 1),
        ({}, "sort_by(custom_fields_values, &field_id)[0].field_code", "EMAIL"),
        ({"[company_name]": "Acme"}, "_embedded.companies[0].name", "Acme"),
        ({"[tags][0][id]": "7", "[tags][0][name]": "vip"}, "_embedded.tags[0].name", "vip"),
        (custom_field(1, "Size", "12"), "custom_fields_values[?field_name=='Size'].values[].value | [0]", "12"),
        (
            custom_field(1, "Answer", "1") | {"[custom_fields][1][values][0][enum]": "5"},
            "custom_fields_values[?field_name=='Answer'].values[].value | [0]",
            "1",
        ),
        (
            custom_field(1, "Birthday", "-315619200", "[values][0]"),
            "custom_fields_values[?field_name=='Birthday'].values[].value | [0]",
            -315_619_200,
        ),
        ({"[group_id]": "-1"}, "group_id", -1),
    ],
)  # fmt: skip
def test_apply_partial_expression_using_present_fields_has_value(
    form: dict[str, str], expression: str, found: Any
) -> None:
    assert mapping_of({"x": expression}).apply_partial(event(**form).data) == ({"x": found}, False)


def test_pipeline_checkbox_value_is_only_taken_from_complete_record(worker: Harness) -> None:
    newsletter = "custom_fields_values[?field_name=='Newsletter'].values[].value | [0]"
    worker.route("people", mapping={"email": contacts.DEFAULT_MAPPING["email"], "newsletter": newsletter})
    fields = whole()["custom_fields_values"]
    checkbox = {"field_name": "Newsletter", "field_code": None, "field_type": "checkbox", "values": [{"value": True}]}
    send(worker, event(**custom_field(1, "Newsletter", "1")), record_messages.EVENT, ARRIVED * 1_000)
    send(
        worker, of_api(custom_fields_values=[*fields, checkbox]), record_messages.RECONCILIATION, (ARRIVED + 60) * 1_000
    )
    assert [person.get("newsletter", "unknown") for person in worker.persons] == ["unknown", True]


def test_apply_partial_failing_expression_names_its_attribute() -> None:
    with pytest.raises(Rejected, match="mapping_failed: the mapping of x"):
        mapping_of({"x": "abs(name)"}).apply_partial(event().data)


# --- clocks of other systems


@pytest.mark.parametrize("told", [ARRIVED + 14_400, ARRIVED * 1_000 + 14_400_000, 10**17])
def test_pipeline_change_time_in_future_does_not_block_later_changes(worker: Harness, told: int) -> None:
    worker.route("people", mapping={"email": contacts.DEFAULT_MAPPING["email"], "fullName": "name"})
    early = event(**{"[updated_at]": str(told), "[name]": "Set by an integration"})
    send(worker, early, record_messages.EVENT, ARRIVED * 1_000)
    late = event(**{"[updated_at]": str(ARRIVED + 60), "[name]": "Typed by a person later"})
    send(worker, late, record_messages.EVENT, (ARRIVED + 61) * 1_000)
    assert worker.state()["maria@example.com"]["fullName"] == "Typed by a person later"


@pytest.mark.parametrize(
    ("told", "version"),
    [(CHANGED, CHANGED), (CHANGED * 1_000, CHANGED), (ARRIVED + 300, ARRIVED + 300), (ARRIVED + 301, ARRIVED)],
)
def test_kommo_event_change_time_is_seconds_and_limited_to_five_minutes_ahead(told: int, version: int) -> None:
    assert event(**{"[updated_at]": str(told)}).updated_at == version
