"""Contacts at LeadConnector: read, create and update, and how each refusal affects the connection and other contacts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import requests
import responses

from portaria.api.resources.actions import contacts as api
from portaria.api.validation import parse
from portaria.connections import connection_store, rotation
from portaria.connections.tokens.provider import TokenProvider
from portaria.connections.vault import Vault
from portaria.core import clock
from portaria.core.callbacks import Secret
from portaria.core.errors import AnswerTooLarge, Rejected, Retryable
from portaria.core.http.messages import Request, Response
from portaria.outbound import http_client
from portaria.platforms.leadconnector import contacts as leadconnector_contacts
from tests.fakes.aws.moto_cloud import PREFIX, Cloud
from tests.fakes.connections.connected import TOKEN, connect, supply, to_engage, to_leadconnector
from tests.fakes.platforms.leadconnector import JSON, LOCATION, LeadConnector, error

NAME = "marketek"
NEW = "canary-pit-two"
NO_SCOPE = error(401, "The token is not authorized for this scope.")
OTHER_LOCATION = error(403, "The token does not have access to this location.")
DEAD = error(401, "Invalid Private Integration token")
LOST = requests.ReadTimeout("canary")
UNREACHABLE = requests.ConnectTimeout("canary")


@pytest.fixture
def stack(stack: Cloud) -> Cloud:
    to_leadconnector(stack)
    return stack


@pytest.fixture
def leadconnector(stack: Cloud) -> Iterator[LeadConnector]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield LeadConnector(mock, TOKEN)


def people(count: int) -> list[dict[str, Any]]:
    return [{"email": f"person{number}@example.com", "firstName": f"Person {number}"} for number in range(count)]


def upsert(stack: Cloud, given: list[dict[str, Any]], name: str = NAME, **more: Any) -> dict[str, Any]:
    sent = parse(api.ContactUpsert, {"contacts": given, **more})
    answer = api.upsert(stack.table, supply(stack), name, sent)
    assert api.UpsertedContacts.model_validate(answer).model_dump() == answer
    assert len(answer["contacts"]) == len(given)
    assert "canary" not in repr(answer)
    return answer


def outcomes(answer: dict[str, Any]) -> list[str]:
    return [each["outcome"] for each in answer["contacts"]]


def show(stack: Cloud, contact_id: str, name: str = NAME, supply_: TokenProvider | None = None) -> dict[str, Any]:
    answer = api.show(stack.table, supply_ or supply(stack), name, contact_id)
    assert api.Contact.model_validate(answer).model_dump() == answer
    return answer


def trouble(stack: Cloud, *, reading: bool = False, **more: Any) -> Rejected | Retryable:
    with pytest.raises((Rejected, Retryable)) as raised:
        show(stack, "contact1", **more) if reading else upsert(stack, people(3), **more)
    assert "canary" not in str(raised.value)
    value = raised.value
    assert isinstance(value, Rejected | Retryable)
    return value


reading_and_writing = pytest.mark.parametrize("reading", [True, False], ids=["reading", "writing"])


# -------------------------------------------------------------------------------------------------------------- normal use


def test_upsert_contacts_creates_updates_and_reads_contacts(stack: Cloud, leadconnector: LeadConnector) -> None:
    made = upsert(stack, people(2))
    assert outcomes(made) == ["created", "created"]
    assert (made["contacts"][0]["reason"], made["retry_after_s"]) == ("", None)
    again = upsert(stack, [{"email": "person1@example.com", "city": "Olinda"}, {"phone": "+5581999990000"}])
    assert outcomes(again) == ["updated", "created"]
    assert again["contacts"][0]["id"] == made["contacts"][1]["id"]
    contact = show(stack, again["contacts"][0]["id"])["fields"]
    assert (contact["firstName"], contact["city"]) == ("Person 1", "Olinda")


def test_upsert_contacts_every_field_is_sent_unchanged(stack: Cloud, leadconnector: LeadConnector) -> None:
    whole: dict[str, Any] = {name: f"é {name}" for name in leadconnector_contacts.TEXTS}
    whole |= {
        "email": "maria@example.com",
        "dnd": True,
        "tags": ["vip", "é"],
        "customFields": [
            {"id": "a1", "field_value": "x"},
            {"key": "birthday", "field_value": None},
            {"id": "b", "key": "c", "field_value": [1, 2.5, True, "x"]},
            {"id": "d", "field_value": {"url": "https://example.com/"}},
        ],
    }
    assert set(whole) == set(leadconnector_contacts.FIELDS)
    assert outcomes(upsert(stack, [whole], overwrite_tags=True)) == ["created"]
    assert json.loads(leadconnector.calls[-1].body or b"") == {**whole, "locationId": LOCATION}


def test_upsert_contacts_tags_without_overwrite_tags_are_refused(stack: Cloud, leadconnector: LeadConnector) -> None:
    """An upsert removes tags that it does not contain, which a client that adds one tag does not expect."""
    given = [*people(1), {"email": "maria@example.com", "tags": ["vip"]}]
    with pytest.raises(Rejected) as refused:
        upsert(stack, given)
    assert (refused.value.reason, refused.value.field) == ("invalid_input", "contacts.1.tags")
    assert "overwrite_tags" in refused.value.detail
    assert leadconnector.calls == []
    with pytest.raises(Rejected):
        upsert(stack, [{"email": "maria@example.com", "tags": []}])
    assert outcomes(upsert(stack, given, overwrite_tags=True)) == ["created", "created"]


def test_show_contact_unknown_is_not_found(stack: Cloud, leadconnector: LeadConnector) -> None:
    with pytest.raises(Rejected) as refused:
        show(stack, "nobody")
    assert (refused.value.reason, refused.value.status) == ("unknown_contact", 404)


@pytest.mark.parametrize("contact_id", ["", "a/b", "..", "a" * 65, "a?b", "a b", "é", "upsert\n"])
def test_show_contact_invalid_id_is_refused_without_request(
    stack: Cloud, leadconnector: LeadConnector, contact_id: str
) -> None:
    with pytest.raises(Rejected, match="unknown_contact"):
        show(stack, contact_id)
    assert leadconnector.calls == []


# -------------------------------------------------------------------------- revoked token, missing scope, wrong location


@reading_and_writing
def test_contacts_refused_token_sets_needs_reconnect(stack: Cloud, leadconnector: LeadConnector, reading: bool) -> None:
    leadconnector.good.clear()
    error_ = trouble(stack, reading=reading)
    assert (error_.reason, getattr(error_, "status", 0)) == ("needs_reconnect", 409)
    assert f"PUT /connections/{NAME}/credentials" in error_.detail
    ended = connection_store.get(stack.table, NAME)
    assert (ended.state, ended.reason) == ("needs_reconnect", "token_refused")
    # The next call is not sent.
    before = len(leadconnector.calls)
    assert trouble(stack, reading=reading).reason == "needs_reconnect"
    assert len(leadconnector.calls) == before


@pytest.mark.parametrize(("reading", "scope"), [(True, "contacts.readonly"), (False, "contacts.write")])
def test_contacts_missing_scope_is_named_and_connection_stays_connected(
    stack: Cloud, leadconnector: LeadConnector, reading: bool, scope: str
) -> None:
    leadconnector.before = [NO_SCOPE]
    error_ = trouble(stack, reading=reading)
    assert (error_.reason, getattr(error_, "status", 0)) == ("missing_scope", 409)
    assert scope in error_.detail
    assert connection_store.get(stack.table, NAME).state == "connected"
    assert len(leadconnector.calls) == 1


@reading_and_writing
def test_contacts_token_of_another_location_keeps_connection_connected(
    stack: Cloud, leadconnector: LeadConnector, reading: bool
) -> None:
    leadconnector.before = [OTHER_LOCATION]
    error_ = trouble(stack, reading=reading)
    assert (error_.reason, getattr(error_, "status", 0)) == ("wrong_location", 409)
    assert connection_store.get(stack.table, NAME).state == "connected"


def test_upsert_contacts_new_token_refused_during_rotation_uses_old_token(
    stack: Cloud, leadconnector: LeadConnector
) -> None:
    """Given a new token that LeadConnector refuses while the overlap lasts."""
    leadconnector.good = {TOKEN, NEW}
    rotation.rotate(stack.table, Vault(PREFIX), NAME, {"token": Secret(NEW)}, expire_now=False)
    leadconnector.good = {TOKEN}
    assert outcomes(upsert(stack, people(2))) == ["created", "created"]
    assert connection_store.get(stack.table, NAME).state == "connected"


def test_upsert_contacts_token_refused_midway_leaves_rest_not_sent(stack: Cloud, leadconnector: LeadConnector) -> None:
    leadconnector.before = [None, DEAD, DEAD]
    answer = upsert(stack, people(3))
    assert outcomes(answer) == ["created", "not_sent", "not_sent"]
    assert answer["contacts"][2]["reason"] == "needs_reconnect"
    assert connection_store.get(stack.table, NAME).state == "needs_reconnect"


def test_upsert_contacts_scope_removed_midway_leaves_rest_not_sent(stack: Cloud, leadconnector: LeadConnector) -> None:
    leadconnector.before = [None, NO_SCOPE]
    answer = upsert(stack, people(3))
    assert outcomes(answer) == ["created", "not_sent", "not_sent"]
    assert answer["contacts"][1]["reason"] == "missing_scope"
    assert connection_store.get(stack.table, NAME).state == "connected"


# ---------------------------------------------------------------------------------------------- one invalid contact of many


def test_upsert_contacts_refused_contact_has_platform_messages(stack: Cloud, leadconnector: LeadConnector) -> None:
    leadconnector.before = [None, error(422, ["email must be an email", "property x should not exist"]), None]
    answer = upsert(stack, people(3))
    assert outcomes(answer) == ["created", "refused", "created"]
    refused = answer["contacts"][1]
    assert (refused["id"], refused["reason"]) == (None, "contact_refused")
    assert "email must be an email; property x should not exist" in refused["detail"]


def test_upsert_contacts_duplicate_names_the_other_contact(stack: Cloud, leadconnector: LeadConnector) -> None:
    said = "This location does not allow duplicated contacts."
    leadconnector.before = [error(400, said, meta={"contactId": "other1", "matchingField": "phone"})]
    answer = upsert(stack, people(2))
    assert outcomes(answer) == ["refused", "created"]
    assert (answer["contacts"][0]["reason"], answer["contacts"][0]["id"]) == ("duplicate_contact", "other1")


# ---------------------------------------------------------------------------------------------------------------- failures


def test_upsert_contacts_rate_limited_midway_leaves_rest_not_sent(stack: Cloud, leadconnector: LeadConnector) -> None:
    leadconnector.before = [None, (429, {**JSON, "Retry-After": "7"}, "{}")]
    answer = upsert(stack, people(4))
    assert outcomes(answer) == ["created", "not_sent", "not_sent", "not_sent"]
    assert (answer["contacts"][3]["reason"], answer["retry_after_s"]) == ("rate_limited", 7.0)
    assert len(leadconnector.calls) == 2


@reading_and_writing
def test_contacts_rate_limited_first_request_is_retryable(
    stack: Cloud, leadconnector: LeadConnector, reading: bool
) -> None:
    limits = {"X-RateLimit-Remaining": "0", "X-RateLimit-Interval-Milliseconds": "10000"}
    leadconnector.before = [(429, limits, "")]
    later = trouble(stack, reading=reading)
    assert isinstance(later, Retryable)
    assert (later.reason, later.after_s, later.answer_lost) == ("rate_limited", 10.0, False)


def test_upsert_contacts_exhausted_rate_limit_header_stops_before_429(
    stack: Cloud, leadconnector: LeadConnector
) -> None:
    leadconnector.headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Interval-Milliseconds": "10000"}
    answer = upsert(stack, people(2))
    assert outcomes(answer) == ["created", "not_sent"]
    assert answer["retry_after_s"] == 10.0
    assert len(leadconnector.calls) == 1
    # There is nothing to wait for after the last request of a call.
    assert upsert(stack, people(1))["retry_after_s"] is None


@pytest.mark.parametrize("lost", [LOST, error(500, "canary"), error(401, "Command timed out"), (200, JSON, "<html>")])
def test_upsert_contacts_lost_answer_is_unknown_and_rest_is_sent(
    stack: Cloud, leadconnector: LeadConnector, lost: Any
) -> None:
    leadconnector.before = [None, lost]
    answer = upsert(stack, people(3))
    assert outcomes(answer) == ["created", "unknown", "created"]
    assert "send it again" in answer["contacts"][1]["detail"]
    assert connection_store.get(stack.table, NAME).state == "connected"


def test_upsert_contacts_oversized_answer_is_unknown(
    stack: Cloud, leadconnector: LeadConnector, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = http_client.send

    def send_and_drop(request: Request, **named: Any) -> Response:
        send(request, **named)
        raise AnswerTooLarge("it answered more than can be read here")

    monkeypatch.setattr(http_client, "send", send_and_drop)
    answer = upsert(stack, people(2))
    assert outcomes(answer) == ["unknown", "unknown"]
    assert len(leadconnector.contacts) == 2


def test_upsert_contacts_unreachable_midway_leaves_rest_not_sent(stack: Cloud, leadconnector: LeadConnector) -> None:
    leadconnector.before = [None, UNREACHABLE]
    answer = upsert(stack, people(3))
    assert outcomes(answer) == ["created", "not_sent", "not_sent"]
    assert answer["contacts"][1]["reason"] == "unreachable"


@reading_and_writing
def test_contacts_unreachable_first_request_is_retryable(
    stack: Cloud, leadconnector: LeadConnector, reading: bool
) -> None:
    leadconnector.before = [UNREACHABLE]
    later = trouble(stack, reading=reading)
    assert isinstance(later, Retryable)
    assert (later.reason, later.answer_lost) == ("unreachable", False)


@pytest.mark.parametrize("lost", [LOST, error(500, "canary")])
def test_show_contact_lost_answer_is_retryable_without_answer_lost(
    stack: Cloud, leadconnector: LeadConnector, lost: Any
) -> None:
    leadconnector.before = [lost]
    later = trouble(stack, reading=True)
    assert isinstance(later, Retryable)
    assert not later.answer_lost


def test_upsert_contacts_slow_requests_stop_after_twenty_seconds(
    stack: Cloud, leadconnector: LeadConnector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given requests that take seven seconds each."""
    now, waited = clock.now, timedelta(0)
    send = http_client.send

    def slow(request: Request, **named: Any) -> Response:
        nonlocal waited
        waited += timedelta(seconds=7)
        return send(request, **named)

    monkeypatch.setattr(http_client, "send", slow)
    monkeypatch.setattr(clock, "now", lambda: now() + waited)
    answer = upsert(stack, people(4))
    assert outcomes(answer) == ["created", "created", "created", "not_sent"]
    assert answer["contacts"][3]["reason"] == "out_of_time"


# -------------------------------------------------------------------------------------------------------- input and platforms


def test_contacts_platform_without_contacts_is_refused_as_not_offered(
    stack: Cloud, leadconnector: LeadConnector
) -> None:
    """Kommo's contacts are read page by page as a source of records, not through this action."""
    to_engage(stack)
    connect(stack, "kommo-one", "kommo", "oauth2", "acme.kommo.com", {}, {"access_token": "canary-kommo"})
    for name in ("engage-one", "kommo-one"):
        for reading in (True, False):
            error_ = trouble(stack, reading=reading, name=name)
            assert (error_.reason, getattr(error_, "status", 0)) == ("not_offered", 409)
    assert trouble(stack, name="nobody").reason == "unknown_connection"
    assert trouble(stack, reading=True, name="nobody").reason == "unknown_connection"


@pytest.mark.parametrize(
    ("contact", "field"),
    [
        ({}, "contacts.0"),
        ({"firstName": "Maria"}, "contacts.0"),
        ({"email": "", "phone": ""}, "contacts.0"),
        ({"email": "a@example.com", "canary-secret": "x"}, "contacts.0"),
        ({"email": "a@example.com", "locationId": "x"}, "contacts.0"),
        ({"email": 1}, "contacts.0.email"),
        ({"email": None}, "contacts.0.email"),
        ({"email": "a@example.com", "city": "x" * 1_001}, "contacts.0.city"),
        ({"email": "a@example.com", "city": json.loads('"\\ud800"')}, "contacts.0.city"),
        ({"email": "a@example.com", "dnd": "yes"}, "contacts.0.dnd"),
        ({"email": "a@example.com", "tags": "vip"}, "contacts.0.tags"),
        ({"email": "a@example.com", "tags": [1]}, "contacts.0.tags"),
        ({"email": "a@example.com", "tags": [""]}, "contacts.0.tags"),
        ({"email": "a@example.com", "tags": ["x"] * 101}, "contacts.0.tags"),
        ({"email": "a@example.com", "customFields": {}}, "contacts.0.customFields"),
        ({"email": "a@example.com", "customFields": ["x"]}, "contacts.0.customFields"),
        ({"email": "a@example.com", "customFields": [{"id": "x"}]}, "contacts.0.customFields"),
        ({"email": "a@example.com", "customFields": [{"field_value": "x"}]}, "contacts.0.customFields"),
        ({"email": "a@example.com", "customFields": [{"id": 1, "field_value": "x"}]}, "contacts.0.customFields"),
        ({"email": "a@example.com", "customFields": [{"id": "x", "field_value": [[]]}]}, "contacts.0.customFields"),
        ({"email": "a@example.com", "customFields": [{"id": "x", "field_value": 1e999}]}, "contacts.0.customFields"),
        ({"email": "a@example.com", "customFields": [{"id": "x", "value": "x"}]}, "contacts.0.customFields"),
    ],
    ids=repr,
)
def test_upsert_contacts_invalid_contact_is_refused_without_request(
    stack: Cloud, leadconnector: LeadConnector, contact: dict[str, Any], field: str
) -> None:
    with pytest.raises(Rejected) as refused:
        upsert(stack, [contact], overwrite_tags=True)
    assert (refused.value.reason, refused.value.field) == ("invalid_input", field)
    assert "canary" not in refused.value.detail
    assert leadconnector.calls == []


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        ({}, "contacts"),
        ({"contacts": []}, "contacts"),
        ({"contacts": people(51)}, "contacts"),
        ({"contacts": ["x"]}, "contacts.0"),
        ({"contacts": people(1), "overwrite_tags": "yes"}, "overwrite_tags"),
    ],
    ids=["missing", "empty", "too many", "no object", "no flag"],
)
def test_upsert_contacts_invalid_body_is_refused_by_field(sent: dict[str, Any], field: str) -> None:
    with pytest.raises(Rejected) as refused:
        parse(api.ContactUpsert, sent)
    assert refused.value.field == field


def test_upsert_contacts_many_errors_are_limited_to_twenty(stack: Cloud, leadconnector: LeadConnector) -> None:
    with pytest.raises(Rejected) as refused:
        upsert(stack, [{"city": 1, "email": 1}] * 50)
    assert len(refused.value.errors) == 20  # type: ignore[attr-defined]
