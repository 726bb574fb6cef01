"""docs/openapi.yaml is complete: descriptions and valid examples everywhere, and every path that the stack answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import jsonschema_rs
import pytest

from portaria.api.openapi import document as api_document
from portaria.api.openapi import example_values, operation_errors, problem_types
from portaria.api.openapi.paths import operation_items
from portaria.api.operations import OPERATIONS
from portaria.core.event_catalogue import CATALOGUE
from tests.fakes.template.document import functions, resources

Json = Any
HOST = "api.example.com/live"
DOCUMENT = "urn:document"
METHODS = ("get", "head", "post", "put", "patch", "delete")
# The console's pages are for browsers.
PAGES = ("/console", "/console/{proxy+}")
# What answers in Adobe's form that a path does not exist.
UNKNOWN = ("/subscriptions/{subscription}", "/subscriptions/{subscription}/{proxy+}")


def resolved(value: Json) -> Json:
    """A component that a value refers to, with what stands beside the reference, or the value itself."""
    if not isinstance(value, dict) or "$ref" not in value:
        return value
    found: Json = api_document.build()
    for step in value["$ref"].removeprefix("#/").split("/"):
        found = found[step]
    return {**found, **{name: each for name, each in value.items() if name != "$ref"}}


def operations() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each operation and each event's delivery, with a name for messages."""
    document = api_document.build()
    for path, item in (*document["paths"].items(), *document["webhooks"].items()):
        for method in METHODS:
            if method in item:
                yield f"{method.upper()} {path}", item[method]


def bodies() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each media type of each request and response."""
    for name, operation in operations():
        responses = {status: resolved(each) for status, each in operation["responses"].items()}
        for part, each in {"request": operation.get("requestBody", {}), **responses}.items():
            for media_type, content in each.get("content", {}).items():
                yield f"{name} {part} {media_type}", content


def parameters() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, operation in operations():
        for each in operation.get("parameters", ()):
            yield f"{name} {each['name']}", each


def headers() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, operation in operations():
        for status, response in operation["responses"].items():
            for header, each in resolved(response).get("headers", {}).items():
                yield f"{name} {status} {header}", resolved(each)


def schemas() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each schema of an object and each of its properties, with those inside them."""
    for name, schema in api_document.build()["components"]["schemas"].items():
        yield name, schema
        yield from properties(name, schema)
    for name, content in bodies():
        yield from properties(name, content["schema"])


def properties(name: str, schema: Json) -> Iterator[tuple[str, dict[str, Any]]]:
    if not isinstance(schema, dict):
        return
    for field, each in schema.get("properties", {}).items():
        yield f"{name}.{field}", each
        yield from properties(f"{name}.{field}", each)
    for inner in (schema.get("items"), schema.get("additionalProperties"), *schema.get("anyOf", ())):
        yield from properties(name, inner)


def examples(content: dict[str, Any]) -> list[Json]:
    """The examples of a media type, parameter or header."""
    several = [resolved(each)["value"] for each in content.get("examples", {}).values()]
    return several + ([content["example"]] if "example" in content else [])


def errors(schema: Json, values: list[Json]) -> list[str]:
    return list(_errors(json.dumps(schema), json.dumps(values)))


@cache
def registry() -> jsonschema_rs.Registry:
    """The document's own schemas, compiled once."""
    return jsonschema_rs.Registry(
        [(DOCUMENT, {"components": {"schemas": api_document.build()["components"]["schemas"]}})]
    )


@cache
def _errors(schema: str, values: str) -> tuple[str, ...]:
    """Cached, because most headers and responses occur many times."""
    located = json.loads(schema.replace('"$ref": "#', f'"$ref": "{DOCUMENT}#'))
    checked = jsonschema_rs.Draft202012Validator(located, validate_formats=True, registry=registry())
    return tuple(str(error.message) for value in json.loads(values) for error in checked.iter_errors(value))


def test_document_every_part_has_a_description() -> None:
    document = api_document.build()
    missing = [name for name, each in (*schemas(), *parameters(), *headers()) if not each.get("description")]
    for name, operation in operations():
        missing += [name] if not operation["description"] else []
        missing += (
            [f"{name} body"] if "requestBody" in operation and not operation["requestBody"]["description"] else []
        )
        missing += [
            f"{name} {status}" for status, each in operation["responses"].items() if not resolved(each)["description"]
        ]
    others = [*document["tags"], *document["servers"], *document["components"]["securitySchemes"].values()]
    assert missing == []
    assert all(each["description"] for each in others)


def test_document_every_operation_is_described_beyond_its_summary() -> None:
    assert [each.id for each in OPERATIONS if not each.description] == []


def test_document_descriptions_are_sentences() -> None:
    told = {name: each["description"].strip() for name, each in (*schemas(), *parameters(), *headers())}
    assert {
        name: text for name, text in told.items() if text[-1] not in ".:`" or (not text[0].isupper() and text[0] != "`")
    } == {}


def test_document_every_part_has_an_example() -> None:
    missing = [name for name, each in schemas() if not each.get("examples")]
    missing += [name for name, each in (*parameters(), *headers(), *bodies()) if not examples(each)]
    assert missing == []


def test_document_every_property_has_an_example_with_a_value() -> None:
    assert [name for name, each in schemas() if "." in name and None in each.get("examples", ())] == []


def test_document_examples_are_valid() -> None:
    wrong = {name: errors(each, each["examples"]) for name, each in schemas()}
    wrong |= {name: errors(each["schema"], examples(each)) for name, each in (*parameters(), *headers(), *bodies())}
    assert {name: found for name, found in wrong.items() if found} == {}


def test_document_uses_every_example() -> None:
    components = api_document.build()["components"]["schemas"]
    assert set(example_values.objects()) <= set(components)
    for name in example_values.properties():
        schema, _, field = name.rpartition(".")
        known = [components[schema]] if schema else components.values()
        assert any(field in each.get("properties", {}) for each in known), name


def test_document_validator_refuses_an_example_with_an_unknown_field() -> None:
    assert errors({"$ref": "#/components/schemas/Health"}, [{"status": "ok"}]) == []
    assert errors({"$ref": "#/components/schemas/Health"}, [{"status": "ok", "detail": "all is well"}]) != []
    assert errors({"type": "string", "format": "date-time"}, ["yesterday"]) != []


@pytest.mark.parametrize("operation", [each for each in OPERATIONS if each.input], ids=lambda each: each.id)
def test_document_request_example_is_accepted_by_its_model(operation: Any) -> None:
    path = operation_items.PREFIX + operation.document_path
    content = api_document.build()["paths"][path][operation.method.lower()]["requestBody"]["content"]
    operation.input.model_validate(content["application/json"]["example"])


@pytest.mark.parametrize("operation", [each for each in OPERATIONS if each.output], ids=lambda each: each.id)
def test_document_response_example_is_accepted_by_its_model(operation: Any) -> None:
    path = operation_items.PREFIX + operation.document_path
    response = api_document.build()["paths"][path][operation.method.lower()]["responses"][str(operation.status.value)]
    example = response["content"]["application/json"]["example"]
    for each in example["items"] if operation.listing else [example]:
        operation.output.model_validate(each, strict=True)


def test_document_has_every_path_of_the_template_and_no_other() -> None:
    served = {
        (method, path)
        for function in functions()
        for method, path in function.methods
        if path not in (*UNKNOWN, *PAGES)
    }
    documented = set()
    for path, item in api_document.build()["paths"].items():
        of_both_doors = "servers" not in item
        for method in METHODS:
            if method in item:
                documented |= {(method, path)} | ({(method, f"/admin{path}")} if of_both_doors else set())
    assert documented == {(method, path.replace("+}", "}")) for method, path in served}


def test_document_server_urls_join_with_paths() -> None:
    document = api_document.build(HOST)
    servers = [*document["servers"], *(each for item in document["paths"].values() for each in item.get("servers", ()))]
    joined = {each["url"].replace("{host}", each["variables"]["host"]["default"]) for each in servers}
    assert joined == {f"https://{HOST}", f"https://{HOST}/admin"}


def test_document_each_server_names_its_security_scheme() -> None:
    document = api_document.build()
    named = {scheme for server in document["servers"] for scheme in server["x-security"]}
    assert named == {scheme for entry in document["security"] for scheme in entry}


def test_document_success_of_a_change_has_an_etag_if_the_resource_can_be_edited() -> None:
    for name, operation in operations():
        takes_etag = any(each["name"] == "If-Match" for each in operation.get("parameters", ()))
        if takes_etag:
            assert "ETag" in resolved(operation["responses"]["200"])["headers"], name


def test_document_temporary_refusals_have_retry_after() -> None:
    for name, operation in operations():
        for status, response in operation["responses"].items():
            if status == "429" or (
                status == "503" and name.startswith(("GET /v1", "POST /v1", "PUT /v1", "DELETE /v1"))
            ):
                assert "Retry-After" in resolved(response)["headers"], (name, status)


def test_document_every_response_of_the_api_has_the_request_id() -> None:
    by_id = {operation["operationId"]: operation for _, operation in operations()}
    for operation in OPERATIONS:
        for status, response in by_id[operation.id]["responses"].items():
            assert "X-Request-Id" in resolved(response)["headers"], (operation.id, status)


def test_document_problems_of_an_operation_are_examples_of_its_responses() -> None:
    by_id = {operation["operationId"]: operation for _, operation in operations()}
    for operation in OPERATIONS:
        if operation.read:
            continue
        for status, reasons in operation_errors.reasons(operation).items():
            response = resolved(by_id[operation.id]["responses"][str(status.value)])
            shown = examples(response["content"]["application/problem+json"])
            assert {each["type"].rpartition(":")[2] for each in shown} == set(reasons)
            assert {each["status"] for each in shown} == {status.value}
            assert all(f"`{reason}`" in response["description"] for reason in reasons)


def test_operation_errors_name_operations_and_problem_types_that_exist() -> None:
    assert set(operation_errors.SPECIFIC) <= {operation.id for operation in OPERATIONS}
    used = {reason for each in OPERATIONS for reasons in operation_errors.reasons(each).values() for reason in reasons}
    assert {reason for reason in used if not reason.startswith("bad_")} <= set(problem_types.every())
    # No operation has a request body that API Gateway refuses for its media type.
    assert set(problem_types.every()) - used == {"unsupported_media_type"}


def test_document_has_every_refusal_of_api_gateway() -> None:
    refusals = [
        json.loads(each["ResponseTemplates"]["application/json"])
        for each in resources("AWS::Serverless::Api")["Api"]["Properties"]["GatewayResponses"].values()
    ]
    told = {(each["status"], each["type"].rpartition(":")[2]) for each in refusals}
    documented = {
        (status.value, reason)
        for operation in OPERATIONS
        for status, reasons in operation_errors.reasons(operation).items()
        for reason in reasons
    }
    assert told - documented == {(415, "unsupported_media_type")}


def test_document_webhooks_are_the_events_of_the_catalogue() -> None:
    webhooks = api_document.build()["webhooks"]
    assert set(webhooks) == set(CATALOGUE)
    for event in CATALOGUE.values():
        content = webhooks[event.type]["post"]["requestBody"]["content"]["application/json"]
        assert content["example"] == event.webhook_example
        jsonschema_rs.validate(event.webhook_schema, content["example"])


def test_document_has_licence_contact_and_no_null_defaults() -> None:
    info = api_document.build()["info"]
    assert info["license"]["identifier"] == "Apache-2.0"
    assert info["contact"]["name"]
    assert [name for name, each in schemas() if "default" in each and each["default"] is None] == []
