"""The API's answers to API Gateway: JSON or a problem document (RFC 9457), none of which may be cached."""

from __future__ import annotations

import json
from base64 import b64decode
from http import HTTPStatus
from typing import Any

from portaria.api import problems, validation
from portaria.api.idempotency import keys as idempotency
from portaria.api.operation import PassedResponse
from portaria.core.errors import AuthThrottled, MissingScope, Rejected, Retryable, TokenMissing

Answer = dict[str, Any]
Content = dict[str, Any]

JSON = "application/json"
# Of Portaria's own errors, so that a client of the proxy can tell them from those of the API behind it.
ERROR_HEADER = "X-Portaria-Error"
# Lambda's limit is 6,291,556 bytes.
MAX_ANSWER_BYTES = 6_000_000
# The wait in seconds where the error does not name one.
RETRY_AFTER_S = 5


def success(status: int, content: Content | None, request_id: str, etag: str = "") -> Answer:
    headers = {"ETag": [f'"{etag}"']} if etag else {}
    if content is None:
        return _http(status, "", "", request_id, headers)
    return _http(status, JSON, json.dumps(content, ensure_ascii=False), request_id, headers)


def passed_on(passed: PassedResponse, request_id: str) -> Answer:
    """Another API's response as it came, or 502 where its body is withheld."""
    if passed["withheld"]:
        detail = f"the API's response has the status {passed['status']}; {passed['withheld']}"
        return problem(problems.problem(HTTPStatus.BAD_GATEWAY, "body_withheld", detail), request_id)
    headers = {name: [value] for name, value in passed["headers"].items()}
    headers |= {"X-Content-Type-Options": ["nosniff"], "X-Portaria-Request-Id": [request_id]}
    answer = {"statusCode": passed["status"], "multiValueHeaders": headers, "body": "", "isBase64Encoded": False}
    try:
        in_text = answer | {"body": b64decode(passed["body_base64"]).decode()}
    except UnicodeDecodeError:
        in_text = None
    # Lambda returns JSON, in which control characters are escaped; base64 is not longer than a limit on bytes allows.
    if in_text and len(json.dumps(in_text)) <= MAX_ANSWER_BYTES:
        return in_text
    return answer | {"body": passed["body_base64"], "isBase64Encoded": True}


def problem(document: problems.Problem, request_id: str, headers: dict[str, list[str]] | None = None) -> Answer:
    body = json.dumps(document | {"request_id": request_id}, ensure_ascii=False)
    headers = {**(headers or {}), ERROR_HEADER: ["true"]}
    return _http(document["status"], problems.CONTENT_TYPE, body, request_id, headers)


def _http(status: int, content_type: str, body: str, request_id: str, headers: dict[str, list[str]]) -> Answer:
    standard = {
        **({"Content-Type": [content_type]} if content_type else {}),
        "Cache-Control": ["no-store"],
        "X-Content-Type-Options": ["nosniff"],
        "X-Request-Id": [request_id],
    }
    return {"statusCode": int(status), "multiValueHeaders": standard | headers, "body": body, "isBase64Encoded": False}


def refused(rejected: Rejected, request_id: str) -> Answer:
    document = problems.problem(rejected.status, rejected.reason, rejected.detail, field=rejected.field)
    if isinstance(rejected, validation.InvalidInput) and len(rejected.errors) > 1:
        document["errors"] = [{"field": fault.field, "detail": fault.detail} for fault in rejected.errors]
    headers = {}
    if rejected.status == HTTPStatus.UNAUTHORIZED:
        # RFC 6750, 3: without a token there is no error code. API Gateway renames it: openapi.headers.CHALLENGE.
        error = "" if isinstance(rejected, TokenMissing) else ', error="invalid_token"'
        headers["WWW-Authenticate"] = [f'Bearer realm="portaria"{error}']
    elif rejected.status == HTTPStatus.FORBIDDEN and isinstance(rejected, MissingScope):
        headers["WWW-Authenticate"] = ['Bearer realm="portaria", error="insufficient_scope"']
    if isinstance(rejected, idempotency.RequestInProgress):
        headers["Retry-After"] = [str(round(rejected.after_s))]
    return problem(document, request_id, headers)


def failed(request_id: str, *, passes: bool) -> Answer:
    """An error of this stack: 503 if it is likely to pass, otherwise 500."""
    if passes:
        return postponed(Retryable("storage_unavailable", "the storage does not respond"), request_id)
    detail = f"an unexpected error occurred: look for the request {request_id} in the log (portaria logs --request)"
    return problem(problems.problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", detail), request_id)


def postponed(later: Retryable, request_id: str) -> Answer:
    """503, or 429 after too many attempts, with `Retry-After`."""
    status = HTTPStatus.TOO_MANY_REQUESTS if isinstance(later, AuthThrottled) else HTTPStatus.SERVICE_UNAVAILABLE
    headers = {"Retry-After": [str(round(later.after_s or RETRY_AFTER_S))]}
    return problem(problems.problem(status, later.reason, later.detail), request_id, headers)
