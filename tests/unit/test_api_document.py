"""docs/openapi.yaml: what it says and where it is served. That answers are as it says is checked by `tests.fakes.manage`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

from portaria.access.scopes import SCOPES
from portaria.api import openapi
from portaria.api.operations import OPERATIONS
from tests.fakes import functions
from tests.fakes.aws import Cloud
from tests.fakes.manage import Manage, proxy_event

DOCUMENT = functions.ROOT / "docs" / "openapi.yaml"


def served(shared: Cloud, resource: str) -> dict[str, Any]:
    event = proxy_event("GET", "/routes", prefix="/v1") | {"resource": resource, "path": resource}
    answer: dict[str, Any] = Manage(shared).module.handler(event, functions.Context())
    return answer


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_the_file_is_what_the_code_says_and_the_stack_serves(shared: Cloud) -> None:
    """Written by `make openapi`."""
    written = yaml.safe_load(DOCUMENT.read_text())
    assert written == openapi.document()
    answer = served(shared, "/v1/openapi.json")
    assert answer["statusCode"] == 200
    assert answer["headers"]["Content-Type"] == "application/json"
    assert json.loads(answer["body"]) == written


def test_document_names_refusals_by_number_on_every_python() -> None:
    """`HTTPStatus(413).name` is another in Python 3.13, which the functions run on, than in Python 3.11."""
    names = openapi.document()["components"]["responses"]
    assert {"Problem400", "Problem413", "Problem422"} <= set(names)
    assert all(name == f"Problem{name[-3:]}" and name[-3:].isdecimal() for name in names)


def test_every_operation_is_in_it_and_nothing_else() -> None:
    told = {
        operation["operationId"]
        for methods in openapi.document()["paths"].values()
        for operation in methods.values()
        if isinstance(operation, dict)
    }
    assert told == {operation.id for operation in OPERATIONS} | {"redeem_ticket"}


def test_each_tells_its_scope_and_every_scope_is_told() -> None:
    document = openapi.document()
    for operation in OPERATIONS:
        told = document["paths"][operation.path][operation.method.lower()]
        assert {"token": [operation.scope]} in told["security"]
        assert operation.scope in told["description"]
    for scope in SCOPES:
        assert f"| `{scope}` |" in document["info"]["description"]


def test_whatever_it_refers_to_is_in_it() -> None:
    document = openapi.document()
    found = set(references(document))
    assert found
    for reference in found:
        _, _, section, name = reference.split("/")
        assert name in document["components"][section], reference
    used = {reference.rpartition("/")[2] for reference in found}
    assert set(document["components"]["schemas"]) == used & set(document["components"]["schemas"])


def test_no_secret_is_ever_an_answer_but_those_that_are_told_once() -> None:
    names = {
        (operation.id, name)
        for operation in OPERATIONS
        if operation.output
        for name in operation.output.model_fields
        if re.search(r"token$|secret|password|key$", name)
    }
    assert names == {
        ("create_private_integration", "token"),
        ("rotate_private_integration", "token"),
        *((f"{what}_oauth_client", "client_secret") for what in ("create", "show", "replace")),
        ("list_oauth_clients", "client_secret"),
    }
    assert openapi.document()["components"]["schemas"]["OauthClient"]["properties"]["client_secret"]["const"] == "*****"


def test_the_reference_page_names_every_operation_and_scope(shared: Cloud) -> None:
    answer = served(shared, "/v1/reference")
    assert answer["statusCode"] == 200
    assert answer["headers"]["Content-Type"].startswith("text/html")
    assert "default-src 'none'" in answer["headers"]["Content-Security-Policy"]
    for operation in OPERATIONS:
        assert f'id="{operation.id}"' in answer["body"]
    for scope in SCOPES:
        assert f"<code>{scope}</code>" in answer["body"]


def test_neither_answers_what_is_not_there(shared: Cloud) -> None:
    assert served(shared, "/v1/other")["statusCode"] == 404
