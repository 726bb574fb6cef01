"""Batches of records for LeadConnector and Engage, at the edges: SQS events in; HTTP, table and dead letters out."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import pytest
import requests
import responses

from portaria.aws import queues
from portaria.connections import connection_store, request_budget, rotation
from portaria.connections.tokens import cache, static_credentials
from portaria.connections.vault import Vault
from portaria.core import clock, record_messages
from portaria.core.callbacks import Secret
from portaria.core.entities import Answer, Connection, Disposition, Route
from portaria.core.errors import Retryable
from portaria.delivery import backlogs, destination_pause
from portaria.delivery.destination_pause import PauseReason
from portaria.delivery.pipeline import QueuedMessage
from portaria.outbound.request_slots import Priority
from portaria.platforms.leadconnector import persons as leadconnector_persons
from portaria.platforms.marketo import persons
from portaria.records import dead_letters, routes
from tests.fakes.api.manage import Manage, empty
from tests.fakes.aws import functions
from tests.fakes.aws.moto_cloud import PREFIX, Cloud
from tests.fakes.connections.connected import TOKEN, to_engage, to_leadconnector
from tests.fakes.platforms import engage, leadconnector
from tests.fakes.platforms.engage import Engage
from tests.fakes.platforms.leadconnector import LeadConnector
from tests.fakes.records import contacts, ingesting, waiting_records
from tests.fakes.records.contacts import SOURCE, contact
from tests.fakes.records.ingesting import body

NEWER_TOKEN = "canary-pit-two"
TIMEOUT = requests.exceptions.ReadTimeout("read timed out")
ROUTE = {"name": "people", "source": f"connection:{SOURCE}", "object": "contacts"}
USER = {"user_login": "first_name", "identifier": "id"}


@pytest.fixture
def mock() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


class Harness:
    """The ingestion function of one stack. `slept` has the pauses between requests, which take no time here."""

    def __init__(self, stack: Cloud, slept: list[float]) -> None:
        self.stack, self.slept = stack, slept
        self.function = functions.load("ingest_records", stack.environment)
        self.releasing = functions.load("release_records", stack.environment)
        self.waits: dict[str, float] = {}
        self.log = io.StringIO()
        functions.log_to(self.log)
        contacts.connect_kommo(stack, 1)

    def route(self, destination: Connection, **changes: Any) -> Route:
        """A route as the API creates it without dedupe fields."""
        given = {"dedupe_fields": (), **changes}
        route = Route("people", f"connection:{SOURCE}", "contacts", destination.name, **given)
        routes.put(self.stack.table, route, new=True)
        return route

    def ingest(self, bodies: dict[str, str], receives: int = 1) -> set[str]:
        """The ids of the messages that are reported as failed. `waits` has the delay of each, in seconds."""
        self.waits = {}

        def give_back(queue_url: str, receipt_handle: str, after_s: float) -> None:
            self.waits[receipt_handle.removeprefix("handle-")] = after_s

        with patch.object(queues, "give_back", give_back):
            answer = self.function.handler(functions.sqs_event(bodies, "records", receives), functions.Context(120.0))
        return functions.reported(answer)

    @property
    def held(self) -> dict[str, float]:
        """The seconds before each message that waits in the table is tried again, by message id."""
        return waiting_records.waits(self.stack.table)

    def release(self, **later: float) -> None:
        """Release the waiting records after this time."""
        with waiting_records.later(**later):
            waiting_records.release_by(self.releasing, self.stack)

    def letters(self) -> list[dict[str, Any]]:
        table = self.stack.table
        return [
            head | dead_letters.joined([part["data"] for part in table.query_all(head["pk"], sk_prefix="PART#")])
            for head in table.query_all(dead_letters.LIST, index="listing")
        ]

    def receipts(self, destination: str) -> list[dict[str, Any]]:
        return list(self.stack.table.query_all(f"RECEIPTS#{destination}", index="listing"))


@pytest.fixture
def harness(shared: Cloud, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Harness]:
    cache.PROCESS_CACHE.clear()
    request_budget._destination.cache_clear()
    slept: list[float] = []
    begin = clock.now()
    monkeypatch.setattr(clock, "sleep", slept.append)
    monkeypatch.setattr(clock, "now", lambda: begin + timedelta(seconds=sum(slept)))
    harness = Harness(shared, slept)
    yield harness
    empty()
    printed = capsys.readouterr()
    text = harness.log.getvalue() + printed.out + printed.err
    assert "canary" not in text
    assert "@example.com" not in text


def each(*numbers: int) -> dict[str, str]:
    """One message for each contact."""
    return {f"m{number}": body([contact(number)]) for number in numbers}


def shown(number: int) -> dict[str, Any]:
    """The contact that LeadConnector should have for a synthetic Kommo contact."""
    return {
        "firstName": "Test",
        "lastName": f"Person{number}",
        "email": f"person{number}@example.com",
        "phone": f"+1555{number:07d}",
        "locationId": leadconnector.LOCATION,
    }


class TestLeadConnector:
    @pytest.fixture
    def marketek(self, harness: Harness) -> Connection:
        return to_leadconnector(harness.stack)

    @pytest.fixture
    def platform(self, mock: responses.RequestsMock, monkeypatch: pytest.MonkeyPatch) -> LeadConnector:
        """Each request takes a while."""
        platform, now = LeadConnector(mock, TOKEN), clock.now
        monkeypatch.setattr(clock, "now", lambda: now() + timedelta(seconds=0.3 * len(platform.calls)))
        return platform

    def sent(self, platform: LeadConnector) -> list[dict[str, Any]]:
        return [json.loads(call.body or b"") for call in platform.calls if call.method == "POST"]

    def test_ingest_leadconnector_each_contact_is_one_request_and_one_receipt(
        self, harness: Harness, marketek: Connection, platform: LeadConnector
    ) -> None:
        harness.route(marketek)
        company = contact(2) | {"_embedded": {"companies": [{"id": 7, "name": "Padaria"}]}}
        assert harness.ingest({"m1": body([contact(1), company])}) == set()
        assert self.sent(platform) == [shown(1), shown(2) | {"companyName": "Padaria"}]
        receipts = harness.receipts(marketek.name)
        assert [(one["state"], one["count"], one["request_id"]) for one in receipts] == [("applied", 1, "t")] * 2
        # Nothing but the slots that are reserved for other priorities.
        assert sum(harness.slept) <= 2 / (leadconnector_persons.REQUESTS_PER_SECOND or 1)

    def test_ingest_leadconnector_waits_for_slots_that_other_workers_claimed(
        self, harness: Harness, marketek: Connection, platform: LeadConnector
    ) -> None:
        harness.route(marketek)
        per_s = leadconnector_persons.REQUESTS_PER_SECOND or 0
        other = request_budget.SlotCounters(harness.stack.table, "leadconnector", per_s, marketek.name)
        for _ in range(4):
            other.claim(Priority.CALL.rules)
        assert harness.ingest(each(1)) == set()
        assert len(self.sent(platform)) == 1
        assert 2 / per_s < sum(harness.slept) <= 6 / per_s

    def test_ingest_leadconnector_rate_limit_used_by_other_workers_returns_message_unsent(
        self, harness: Harness, marketek: Connection, platform: LeadConnector
    ) -> None:
        harness.route(marketek)
        per_s = leadconnector_persons.REQUESTS_PER_SECOND or 0
        other = request_budget.SlotCounters(harness.stack.table, "leadconnector", per_s, marketek.name)
        with suppress(request_budget.BudgetExhausted):
            while True:
                other.claim(Priority.CALL.rules)
        assert harness.ingest(each(1)) == {"m1"}
        assert platform.calls == []
        assert harness.receipts(marketek.name) == []
        # Instead of being received again and again, it waits in the table; other sources can use free slots.
        assert harness.ingest(each(1), 3) == set()
        assert list(harness.held) == ["m1"]
        assert backlogs.status(harness.stack.table, marketek.name).pauses == ()
        harness.release(minutes=2)
        assert len(self.sent(platform)) == 1

    @pytest.mark.parametrize("option", [{}, {"overwrite_tags": "no"}])
    def test_ingest_leadconnector_tags_without_overwrite_option_are_omitted(
        self, harness: Harness, marketek: Connection, platform: LeadConnector, option: dict[str, str]
    ) -> None:
        harness.route(marketek, mapping={"email": "name", "tags": "'vip'"}, options=option)
        harness.ingest({"m1": body([contact(1) | {"name": "a@b.example"}])})
        assert self.sent(platform) == [{"email": "a@b.example", "locationId": leadconnector.LOCATION}]

    def test_ingest_leadconnector_tags_with_overwrite_option_are_sent(
        self, harness: Harness, marketek: Connection, platform: LeadConnector
    ) -> None:
        mapping = {"email": "name", "tags": "join(', ', _embedded.tags[].name)"}
        harness.route(marketek, mapping=mapping, options={"overwrite_tags": "yes"})
        tagged = contact(1) | {"name": "a@b.example", "_embedded": {"tags": [{"name": "vip"}, {"name": "São Paulo"}]}}
        harness.ingest({"m1": body([tagged])})
        assert self.sent(platform)[0]["tags"] == ["vip", "São Paulo"]

    def test_ingest_leadconnector_refused_contact_becomes_dead_letter_and_rest_is_sent(
        self, harness: Harness, marketek: Connection, platform: LeadConnector
    ) -> None:
        harness.route(marketek)
        bad = contact(2, email="canary-no-address")
        assert (
            harness.ingest({"m1": body([contact(1), bad, contact(3)]), "m4": body([contact(4, email=None)])}) == set()
        )
        assert {one["email"] for one in platform.contacts.values() if "email" in one} == {
            "person1@example.com", "person3@example.com",
        }  # fmt: skip
        (letter,) = harness.letters()
        assert (letter["reason"], letter["records"][0]["key"]) == ("refused_by_destination", "2")
        assert letter["detail"] == "LeadConnector refused the contact (422): what it says names email"

    def test_ingest_leadconnector_contact_without_dedupe_value_becomes_dead_letter(
        self, harness: Harness, marketek: Connection, platform: LeadConnector
    ) -> None:
        harness.route(marketek, mapping={"email": "nothing", "firstName": "first_name"})
        assert harness.ingest(each(1)) == set()
        assert platform.calls == []
        assert [letter["reason"] for letter in harness.letters()] == ["bad_value"]

    def test_ingest_leadconnector_new_token_refused_during_rotation_uses_old_token(
        self, harness: Harness, marketek: Connection, platform: LeadConnector
    ) -> None:
        harness.route(marketek)
        platform.good = {TOKEN, NEWER_TOKEN}
        fresh = {"token": Secret(NEWER_TOKEN)}
        rotation.rotate(harness.stack.table, Vault(PREFIX), marketek.name, fresh, expire_now=False)
        platform.good = {TOKEN}
        platform.calls.clear()
        assert harness.ingest({"m1": body([contact(1), contact(2)])}) == set()
        assert [call.headers["Authorization"] for call in platform.calls] == [
            f"Bearer {NEWER_TOKEN}", f"Bearer {TOKEN}", f"Bearer {TOKEN}",
        ]  # fmt: skip
        assert len(platform.contacts) == 2
        assert connection_store.get(harness.stack.table, marketek.name).state == "connected"

    def test_ingest_leadconnector_refused_token_sets_needs_reconnect_and_keeps_records(
        self, harness: Harness, marketek: Connection, platform: LeadConnector
    ) -> None:
        harness.route(marketek)
        platform.good = set()
        assert harness.ingest(each(1, 2, 3)) == set()
        assert len(platform.calls) == 1
        now = connection_store.get(harness.stack.table, marketek.name)
        assert (now.state, now.reason) == ("needs_reconnect", "token_refused")
        assert [one["code"] for one in harness.receipts(marketek.name)] == ["token_refused"]
        # Nothing more is sent until it is connected again and the pause has ended
        assert harness.ingest(each(4)) == set()
        assert len(platform.calls) == 1
        assert set(harness.held) == {"m1", "m2", "m3", "m4"}
        assert harness.letters() == []

    def test_ingest_leadconnector_reconnected_releases_waiting_records(
        self, harness: Harness, marketek: Connection, platform: LeadConnector
    ) -> None:
        harness.route(marketek)
        platform.good = {NEWER_TOKEN}
        harness.ingest(each(1))
        ended = connection_store.get(harness.stack.table, marketek.name)
        rotation.replace(harness.stack.table, Vault(PREFIX), ended, {"token": Secret(NEWER_TOKEN)})
        harness.release(minutes=31)
        assert len(platform.contacts) == 1
        assert backlogs.status(harness.stack.table, marketek.name).pauses == ()
        assert harness.held == {}

    @pytest.mark.parametrize(
        "answer",
        [
            leadconnector.error(401, "The token is not authorized for this scope."),
            leadconnector.error(403, "The token does not have access to this location."),
        ],
        ids=["no scope", "another location"],
    )
    def test_ingest_leadconnector_missing_scope_pauses_destination_and_keeps_connection(
        self, harness: Harness, marketek: Connection, platform: LeadConnector, answer: Any
    ) -> None:
        harness.route(marketek)
        platform.before = [answer]
        assert harness.ingest(each(1, 2)) == set()
        assert len(platform.calls) == 1
        assert harness.held == pytest.approx({"m1": 1_800, "m2": 1_800}, abs=5)
        assert connection_store.get(harness.stack.table, marketek.name).state == "connected"

    def test_ingest_leadconnector_rate_limit_window_used_up_delays_rest_of_batch(
        self, harness: Harness, marketek: Connection, platform: LeadConnector
    ) -> None:
        harness.route(marketek)
        platform.headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Interval-Milliseconds": "10000"}
        first = {"m1": body([contact(1), contact(2)])} | each(3)
        assert harness.ingest(first) == {"m1", "m3"}
        assert harness.waits == {"m1": 10, "m3": 10}
        platform.headers = {}
        assert harness.ingest(first, 2) == set()
        # Records that were written before the pause are not sent again
        assert [one["email"] for one in self.sent(platform)] == [f"person{number}@example.com" for number in (1, 2, 3)]

    def test_release_leadconnector_waits_for_each_rate_limit_window(
        self, harness: Harness, marketek: Connection, platform: LeadConnector
    ) -> None:
        """Given more waiting contacts than fit into a rate limit window, then one drain sends them all, window by window."""
        harness.route(marketek)
        platform.before = [leadconnector.error(403, "The token does not have access to this location.")]
        harness.ingest(each(*range(1, 6)))
        assert len(harness.held) == 5
        platform.headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Interval-Milliseconds": "10000"}
        harness.slept.clear()
        harness.release(minutes=31)
        assert [one["email"] for one in self.sent(platform)][1:] == [f"person{n}@example.com" for n in range(1, 6)]
        assert harness.slept.count(10) == 4
        assert harness.held == {}

    @pytest.mark.parametrize(
        ("headers", "wait_s", "parked"),
        [({"Retry-After": "7"}, 7, False), ({"X-RateLimit-Daily-Remaining": "0"}, 7_200, True)],
        ids=["window", "day"],
    )
    def test_ingest_leadconnector_429_holds_all_records(
        self,
        harness: Harness,
        marketek: Connection,
        platform: LeadConnector,
        headers: dict[str, str],
        wait_s: int,
        parked: bool,
    ) -> None:
        harness.route(marketek)
        platform.before = [(429, {"Content-Type": "application/json", **headers}, '{"message": "Too Many Requests"}')]
        assert harness.ingest(each(1, 2)) == (set() if parked else {"m1", "m2"})
        assert (harness.held if parked else harness.waits) == pytest.approx({"m1": wait_s, "m2": wait_s}, abs=5)
        assert len(platform.calls) == 1
        assert bool(backlogs.status(harness.stack.table, marketek.name).pauses) == parked

    def test_ingest_leadconnector_all_requests_of_message_fail_holds_it_once(
        self, harness: Harness, marketek: Connection, platform: LeadConnector
    ) -> None:
        harness.route(marketek)
        many = {"m1": body([contact(number) for number in range(1, 5)])}
        platform.before = [leadconnector.error(500, "Internal server error")] * 4
        assert harness.ingest(many) == set()
        assert harness.held == pytest.approx({"m1": 300}, abs=5)
        assert harness.letters() == []
        harness.release(minutes=6)
        assert len(platform.contacts) == 4

    def test_ingest_leadconnector_lost_answer_is_sent_again(
        self, harness: Harness, marketek: Connection, platform: LeadConnector
    ) -> None:
        harness.route(marketek)
        platform.before = [TIMEOUT]
        assert harness.ingest(each(1)) == set()
        assert harness.held == pytest.approx({"m1": 300}, abs=5)
        harness.release(minutes=6)
        assert [one["state"] for one in harness.receipts(marketek.name)] == ["applied"]

    def test_ingest_leadconnector_contacts_sharing_email_or_phone_are_sent_in_order(
        self, harness: Harness, marketek: Connection, platform: LeadConnector
    ) -> None:
        harness.route(marketek)
        older = contact(1, updated_at=100)
        newer = contact(2, updated_at=200, email="PERSON1@example.com")
        same = contact(1, updated_at=300) | {"id": 3, "first_name": "Newest"}
        harness.ingest({"m1": body([newer]), "m2": body([older]), "m3": body([same])})
        assert [(one["email"], one["phone"][-1], one["firstName"]) for one in self.sent(platform)] == [
            ("PERSON1@example.com", "2", "Test"), ("person1@example.com", "1", "Newest"),
        ]  # fmt: skip

    def test_ingest_leadconnector_large_message_is_split_before_sending(
        self, harness: Harness, marketek: Connection, platform: LeadConnector
    ) -> None:
        """Otherwise all records would be received again for each one that a batch can process, until they are given up."""
        harness.route(marketek)
        many = {"m1": body([contact(number) for number in range(10)], origin=record_messages.BACKFILL)} | each(99)
        assert harness.ingest(many) == set()
        assert [one["email"] for one in self.sent(platform)] == ["person99@example.com"]
        parts = harness.stack.receive("records")
        assert sorted(len(json.loads(part)["records"]) for part in parts) == [2, 4, 4]
        whole = json.loads(many["m1"])
        assert {**json.loads(parts[0]), "records": whole["records"]} == whole
        assert harness.ingest({f"part-{number}": part for number, part in enumerate(parts)}) == set()
        assert len(platform.contacts) == 11

    def test_ingest_leadconnector_split_failure_returns_message_unsent(
        self, harness: Harness, marketek: Connection, platform: LeadConnector
    ) -> None:
        harness.route(marketek)
        with patch.object(queues, "send", side_effect=Retryable("queue_unavailable", "throttled")):
            assert harness.ingest({"m1": body([contact(number) for number in range(10)])}) == {"m1"}
        assert platform.calls == []


class TestEngage:
    @pytest.fixture
    def platform(self, mock: responses.RequestsMock) -> Engage:
        platform = Engage(mock)
        platform.people = {f"login-{number}" for number in range(300)}
        platform.registered = {}
        return platform

    def users(self, *numbers: int, message: str = "m1") -> dict[str, str]:
        return {message: body([contact(number) | {"first_name": f"login-{number}"} for number in numbers])}

    def test_ingest_engage_users_are_sent_in_requests_of_100(self, harness: Harness, platform: Engage) -> None:
        main = to_engage(harness.stack)
        harness.route(main, mapping=USER)
        assert harness.ingest(self.users(*range(150))) == set()
        assert platform.registered == {str(number): f"login-{number}" for number in range(150)}
        assert [len(json.loads(request.body or b"")) for request in platform.requests] == [100, 50]
        assert [(one["state"], one["count"]) for one in harness.receipts(main.name)] == [
            ("applied", 100),
            ("applied", 50),
        ]
        assert len(platform.hosts) == 1

    def test_ingest_engage_static_credentials_are_read_once_per_batch(self, harness: Harness, platform: Engage) -> None:
        harness.route(to_engage(harness.stack), mapping=USER)
        with patch.object(
            static_credentials, "static_credentials", wraps=static_credentials.static_credentials
        ) as read:
            harness.ingest(self.users(*range(150)))
        assert (len(platform.requests), read.call_count) == (2, 1)

    def test_ingest_engage_unknown_login_becomes_dead_letter_and_rest_is_registered(
        self, harness: Harness, platform: Engage
    ) -> None:
        harness.route(to_engage(harness.stack), mapping=USER)
        assert harness.ingest(self.users(1, 2, 3, 999, 4, 5)) == set()
        assert set(platform.registered) == {"1", "2", "3", "4", "5"}
        (letter,) = harness.letters()
        assert (letter["reason"], letter["records"][0]["key"]) == ("refused_by_destination", "999")
        assert letter["detail"] == "Engage refused this user (400): there may be no such login"

    def test_ingest_engage_expired_session_logs_in_again(self, harness: Harness, platform: Engage) -> None:
        harness.route(to_engage(harness.stack), mapping=USER)
        harness.ingest(self.users(1))
        platform.hosts.append("somebody else's log-in, whose token alone is good now")
        assert harness.ingest(self.users(2, message="m2")) == set()
        assert set(platform.registered) == {"1", "2"}
        assert len(platform.hosts) == 3

    @pytest.mark.parametrize("status", [401, 403])
    def test_ingest_engage_forbidden_pauses_destination_and_keeps_records(
        self, harness: Harness, platform: Engage, status: int
    ) -> None:
        main = to_engage(harness.stack)
        harness.route(main, mapping=USER)
        platform.before = [engage.refusal(status, "denied")] * 2
        assert harness.ingest(self.users(1)) == set()
        assert harness.held == pytest.approx({"m1": 1_800}, abs=5)
        assert len(platform.requests) == (2 if status == 401 else 1)
        assert connection_store.get(harness.stack.table, main.name).state == "connected"
        (pause,) = backlogs.status(harness.stack.table, main.name).pauses_of("users")
        assert pause.reason == "stopped"

    def test_ingest_engage_without_customer_token_keeps_records_without_request(
        self, harness: Harness, platform: Engage
    ) -> None:
        harness.route(to_engage(harness.stack, customer_token=""), mapping=USER)
        assert harness.ingest(self.users(1)) == set()
        assert set(harness.held) == {"m1"}
        assert platform.requests == []
        assert '"code":"no_credentials"' in harness.log.getvalue()

    def test_ingest_engage_wrong_password_is_tried_once_per_batch(self, harness: Harness, platform: Engage) -> None:
        harness.route(to_engage(harness.stack, password="canary-wrong"), mapping=USER)
        assert harness.ingest(self.users(1) | self.users(2, message="m2")) == set()
        assert set(harness.held) == {"m1", "m2"}
        assert harness.letters() == []
        assert len(platform.hosts) == 1

    def test_ingest_engage_same_identifier_registers_newest_user(self, harness: Harness, platform: Engage) -> None:
        harness.route(to_engage(harness.stack), mapping={"user_login": "first_name", "identifier": "'u-7'"})
        newer, older = contact(1, updated_at=200), contact(2, updated_at=100)
        harness.ingest(
            {"m1": body([newer | {"first_name": "login-1"}]), "m2": body([older | {"first_name": "login-2"}])}
        )
        assert platform.registered == {"u-7": "login-1"}


class TestRoutes:
    """Created through the API."""

    @pytest.fixture
    def manage(self, shared: Cloud, mock: responses.RequestsMock) -> Iterator[Manage]:
        contacts.connect_kommo(shared, 1)
        to_leadconnector(shared)
        to_engage(shared)
        yield Manage(shared)
        empty()

    def test_create_route_to_leadconnector_with_defaults_is_created(self, manage: Manage) -> None:
        made = manage.call("POST", "/routes", {**ROUTE, "destination": "marketek"})
        assert made.status == 201, made.text
        assert (made.content["dedupe_fields"], made.content["warnings"]) == ([], [])

    def test_create_route_to_leadconnector_with_tags_option_is_created(self, manage: Manage) -> None:
        mapping = {"email": "name", "tags": "join(',', _embedded.tags[].name)"}
        given = {**ROUTE, "destination": "marketek", "mapping": mapping, "options": {"overwrite_tags": "yes"}}
        assert manage.call("POST", "/routes", given).status == 201

    def test_create_route_to_engage_is_created(self, manage: Manage) -> None:
        given = {**ROUTE, "destination": "engage-one", "mapping": USER, "target": "users"}
        assert manage.call("POST", "/routes", given).status == 201

    @pytest.mark.parametrize(
        ("change", "field", "words"),
        [
            ({"mapping": {"email": "name", "tags": "'vip'"}}, "mapping.tags", "set overwrite_tags to yes"),
            ({"mapping": {"email": "name", "tags": "'vip'"}, "options": {"overwrite_tags": "no"}}, "mapping.tags", "tags"),
            ({"mapping": {"email": "name", "company": "name"}}, "mapping.company", "company is not an attribute"),
            ({"mapping": {"email": "name", "customFields": "name"}}, "mapping.customFields", "customFields is not"),
            ({"mapping": {"email": "name", "locationId": "id"}}, "mapping.locationId", "locationId is not an attribute"),
            ({"mapping": {"firstName": "name"}}, "mapping", "needs email or phone"),
            ({"dedupe_fields": ["email"]}, "dedupe_fields", "cannot be set"),
            ({"options": {"overwrite_tags": "true"}}, "options.overwrite_tags", "yes or no"),
            ({"options": {"partition": "EMEA"}}, "options", "it has overwrite_tags"),
            ({"target": "companies"}, "target", "the destination takes persons"),
            ({"object": "companies"}, "object", "takes contacts as they are"),
            ({"object": "companies", "target": "persons"}, "mapping", "there is no default mapping to persons"),
            ({"destination": "engage-one"}, "mapping", "there is no default mapping to users"),
            ({"destination": "engage-one", "mapping": {"identifier": "id"}}, "mapping", "exactly user_login and identifier"),
            ({"destination": "engage-one", "mapping": {**USER, "client_application_id": "id"}}, "mapping", "exactly"),
            ({"destination": "engage-one", "mapping": USER, "dedupe_fields": ["identifier"]}, "dedupe_fields", "cannot be set"),
            ({"destination": "engage-one", "mapping": USER, "options": {"a": "b"}}, "options", "it has none"),
            ({"destination": "engage-one", "mapping": USER, "target": "persons"}, "target", "takes users"),
            ({"destination": SOURCE}, "destination", "records cannot be sent to kommo"),
        ],
        ids=lambda value: repr(value)[:60],
    )  # fmt: skip
    def test_create_route_to_leadconnector_invalid_is_refused_by_field(
        self, manage: Manage, change: dict[str, Any], field: str, words: str
    ) -> None:
        answer = manage.call("POST", "/routes", {**ROUTE, "destination": "marketek", **change})
        assert answer.status == 400, answer.text
        assert answer.content["field"] == field
        assert words in answer.content["detail"]
        assert manage.call("GET", "/routes").content["items"] == []


# For each meaning of a response to a request with two records: the delay of their message in SQS (`None`: the default backoff)
# and in the table, the dead letters, the requests that were made, and whether the destination is paused.
EFFECTS: dict[Disposition, tuple[dict[str, float | None], dict[str, float], list[str], int, bool]] = {
    Disposition.ACCEPTED: ({}, {}, [], 1, False),
    Disposition.APPLIED: ({}, {}, [], 1, False),
    Disposition.TOKEN_AGAIN: ({}, {"m": 1_800}, [], 2, True),
    Disposition.BACK_OFF: ({"m": None}, {}, [], 1, False),
    Disposition.QUOTA: ({}, {"m": 77}, [], 1, True),
    Disposition.BAD_DATA: ({}, {}, ["refused_by_destination"], 3, False),
    Disposition.STOP: ({}, {"m": 1_800}, [], 1, True),
    Disposition.RETRY: ({}, {"m": 300}, [], 1, False),
}


@pytest.mark.parametrize("meaning", Disposition)
def test_pipeline_each_disposition_has_its_effect(meaning: Disposition) -> None:
    in_queue, in_table, reasons, count, is_paused = EFFECTS[meaning]
    after_s = 77 if meaning is Disposition.QUOTA else None
    with ingesting.harness() as harness:
        harness.route("people")
        with patch.object(persons, "read_answer", lambda response: Answer(meaning, "code", after_s=after_s)):
            outcome = harness.ingest(QueuedMessage("m", body([contact(1), contact(2)])))
        assert outcome.waiting == in_queue
        assert harness.waits == pytest.approx(in_table, abs=5)
        assert [letter["reason"] for letter in harness.letters()] == reasons
        assert len(harness.requests) == count
        assert bool(backlogs.status(harness.table, contacts.DESTINATION).pauses) == is_paused


@pytest.mark.parametrize("meaning", [Disposition.ACCEPTED, Disposition.APPLIED])
def test_pipeline_success_with_pause_delays_the_next_message(meaning: Disposition) -> None:
    with ingesting.harness() as harness:
        harness.route("people")
        with (
            patch.object(persons, "MAX_OBJECTS", 1),
            patch.object(persons, "read_answer", lambda response: Answer(meaning, pause_s=12)),
        ):
            outcome = harness.ingest(QueuedMessage("m1", body([contact(1)])), QueuedMessage("m2", body([contact(2)])))
        assert outcome.waiting == {"m2": 12}
        assert len(harness.requests) == 1


@pytest.mark.parametrize("reason", [PauseReason.NO_ANSWER, PauseReason.STOPPED])
def test_release_records_sweep_emits_metric_of_destinations_that_do_not_answer(
    harness: Harness, capsys: pytest.CaptureFixture[str], reason: PauseReason
) -> None:
    table, now = harness.stack.table, int(clock.now().timestamp())
    destination_pause.begin(table, "engage-main", "", reason=reason, code="no_answer", for_s=3_600)
    backlogs.touch(table, "engage-main", "engage.example.com", 1, now + 3_600, now)
    with waiting_records.later(minutes=20):
        event = functions.sqs_event({"swept": '{"sweep": ""}'}, "waiting_records")
        harness.releasing.handler(event, functions.Context())
    printed = capsys.readouterr().out
    assert '"OldestWaitingSeconds":[' in printed
    emitted = [float(seconds) for seconds in re.findall(r'"NoAnswerSeconds":\[([0-9.]+)\]', printed)]
    assert emitted == ([pytest.approx(1_200, abs=5)] if reason is PauseReason.NO_ANSWER else [])
