"""Reconciliations that are started by hand, through the API and the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
import responses

from portaria.connections import connection_store
from portaria.core.entities import Route
from portaria.records import routes
from tests.fakes.api.command_line import run, wired
from tests.fakes.api.manage import Manage, empty
from tests.fakes.aws.moto_cloud import Cloud
from tests.fakes.records.contacts import DESTINATION, SOURCE, set_up

PATH = f"/connections/{SOURCE}/reconciliations"


@pytest.fixture
def stack(shared: Cloud) -> Iterator[Cloud]:
    set_up(shared)
    yield shared
    empty()
    shared.receive("backfills")


def queued(stack: Cloud) -> list[dict[str, str]]:
    return [json.loads(body)["reconcile"] for body in stack.receive("backfills")]


def test_start_reconciliations_queues_each_object_of_the_routes_once(manage: Manage, stack: Cloud) -> None:
    for name in ("firms", "firms-too"):
        routes.put(stack.table, Route(name, f"connection:{SOURCE}", "companies", DESTINATION), new=True)
    answer = manage.call("POST", PATH)
    assert (answer.status, answer.content) == (202, {"objects": ["companies", "contacts"]})
    assert [(each["connection"], each["object"]) for each in queued(stack)] == [
        (SOURCE, "companies"),
        (SOURCE, "contacts"),
    ]
    shown = manage.call("GET", f"/connections/{SOURCE}/backfills").content
    assert {each["object"] for each in shown["reconciliations"]} == {"companies", "contacts"}
    entries = manage.call("GET", "/audit?operation=start_reconciliations").content["items"]
    assert [(each["target"], each["outcome"]) for each in entries] == [(SOURCE, "done")]


def test_start_reconciliations_again_keeps_the_position(manage: Manage, stack: Cloud) -> None:
    manage.call("POST", PATH)
    before = manage.call("GET", f"/connections/{SOURCE}/backfills").content["reconciliations"]
    manage.call("POST", PATH)
    after = manage.call("GET", f"/connections/{SOURCE}/backfills").content["reconciliations"]
    assert [each["since"] for each in before] == [each["since"] for each in after]
    assert len(queued(stack)) == 2


@pytest.mark.parametrize(
    ("name", "status", "reason"), [("none", 404, "unknown_connection"), (DESTINATION, 409, "nothing_to_read")]
)
def test_start_reconciliations_of_what_cannot_be_read_is_refused(
    manage: Manage, stack: Cloud, name: str, status: int, reason: str
) -> None:
    answer = manage.call("POST", f"/connections/{name}/reconciliations")
    assert (answer.status, answer.content["type"].rpartition(":")[2]) == (status, reason)
    assert queued(stack) == []


def test_start_reconciliations_of_an_ended_connection_is_refused(manage: Manage, stack: Cloud) -> None:
    connection = connection_store.get(stack.table, SOURCE)
    stack.table.put(connection_store.to_item(replace(connection, state="needs_reconnect")))
    answer = manage.call("POST", PATH)
    assert (answer.status, answer.content["type"].rpartition(":")[2]) == (409, "not_connected")


def test_start_reconciliations_scope_narrows_to_the_connection(manage: Manage) -> None:
    _, token = manage.create_integration(f"reconciliations:create@{SOURCE}")
    assert manage.program(token, "POST", PATH).status == 202
    assert manage.program(token, "POST", f"/connections/{DESTINATION}/reconciliations").status == 403


def test_cli_reconciliations_create_shows_the_objects(stack: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    with responses.RequestsMock(assert_all_requests_are_fired=False):
        wired(stack, monkeypatch)
        assert "contacts" in run("reconciliations", "create", SOURCE).output
        assert json.loads(run("--json", "reconciliations", "create", SOURCE).output) == {"objects": ["contacts"]}
