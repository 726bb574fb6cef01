"""docs/openapi.yaml: its content and where it is served. `tests.fakes.api.manage` checks that responses match it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
import yaml

from portaria.access.scopes import SCOPES
from portaria.api.openapi import document as api_document
from portaria.api.openapi import schemas, tags
from portaria.api.openapi.paths import operation_items
from portaria.api.operations import OPERATIONS
from portaria.core.event_catalogue import CATALOGUE
from portaria.platforms.marketo import data_ingestion_api
from portaria.web import reference, render
from tests.fakes.api.manage import API_HOST, Manage, proxy_event
from tests.fakes.aws import functions
from tests.fakes.aws.moto_cloud import Cloud
from tests.fakes.paths import ROOT

DOCUMENT = ROOT / "docs" / "openapi.yaml"
DATA_INGESTION = {
    "send_persons", "send_custom_objects", "send_companies", "send_program_members", "remove_program_members",
    "send_list_members", "remove_list_members",
}  # fmt: skip

PUBLIC = {
    "show_health", "show_document", "show_reference", "accept_install", "show_install_page", "show_install_result",
    "show_logo", "show_claim_page", "confirm_claim",
    "receive_event", "accept_uninstall", "answer_challenge", "receive_reports", "redeem_ticket",
}  # fmt: skip
EVENTS = {f"receive_{name.replace('.', '_')}" for name in CATALOGUE}


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


def test_openapi_file_matches_code_and_served_document(shared: Cloud) -> None:
    """Written by `make openapi`."""
    written = yaml.load(DOCUMENT.read_text(), yaml.CSafeLoader)
    assert written == api_document.build()
    answer = served(shared, "/v1/openapi.json")
    assert answer["statusCode"] == 200
    assert answer["headers"]["Content-Type"] == "application/json"
    told = json.loads(answer["body"])
    assert told == api_document.build(f"{API_HOST}/live")
    for each in (written, told, *written["paths"].values(), *told["paths"].values()):
        each.pop("servers", None)
    assert told == written


def test_openapi_document_of_a_stack_has_its_own_url(shared: Cloud) -> None:
    document = json.loads(served(shared, "/v1/openapi.json")["body"])
    servers = [server for path in document["paths"].values() for server in path.get("servers", [])]
    assert len(servers) > 10
    assert {each["variables"]["host"]["default"] for each in (*document["servers"], *servers)} == {f"{API_HOST}/live"}


def test_openapi_document_refusal_names_do_not_depend_on_python_version() -> None:
    """`HTTPStatus(413).name` of Python 3.13, which the functions run on, differs from that of Python 3.11."""
    names = api_document.build()["components"]["responses"]
    assert {"Problem400", "Problem413", "Problem422", "DataIngestion403"} <= set(names)
    assert all(re.fullmatch(r"(Problem|DataIngestion)[0-9]{3}|ProxiedResponse", name) for name in names)


def test_openapi_document_has_exactly_the_operations() -> None:
    told = {
        operation["operationId"]
        for methods in api_document.build()["paths"].values()
        for operation in methods.values()
        if isinstance(operation, dict)
    }
    assert told == {operation.id for operation in OPERATIONS} | DATA_INGESTION | PUBLIC


def test_openapi_document_each_operation_names_its_scope_and_all_scopes_are_listed() -> None:
    document = api_document.build()
    for operation in OPERATIONS:
        told = document["paths"][operation_items.PREFIX + operation.document_path][operation.method.lower()]
        by_token = {"token": [operation.scope] if operation.scope else []}
        assert (by_token in told["security"]) is not operation.administrators_only
        assert operation.scope in told["description"]
    for scope in SCOPES:
        assert f"| `{scope}` |" in document["info"]["description"]


def test_openapi_document_references_resolve_and_schemas_are_used() -> None:
    document = api_document.build()
    found = set(references(document))
    assert found
    for each in found:
        _, _, section, name = each.split("/")
        assert name in document["components"][section], each
    used = {reference.rpartition("/")[2] for reference in found}
    assert set(document["components"]["schemas"]) == used & set(document["components"]["schemas"])


def test_openapi_document_secret_fields_appear_only_in_listed_answers() -> None:
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
        ("create_webhook", "secret"),
        ("rotate_webhook_secret", "secret"),
    }


# Integers that are not counts: versions, weights, HTTP statuses.
NO_COUNTS = {"generation", "weight", "status", "last_status", "limit"}
UNITS = ("_s", "_days", "_ms")


def properties() -> Iterator[tuple[str, str, dict[str, Any], bool]]:
    """Each property of this API's own schemas: its schema, name, definition, and whether it is always present."""
    models = {
        schemas.name_of(model) for operation in OPERATIONS for model in (operation.input, operation.output) if model
    }
    document = api_document.build()
    outputs = {schemas.name_of(operation.output) for operation in OPERATIONS if operation.output}
    for name, schema in document["components"]["schemas"].items():
        if name.startswith("DataIngestion") or ("properties" in schema and not schema.get("title")):
            continue
        if name in models or any(name in str(document["components"]["schemas"][each]) for each in models):
            for field, definition in schema.get("properties", {}).items():
                is_required = field in schema.get("required", [])
                yield name, field, definition, is_required or name not in outputs


def types(definition: dict[str, Any]) -> set[str]:
    several = definition.get("anyOf", [definition])
    return {str(each.get("type")) for each in several}


def test_document_counts_end_in_count_and_times_are_date_times() -> None:
    checked = 0
    for schema, field, definition, _ in properties():
        if "integer" in types(definition) and field not in NO_COUNTS:
            assert field.endswith(("_count", *UNITS)) or field.startswith("age_"), (schema, field)
            checked += 1
        if (
            field.endswith(("_at", "_until", "_since")) or field in ("at", "since", "until", "deadline", "before")
        ) and (schema not in ("DeadLetterRedrive", "DeadLetterDeletion")):
            formats = {
                each.get("format") for each in definition.get("anyOf", [definition]) if each.get("type") == "string"
            }
            assert formats == {"date-time"}, (schema, field)
            checked += 1
    assert checked > 40


def test_document_absent_values_are_null_and_never_a_default() -> None:
    for schema, field, definition, is_present in properties():
        assert is_present, f"{schema}.{field} may be missing: null it instead"
        assert definition.get("default", 0) not in ("", None), (schema, field)


def test_document_paths_have_no_two_kinds_of_ids() -> None:
    steps = {step for path in api_document.build()["paths"] if path.startswith("/v1/") for step in path.split("/")}
    parameters = {step for step in steps if step.startswith("{")}
    assert parameters <= {"{name}", "{id}", "{platform}", "{client}", "{path}", "{delivery}"}


def page(shared: Cloud, **event: Any) -> tuple[dict[str, str], str]:
    given = proxy_event("GET", "/routes", prefix="/v1") | {"resource": "/v1/reference", "path": "/v1/reference"} | event
    answer = Manage(shared).module.handler(given, functions.Context())
    assert answer["statusCode"] == 200
    return answer["headers"], answer["body"]


@pytest.mark.parametrize("language", render.LANGUAGES)
def test_reference_page_is_complete_in_each_language(shared: Cloud, language: str) -> None:
    headers, body = page(shared, multiValueQueryStringParameters={"lang": [language]})
    assert headers["Content-Type"].startswith("text/html")
    assert headers["Content-Language"] == render.LANGUAGES[language]
    assert f'<html lang="{render.LANGUAGES[language]}">' in body
    for operation in {operation.id for operation in OPERATIONS} | DATA_INGESTION | PUBLIC | EVENTS:
        assert f'<section id="{operation}">' in body
        assert f'<a href="#{operation}">' in body
    for scope in SCOPES:
        assert f"<code>{scope}</code>" in body
    # Markdown is rendered, and every text is filled in.
    assert not re.search(r"`|\*\*[A-Za-z]|\{(admin|document|example)\}", body)


def test_reference_page_has_no_script_and_no_other_host(shared: Cloud) -> None:
    headers, body = page(shared)
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "unsafe-inline" not in headers["Content-Security-Policy"]
    assert not re.search(r"<script| style=| src=|@import|url\(", body)
    assert not re.search(r'href="https?:', body)


@pytest.mark.parametrize(
    ("wanted", "accepted", "language"),
    [
        (None, "pt-BR,pt;q=0.9,en;q=0.8", "pt-BR"), (None, "es-MX", "es"), (None, "de", "en"), (None, None, "en"),
        ("es", "pt-BR", "es"), ("xx", "pt-BR", "pt-BR"),
    ],
)  # fmt: skip
def test_reference_page_language_follows_query_then_accept_language(
    shared: Cloud, wanted: str | None, accepted: str | None, language: str
) -> None:
    query = {"lang": [wanted]} if wanted else None
    sent = {"Accept-Language": [accepted]} if accepted else {}
    headers, _ = page(shared, multiValueQueryStringParameters=query, multiValueHeaders=sent)
    assert headers["Content-Language"] == language
    assert headers["Vary"] == "Accept-Language"


def test_reference_page_translations_match_operations() -> None:
    texts = reference.texts()
    operations = {
        each["operationId"]: each["summary"]
        for methods in (*api_document.build()["paths"].values(), *api_document.build()["webhooks"].values())
        for each in methods.values()
        if isinstance(each, dict)
    }
    assert set(texts["summary"]) == set(operations)
    assert set(texts["tag"]) == set(tags.TAGS)
    for text in (*texts["summary"].values(), *texts["tag"].values()):
        assert set(text) == {"pt", "es"}
    for text in texts["chrome"].values():
        assert set(text) == {"pt", "es", "en"}


def test_openapi_summaries_begin_with_a_verb_and_are_short() -> None:
    verbs = {
        "Add", "Answer", "Cancel", "Confirm", "Create", "Delete", "Get", "List", "Open", "Receive", "Redrive", "Register",
        "Remove", "Renew", "Replace", "Resume", "Revoke", "Rotate", "Send", "Start", "Test", "Update",
    }  # fmt: skip
    for methods in api_document.build()["paths"].values():
        for each in methods.values():
            if isinstance(each, dict):
                words = each["summary"].split()
                assert words[0] in verbs, each["summary"]
                assert len(words) <= 7, each["summary"]
                assert not each["summary"].endswith("."), each["summary"]


@pytest.mark.parametrize("path", [path for path in api_document.build()["paths"] if path.startswith("/subscriptions")])
def test_openapi_data_ingestion_example_is_valid_and_accepted(path: str) -> None:
    operation = api_document.build()["paths"][path]["post"]
    content = operation["requestBody"]["content"]["application/json"]
    jsonschema_rs.validate(content["schema"], content["example"])
    parameters = {each["name"]: each["example"] for each in operation["parameters"] if each["in"] == "path"}
    sent = data_ingestion_api.parse(path, parameters, json.dumps(content["example"]).encode(), "marketo-main", 0)
    assert sent.count == 1


def test_openapi_data_ingestion_has_every_path_and_error_code() -> None:
    document = api_document.build()
    assert {path for path in document["paths"] if path.startswith("/subscriptions")} == set(
        data_ingestion_api.RESOURCES
    )
    described = " ".join(
        each["description"]
        for name, each in document["components"]["responses"].items()
        if name.startswith("DataIngestion")
    )
    assert set(re.findall(r"`([0-9]+)`", described)) == set(data_ingestion_api.MESSAGES)


def test_api_document_unknown_path_is_not_found(shared: Cloud) -> None:
    assert served(shared, "/v1/other")["statusCode"] == 404
