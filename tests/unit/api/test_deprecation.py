"""A deprecated operation says so in each of its responses and in the document."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from portaria.api.openapi import document
from portaria.api.openapi.paths import operation_items
from portaria.api.operation import Operation
from portaria.api.operations import OPERATIONS
from portaria.api.router import Service
from portaria.api.version import Deprecation
from tests.fakes.api.manage import Manage, proxy_event, with_token
from tests.fakes.aws import functions
from tests.fakes.aws.moto_cloud import Cloud

DEPRECATION = Deprecation(since=date(2027, 1, 1), sunset=date(2028, 1, 1))
HEADERS = {"Deprecation": "@1798761600", "Sunset": "Sat, 01 Jan 2028 00:00:00 GMT"}
DEPRECATED = [
    replace(each, deprecation=DEPRECATION) if each.id in ("list_scopes", "proxy_get") else each for each in OPERATIONS
]


def find(method: str, path: str) -> Operation | None:
    return next((each for each in DEPRECATED if (each.method, each.path) == (method, path)), None)


@pytest.fixture
def manage(shared: Cloud) -> Manage:
    made = Manage(shared)
    vars(made.module)["service"] = Service(find, made.module.service.context, made.module.logger)
    return made


def headers_of(manage: Manage, event: dict[str, Any]) -> tuple[int, dict[str, str]]:
    answer = manage.module.handler(event, functions.Context())
    told = {name: ", ".join(values) for name, values in answer["multiValueHeaders"].items()}
    return answer["statusCode"], {name: told[name] for name in HEADERS if name in told}


def test_deprecated_operation_success_has_deprecation_and_sunset(manage: Manage) -> None:
    assert headers_of(manage, proxy_event("GET", "/scopes")) == (200, HEADERS)


def test_deprecated_operation_refusal_has_deprecation_and_sunset(manage: Manage) -> None:
    event = with_token(proxy_event("GET", "/scopes", prefix="/v1"), "")
    assert headers_of(manage, event) == (401, HEADERS)


def test_operation_that_stays_has_no_deprecation(manage: Manage) -> None:
    assert headers_of(manage, proxy_event("GET", "/platforms")) == (200, {})


def test_document_deprecated_operation_is_marked_and_each_response_has_the_headers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    present = document.build()
    monkeypatch.setattr(operation_items, "OPERATIONS", DEPRECATED)
    monkeypatch.setattr(document, "OPERATIONS", DEPRECATED)
    made = document.build.__wrapped__("api.example.com")
    for path in ("/v1/scopes", "/v1/connections/{name}/proxy/{path}"):
        operation = made["paths"][path]["get"]
        assert operation["deprecated"] is True
        assert all(set(HEADERS) <= set(each["headers"]) for each in operation["responses"].values())
    assert set(HEADERS) <= set(made["components"]["headers"])
    assert "deprecated" not in made["paths"]["/v1/platforms"]["get"]
    assert not set(HEADERS) & set(present["components"]["headers"])
