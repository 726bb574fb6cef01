"""The API's document, docs/openapi.yaml, generated from `operations`; `python -m portaria.api.openapi` prints it.

OpenAPI 3.1. Its servers are relative to where it is served (`/v1/openapi.json`), so the same document holds for every stack.
https://spec.openapis.org/oas/v3.1.1.html
"""

from __future__ import annotations

import sys
from functools import cache
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel

from portaria import platforms
from portaria.access.scopes import NARROWABLE, SCOPES
from portaria.api import idempotency, openapi_problems, problems, validation
from portaria.api.openapi_problems import ERROR_MARK, MEANINGS, REF, REQUEST_ID, RESPONSES
from portaria.api.operation import Operation
from portaria.api.operations import OPERATIONS

Document = dict[str, Any]

# The rules by which it changes are in docs/api.md.
VERSION = "1.0.0"
BINARY = {"type": "string", "format": "binary"}
PASSED_RESPONSE: Document = {
    "description": "The response of the connection's API, whatever its status. A problem document of Portaria has "
    "`X-Portaria-Error: true`: 502 (the API was not reached and nothing was sent, or its response cannot be returned), 504 "
    "(the request may have been processed), and the statuses of the other operations.",
    "headers": {
        "X-Portaria-Error": ERROR_MARK,
        "X-Portaria-Request-Id": {
            "description": "The id of the request, on a response of the API.",
            "schema": {"type": "string"},
        },
    },
    # Of any media type. Generators of clients know none that is called `*/*`.
    "content": {
        "application/octet-stream": {"schema": BINARY},
        problems.CONTENT_TYPE: {"schema": {"$ref": f"{REF}Problem"}},
    },
}
FRONT_DOORS = tuple(filter(None, (platform.api_document for platform in platforms.every())))
TAGS: dict[str, tuple[str, str]] = {
    "platforms": (
        "Discovery",
        "What platforms offer, which scopes there are, who the caller is, and whether the API answers.",
    ),
    "oauth-clients": ("OAuth clients", "Applications that are registered with platforms."),
    "connections": ("Connections", "Stored credentials, each for one account, and requests that use them."),
    "routes": ("Routes", "Which records are sent to which destination, and how they are mapped."),
    "installs": ("Installs", "Authorization codes that arrived, and the outcome of each."),
    "receipts": ("Receipts", "The outcome of each request to a destination. Kept for 30 days."),
    "destinations": ("Destinations", "Destinations that are paused or have waiting records."),
    "dead-letters": ("Dead letters", "Records that could not be delivered, with the reason. Kept for 90 days."),
    "private-integrations": ("Private integrations", "Named, scoped tokens for programs that call this API."),
    "audit": ("Audit", "Who requested which change, and its outcome."),
    **{door.NAME: door.TAG for door in FRONT_DOORS},
    "sso": ("Single sign-on links", "Links that a browser opens."),
}
# The first steps of paths that share a tag with another.
TAG_OF = {"records": "routes", "scopes": "platforms", "me": "platforms", "health": "platforms"}
PARAMETERS: dict[str, tuple[str, str, str]] = {
    # name: (pattern, description, example)
    "name": (validation.NAME, "The name of the connection or route.", "crm"),
    "platform": (validation.PLATFORM_NAME, "The platform's name.", ""),
    "client": (validation.CLIENT_NAME, "The OAuth client's name.", "acme"),
}
# What the parameter `id` is, by the step of the path before it.
IDS: dict[str, tuple[str, str, str]] = {
    "installs": (r"[A-Za-z0-9_-]{1,64}", "The install's id.", "4f1c2a9b"),
    "receipts": (r"[0-9a-f]{40}", "The receipt's id.", ""),
    "dead-letters": (r"[A-Za-z0-9_-]{1,64}", "The dead letter's id.", ""),
    "private-integrations": (
        r"[0-9A-Za-z]{10}",
        "The private integration's id: the ten characters after `portaria_` in its token.",
        "4fZ0aQ9xTb",
    ),
    "contacts": (r"[A-Za-z0-9]{1,64}", "The contact's id at the platform.", "ocQHyuzHvysMo5N5VsXc"),
}
DESCRIPTION = """\
Programs call with a private integration's token, `Authorization: Bearer portaria_…`. Administrators call the same operations
below `/admin/v1` with AWS Signature Version 4.

- **Errors** are problem documents (RFC 9457) with `type`, `title`, `status`, `detail`, `request_id` and, where one field is to
  blame, `field`. `type` is for programs and does not change; `detail` is a sentence for people.
- **Pagination**: a listing returns `items` and `next_cursor`. Send it as `cursor` to get the next page; it is null on the last.
- **Idempotency**: send an `Idempotency-Key` with a POST that creates or sends something. A repetition with the same key within
  a day gets the first response. With another path or body it is 422, and 409 while the first request is in progress.
- **Concurrency**: send the `ETag` that you read as `If-Match`. If the resource has changed since, the response is 412.
- Each response has the id of its request in `X-Request-Id`.
"""
ALWAYS = (
    HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT,
)  # fmt: skip


@cache
def document() -> Document:
    """The whole document, as plain data."""
    schemas: Document = {"Problem": openapi_problems.schema()}
    responses = {openapi_problems.component_name(status): openapi_problems.response(status) for status in MEANINGS}
    security = _security_schemes()
    paths: Document = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.document_path, {})[operation.method.lower()] = _operation(operation, schemas)
    for door in FRONT_DOORS:
        paths |= door.paths()
        schemas |= door.schemas()
        responses |= door.responses()
        security |= door.security_schemes()
    paths["/health"] = _health()
    paths["/sso/{ticket}"] = _sign_on_link()
    scopes = "\n".join(
        f"| `{name}` | {text} |{' yes |' if name in NARROWABLE else ' |'}" for name, text in SCOPES.items()
    )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Portaria",
            "version": VERSION,
            "summary": "Connections, routes, installs and private integrations of one stack, and its front door for records.",
            "description": DESCRIPTION
            + "\n| scope | allows | can be narrowed to a connection (`scope@name`) |\n|---|---|---|\n"
            + scopes
            + "\n",
            "contact": {"name": "Portaria contributors"},
            "license": {"name": "Apache License 2.0", "identifier": "Apache-2.0"},
        },
        "servers": [
            {"url": "../v1", "description": "For programs, with a private integration's token"},
            {"url": "../admin/v1", "description": "For administrators, with AWS Signature Version 4"},
        ],
        "security": [{"token": []}, {"aws": []}],
        "tags": [{"name": title, "description": text} for title, text in TAGS.values()],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "responses": responses,
            "securitySchemes": security,
        },
    }


def _security_schemes() -> Document:
    return {
        "token": {"type": "http", "scheme": "bearer", "description": "A private integration's token."},
        "aws": {
            "type": "apiKey",
            "in": "header",
            "name": "Authorization",
            "description": "AWS Signature Version 4 for the service `execute-api`, below `/admin/v1`.",
        },
    }


def statuses(operation: Operation) -> list[HTTPStatus]:
    """Every status that an operation answers with."""
    found = {operation.status, *ALWAYS, *operation.statuses}
    if operation.parameters:
        found.add(HTTPStatus.NOT_FOUND)
    if operation.input:
        found.add(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    if operation.creates:
        found |= {HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY}
    if operation.edits:
        found |= {HTTPStatus.CONFLICT, HTTPStatus.PRECONDITION_FAILED}
    return sorted(found)


def schema_name(model: type[BaseModel]) -> str:
    """The class's name. `ConnectionOutput` → `Connection`: the suffix keeps it apart from the entity of that name."""
    return model.__name__.removesuffix("Output")


def _operation(operation: Operation, schemas: Document) -> Document:
    narrowed_to = "the route's destination" if operation.checks_scope else "the connection"
    narrowing = f" It can be narrowed to {narrowed_to}." if operation.narrowable else ""
    whose = " Tokens can use it only if the stack's parameter allows it." if operation.managers_only else ""
    scope = f"Scope: `{operation.scope}`." if operation.scope else "Every caller may do this."
    made: Document = {
        "operationId": operation.id,
        "tags": [_tag(operation.path)],
        "summary": operation.summary,
        "description": f"{operation.description} {scope}{narrowing}{whose}".strip(),
        "security": [{"token": [operation.scope] if operation.scope else []}, {"aws": []}],
        "parameters": _parameters(operation),
        "responses": {str(int(status)): _response(operation, status, schemas) for status in statuses(operation)}
        if not operation.read
        else {"default": PASSED_RESPONSE},
    }
    if operation.read and operation.method not in ("GET", "HEAD"):
        made["requestBody"] = {"content": {"application/octet-stream": {"schema": BINARY}}}
    if operation.input:
        made["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _reference(operation.input, schemas)}},
        }
    if not made["parameters"]:
        del made["parameters"]
    return made


def _parameters(operation: Operation) -> list[Document]:
    made: list[Document] = []
    for name in operation.parameters:
        before = operation.path.split(f"/{{{name}}}")[0].rpartition("/")[2]
        pattern, description, example = IDS[before] if name == "id" else PARAMETERS[name]
        schema: Document = {"type": "string", "pattern": f"^(?:{pattern})$"}
        each = {"name": name, "in": "path", "required": True, "description": description, "schema": schema}
        made.append(each | ({"example": example} if example else {}))
    if operation.is_greedy:
        schema = {"type": "string", "minLength": 1}
        text = "The path at the connection's API, which may contain slashes."
        made.append({"name": "path", "in": "path", "required": True, "description": text, "schema": schema})
    if operation.listing:
        limit = {"type": "integer", "minimum": 1, "maximum": validation.MAX_LIMIT, "default": validation.DEFAULT_LIMIT}
        made.append({"name": "limit", "in": "query", "description": "Items per page.", "schema": limit})
        cursor = {"type": "string", "minLength": 1, "maxLength": validation.MAX_CURSOR_LENGTH}
        made.append(
            {
                "name": "cursor",
                "in": "query",
                "description": "The `next_cursor` of the previous page.",
                "schema": cursor,
            }
        )
        for name, rule in operation.filters.items():
            schema = {"type": "string"}
            told = f"Only items with this {name}"
            if isinstance(rule, tuple):
                schema |= {"enum": list(rule)}
            else:
                schema |= {"pattern": f"^(?:{rule.pattern})$"}
                told += f": {rule.rule}"
            made.append({"name": name, "in": "query", "description": f"{told}.", "schema": schema})
    if operation.creates:
        schema = {"type": "string", "pattern": rf"^[\x21-\x7e]{{1,{idempotency.MAX_LENGTH}}}$"}
        made.append(
            {
                "name": idempotency.PROXY_HEADER if operation.read else idempotency.HEADER,
                "in": "header",
                "description": "A unique value, such as a UUID. Repeat the request with it if no response came.",
                "schema": schema,
            }
        )
    if operation.edits:
        made.append(
            {
                "name": "If-Match",
                "in": "header",
                "description": "The `ETag` that was read, with its quotes.",
                "schema": {"type": "string", "pattern": r'^("[\x21\x23-\x7e]+"|\*)$'},
            }
        )
    return made


def _response(operation: Operation, status: HTTPStatus, schemas: Document) -> Document:
    if status >= HTTPStatus.BAD_REQUEST:
        return {"$ref": f"{RESPONSES}{openapi_problems.component_name(status)}"}
    headers: Document = {"X-Request-Id": REQUEST_ID}
    if operation.output is None:
        return {"description": "Done.", "headers": headers}
    # Whatever shows a thing that can be edited gives its ETag.
    shown = any(operation.output is other.output for other in OPERATIONS if other.edits or other.creates)
    edited = any(operation.path == other.path for other in OPERATIONS if other.edits)
    if (shown or edited) and not operation.listing:
        headers["ETag"] = {"description": "For the `If-Match` of a later edit.", "schema": {"type": "string"}}
    schema = _reference(operation.output, schemas)
    if operation.listing:
        properties = {"items": {"type": "array", "items": schema}, "next_cursor": {"type": ["string", "null"]}}
        schema = {
            "type": "object",
            "properties": properties,
            "required": ["items", "next_cursor"],
            "additionalProperties": False,
        }
    return {"description": status.phrase, "headers": headers, "content": {"application/json": {"schema": schema}}}


def _reference(model: type[BaseModel], schemas: Document) -> Document:
    """Put a model's schema, and those in it, among `schemas`."""
    name = schema_name(model)
    if name not in schemas:
        made = _without_null_defaults(model.model_json_schema(ref_template=f"{REF}{{model}}"))
        for inner, schema in made.pop("$defs", {}).items():
            if schemas.setdefault(inner, schema | {"title": inner}) != schema | {"title": inner}:
                raise ValueError(f"two schemas have the name {inner}")
        schemas[name] = made | {"title": name}
    return {"$ref": f"{REF}{name}"}


def _without_null_defaults(schema: Any) -> Any:
    """A field that may be left out says so by not being required; null is not a value that the API would put there."""
    if isinstance(schema, dict):
        kept = {name: _without_null_defaults(inner) for name, inner in schema.items()}
        return {name: inner for name, inner in kept.items() if name != "default" or inner is not None}
    return [_without_null_defaults(inner) for inner in schema] if isinstance(schema, list) else schema


def _tag(path: str) -> str:
    first = path.split("/")[1]
    return TAGS[TAG_OF.get(first, first)][0]


def _health() -> Document:
    status = {"type": "string", "const": "ok"}
    schema = {"type": "object", "properties": {"status": status}, "required": ["status"], "additionalProperties": False}
    return {
        "servers": [{"url": "../v1", "description": "For everybody"}],
        "get": {
            "operationId": "show_health",
            "tags": [_tag("/health")],
            "summary": "Get the API's health",
            "description": "For load balancers and monitors: the API answers. No token is needed.",
            "security": [],
            "responses": {
                "200": {"description": "The API answers.", "content": {"application/json": {"schema": schema}}},
                "429": {"$ref": f"{RESPONSES}Problem429"},
            },
        },
    }


def _sign_on_link() -> Document:
    page = {"content": {"text/html": {"schema": {"type": "string"}}}}
    return {
        "servers": [{"url": ".."}],
        "get": {
            "operationId": "redeem_ticket",
            "tags": [TAGS["sso"][0]],
            "summary": "Open a single sign-on link",
            "description": "A browser opens the link, once, within two minutes. Errors are pages in three languages.",
            "security": [],
            "parameters": [
                {
                    "name": "ticket",
                    "in": "path",
                    "required": True,
                    "description": "The last part of a link that `create_sso` returned.",
                    "schema": {"type": "string", "maxLength": 200},
                }
            ],
            "responses": {
                "303": {
                    "description": "Redirects to the platform.",
                    "headers": {"Location": {"description": "The platform's URL.", "schema": {"type": "string"}}},
                },
                "400": {"description": "The link is not valid.", **page},
                "404": {"description": "The link does not exist or was altered.", **page},
                "410": {"description": "The link has been used, or has expired.", **page},
                "503": {"description": "Temporarily unavailable; the link still works.", **page},
            },
        },
    }


if __name__ == "__main__":
    import yaml

    class Dumper(yaml.SafeDumper):
        """Without anchors: whatever stands twice is written twice."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

    yaml.dump(document(), sys.stdout, Dumper, sort_keys=False, allow_unicode=True, width=120)
