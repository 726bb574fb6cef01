"""Filters of listings: each is answered by a key of an index, so a long listing costs no more than what it returns."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import pytest
from botocore.client import BaseClient

from portaria.access import audit
from portaria.aws import merged_pages
from portaria.connections import connection_store, refused_grants
from portaria.connections.tokens import usability
from portaria.core import clock
from portaria.core.entities import Connection, Route
from portaria.core.item_keys import INSTALL_STATES
from portaria.core.stored_reasons import ConnectionReason
from portaria.installs import uninstall
from portaria.records import routes
from tests.fakes.api.manage import Manage, add_install, empty
from tests.fakes.aws.moto_cloud import Cloud


@pytest.fixture
def manage(shared: Cloud) -> Iterator[Manage]:
    yield Manage(shared)
    empty()


@dataclass(frozen=True)
class Reads:
    """What a call read: items that were returned whole, keys of `by_filter`, and the indexes that were queried."""

    items: int
    keys: int
    indexes: tuple[str, ...]


def read(manage: Manage, path: str) -> tuple[list[dict[str, Any]], Reads]:
    """What a list returns, and what it read from the table to do so."""
    items: list[Any] = []
    keys: list[Any] = []
    indexes: set[str] = set()
    call = BaseClient._make_api_call

    def note(client: Any, operation: str, parameters: Any) -> Any:
        assert operation != "Scan"
        answer = call(client, operation, parameters)
        if operation == "Query":
            indexes.add(parameters.get("IndexName", ""))
            (keys if parameters.get("IndexName") == "by_filter" else items).extend(answer["Items"])
        if operation == "BatchGetItem":
            items.extend(item for found in answer["Responses"].values() for item in found)
        return answer

    with patch.object(BaseClient, "_make_api_call", note):
        answer = manage.call("GET", path)
    assert answer.status == 200, answer.text
    return answer.content["items"], Reads(len(items), len(keys), tuple(sorted(indexes)))


def every_page(manage: Manage, path: str) -> Iterator[dict[str, Any]]:
    cursor = ""
    while True:
        content = manage.call("GET", path + (f"&cursor={cursor}" if cursor else "")).content
        yield from content["items"]
        cursor = content["next_cursor"]
        if not cursor:
            return


def test_list_routes_by_source_reads_only_the_routes_of_that_source(manage: Manage, shared: Cloud) -> None:
    for name, source in (("one", "connection:crm"), ("two", "client:kommo/acme"), ("three", "connection:crm")):
        routes.put(shared.table, Route(name, source, "contacts", "marketo-one"), new=True)
    found, reads = read(manage, "/routes?source=connection:crm")
    assert {each["name"] for each in found} == {"one", "three"}
    assert reads == Reads(items=2, keys=0, indexes=("by_source",))
    assert read(manage, "/routes?source=client:kommo/acme")[0][0]["name"] == "two"
    assert read(manage, "/routes?source=connection:none")[0] == []
    answer = manage.call("GET", "/routes?source=crm")
    assert (answer.status, answer.content["field"]) == (400, "source")


def test_list_audit_since_a_moment_reads_from_that_moment(manage: Manage) -> None:
    with patch.object(clock, "now", return_value=clock.from_iso("2026-03-01T12:00:00.000Z")):
        manage.call("DELETE", "/routes/none")
    with patch.object(clock, "now", return_value=clock.from_iso("2026-03-02T12:00:00.000Z")):
        manage.call("DELETE", "/routes/another")
    assert len(read(manage, "/audit")[0]) == 2
    found, reads = read(manage, "/audit?since=2026-03-01T12:00:01Z")
    assert [each["target"] for each in found] == ["another"]
    assert reads == Reads(items=1, keys=0, indexes=("listing",))
    assert len(read(manage, "/audit?since=2026-03-01T12:00:00Z")[0]) == 2


@pytest.mark.parametrize("since", ["", "&since=2026-01-01T00:00:07Z"])
@pytest.mark.parametrize("client", ["", "kommo/acme", "kommo/other", "kommo/none"])
@pytest.mark.parametrize("state", ["", "connected", "failed", "received"])
def test_list_installs_filters_return_what_matches_newest_first(
    manage: Manage, shared: Cloud, state: str, client: str, since: str
) -> None:
    rng = random.Random(5)
    written = {}
    for number in range(15):
        written[number] = (rng.choice(INSTALL_STATES), rng.choice(("acme", "other")))
        add_install(shared, number, written[number][0], client=written[number][1])
    expected = [
        f"{number:026d}"
        for number, (in_state, of_client) in sorted(written.items(), reverse=True)
        if state in ("", in_state) and client in ("", f"kommo/{of_client}") and (not since or number >= 7)
    ]
    query = f"/installs?limit=4{since}" + (f"&state={state}" if state else "") + (f"&client={client}" if client else "")
    assert [each["id"] for each in every_page(manage, query)] == expected


def test_list_installs_by_state_reads_as_many_as_it_returns(manage: Manage, shared: Cloud) -> None:
    """A failed install is rare: looking for it must not read the connected ones."""
    for number in range(30):
        add_install(shared, number, "failed" if number == 0 else "connected")
    found, reads = read(manage, "/installs?state=failed")
    assert (len(found), reads.items) == (1, 1)
    found, reads = read(manage, "/installs?state=failed&client=kommo/acme")
    assert (len(found), reads.items, reads.keys) == (1, 1, 1)


def test_list_connections_filters_match_the_table_whatever_wrote_it(manage: Manage, shared: Cloud) -> None:
    rng = random.Random(11)
    names = [f"conn-{number:02d}" for number in range(14)]
    for _ in range(6):
        for name in rng.choices(names, k=10):
            write_something(rng, shared, name)
        stored = {item["name"]: item for item in shared.table.query_all(connection_store.LIST, index="listing")}
        for platform in ("", "kommo", "oauth2", "http"):
            for state in ("", *connection_store.STATES):
                if not platform and not state:
                    continue
                expected = sorted(
                    name
                    for name, item in stored.items()
                    if platform in ("", item["platform"])
                    and state in ("", item["state"])
                    and item["reason"] != "deleted"
                )
                query = f"/connections?limit={rng.randint(1, 5)}&platform={platform}&state={state}"
                query = query.replace("&platform=&", "&").removesuffix("&state=")
                assert [each["name"] for each in every_page(manage, query)] == expected, query


def write_something(rng: random.Random, stack: Cloud, name: str) -> None:
    """A change that one of the writers of connections makes to one of them."""
    item = stack.table.get(*connection_store.key(name))
    if item is None or item["state"] == "removed":
        platform = rng.choice(("kommo", "oauth2", "http"))
        state = rng.choice(("pending", "connected"))
        connection_store.create(stack.table, Connection(name, platform, "oauth2", "*.example.com", state, 1, "s"))
        return
    connection = connection_store.read(item)
    match rng.randrange(4):
        case 0 if connection.state == "connected":
            usability.end(stack.table, connection, ConnectionReason.REFUSED_TOO_LONG)
        case 1 if connection.state == "needs_reconnect":
            stack.table.put(item | {"client": "acme"})
            assert name in refused_grants.resume(stack.table, connection.platform, "acme")
        case 2:
            uninstall.delete(stack.table, stack.url("heard"), connection)
        case 3:
            connected = replace(connection, state="connected", generation=connection.generation + 1, reason="")
            stack.table.put(connection_store.to_item(connected))


def test_list_connections_by_state_that_change_meanwhile_are_left_out(manage: Manage, shared: Cloud) -> None:
    """The index is eventually consistent: it can still hold a connection that has just ended."""
    for name in ("one", "two", "three"):
        connection_store.create(shared.table, Connection(name, "kommo", "oauth2", "*.kommo.com", "connected", 1, "s"))
    merged = merged_pages.merged_page

    def stale(*arguments: Any, **how: Any) -> Any:
        found = merged(*arguments, **how)
        two = connection_store.get(shared.table, "two")
        usability.end(shared.table, two, ConnectionReason.REFUSED_TOO_LONG)
        return found

    with patch.object(merged_pages, "merged_page", stale):
        found = manage.call("GET", "/connections?platform=kommo&state=connected").content["items"]
    assert [each["name"] for each in found] == ["one", "three"]


@pytest.mark.parametrize("query", ["platform=kommo", "state=connected", "platform=kommo&state=connected"])
def test_list_connections_reads_grow_with_the_page_and_not_with_the_table(
    manage: Manage, shared: Cloud, query: str
) -> None:
    """The items of a page are read whole; of each partition at most one key more than a page has is read."""
    counted = []
    for number in range(60):
        state = connection_store.STATES[number % 3]
        platform = ("kommo", "oauth2")[number % 2]
        connection_store.create(
            shared.table, Connection(f"conn-{number:03d}", platform, "oauth2", "*.kommo.com", state, 1, "s")
        )
        if number in (39, 59):
            counted.append(read(manage, f"/connections?limit=5&{query}")[1])
    assert counted[0] == counted[1]
    assert counted[0].items == 5
    assert counted[0].keys <= 6 * (4 if query == "platform=kommo" else 2)


def test_list_connections_of_an_account_reads_only_that_account(manage: Manage, shared: Cloud) -> None:
    for name, account_id, state in (
        ("one", "77", "connected"), ("two", "77", "removed"), ("three", "78", "connected"), ("four", "77", "connected"),
    ):  # fmt: skip
        connection_store.create(
            shared.table, Connection(name, "kommo", "oauth2", "*.kommo.com", state, 1, "s", account_id=account_id)
        )
    found, reads = read(manage, "/connections?platform=kommo&account_id=77")
    assert [each["name"] for each in found] == ["four", "one", "two"]
    assert reads == Reads(items=3, keys=0, indexes=("by_source",))
    assert [each["name"] for each in read(manage, "/connections?account_id=77")[0]] == ["four", "one", "two"]
    assert [each["name"] for each in read(manage, "/connections?account_id=77&state=removed")[0]] == ["two"]
    assert read(manage, "/connections?platform=marketo&account_id=77")[0] == []


def test_list_routes_by_destination_follows_replaced_and_deleted_routes(manage: Manage, shared: Cloud) -> None:
    for name, source, destination in (
        ("one", "connection:crm", "marketo-one"), ("two", "client:kommo/acme", "marketo-one"),
        ("three", "connection:crm", "marketo-two"), ("four", "connection:crm2", "marketo-one"),
        ("five", "connection:crm", "marketo-one"),
    ):  # fmt: skip
        routes.put(shared.table, Route(name, source, "contacts", destination), new=True)

    def listed(query: str) -> list[str]:
        return [each["name"] for each in every_page(manage, f"/routes?limit=2&{query}")]

    assert listed("destination=marketo-one") == ["two", "five", "one", "four"]
    assert listed("destination=marketo-one&source=connection:crm") == ["five", "one"]
    assert listed("destination=marketo-two&source=client:kommo/acme") == []
    routes.put(shared.table, Route("one", "connection:crm", "contacts", "marketo-two"), new=False)
    routes.delete(shared.table, "four")
    assert listed("destination=marketo-one") == ["two", "five"]
    assert listed("destination=marketo-two") == ["one", "three"]
    _, reads = read(manage, "/routes?destination=marketo-two")
    assert reads == Reads(items=2, keys=2, indexes=("by_filter",))


def test_list_audit_filters_find_entries_by_operation_and_target(manage: Manage) -> None:
    began = clock.from_iso("2026-03-01T12:00:00.000Z")
    made = [
        ("delete_route", "DELETE", "/routes/alpha"), ("delete_route", "DELETE", "/routes/beta"),
        ("delete_connection", "DELETE", "/connections/alpha"), ("delete_route", "DELETE", "/routes/alpha"),
        ("delete_dead_letters", "POST", "/dead-letters/delete"),
    ]  # fmt: skip
    for number, (_, method, path) in enumerate(made):
        with patch.object(clock, "now", return_value=began + timedelta(minutes=number)):
            manage.call(method, path, {"reason": "bad_data", "dry_run": True} if method == "POST" else None)

    def found(query: str) -> list[int]:
        return [int(each["at"][14:16]) for each in every_page(manage, f"/audit?limit=1&{query}")]

    assert found("operation=delete_route") == [3, 1, 0]
    assert found("target=alpha") == [3, 2, 0]
    assert found("operation=delete_route&target=alpha") == [3, 0]
    assert found("operation=delete_route&target=alpha&since=2026-03-01T12:00:01Z") == [3]
    assert found("target=alpha&since=2026-03-01T12:02:00Z") == [3, 2]
    assert found("operation=delete_dead_letters") == [4]
    assert found("operation=rotate_connection") == found("target=gamma") == []
    _, reads = read(manage, "/audit?operation=delete_route&target=alpha")
    assert reads == Reads(items=2, keys=2, indexes=("by_filter",))


def test_list_audit_by_target_finds_an_entry_whose_target_was_named_at_its_end(shared: Cloud) -> None:
    began: dict[str, Any] = {"by": "someone", "by_name": "", "source": "192.0.2.1", "asked": {}, "request_id": "1"}
    entry = audit.begin(shared.table, operation="create_private_integration", target="Reports", **began)
    assert audit.list_page(shared.table, None, 5, target="Reports")[0] == [entry]
    audit.end(shared.table, entry, "done", target="a1b2")
    for operation in ("", "create_private_integration"):
        assert audit.list_page(shared.table, None, 5, operation=operation, target="Reports")[0] == []
        (found,) = audit.list_page(shared.table, None, 5, operation=operation, target="a1b2")[0]
        assert (found.id, found.source, found.outcome) == (entry.id, "192.0.2.1", "done")
    empty()


@pytest.mark.parametrize("path", ["/audit", "/installs"])
@pytest.mark.parametrize("since", ["yesterday", "2026-13-45T00:00:00Z", "2026-03-01T12:00:00", ""])
def test_list_since_invalid_time_is_refused(manage: Manage, path: str, since: str) -> None:
    answer = manage.call("GET", f"{path}?since={since}")
    assert (answer.status, answer.content["type"]) == (400, "urn:portaria:problem:bad_since")


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/connections?platform=KOMMO", "platform"), ("/connections?state=gone", "state"),
        ("/connections?account_id=", "account_id"),
        ("/installs?client=acme", "client"), ("/installs?client=kommo/a", "client"), ("/installs?state=removed", "state"),
        ("/routes?destination=a", "destination"), ("/audit?operation=Rotate", "operation"), ("/audit?target=", "target"),
    ],
)  # fmt: skip
def test_list_invalid_filter_is_refused(manage: Manage, path: str, field: str) -> None:
    answer = manage.call("GET", path)
    assert (answer.status, answer.content["type"], answer.content["field"]) == (
        400, f"urn:portaria:problem:bad_{field}", field,
    )  # fmt: skip


def test_list_installs_reason_returns_every_failed_install_with_it_over_pages(manage: Manage, shared: Cloud) -> None:
    for number in range(240):
        add_install(shared, number, "failed", reason="code_expired" if number % 60 == 3 else "answer_lost")
    add_install(shared, 999, "connected")
    found: list[str] = []
    cursor = ""
    while True:
        answer = manage.call("GET", f"/installs?reason=code_expired&limit=3{cursor}")
        found += [item["id"] for item in answer.content["items"]]
        if not answer.content["next_cursor"]:
            break
        cursor = f"&cursor={answer.content['next_cursor']}"
    assert found == [f"{number:026d}" for number in (183, 123, 63, 3)]
    assert manage.call("GET", "/installs?reason=code_expired&state=connected").content["items"] == []


@pytest.mark.parametrize("reason", ["<script>", "Code_Expired", "a" * 65, "a%00b", "-x"])
def test_list_installs_foreign_reason_is_refused(manage: Manage, reason: str) -> None:
    assert manage.call("GET", f"/installs?reason={reason}").status == 400
