"""Destinations that are paused or have waiting records, and how they are resumed: API and command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

import pytest
import responses

from portaria.connections import connection_store
from portaria.core import clock, record_messages
from portaria.core.callbacks import Record
from portaria.core.entities import Connection, Target
from portaria.delivery import (
    backlogs,
    destination_pause,
    destination_states,
    host_pauses,
    waiting_entries,
    waiting_lists,
)
from portaria.delivery.destination_pause import PauseReason
from portaria.delivery.waiting_entries import HeldRecords
from portaria.delivery.waiting_lists import Due, WaitingList
from portaria.records.mapping import record_mapping
from tests.fakes.api.command_line import Wire, run, told, wired
from tests.fakes.api.manage import Manage
from tests.fakes.aws.errors import refusing, throttled
from tests.fakes.aws.moto_cloud import Cloud
from tests.fakes.platforms import marketo

HOST = "mkto-ingestion-api.adobe.io"
WAITING = WaitingList("marketo-main", "persons", waiting_lists.LIVE, "pi-7")
NOW = datetime(2026, 3, 10, 12, 0, 0, tzinfo=UTC)
CREATION = {
    "name": "marketo-main",
    "platform": "marketo",
    "fields": {"munchkin_id": marketo.MUNCHKIN},
    "credentials": {"client_id": marketo.CLIENT_ID, "client_secret": marketo.CLIENT_SECRET},
}


@pytest.fixture(autouse=True)
def time(monkeypatch: pytest.MonkeyPatch) -> dict[str, datetime]:
    """A clock that stands still until a test changes `time["now"]`."""
    standing = {"now": NOW}
    monkeypatch.setattr(clock, "now", lambda: standing["now"])
    return standing


@pytest.fixture
def manage(stack: Cloud) -> Iterator[Manage]:
    stack.receive("waiting_records")
    yield Manage(stack)
    stack.receive("waiting_records")
    stack.receive("uninstalls")


@pytest.fixture
def logged_in() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        mock.post(marketo.TOKEN_URL, json={"access_token": "canary-token", "expires_in": 3599, "scope": "a@b.c"})
        yield mock


def connect(stack: Cloud, name: str = "marketo-main", **changes: Any) -> None:
    given: dict[str, Any] = {"state": "connected", **changes}
    connection_store.create(
        stack.table, Connection(name, "marketo", "client_credentials", "mkto-ingestion-api.adobe.io", generation=1,
                                secret_id="s", fields={"munchkin_id": marketo.MUNCHKIN}, **given),
    )  # fmt: skip


def pause(
    stack: Cloud, name: str = "marketo-main", object_name: str = "", reason: str = "stopped", **more: Any
) -> None:
    destination_pause.begin(
        stack.table, name, object_name, reason=PauseReason(reason), **{"code": "4030801", "for_s": 1_800, **more}
    )


def wait(stack: Cloud, count: int, name: str = "marketo-main", minutes: int = 30) -> None:
    """Records of one source wait for a destination, which is tried again after this many minutes."""
    target = {"destination": name, "object": "persons", "priority": "normal", "options": {}}
    (body,) = record_messages.pack(
        [Record(str(number), 1, {"email": f"{number}@example.com"}) for number in range(count)],
        connection="pi-7", object="persons", origin=record_messages.FRONT_DOOR, read_at=5, target=target,
    )  # fmt: skip
    message = record_mapping.read_message("m-1", body)
    waiting = waiting_lists.list_of(Target(name, "persons"), "pi-7", bulk=False)
    due = {name: Due(int((clock.now() + timedelta(minutes=minutes)).timestamp()), HOST)}
    waiting_lists.announce(stack.table, [waiting], due)
    waiting_entries.put(stack.table, HeldRecords(waiting, message, "", message.records, 5))
    waiting_lists.confirm(stack.table, {waiting: count}, {}, due)


def entries(stack: Cloud) -> int:
    found, _ = waiting_entries.read(stack.table, WAITING, limit=10)
    return sum(entry.records for entry in found)


def listed(manage: Manage, query: str = "") -> list[dict[str, Any]]:
    answer = manage.call("GET", f"/destinations{query}")
    assert answer.status == 200, answer.text
    items: list[dict[str, Any]] = answer.content["items"]
    return items


def resume(manage: Manage, name: str = "marketo-main") -> dict[str, Any]:
    answer = manage.call("POST", f"/destinations/{name}/resume", {})
    assert answer.status == 200, answer.text
    return answer.content


class TestList:
    def test_list_destinations_paused_with_waiting_records_shows_both(
        self, manage: Manage, stack: Cloud, time: dict[str, datetime]
    ) -> None:
        connect(stack)
        pause(stack, object_name="persons")
        wait(stack, 3)
        time["now"] += timedelta(minutes=10)
        pause_shown = {
            "object": "persons",
            "reason": "stopped",
            "host": None,
            "code": "4030801",
            "since": "2026-03-10T12:00:00.000Z",
            "until": "2026-03-10T12:30:00.000Z",
        }
        assert listed(manage) == [
            {
                "name": "marketo-main",
                "state": "paused",
                "connection": "connected",
                "reason": "stopped",
                "host": None,
                "since": "2026-03-10T12:00:00.000Z",
                "next_try_at": "2026-03-10T12:30:00.000Z",
                "waiting_record_count": 3,
                "oldest_since": "2026-03-10T12:00:00.000Z",
                "oldest_age_s": 600,
                "pauses": [pause_shown],
            }
        ]

    def test_list_destinations_pause_without_waiting_records_shows_its_end(self, manage: Manage, stack: Cloud) -> None:
        pause(stack, reason=PauseReason.QUOTA, code="4290801", for_s=3_600)
        (shown,) = listed(manage)
        assert (shown["state"], shown["reason"], shown["waiting_record_count"]) == ("paused", "quota", 0)
        assert (shown["next_try_at"], shown["oldest_since"]) == ("2026-03-10T13:00:00.000Z", None)

    def test_list_destinations_two_pauses_shows_the_later_one(self, manage: Manage, stack: Cloud) -> None:
        pause(stack, object_name="persons", reason="busy", for_s=60)
        pause(stack, object_name="companies", for_s=600)
        (shown,) = listed(manage)
        assert shown["reason"] == "stopped"
        assert sorted(each["object"] for each in shown["pauses"]) == ["companies", "persons"]

    def test_list_destinations_waiting_records_without_pause_are_waiting(
        self, manage: Manage, stack: Cloud, time: Any
    ) -> None:
        connect(stack, state="needs_reconnect")
        wait(stack, 1, minutes=5)
        (shown,) = listed(manage)
        assert (shown["state"], shown["reason"], shown["connection"]) == ("waiting", None, "needs_reconnect")
        assert shown["next_try_at"] == "2026-03-10T12:05:00.000Z"
        time["now"] += timedelta(minutes=6)
        assert listed(manage)[0]["next_try_at"] is None

    def test_list_destinations_draining_has_no_next_try(self, manage: Manage, stack: Cloud) -> None:
        wait(stack, 1)
        assert backlogs.claim(stack.table, "marketo-main")
        assert listed(manage)[0]["next_try_at"] is None

    def test_list_destinations_deleted_connection_with_waiting_records_is_listed(
        self, manage: Manage, stack: Cloud
    ) -> None:
        wait(stack, 1, "marketo-gone")
        assert [(each["name"], each["connection"]) for each in listed(manage)] == [("marketo-gone", None)]

    def test_list_destinations_without_pause_are_omitted(self, manage: Manage, stack: Cloud, time: Any) -> None:
        connect(stack)
        assert listed(manage) == []
        pause(stack)
        time["now"] += timedelta(hours=1)
        assert listed(manage) == []

    def test_list_destinations_backlog_with_empty_lists_is_omitted(self, manage: Manage, stack: Cloud) -> None:
        wait(stack, 2)
        found, _ = waiting_entries.read(stack.table, WAITING, limit=10)
        waiting_entries.remove(stack.table, found)
        assert [each["waiting_record_count"] for each in listed(manage)] == [0]
        (head,) = waiting_lists.heads(stack.table, "marketo-main")
        waiting_lists.close_list(stack.table, head)
        assert listed(manage) == []
        # The count is approximate: an open list may have entries.
        waiting_lists.announce(stack.table, [WAITING._replace(source="pi-8")], {"marketo-main": Due(1, HOST)})
        assert [each["name"] for each in listed(manage)] == ["marketo-main"]
        wait(stack, 1)
        assert [each["waiting_record_count"] for each in listed(manage)] == [1]

    def test_list_destinations_pages_are_sorted_by_name(self, manage: Manage, stack: Cloud) -> None:
        for number in range(5):
            pause(stack, f"dest-{number}")
        wait(stack, 1, "dest-2")
        pages, query = [], "?limit=2"
        while True:
            answer = manage.call("GET", f"/destinations{query}").content
            pages.append([each["name"] for each in answer["items"]])
            if not answer["next_cursor"]:
                break
            query = f"?limit=2&cursor={answer['next_cursor']}"
        assert pages == [["dest-0", "dest-1"], ["dest-2", "dest-3"], ["dest-4"]]
        refused = manage.call("GET", "/destinations?cursor=a%20b")
        assert (refused.status, refused.content["type"]) == (400, "urn:portaria:problem:bad_cursor")

    def test_list_destinations_of_paused_host_shows_host_until_it_answers(self, manage: Manage, stack: Cloud) -> None:
        wait(stack, 3)
        host = host_pauses.begin(stack.table, HOST)
        assert host
        (found,) = listed(manage)
        assert (found["state"], found["reason"], found["waiting_record_count"]) == ("paused", "no_answer", 3)
        assert found["host"] == HOST
        (shown,) = found["pauses"]
        assert (shown["object"], shown["host"], shown["since"]) == (None, HOST, host.since)
        host_pauses.end(stack.table, host)
        (found,) = listed(manage)
        assert (found["state"], found["pauses"]) == ("waiting", [])


class TestResume:
    def test_resume_destination_of_paused_host_lets_next_request_try_host(self, manage: Manage, stack: Cloud) -> None:
        wait(stack, 3)
        assert host_pauses.begin(stack.table, HOST)
        assert [each["host"] for each in resume(manage)["ended"]] == [HOST]
        assert host_pauses.closed_until(stack.table, HOST) <= clock.now().timestamp()

    def test_resume_destination_ends_pauses_and_starts_release(self, manage: Manage, stack: Cloud) -> None:
        connect(stack)
        pause(stack, object_name="persons")
        pause(stack, reason="quota")
        wait(stack, 3)
        answer = resume(manage)
        assert (answer["name"], answer["waiting_record_count"]) == ("marketo-main", 3)
        assert sorted((each["reason"], each["object"]) for each in answer["ended"]) == [
            ("quota", None), ("stopped", "persons"),
        ]  # fmt: skip
        assert destination_states.find(stack.table, "marketo-main").pauses == ()
        backlog = backlogs.status(stack.table, "marketo-main").backlog
        assert backlog
        assert backlog.next_at == 0
        assert entries(stack) == 3
        assert [json.loads(body) for body in stack.receive("waiting_records")] == [{"drain": "marketo-main"}]

    def test_resume_destination_repeated_changes_nothing(self, manage: Manage, stack: Cloud) -> None:
        pause(stack)
        wait(stack, 2)
        resume(manage)
        assert resume(manage) == {"name": "marketo-main", "ended": [], "waiting_record_count": 2}
        assert entries(stack) == 2

    def test_resume_destination_not_paused_changes_nothing(self, manage: Manage, stack: Cloud) -> None:
        connect(stack)
        assert resume(manage) == {"name": "marketo-main", "ended": [], "waiting_record_count": 0}
        assert stack.receive("waiting_records") == []

    def test_resume_destination_unknown_connection_is_not_found(self, manage: Manage) -> None:
        answer = manage.call("POST", "/destinations/nowhere/resume", {})
        assert (answer.status, answer.content["type"]) == (404, "urn:portaria:problem:unknown_connection")

    def test_resume_destination_queue_failure_leaves_backlog_due_for_sweep(self, manage: Manage, stack: Cloud) -> None:
        pause(stack)
        wait(stack, 1)
        with refusing("SendMessage"):
            assert resume(manage)["waiting_record_count"] == 1
        backlog = backlogs.status(stack.table, "marketo-main").backlog
        assert backlog
        assert backlog.next_at == 0

    @pytest.mark.parametrize("operation", ["UpdateItem", "Query"])
    def test_resume_destination_table_failure_can_be_repeated(
        self, manage: Manage, stack: Cloud, operation: str
    ) -> None:
        pause(stack)
        wait(stack, 1)
        with refusing(operation):
            assert manage.call("POST", "/destinations/marketo-main/resume", {}).status == 503
        assert entries(stack) == 1
        assert len(resume(manage)["ended"]) == 1

    def test_resume_destination_requires_scope_that_narrows_to_connection(self, manage: Manage, stack: Cloud) -> None:
        pause(stack)
        pause(stack, "marketo-two")
        _, token = manage.create_integration("destinations:resume@marketo-two", "destinations:list")
        refused = manage.program(token, "POST", "/destinations/marketo-main/resume", {})
        assert (refused.status, refused.content["type"]) == (403, "urn:portaria:problem:missing_scope")
        assert manage.program(token, "POST", "/destinations/marketo-two/resume", {}).status == 200
        assert [each["name"] for each in manage.program(token, "GET", "/destinations").content["items"]] == [
            "marketo-main"
        ]

    def test_resume_destination_has_an_audit_entry(self, manage: Manage, stack: Cloud) -> None:
        pause(stack)
        resume(manage)
        (entry,) = manage.call("GET", "/audit").content["items"]
        assert (entry["operation"], entry["target"], entry["outcome"]) == ("resume_destination", "marketo-main", "done")


class TestConnectionChanges:
    def test_connection_deleted_and_created_again_is_not_paused(
        self, manage: Manage, stack: Cloud, logged_in: responses.RequestsMock
    ) -> None:
        assert manage.call("POST", "/connections", CREATION).status == 201
        pause(stack)
        wait(stack, 4)
        deleted = manage.call("DELETE", "/connections/marketo-main")
        assert (deleted.status, deleted.content) == (200, {"name": "marketo-main", "waiting_record_count": 4})
        assert destination_states.find(stack.table, "marketo-main").pauses == ()
        assert len(stack.receive("waiting_records")) == 1
        # A request that was in progress pauses it once more.
        pause(stack)
        assert manage.call("POST", "/connections", CREATION).status == 201
        assert destination_states.find(stack.table, "marketo-main").pauses == ()
        assert [json.loads(body) for body in stack.receive("waiting_records")] == [{"drain": "marketo-main"}]

    def test_update_connection_new_credentials_resume_destination(
        self, manage: Manage, stack: Cloud, logged_in: responses.RequestsMock
    ) -> None:
        assert manage.call("POST", "/connections", CREATION).status == 201
        pause(stack)
        wait(stack, 1)
        assert (
            manage.call("PUT", "/connections/marketo-main/credentials", {"credentials": CREATION["credentials"]}).status
            == 200
        )
        assert destination_states.find(stack.table, "marketo-main").pauses == ()
        assert len(stack.receive("waiting_records")) == 1

    def test_delete_connection_without_waiting_records_returns_zero(self, manage: Manage, stack: Cloud) -> None:
        connect(stack)
        assert manage.call("DELETE", "/connections/marketo-main").content["waiting_record_count"] == 0

    def test_delete_connection_waiting_records_unreadable_succeeds(self, manage: Manage, stack: Cloud) -> None:
        connect(stack)
        pause(stack)
        with patch.object(backlogs, "status", side_effect=throttled("Query")):
            answer = manage.call("DELETE", "/connections/marketo-main")
        assert (answer.status, answer.content["waiting_record_count"]) == (200, None)


class TestCommandLine:
    @pytest.fixture
    def wire(self, stack: Cloud, monkeypatch: pytest.MonkeyPatch) -> Wire:
        stack.receive("waiting_records")
        return wired(stack, monkeypatch)

    def test_cli_destinations_list_shows_waiting_records_and_reason(self, wire: Wire, stack: Cloud) -> None:
        assert run("destinations", "list").stdout == "No destination is paused, and no records wait.\n"
        pause(stack)
        wait(stack, 3)
        shown = run("destinations", "list").stdout
        assert "marketo-main" in shown
        assert "stopped" in shown
        assert [item["waiting_record_count"] for item in told("destinations", "list")["items"]] == [3]

    def test_cli_destinations_resume_shows_ended_pauses(self, wire: Wire, stack: Cloud) -> None:
        connect(stack)
        assert run("destinations", "resume", "marketo-main").stdout == (
            "marketo-main was not paused, and no records wait for it.\n"
        )
        pause(stack, object_name="persons")
        wait(stack, 1_234)
        said = " ".join(run("destinations", "resume", "marketo-main").stdout.split())
        assert said == "marketo-main is tried now. Ended: stopped (persons). About 1,234 records wait for it."

    def test_cli_destinations_resume_unknown_connection_fails(self, wire: Wire) -> None:
        assert "nowhere" in run("destinations", "resume", "nowhere", exit_code=1).stderr

    def test_cli_connections_delete_shows_count_of_waiting_records(self, wire: Wire, stack: Cloud) -> None:
        connect(stack)
        wait(stack, 1)
        said = " ".join(run("connections", "delete", "marketo-main", "--yes").stdout.split())
        assert said == "marketo-main is deleted. About 1 record waits for it, and becomes a dead letter."
        connect(stack, "marketo-two")
        assert run("connections", "delete", "marketo-two", "--yes").stdout == "marketo-two is deleted.\n"
