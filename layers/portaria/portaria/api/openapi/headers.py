"""The response headers of the API's document: components that responses refer to."""

from __future__ import annotations

from typing import Any

Document = dict[str, Any]

REF = "#/components/headers/"
# The name under which a function's `WWW-Authenticate` arrives:
# https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-known-issues.html
CHALLENGE = "x-amzn-Remapped-WWW-Authenticate"
REQUEST_ID, ETAG, RETRY_AFTER, ERROR_MARK = "X-Request-Id", "ETag", "Retry-After", "X-Portaria-Error"

_TEXT: Document = {"type": "string"}
HEADERS: dict[str, Document] = {
    REQUEST_ID: {
        "description": "The id of the request. The log has every request under it.",
        "schema": _TEXT,
        "example": "c6af9ac6-7b61-11e6-9a41-93e8deadbeef",
    },
    ETAG: {
        "description": "The version of the resource, with quotes. Send it as `If-Match` with a later change.",
        "schema": _TEXT,
        "example": '"5f2c9a7b1d3e"',
    },
    RETRY_AFTER: {
        "description": "How many seconds to wait before the next attempt.",
        "schema": {"type": "integer", "minimum": 0},
        "example": 5,
    },
    ERROR_MARK: {
        "description": "Present on every problem document, so that it differs from an error of a connection's API.",
        "schema": {"type": "string", "const": "true"},
        "example": "true",
    },
    "X-Portaria-Request-Id": {
        "description": "The id of the request, on a response of the connection's API.",
        "schema": _TEXT,
        "example": "c6af9ac6-7b61-11e6-9a41-93e8deadbeef",
    },
    "X-Portaria-Warning": {
        "description": "What is accepted but may be a mistake, such as an attribute that the platform does not deduplicate by.",
        "schema": _TEXT,
        "example": "dedupeFields: nickname is not documented for deduplication",
    },
    CHALLENGE: {
        "description": "For a token: the challenge of RFC 6750, which API Gateway renames from `WWW-Authenticate`.",
        "schema": _TEXT,
        "example": 'Bearer realm="portaria", error="invalid_token"',
    },
    "Location": {
        "description": "The URL that the browser goes to.",
        "schema": {"type": "string", "format": "uri-reference"},
        "example": "result/4f1c2a9b7d3e5f60",
    },
    "Set-Cookie": {
        "description": "A cookie that ties the install to this browser. It is needed until the consent page returns.",
        "schema": _TEXT,
        "example": "__Host-portaria=EXAMPLE; Path=/; Max-Age=1800; Secure; HttpOnly; SameSite=Lax",
    },
}
# Only in a document with an operation that is deprecated.
OF_DEPRECATION: dict[str, Document] = {
    "Deprecation": {
        "description": "Since when the operation is deprecated (RFC 9745).",
        "schema": _TEXT,
        "example": "@1798761600",
    },
    "Sunset": {
        "description": "After this day the operation may be gone (RFC 8594).",
        "schema": _TEXT,
        "example": "Sat, 01 Jan 2028 00:00:00 GMT",
    },
}


def refer(*names: str) -> Document:
    """The headers of a response, by name."""
    return {name: {"$ref": f"{REF}{name}"} for name in names}
