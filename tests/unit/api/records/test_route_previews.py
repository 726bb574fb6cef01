"""Previews of routes: the same result as a delivery, without anything being sent or stored."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import responses

from portaria.aws import service_clients
from portaria.connections import connection_store
from portaria.core.entities import Connection
from tests.fakes.api.manage import Answer, Manage, empty
from tests.fakes.aws.moto_cloud import TABLE, Cloud

ROUTE = {"source": "connection:crm", "object": "contacts", "destination": "marketo-main"}
RECORD = {
    "id": 7,
    "name": "Maria Silva",
    "first_name": "Maria",
    "custom_fields_values": [{"field_code": "EMAIL", "values": [{"value": "maria@example.com"}]}],
}


@pytest.fixture
def manage(shared: Cloud) -> Iterator[Manage]:
    for name, platform, kind in (("crm", "kommo", "oauth2"), ("marketo-main", "marketo", "client_credentials")):
        fields = {"munchkin_id": "123-ABC-456"} if platform == "marketo" else {}
        connection_store.create(
            shared.table,
            Connection(
                name, platform, kind, "*.example.com", "connected", secret_id="s", version_id="v", generation=1,
                account_id="123-ABC-456", fields=fields,
            ),
        )  # fmt: skip
    with responses.RequestsMock():
        yield Manage(shared)
    empty()


def preview(manage: Manage, body: dict[str, Any]) -> Answer:
    return manage.call("POST", "/routes/preview", body)


def stored() -> list[Any]:
    items = service_clients.client("dynamodb").scan(TableName=TABLE)["Items"]
    return sorted(json.dumps(item, sort_keys=True) for item in items if not item["pk"]["S"].startswith("AUDIT"))


def test_preview_route_returns_the_objects_and_the_destinations_request(manage: Manage) -> None:
    before = stored()
    shown = preview(manage, {"route": {**ROUTE, "mapping": {"email": "'a@example.com'", "firstName": "first_name"}},
                             "record": RECORD}).content  # fmt: skip
    assert shown["objects"] == [{"email": "a@example.com", "firstName": "Maria"}]
    assert (shown["request"]["method"], shown["request"]["path"]) == ("POST", "/subscriptions/123-ABC-456/persons")
    assert shown["request"]["body"]["persons"] == shown["objects"]
    assert (shown["refused_reason"], shown["warnings"]) == (None, [])
    assert stored() == before


def test_preview_route_by_name_uses_the_default_mapping_and_names_missing_values(manage: Manage) -> None:
    assert manage.call("POST", "/routes", {**ROUTE, "name": "people"}).status == 201
    shown = preview(manage, {"name": "people", "record": RECORD}).content
    assert shown["objects"][0]["email"] == "maria@example.com"
    assert any("phone" in warning for warning in shown["warnings"])


def test_preview_route_record_that_would_be_a_dead_letter_has_its_reason(manage: Manage) -> None:
    route = {**ROUTE, "mapping": {"email": "id.foo[0]", "firstName": "custom_fields_values"}}
    shown = preview(manage, {"route": route, "record": RECORD}).content
    assert (shown["refused_reason"], shown["request"]) == ("bad_value", None)
    assert "firstName" in shown["refused_detail"]
    assert "maria@" not in shown["refused_detail"]


def test_preview_route_expression_beyond_the_budget_is_refused(manage: Manage) -> None:
    costly = "length(a[].to_string(@)[].to_string(@)[].to_string(@))"
    shown = preview(manage, {"route": {**ROUTE, "mapping": {"email": costly}}, "record": {"a": [1] * 5_000}}).content
    assert (shown["refused_reason"], shown["objects"], shown["request"]) == ("mapping_too_costly", [], None)


def test_preview_route_record_of_a_megabyte_is_refused(manage: Manage) -> None:
    answer = preview(manage, {"route": ROUTE, "record": {"text": "x" * 1_000_000}})
    assert (answer.status, answer.content["type"]) == (413, "urn:portaria:problem:body_too_large")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"record": {}}, 400),
        ({"name": "people", "route": ROUTE, "record": {}}, 400),
        ({"name": "people", "record": {}}, 404),
        ({"route": {**ROUTE, "destination": "none"}, "record": {}}, 400),
        ({"route": {**ROUTE, "mapping": {"email": "a ("}}, "record": {}}, 400),
        ({"route": ROUTE, "record": []}, 400),
    ],
)
def test_preview_route_input_that_is_wrong_is_refused(manage: Manage, body: dict[str, Any], status: int) -> None:
    assert preview(manage, body).status == status
