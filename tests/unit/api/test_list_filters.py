"""Filters of listings: each is answered by a key of an index, so a long listing costs no more than what it returns."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import pytest
from botocore.client import BaseClient

from portaria.connections import connection_store
from portaria.core import clock
from portaria.core.entities import Connection, Route
from portaria.core.item_keys import INSTALLS_LIST, install_key
from portaria.records import routes
from tests.fakes.api.manage import Manage, empty
from tests.fakes.aws.moto_cloud import Cloud


@pytest.fixture
def manage(shared: Cloud) -> Iterator[Manage]:
    yield Manage(shared)
    empty()


def queries(manage: Manage, path: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The items of a listing, and the queries that it made."""
    made: list[dict[str, Any]] = []
    call = BaseClient._make_api_call

    def note(client: Any, operation: str, parameters: Any) -> Any:
        assert operation != "Scan"
        if operation == "Query":
            made.append(parameters)
        return call(client, operation, parameters)

    with patch.object(BaseClient, "_make_api_call", note):
        answer = manage.call("GET", path)
    assert answer.status == 200, answer.text
    return answer.content["items"], made


def test_list_routes_by_source_reads_only_the_routes_of_that_source(manage: Manage, shared: Cloud) -> None:
    for name, source in (("one", "connection:crm"), ("two", "client:kommo/acme"), ("three", "connection:crm")):
        routes.put(shared.table, Route(name, source, "contacts", "marketo-one"), new=True)
    found, made = queries(manage, "/routes?source=connection:crm")
    assert {each["name"] for each in found} == {"one", "three"}
    assert [each["IndexName"] for each in made] == ["by_source"]
    assert queries(manage, "/routes?source=client:kommo/acme")[0][0]["name"] == "two"
    assert queries(manage, "/routes?source=connection:none")[0] == []
    answer = manage.call("GET", "/routes?source=crm")
    assert (answer.status, answer.content["field"]) == (400, "source")


def test_list_audit_since_a_moment_reads_from_that_moment(manage: Manage) -> None:
    with patch.object(clock, "now", return_value=clock.from_iso("2026-03-01T12:00:00.000Z")):
        manage.call("DELETE", "/routes/none")
    with patch.object(clock, "now", return_value=clock.from_iso("2026-03-02T12:00:00.000Z")):
        manage.call("DELETE", "/routes/another")
    assert len(queries(manage, "/audit")[0]) == 2
    found, (query,) = queries(manage, "/audit?since=2026-03-01T12:00:01Z")
    assert [each["target"] for each in found] == ["another"]
    assert ">=" in query["KeyConditionExpression"]
    assert len(queries(manage, "/audit?since=2026-03-01T12:00:00Z")[0]) == 2


def test_list_installs_since_a_moment_reads_from_that_moment(manage: Manage, shared: Cloud) -> None:
    began = clock.from_iso("2026-03-01T12:00:00.000Z")
    for number in range(3):
        at = clock.to_iso(began + timedelta(hours=number))
        pk, sk = install_key(f"{number}" * 26)
        shared.table.put(
            {
                "pk": pk, "sk": sk, "list_pk": INSTALLS_LIST, "list_sk": f"{at}#{number}", "state": "connected",
                "platform": "kommo", "client": "acme", "received_at": at,
            }
        )  # fmt: skip
    found, (query,) = queries(manage, "/installs?since=2026-03-01T13:00:00Z&state=connected")
    assert [each["received_at"][11:13] for each in found] == ["14", "13"]
    assert ">=" in query["KeyConditionExpression"]


@pytest.mark.parametrize("path", ["/audit", "/installs"])
@pytest.mark.parametrize("since", ["yesterday", "2026-13-45T00:00:00Z", "2026-03-01T12:00:00", ""])
def test_list_since_what_is_no_moment_is_refused(manage: Manage, path: str, since: str) -> None:
    answer = manage.call("GET", f"{path}?since={since}")
    assert (answer.status, answer.content["type"]) == (400, "urn:portaria:problem:bad_since")


def test_list_connections_of_an_account_reads_only_that_account(manage: Manage, shared: Cloud) -> None:
    for name, account_id, state in (
        ("one", "77", "connected"), ("two", "77", "removed"), ("three", "78", "connected"), ("four", "77", "connected"),
    ):  # fmt: skip
        connection_store.create(
            shared.table, Connection(name, "kommo", "oauth2", "*.kommo.com", state, 1, "s", account_id=account_id)
        )
    found, made = queries(manage, "/connections?platform=kommo&account_id=77")
    assert [each["name"] for each in found] == ["four", "one", "two"]
    assert [query["IndexName"] for query in made] == ["by_source"]
    assert queries(manage, "/connections?platform=marketo&account_id=77")[0] == []


@pytest.mark.parametrize("query", ["platform=kommo", "account_id=77", "platform=KOMMO&account_id=7", "state=connected"])
def test_list_connections_filter_that_no_index_answers_is_refused(manage: Manage, query: str) -> None:
    assert manage.call("GET", f"/connections?{query}").status == 400
