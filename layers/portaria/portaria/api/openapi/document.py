"""The API's document, docs/openapi.yaml; `python -m portaria.api.openapi` prints it.

OpenAPI 3.1, https://spec.openapis.org/oas/v3.1.1.html. It is generated from the table of operations, the models of their input
and output, the platforms' data ingestion endpoints and the catalogue of events. Only requests for the document and its page
import this package.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from portaria.access.scopes import NARROWABLE, SCOPES
from portaria.api.openapi import events, headers, problems, tags
from portaria.api.openapi.paths import operation_items, public_paths
from portaria.api.operations import OPERATIONS
from portaria.api.version import VERSION

Document = dict[str, Any]

# A stack's host, as `ApiUrl` has it, with the stage. The document that a stack serves has its own.
HOST = "a1b2c3d4e5.execute-api.sa-east-1.amazonaws.com/live"
DESCRIPTION = """\
Programs call with a private integration's token, `Authorization: Bearer portaria_…`. Administrators call the same operations
below `/admin/v1` with AWS Signature Version 4. Each server has the security scheme that its `x-security` names.

- **Errors** are problem documents (RFC 9457) with `type`, `title`, `status`, `detail`, `request_id` and, where one field is to
  blame, `field`. `type` is for programs and does not change; `detail` is a sentence for people. Each response lists its types.
- **Pagination**: a listing returns `items` and `next_cursor`. Send it as `cursor` to get the next page; it is null on the last.
- **Idempotency**: send an `Idempotency-Key` with a POST that creates or sends something. A repetition with the same key within
  a day gets the first response. With another path or body it is 422, and 409 while the first request is in progress.
- **Concurrency**: send the `ETag` that you read as `If-Match`. If the resource has changed since, the response is 412.
- **Changes**: a minor version adds. What will be removed is `deprecated` first, and its responses have the headers
  `Deprecation` (RFC 9745) and `Sunset` (RFC 8594).
- Each response has the id of its request in `X-Request-Id`.
"""


@cache
def build(host: str = HOST) -> Document:
    """The document as plain data, with a server at `host`, which may have a path."""
    schemas: Document = {"Problem": problems.schema()}
    found = problems.Problems()
    paths = operation_items.paths(schemas, found)
    security = _security_schemes()
    responses: Document = {}
    for api in tags.API_DOCUMENTS:
        paths |= {path: {"servers": [server(host)], **item} for path, item in api.paths().items()}
        schemas |= api.schemas()
        responses |= api.responses()
        security |= api.security_schemes()
    paths |= {path: {"servers": [server(host)], **item} for path, item in public_paths.paths(schemas).items()}
    has_deprecated = any(operation.deprecation for operation in OPERATIONS)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Portaria",
            "version": VERSION,
            "summary": "Connections, routes, installs and private integrations of one stack, and its data ingestion endpoint.",
            "description": DESCRIPTION + _scope_table(),
            "contact": {"name": "Portaria contributors"},
            "license": {"name": "Apache License 2.0", "identifier": "Apache-2.0"},
        },
        "servers": [
            server(host) | {"description": "For programs, with a private integration's token", "x-security": ["token"]},
            server(host, "/admin")
            | {"description": "For administrators, with AWS Signature Version 4", "x-security": ["aws"]},
        ],
        "security": [{"token": []}, {"aws": []}],
        "tags": [{"name": title, "description": text} for title, text in tags.TAGS.values()],
        "paths": paths,
        "webhooks": events.webhooks(schemas),
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "responses": dict(sorted((found.responses | responses).items())),
            "examples": dict(sorted(found.examples.items())),
            "headers": headers.HEADERS | (headers.OF_DEPRECATION if has_deprecated else {}),
            "securitySchemes": security,
        },
    }


def server(host: str, path: str = "") -> Document:
    """A server whose URL has no slash at its end, so that every tool joins it with a path in the same way."""
    variable = {
        "default": host,
        "description": "The stack's output `ApiUrl` without `https://`. It has the stage if the stack has no domain name.",
    }
    return {"url": f"https://{{host}}{path}", "description": "The stack", "variables": {"host": variable}}


def _scope_table() -> str:
    rows = [f"| `{name}` | {text} |{' yes |' if name in NARROWABLE else ' |'}" for name, text in SCOPES.items()]
    head = "\n| scope | allows | can be narrowed to a connection (`scope@name`) |\n|---|---|---|\n"
    return head + "\n".join(rows) + "\n"


def _security_schemes() -> Document:
    return {
        "token": {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "portaria_",
            "description": "A private integration's token, with the server `https://{host}`.",
        },
        "aws": {
            "type": "apiKey",
            "in": "header",
            "name": "Authorization",
            "x-amazon-apigateway-authtype": "awsSigv4",
            "description": "AWS Signature Version 4 for the service `execute-api`, with the server `https://{host}/admin`.",
        },
    }
