"""The problem documents of the API's document: one response component for each status, and their schema."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from portaria.api import problems

Document = dict[str, Any]

REF = "#/components/schemas/"
RESPONSES = "#/components/responses/"
REQUEST_ID = {"description": "The id of the request.", "schema": {"type": "string"}}
ERROR_MARK = {
    "description": "On every problem document: this is Portaria's own error.",
    "schema": {"type": "string", "const": "true"},
}
# The name under which a function's `WWW-Authenticate` arrives:
# https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-known-issues.html
CHALLENGE_HEADER = "x-amzn-Remapped-WWW-Authenticate"
# Statuses of refusals that a later repetition may not get.
MAY_WAIT = (
    *(HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE),
    *(HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.BAD_GATEWAY),
)
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


def component_name(status: HTTPStatus) -> str:
    """A component's name by the number alone: Python 3.13 names 413 and 422 otherwise than the versions before it."""
    return f"Problem{status.value}"


def response(status: HTTPStatus) -> Document:
    headers: Document = {"X-Request-Id": REQUEST_ID, "X-Portaria-Error": ERROR_MARK}
    if status in MAY_WAIT:
        headers["Retry-After"] = {"description": "Seconds to wait, if waiting helps.", "schema": {"type": "integer"}}
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        headers[CHALLENGE_HEADER] = {
            "description": "For a token: the challenge of RFC 6750, which API Gateway renames from `WWW-Authenticate`.",
            "schema": {"type": "string"},
        }
    content = {problems.CONTENT_TYPE: {"schema": {"$ref": f"{REF}Problem"}}}
    return {"description": MEANINGS[status], "headers": headers, "content": content}


def schema() -> Document:
    """The schema `Problem`."""
    text: Document = {"type": "string"}
    error = {"type": "object", "properties": {"field": text, "detail": text}, "required": ["field", "detail"]}
    return {
        "title": "Problem",
        "type": "object",
        "description": "RFC 9457. `type` is for programs (`urn:portaria:problem:unknown_route`), `detail` for people.",
        "properties": {
            "type": text,
            "title": text,
            "status": {"type": "integer"},
            "detail": text,
            "field": text | {"description": "The field, parameter or header with the error."},
            "errors": {
                "type": "array",
                "items": error,
                "description": "If several fields are wrong: one entry for each.",
            },
            "request_id": text,
        },
        # API Gateway's own refusals have these too, and more members: template.yaml.
        "required": ["type", "title", "status", "detail", "request_id"],
    }
