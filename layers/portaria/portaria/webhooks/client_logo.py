"""The logo of an OAuth client, which the hosted pages show. Only a request for the logo itself reads it."""

from __future__ import annotations

import re

from portaria.core.callbacks import CLIENT_IN_PATH
from portaria.core.error_roots import Rejected
from portaria.core.http.request import HttpRequest
from portaria.core.item_keys import oauth_client_logo_key
from portaria.webhooks.light_table import LightTable, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

READ_S = 2.0

_VERSION = re.compile(r"[0-9a-f]{16}-[0-9]{1,4}x[0-9]{1,4}", re.ASCII)
# What a logo may be served as.
_TYPES = ("image/png", "image/svg+xml")


def answer(table: LightTable, request: HttpRequest) -> dict[str, Any]:
    """A logo as a browser may keep it for ever: another logo has another URL. Raises as `read_logo`."""
    version = request.path_parameter("version")
    content, content_type = read_logo(
        table, request.path_parameter("platform"), request.path_parameter("client"), version
    )
    headers = {
        "ETag": f'"{version}"',
        "Cache-Control": "public, max-age=31536000, immutable",
        "X-Content-Type-Options": "nosniff",
        # A drawing that is opened by itself is a document: it may run and load nothing.
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
        "Cross-Origin-Resource-Policy": "same-origin",
        "X-Robots-Tag": "noindex",
    }
    if f'"{version}"' in request.headers.get("if-none-match"):
        return {"statusCode": 304, "headers": headers, "body": ""}
    headers["Content-Type"] = content_type
    return {"statusCode": 200, "headers": headers, "body": content, "isBase64Encoded": True}


def read_logo(table: LightTable, platform: str, client: str, version: str) -> tuple[str, str]:
    """The content in base64, and its type. Raises `Rejected` (404 `unknown_logo`), `Retryable` and `AwsError`."""
    if CLIENT_IN_PATH.fullmatch(client) and _VERSION.fullmatch(version):
        item = table.get(oauth_client_logo_key(platform, client, version), READ_S)
        if item and text(item, "content_type") in _TYPES:
            return text(item, "content"), text(item, "content_type")
    raise Rejected("unknown_logo", "this OAuth client has no such logo", field="version", status=404)
