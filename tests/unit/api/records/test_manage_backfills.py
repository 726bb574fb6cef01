"""Backfills through the API and the command line: started by hand, and read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import responses

from portaria.connections import connection_store
from portaria.core.entities import Route
from portaria.records import routes
from portaria.sources import backfill
from tests.fakes.api.command_line import Wire, run, wired
from tests.fakes.api.manage import Manage, empty
from tests.fakes.aws.moto_cloud import Cloud
from tests.fakes.records.contacts import DESTINATION, ROUTE, SOURCE, set_up

PATH = f"/connections/{SOURCE}/backfills"


@pytest.fixture
def stack(shared: Cloud) -> Iterator[Cloud]:
    set_up(shared)
    yield shared
    empty()
    shared.receive("backfills")


def end(stack: Cloud, state: str, **more: Any) -> None:
    """The backfill has ended."""
    item = stack.table.get(*backfill.key(SOURCE, ROUTE, 1)) or {}
    stack.table.put(item | {"state": state, "finished_at": "2026-03-01T12:00:00.000Z", "records": 7, **more})


def test_start_backfills_without_route_starts_every_route_of_connection(manage: Manage, stack: Cloud) -> None:
    routes.put(stack.table, Route("firms", f"connection:{SOURCE}", "companies", DESTINATION), new=True)
    routes.put(stack.table, Route("others", "connection:kommo-acme-9", "contacts", DESTINATION), new=True)
    answer = manage.call("POST", PATH, {})
    assert answer.status == 202
    assert answer.content == {"runs": [{"route": "firms", "state": "running"}, {"route": ROUTE, "state": "running"}]}
    assert {json.loads(body)["route"] for body in stack.receive("backfills")} == {"firms", ROUTE}
    shown = manage.call("GET", PATH).content
    assert [(one["route"], one["object"], one["state"], one["record_count"]) for one in shown["runs"]] == [
        ("firms", "companies", "running", 0),
        (ROUTE, "contacts", "running", 0),
    ]
    # Both follow changes from now on.
    assert {one["object"] for one in shown["reconciliations"]} == {"companies", "contacts"}
    assert all(one["since"] < one["due_at"] for one in shown["reconciliations"])


def test_start_backfills_with_route_starts_only_that_route(manage: Manage, stack: Cloud) -> None:
    routes.put(stack.table, Route("firms", f"connection:{SOURCE}", "companies", DESTINATION), new=True)
    assert manage.call("POST", PATH, {"route": "firms"}).content["runs"] == [{"route": "firms", "state": "running"}]
    assert len(stack.receive("backfills")) == 1


@pytest.mark.parametrize("state", ["done", "failed"])
def test_start_backfills_after_end_starts_again_and_list_shows_newest(manage: Manage, stack: Cloud, state: str) -> None:
    manage.call("POST", PATH, {})
    end(stack, state, reason="token_refused" if state == "failed" else "", detail="")
    (ended,) = manage.call("GET", PATH).content["runs"]
    assert (ended["state"], ended["record_count"]) == (state, 7)
    manage.call("POST", PATH, {})
    (begun,) = manage.call("GET", PATH).content["runs"]
    assert (begun["state"], begun["record_count"], begun["reason"], begun["finished_at"]) == ("running", 0, None, None)
    assert len(stack.receive("backfills")) == 2


def test_list_backfills_none_started_is_empty(manage: Manage) -> None:
    assert manage.call("GET", PATH).content == {"runs": [], "reconciliations": []}


@pytest.mark.parametrize(
    ("name", "body", "status", "reason"),
    [
        ("kommo-acme-9", {}, 404, "unknown_connection"),
        (SOURCE, {"route": "other"}, 404, "unknown_route"),
        (SOURCE, {"route": 7}, 400, "invalid_input"),
        (SOURCE, {"routes": []}, 400, "invalid_input"),
        (DESTINATION, {}, 409, "nothing_to_read"),
    ],
)
def test_start_backfills_invalid_request_is_refused(
    manage: Manage, stack: Cloud, name: str, body: dict[str, Any], status: int, reason: str
) -> None:
    answer = manage.call("POST", f"/connections/{name}/backfills", body)
    assert (answer.status, answer.content["type"].rpartition(":")[2]) == (status, reason)
    assert stack.receive("backfills") == []


def test_start_backfills_connection_not_connected_is_refused(manage: Manage, stack: Cloud) -> None:
    connection = connection_store.get(stack.table, SOURCE)
    stack.table.put(connection_store.to_item(replace(connection, state="needs_reconnect")))
    assert manage.call("POST", PATH, {}).status == 409


def test_start_and_list_backfills_scopes_narrow_to_connection(manage: Manage) -> None:
    _, token = manage.create_integration(f"backfills:create@{SOURCE}")
    assert manage.program(token, "POST", PATH, {}).status == 202
    assert manage.program(token, "POST", f"/connections/{DESTINATION}/backfills", {}).status == 403
    assert manage.program(token, "GET", PATH).status == 403
    _, reader = manage.create_integration(f"backfills:list@{SOURCE}")
    assert manage.program(reader, "GET", PATH).status == 200
    assert manage.program(reader, "POST", PATH, {}).status == 403


class TestCommandLine:
    @pytest.fixture
    def wire(self, stack: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
        with responses.RequestsMock(assert_all_requests_are_fired=False):
            yield wired(stack, monkeypatch)

    def test_cli_connections_backfill_starts_and_lists_it(self, wire: Wire) -> None:
        started = run("backfills", "create", SOURCE, "--route", ROUTE)
        assert started.output.split() == ["backfill", "of", "state", ROUTE, "running"]
        shown = run("backfills", "list", SOURCE)
        assert "changes of" in shown.output
        as_json = json.loads(run("--json", "backfills", "list", SOURCE).output)
        assert as_json["runs"][0]["route"] == ROUTE

    def test_cli_connections_backfills_none_started_says_so(self, wire: Wire) -> None:
        assert "There are no backfills." in run("backfills", "list", SOURCE).output

    def test_cli_connections_backfill_refused_shows_reason(self, wire: Wire) -> None:
        refused = run("backfills", "create", DESTINATION, exit_code=1)
        assert "can list" in refused.output
