"""Creations repeated with their Idempotency-Key, and edits that require the state that was read."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest

from portaria.aws import service_clients
from portaria.connections import connection_store, rotation
from portaria.core.entities import Connection
from portaria.records import routes
from tests.fakes.api.manage import Answer, Manage, empty, proxy_event, with_headers
from tests.fakes.aws.moto_cloud import TABLE, Cloud

CLIENT = {"platform": "kommo", "name": "acme", "client_id": "id-1", "client_secret": "canary-secret"}
ROUTE = {"name": "people", "source": "client:kommo/acme", "object": "contacts", "destination": "marketo-one"}
HTTP = {
    "platform": "http", "name": "erp", "kind": "bearer", "allowed_domain": "api.example.com",
    "credentials": {"token": "canary-token"},
}  # fmt: skip


@pytest.fixture
def manage(shared: Cloud) -> Iterator[Manage]:
    made = Manage(shared)
    connection_store.create(
        shared.table, Connection("marketo-one", "marketo", "client_credentials", "mktorest.com", "connected", 1, "s")
    )
    yield made
    empty()


def send(manage: Manage, method: str, path: str, body: Any, **headers: str) -> Answer:
    return manage.answer(with_headers(proxy_event(method, path, body), **headers))


def reason(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.content["type"].rpartition(":")[2]


class TestIdempotencyKeys:
    @pytest.mark.parametrize(("path", "body"), [("/oauth-clients", CLIENT), ("/connections", HTTP)])
    def test_idempotency_key_repeated_returns_first_answer(
        self, manage: Manage, path: str, body: dict[str, Any]
    ) -> None:
        first, again = (send(manage, "POST", path, body, idempotency_key="one") for _ in range(2))
        assert first.status == 201
        assert (again.status, again.content, again.headers["ETag"]) == (201, first.content, first.headers["ETag"])
        assert send(manage, "POST", path, body, idempotency_key="two").status == 409
        assert send(manage, "POST", path, body).status == 409

    def test_idempotency_key_repeated_for_route_returns_first_answer(self, manage: Manage) -> None:
        manage.call("POST", "/oauth-clients", CLIENT)
        first, again = (send(manage, "POST", "/routes", ROUTE, idempotency_key="one") for _ in range(2))
        assert (first.status, again.status, again.content) == (201, 201, first.content)

    def test_idempotency_key_with_another_body_is_refused(self, manage: Manage) -> None:
        send(manage, "POST", "/connections", HTTP, idempotency_key="one")
        other = {**HTTP, "credentials": {"token": "canary-other"}}
        assert reason(send(manage, "POST", "/connections", other, idempotency_key="one")) == (
            422,
            "idempotency_key_reused",
        )

    def test_idempotency_key_reused_for_another_operation_is_accepted(self, manage: Manage) -> None:
        assert send(manage, "POST", "/oauth-clients", CLIENT, idempotency_key="one").status == 201
        assert send(manage, "POST", "/connections", HTTP, idempotency_key="one").status == 201

    def test_idempotency_key_after_refused_creation_can_be_used_again(self, manage: Manage) -> None:
        assert reason(send(manage, "POST", "/routes", ROUTE, idempotency_key="one")) == (400, "unknown_client")
        manage.call("POST", "/oauth-clients", CLIENT)
        assert send(manage, "POST", "/routes", ROUTE, idempotency_key="one").status == 201

    def test_idempotency_key_of_running_creation_answers_503_with_retry_after(self, manage: Manage) -> None:
        begun, go_on = threading.Event(), threading.Event()
        put = connection_store.create

        def slow(*arguments: Any) -> None:
            begun.set()
            assert go_on.wait(10)
            put(*arguments)

        answers: list[Answer] = []
        with patch.object(connection_store, "create", slow):
            first = threading.Thread(
                target=lambda: answers.append(send(manage, "POST", "/connections", HTTP, idempotency_key="one"))
            )
            first.start()
            assert begun.wait(10)
            second = send(manage, "POST", "/connections", HTTP, idempotency_key="one")
            go_on.set()
            first.join(10)
        assert reason(second) == (409, "request_in_progress")
        assert second.headers["Retry-After"] == "2"
        assert answers[0].status == 201

    def test_key_used_for_another_path_is_refused(self, manage: Manage) -> None:
        for name in ("erp", "erp-two"):
            send(manage, "POST", "/connections", {**HTTP, "name": name})
        first, second = (
            send(manage, "POST", f"/destinations/{name}/resume", None, idempotency_key="two")
            for name in ("erp", "erp-two")
        )
        assert first.status == 200
        assert reason(second) == (422, "idempotency_key_reused")

    def test_answer_with_a_secret_is_stored_sealed_and_returned_again(self, manage: Manage) -> None:
        connection_store.create(
            manage.cloud.table,
            Connection(
                "marketek", "leadconnector", "bearer", "services.leadconnectorhq.com", "connected", 1, "s",
                fields={"location_id": "loc-1"},
            ),
        )  # fmt: skip
        path = "/connections/marketek/event-addresses"
        first, again = (send(manage, "POST", path, None, idempotency_key="one") for _ in range(2))
        assert first.status == 201
        assert again.content == first.content
        items = str(service_clients.client("dynamodb").scan(TableName=TABLE)["Items"])
        assert first.content["url"].rpartition("/")[2] not in items
        assert send(manage, "POST", path, None, idempotency_key="two").content["url"] != first.content["url"]

    def test_idempotency_key_stores_no_credential(self, manage: Manage) -> None:
        send(manage, "POST", "/connections", HTTP, idempotency_key="one")
        assert "canary" not in str(service_clients.client("dynamodb").scan(TableName=TABLE)["Items"])


class TestEtags:
    def test_etag_stale_on_route_update_is_refused(self, manage: Manage) -> None:
        manage.call("POST", "/oauth-clients", CLIENT)
        created = manage.call("POST", "/routes", ROUTE).headers["ETag"]
        assert manage.call("GET", "/routes/people").headers["ETag"] == created
        body = {name: value for name, value in ROUTE.items() if name != "name"} | {"priority": "high"}
        changed = send(manage, "PUT", "/routes/people", body, if_match=created)
        assert changed.status == 200
        assert changed.headers["ETag"] != created
        assert reason(send(manage, "PUT", "/routes/people", body, if_match=created)) == (412, "changed_meanwhile")
        assert send(manage, "PUT", "/routes/people", body).status == 200

    def test_etag_stale_on_oauth_client_update_is_refused(self, manage: Manage) -> None:
        created = manage.call("POST", "/oauth-clients", CLIENT).headers["ETag"]
        body = {"client_id": "id-2"}
        assert send(manage, "PUT", "/oauth-clients/kommo/acme", body, if_match=created).status == 200
        assert reason(send(manage, "PUT", "/oauth-clients/kommo/acme", body, if_match=created)) == (
            412,
            "changed_meanwhile",
        )

    def test_etag_stale_on_connection_update_is_refused(self, manage: Manage) -> None:
        created = manage.call("POST", "/connections", HTTP).headers["ETag"]
        body = {"credentials": {"token": "canary-next"}}
        changed = send(manage, "PUT", "/connections/erp/credentials", body, if_match=created)
        assert changed.status == 200
        assert manage.call("GET", "/connections/erp").headers["ETag"] == changed.headers["ETag"] != created
        assert reason(send(manage, "PUT", "/connections/erp/credentials", body, if_match=created)) == (
            412,
            "changed_meanwhile",
        )

    @pytest.mark.parametrize(("headers", "status"), [({}, 409), ({"if_match": "*"}, 412)])
    def test_update_route_concurrent_edit_is_refused(
        self, manage: Manage, headers: dict[str, str], status: int
    ) -> None:
        manage.call("POST", "/oauth-clients", CLIENT)
        manage.call("POST", "/routes", ROUTE)
        body = {name: value for name, value in ROUTE.items() if name != "name"}
        put = routes.put

        def other_first(table: Any, route: Any, **more: Any) -> str:
            put(table, route, new=False)
            return put(table, route, **more)

        with patch.object(routes, "put", other_first):
            answer = send(manage, "PUT", "/routes/people", body, **headers)
        assert reason(answer) == (status, "changed_meanwhile")

    def test_update_connection_concurrent_edit_is_refused(self, manage: Manage) -> None:
        manage.call("POST", "/connections", HTTP)
        replace = rotation.replace

        def other_first(table: Any, vault: Any, connection: Connection, credentials: Any) -> Connection:
            replace(table, vault, connection, {"token": type(credentials["token"])("canary-sooner")})
            return replace(table, vault, connection, credentials)

        with patch.object(rotation, "replace", other_first):
            answer = send(
                manage, "PUT", "/connections/erp/credentials", {"credentials": {"token": "canary-later"}}, if_match="*"
            )
        assert reason(answer) == (409, "connection_changed")
