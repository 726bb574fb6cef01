"""The path items of the API's document, one for each path of the table of operations."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from portaria.api import problems as problem_documents
from portaria.api.openapi import headers, operation_errors, parameters, schemas, tags
from portaria.api.openapi.problems import Problems
from portaria.api.operation import Operation
from portaria.api.operations import OPERATIONS

Document = dict[str, Any]

# Below the server of each of the two doors.
PREFIX = "/v1"
BINARY: Document = {"type": "string", "format": "binary"}
PASSED_RESPONSE = (
    "The response of the connection's API, whatever its status. A problem document of Portaria has `X-Portaria-Error: true`: "
    "502 (the API was not reached and nothing was sent, or its response cannot be returned), 504 (the request may have been "
    "processed), and the statuses of the other operations."
)


def paths(found_schemas: Document, problems: Problems) -> Document:
    """Every path below the doors. The components that the operations refer to are added to the two collections."""
    made: Document = {}
    for operation in OPERATIONS:
        path = PREFIX + operation.document_path
        made.setdefault(path, {})[operation.method.lower()] = _operation(operation, found_schemas, problems)
    return made


def statuses(operation: Operation) -> list[HTTPStatus]:
    """Every status that an operation answers with."""
    return sorted({operation.status, *operation_errors.reasons(operation)})


def _operation(operation: Operation, found_schemas: Document, problems: Problems) -> Document:
    made: Document = {
        "operationId": operation.id,
        "tags": [tags.of(operation.path)],
        "summary": operation.summary,
        "description": _description(operation),
        "security": _security(operation),
        "x-scope": operation.scope or None,
        "x-scope-narrowable": operation.narrowable,
        "parameters": parameters.of(operation),
    }
    if operation.read and operation.method not in ("GET", "HEAD"):
        text = "The body for the connection's API, of any media type."
        content = {
            "application/octet-stream": {"schema": BINARY | {"description": text}, "example": '{"status":"closed"}'}
        }
        made["requestBody"] = {"description": text, "content": content}
    if operation.input:
        shown = schemas.example(operation.input)
        content = {"application/json": {"schema": schemas.refer(operation.input, found_schemas), "example": shown}}
        made["requestBody"] = {
            "description": _first_sentence(found_schemas[schemas.name_of(operation.input)]["description"]),
            "required": True,
            "content": content,
        }
    made["responses"] = _responses(operation, found_schemas, problems)
    if operation.deprecation:
        made["deprecated"] = True
        made["responses"] = {status: _with_deprecation(each, problems) for status, each in made["responses"].items()}
    return {name: value for name, value in made.items() if value not in (None, [])}


def _description(operation: Operation) -> str:
    narrowed_to = "the route's destination" if operation.checks_scope else "the connection"
    parts = [
        operation.description,
        f"Scope: `{operation.scope}`." if operation.scope else "Every caller may do this.",
        f"It can be narrowed to {narrowed_to}." if operation.narrowable else "",
        "Tokens can use it only if the stack's parameter allows it." if operation.managers_only else "",
    ]
    return " ".join(filter(None, parts))


def _first_sentence(text: str) -> str:
    return f"{' '.join(text.split()).partition('. ')[0].rstrip('.')}."


def _responses(operation: Operation, found_schemas: Document, problems: Problems) -> Document:
    refused = operation_errors.reasons(operation)
    if operation.read:
        return {"default": problems.share("ProxiedResponse", _passed(refused, problems))}
    answered = {operation.status: _success(operation, found_schemas)}
    answered |= {status: problems.response(status, reasons) for status, reasons in refused.items()}
    return {str(status.value): answered[status] for status in sorted(answered)}


def _with_deprecation(response: Document, problems: Problems) -> Document:
    found = problems.responses[response["$ref"].rpartition("/")[2]] if "$ref" in response else response
    return found | {"headers": found["headers"] | headers.refer(*headers.OF_DEPRECATION)}


def _passed(refused: operation_errors.Reasons, problems: Problems) -> Document:
    """A response of any media type. Generators of clients know none that is called `*/*`."""
    every = [(status, reason) for status, reasons in refused.items() for reason in reasons]
    content = {"application/octet-stream": {"schema": BINARY, "example": '{"orders":[]}'}} | problems.content(every)
    return {
        "description": PASSED_RESPONSE,
        "headers": headers.refer(
            headers.ERROR_MARK, "X-Portaria-Request-Id", headers.REQUEST_ID, headers.RETRY_AFTER, headers.CHALLENGE
        ),
        "content": {name: content[name] for name in ("application/octet-stream", problem_documents.CONTENT_TYPE)},
    }


def _success(operation: Operation, found_schemas: Document) -> Document:
    status = operation.status
    if operation.output is None:
        return {"description": "Done.", "headers": headers.refer(headers.REQUEST_ID)}
    # What shows a resource that can be changed has its ETag.
    shown = any(operation.output is other.output for other in OPERATIONS if other.edits or other.creates)
    edited = any(operation.path == other.path for other in OPERATIONS if other.edits)
    names = [headers.REQUEST_ID]
    names += [headers.ETAG] if (shown or edited) and not operation.listing else []
    schema, example = schemas.refer(operation.output, found_schemas), schemas.example(operation.output)
    description = _first_sentence(found_schemas[schemas.name_of(operation.output)]["description"])
    if operation.listing:
        schema, description = schemas.listing(schema, example), "One page of the list."
        example = {"items": [example], "next_cursor": None}
    return {
        "description": f"{status.phrase}. {description}",
        "headers": headers.refer(*names),
        "content": {"application/json": {"schema": schema, "example": example}},
    }


def _security(operation: Operation) -> list[Document]:
    """Who may call it: a private integration's token with the scope, or an AWS principal."""
    aws: Document = {"aws": []}
    token: Document = {"token": [operation.scope] if operation.scope else []}
    return [aws] if operation.administrators_only else [token, aws]
