"""The parameters of the operations: those in the path, of listings, and the headers of creations and changes."""

from __future__ import annotations

from typing import Any, NamedTuple

from portaria.api import listing_parameters, validation
from portaria.api.idempotency import keys as idempotency
from portaria.api.openapi import example_values, schemas
from portaria.api.operation import Operation

Document = dict[str, Any]


class Parameter(NamedTuple):
    pattern: str
    description: str


_PATH: dict[str, Parameter] = {
    "name": Parameter(validation.NAME, "The name of the connection."),
    "platform": Parameter(validation.PLATFORM_NAME, "The platform's name."),
    "delivery": Parameter(r"[A-Za-z0-9_-]{1,64}", "The delivery's id."),
    "client": Parameter(validation.CLIENT_NAME, "The OAuth client's name."),
}
# What `name` and `id` are, by the step of the path before them.
_OF_COLLECTION: dict[str, Parameter] = {
    "routes": Parameter(validation.NAME, "The name of the route."),
    "destinations": Parameter(validation.NAME, "The name of the destination."),
    "install-links": Parameter(r"[A-Za-z0-9_-]{1,64}", "The install link's id."),
    "installs": Parameter(r"[A-Za-z0-9_-]{1,64}", "The install's id."),
    "receipts": Parameter(r"[0-9a-f]{40}", "The receipt's id."),
    "dead-letters": Parameter(r"[A-Za-z0-9_-]{1,64}", "The dead letter's id."),
    "private-integrations": Parameter(
        r"[0-9A-Za-z]{10}",
        "The private integration's id: the ten characters after `portaria_` in its token.",
    ),
    "console-sessions": Parameter(r"[0-9a-f]{40}", "The session's id."),
    "webhooks": Parameter(r"[A-Za-z0-9_-]{1,64}", "The webhook's id."),
    "contacts": Parameter(r"[A-Za-z0-9]{1,64}", "The contact's id at the platform."),
}


def of(operation: Operation) -> list[Document]:
    """Every parameter of an operation."""
    made = [_in_path(operation, name) for name in operation.parameters]
    if operation.is_greedy:
        schema: Document = {"type": "string", "minLength": 1}
        text = "The path at the connection's API, which may contain slashes."
        made.append(path("path", text, schema, example_values.parameter("path", "path")))
    if operation.listing:
        made += _of_listing(operation)
    if operation.creates:
        schema = {"type": "string", "pattern": rf"^[\x21-\x7e]{{1,{idempotency.MAX_LENGTH}}}$"}
        text = "A unique value, such as a UUID. Repeat the request with it if no response came."
        name = idempotency.PROXY_HEADER if operation.read else idempotency.HEADER
        made.append(header(name, text, schema, "7d0f4a52-9c1b-4e8e-b1a5-2f6d3c9e8a17"))
    if operation.edits:
        schema = {"type": "string", "pattern": r'^("[\x21\x23-\x7e]+"|\*)$'}
        made.append(header("If-Match", "The `ETag` that was read, with its quotes.", schema, '"5f2c9a7b1d3e"'))
    return made


def path(name: str, description: str, schema: Document, example: str) -> Document:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": description,
        "schema": schema,
        "example": example,
    }


def query(name: str, description: str, schema: Document, example: str | int) -> Document:
    return {"name": name, "in": "query", "description": description, "schema": schema, "example": example}


def header(name: str, description: str, schema: Document, example: str) -> Document:
    return {"name": name, "in": "header", "description": description, "schema": schema, "example": example}


def _in_path(operation: Operation, name: str) -> Document:
    collection = operation.path.split(f"/{{{name}}}")[0].rpartition("/")[2]
    key = collection if collection in _OF_COLLECTION else name
    found = (_OF_COLLECTION | _PATH)[key]
    example = example_values.parameter("path", key)
    return path(name, found.description, {"type": "string", "pattern": f"^(?:{found.pattern})$"}, example)


def _of_listing(operation: Operation) -> list[Document]:
    limit = {
        "type": "integer",
        "minimum": 1,
        "maximum": listing_parameters.MAX_LIMIT,
        "default": listing_parameters.DEFAULT_LIMIT,
    }
    cursor = {"type": "string", "minLength": 1, "maxLength": listing_parameters.MAX_CURSOR_LENGTH}
    made = [
        query("limit", "Items per page.", limit, listing_parameters.DEFAULT_LIMIT),
        query("cursor", "The `next_cursor` of the previous page.", cursor, example_values.properties()["next_cursor"]),
    ]
    for name, rule in operation.filters.items():
        schema: Document = {"type": "string"}
        if isinstance(rule, tuple):
            made.append(query(name, f"Only items with this {name}.", schema | {"enum": list(rule)}, rule[0]))
            continue
        text = f"Only items with this {name}: {rule.rule}."
        pattern = schemas.portable(schema | {"pattern": f"^(?:{rule.pattern})$"})
        made.append(query(name, text, pattern, example_values.parameter("filters", name)))
    return made
