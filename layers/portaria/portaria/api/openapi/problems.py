"""The problem documents of the API's document: their schema, an example of each type, and the responses that have them."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from portaria.api import problems
from portaria.api.openapi import headers, operation_errors, problem_types

Document = dict[str, Any]

REF = "#/components/schemas/"
RESPONSES = "#/components/responses/"
EXAMPLES = "#/components/examples/"
# What each status means, wherever it stands.
MEANINGS = {
    HTTPStatus.BAD_REQUEST: "The request is not valid; `field` and `detail` say why.",
    HTTPStatus.UNAUTHORIZED: "There is no token, or it does not work.",
    HTTPStatus.FORBIDDEN: "The caller may not do this; for a token, `detail` names the scope that is missing. Or the firewall "
    "refuses the request (`filtered`).",
    HTTPStatus.NOT_FOUND: "The resource does not exist.",
    HTTPStatus.CONFLICT: "The request conflicts with the current state; `detail` says how.",
    HTTPStatus.PRECONDITION_FAILED: "The resource has changed since its `ETag` was read.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body is too large.",
    HTTPStatus.UNPROCESSABLE_ENTITY: "The `Idempotency-Key` was used with a different path or body before.",
    HTTPStatus.TOO_MANY_REQUESTS: "Too many requests, or too many with tokens that do not work: wait `Retry-After` seconds.",
    HTTPStatus.INTERNAL_SERVER_ERROR: "An unexpected error; the log has the details under `request_id`.",
    HTTPStatus.BAD_GATEWAY: "The platform could not be reached and nothing was sent, or its response cannot be returned. Or "
    "the function failed (`internal_error`).",
    HTTPStatus.SERVICE_UNAVAILABLE: "Temporarily unavailable: try again after `Retry-After` seconds.",
    HTTPStatus.GATEWAY_TIMEOUT: "No complete response came from the platform, or from the function (`timed_out`): the request "
    "may have been processed.",
}
# Statuses of refusals that a later repetition may not get.
_TRY_LATER = (
    *(HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE),
    *(HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.BAD_GATEWAY),
)
_CHALLENGED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


class Problems:
    """Collects the responses and examples that the operations refer to."""

    def __init__(self) -> None:
        self.responses: Document = {}
        self.examples: Document = {}

    def response(self, status: HTTPStatus, reasons: tuple[str, ...]) -> Document:
        """The response of an operation. It is a component if other operations have the same."""
        if operation_errors.SHARED.get(status) != reasons:
            return self._response(status, reasons)
        return self.share(component_name(status), self._response(status, reasons))

    def share(self, name: str, response: Document) -> Document:
        """A response as a component of this name."""
        self.responses[name] = response
        return {"$ref": f"{RESPONSES}{name}"}

    def content(self, reasons: Iterable[tuple[HTTPStatus, str]]) -> Document:
        """The content of a response whose problems may have several statuses."""
        schema = {"$ref": f"{REF}Problem"}
        shown = {f"{reason}_{status.value}": self._example(status, reason) for status, reason in reasons}
        return {problems.CONTENT_TYPE: {"schema": schema, "examples": shown}}

    def _response(self, status: HTTPStatus, reasons: tuple[str, ...]) -> Document:
        names = [headers.REQUEST_ID, headers.ERROR_MARK]
        names += [headers.RETRY_AFTER] if status in _TRY_LATER else []
        names += [headers.CHALLENGE] if status in _CHALLENGED else []
        shown = {reason: self._example(status, reason) for reason in reasons}
        content = {problems.CONTENT_TYPE: {"schema": {"$ref": f"{REF}Problem"}, "examples": shown}}
        types = ", ".join(f"`{reason}`" for reason in reasons)
        return {
            "description": f"{MEANINGS[status]} Types: {types}.",
            "headers": headers.refer(*names),
            "content": content,
        }

    def _example(self, status: HTTPStatus, reason: str) -> Document:
        name = f"{reason}_{status.value}"
        self.examples[name] = {"summary": problem_types.find(reason).meaning, "value": example(status, reason)}
        return {"$ref": f"{EXAMPLES}{name}"}


def example(status: HTTPStatus, reason: str) -> Document:
    """A problem document of this type."""
    found = problem_types.find(reason)
    made = problems.problem(status.value, reason, found.detail, field=found.field or None)
    return made | {"request_id": headers.HEADERS[headers.REQUEST_ID]["example"]}


def component_name(status: HTTPStatus) -> str:
    """A component's name by the number alone: Python 3.13 names 413 and 422 otherwise than the versions before it."""
    return f"Problem{status.value}"


def schema() -> Document:
    """The schema `Problem`."""
    shown = example(HTTPStatus.BAD_REQUEST, "invalid_input")
    errors = [{"field": "name", "detail": "name is missing"}, {"field": "platform", "detail": "platform is missing"}]
    properties: dict[str, Document] = {
        "type": {
            "type": "string",
            "description": "What went wrong, for programs: `urn:portaria:problem:` and a word that does not change. Each "
            "operation lists its own; new ones may be added.",
        },
        "title": {"type": "string", "description": "The type in words."},
        "status": {"type": "integer", "description": "The HTTP status."},
        "detail": {"type": "string", "description": "A sentence for people. It can change."},
        "field": {"type": "string", "description": "The field, parameter or header with the error."},
        "errors": {
            "type": "array",
            "description": "If several fields are wrong: one entry for each.",
            "items": {
                "type": "object",
                "properties": {
                    "field": {"type": "string", "description": "The field with the error.", "examples": ["name"]},
                    "detail": {
                        "type": "string",
                        "description": "A sentence about it, for people.",
                        "examples": ["name is missing"],
                    },
                },
                "required": ["field", "detail"],
            },
        },
        "request_id": {
            "type": "string",
            "description": "The id of the request. The log has every request under it.",
        },
    }
    described = {name: each | {"examples": [shown.get(name, errors)]} for name, each in properties.items()}
    return {
        "title": "Problem",
        "type": "object",
        "description": "An error as RFC 9457 describes it. `type` is for programs, `detail` for people.",
        "properties": described,
        "required": ["type", "title", "status", "detail", "request_id"],
        "examples": [shown],
    }
