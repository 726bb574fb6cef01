"""Records of a program for a route: validated, queued, and found in the receipts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from portaria.aws import queues, service_clients
from portaria.aws.table import Table
from portaria.connections import connection_store
from portaria.core.entities import Connection
from portaria.records.mapping import record_mapping
from tests.fakes.api.manage import Answer, Manage, empty, proxy_event, with_headers
from tests.fakes.aws.errors import refusing
from tests.fakes.aws.moto_cloud import TABLE, Cloud

ROUTE = {"name": "people", "source": "connection:crm", "object": "contacts", "destination": "marketo-main"}
RECORD = {"key": "7", "updated_at": "2026-01-31T12:00:00Z", "data": {"name": "canary Maria"}}


@pytest.fixture
def manage(shared: Cloud) -> Iterator[Manage]:
    for name, platform, kind, client in (
        ("crm", "kommo", "oauth2", "acme"),
        ("other", "kommo", "oauth2", "elsewhere"),
        ("marketo-main", "marketo", "client_credentials", ""),
    ):
        connection_store.create(
            shared.table,
            Connection(name, platform, kind, "*.example.com", "connected", secret_id="s", version_id="v", generation=1,
                       account_id="1", client=client, fields={"munchkin_id": "123-ABC-456"}),
        )  # fmt: skip
    manage = Manage(shared)
    assert manage.call("POST", "/routes", ROUTE).status == 201
    yield manage
    shared.receive("records")
    empty()


def send(manage: Manage, **changes: Any) -> Answer:
    return manage.call("POST", "/records", {"route": "people", "records": [RECORD]} | changes)


def noted() -> list[str]:
    items = service_clients.client("dynamodb").scan(TableName=TABLE)["Items"]
    return [item["pk"]["S"] for item in items if item["pk"]["S"].startswith("REQUEST#")]


def test_send_records_queues_messages_that_a_worker_reads(manage: Manage, shared: Cloud) -> None:
    records = [RECORD, {"key": "8", "data": {"n": 2**70, "text": "ü"}}]
    answer = send(manage, records=records)
    assert (answer.status, answer.content["record_count"]) == (202, 2)
    (body,) = shared.receive("records")
    message = record_mapping.read_message("m", body)
    assert (message.connection, message.object, message.route) == ("crm", "contacts", "people")
    assert (message.origin, message.request) == ("front_door", answer.content["id"])
    first, second = (record_mapping.read_record(message, *each) for each in enumerate(message.records))
    assert (first.key, first.version[0], first.record["data"]) == ("7", 1769860800, RECORD["data"])
    assert second.record["data"]["n"] == str(2**70)
    assert second.version[0] == message.read_at // 1000


def test_send_records_id_is_found_in_the_receipts(manage: Manage) -> None:
    sent = send(manage).content
    (found,) = manage.call("GET", f"/receipts?request={sent['id']}").content["items"]
    assert (found["state"], found["destination"], found["record_count"]) == ("queued", "marketo-main", 1)


@pytest.mark.parametrize(
    ("scope", "route", "expected"),
    [
        ("records:create", "people", (202, None)),
        ("records:create", "none", (404, "unknown_route")),
        ("records:create@marketo-main", "people", (202, None)),
        ("records:create@marketo-main", "none", (403, "missing_scope")),
        ("records:create@crm", "people", (403, "missing_scope")),
        ("records:send@marketo-main", "people", (403, "missing_scope")),
    ],
)
def test_send_records_scope_can_be_narrowed_to_the_destination(
    manage: Manage, shared: Cloud, scope: str, route: str, expected: tuple[int, str | None]
) -> None:
    """A restricted token gets the same response for a route to another destination and for one that does not exist."""
    _, token = manage.create_integration(scope)
    answer = manage.program(token, "POST", "/records", {"route": route, "records": [RECORD]})
    reason = answer.content.get("type", "").rpartition(":")[2] or None
    assert (answer.status, reason) == expected
    assert len(shared.receive("records")) == len(noted()) == (1 if expected[0] == 202 else 0)


def test_send_records_narrowed_scope_ends_with_the_destination(manage: Manage) -> None:
    integration, token = manage.create_integration("records:create@marketo-main", "routes:list")
    assert manage.call("DELETE", "/routes/people").status == 204
    assert manage.call("DELETE", "/connections/marketo-main").status == 200
    assert manage.call("GET", f"/private-integrations/{integration}").content["scopes"] == ["routes:list"]
    answer = manage.program(token, "POST", "/records", {"route": "people", "records": [RECORD]})
    assert (answer.status, answer.content["type"]) == (403, "urn:portaria:problem:missing_scope")


def test_send_records_many_are_packed_into_messages_within_the_limit(manage: Manage, shared: Cloud) -> None:
    records = [{"key": str(number), "data": {"text": "x" * 800}} for number in range(1_000)]
    assert send(manage, records=records).content["record_count"] == 1_000
    bodies = shared.receive("records")
    assert len(bodies) > 1
    assert max(len(body) for body in bodies) <= 240_000
    assert sum(len(json.loads(body)["records"]) for body in bodies) == 1_000


@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [
        ({"route": "none"}, 404, "unknown_route"),
        ({"records": []}, 400, "invalid_input"),
        ({"records": [RECORD] * 1_001}, 400, "invalid_input"),
        ({"records": [RECORD, {"key": "", "data": {}}]}, 400, "invalid_input"),
        ({"records": [RECORD, {"key": "8", "data": []}]}, 400, "invalid_input"),
        ({"records": [{**RECORD, "updated_at": "2026-02-31T12:00:00Z"}]}, 400, "bad_time"),
        ({"connection": "other"}, 400, "other_source"),
        ({"records": [{"key": "8", "data": {"text": "x" * 1_000_000}}]}, 413, "body_too_large"),
    ],
)
def test_send_records_that_are_wrong_store_and_queue_nothing(
    manage: Manage, shared: Cloud, changes: dict[str, Any], status: int, reason: str
) -> None:
    answer = send(manage, **changes)
    assert (answer.status, answer.content["type"].rpartition(":")[2]) == (status, reason)
    assert shared.receive("records") == []
    assert noted() == []


def test_send_records_route_of_an_oauth_client_needs_one_of_its_connections(manage: Manage, shared: Cloud) -> None:
    client = {"platform": "kommo", "name": "acme", "client_id": "c", "client_secret": "canary"}
    made = manage.call("POST", "/oauth-clients", client)
    assert made.status == 201, made.text
    assert manage.call("POST", "/routes", {**ROUTE, "name": "all", "source": "client:kommo/acme"}).status == 201
    for connection, reason in ((None, "connection_needed"), ("other", "other_source"), ("none", "unknown_connection")):
        answer = send(manage, route="all", connection=connection)
        assert answer.content["type"].rpartition(":")[2] == reason
        assert answer.status in (400, 404)
    assert send(manage, route="all", connection="crm").status == 202
    (body,) = shared.receive("records")
    assert (json.loads(body)["connection"], json.loads(body)["route"]) == ("crm", "all")


def test_send_records_repeated_with_an_idempotency_key_are_queued_once(manage: Manage, shared: Cloud) -> None:
    body, key = {"route": "people", "records": [RECORD]}, {"Idempotency-Key": "k-1"}
    answers = [manage.answer(with_headers(proxy_event("POST", "/records", body), **key)) for _ in range(2)]
    assert answers[0].content == answers[1].content
    assert len(shared.receive("records")) == 1


def test_send_records_are_noted_before_they_are_queued(manage: Manage, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    put, queue = Table.put, queues.send

    def note(table: Table, item: Any, **more: Any) -> Any:
        order.extend(["noted"] if item["pk"].startswith("REQUEST#") else [])
        return put(table, item, **more)

    def queued(*arguments: Any, **options: Any) -> None:
        order.append("queued")
        queue(*arguments, **options)

    monkeypatch.setattr(Table, "put", note)
    monkeypatch.setattr(queues, "send", queued)
    assert send(manage).status == 202
    assert order == ["noted", "queued"]


def test_send_records_that_the_queue_does_not_take_are_not_accepted(manage: Manage) -> None:
    with refusing("SendMessage", "SendMessageBatch"):
        assert send(manage).status in (500, 503)


def test_send_records_audit_entry_has_no_record(manage: Manage) -> None:
    send(manage)
    entry = manage.call("GET", "/audit?limit=1").content["items"][0]
    assert (entry["operation"], entry["target"]) == ("send_records", "people")
    assert entry["asked"] == {"route": "people", "connection": None, "record_count": 1}
    assert "canary" not in manage.log.getvalue()


def test_send_records_record_that_no_message_can_carry_is_refused(manage: Manage, shared: Cloud) -> None:
    """SQS refuses U+FFFF, so each one becomes an escape of twice its length."""
    record = {"key": "8", "data": {"text": "\uffff" * 300_000}}
    body = json.dumps({"route": "people", "records": [RECORD, record]}, ensure_ascii=False)
    answer = manage.call("POST", "/records", body)
    assert (answer.status, answer.content["type"].rpartition(":")[2]) == (400, "record_too_large")
    assert (shared.receive("records"), noted()) == ([], [])
