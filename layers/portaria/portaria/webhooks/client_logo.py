"""The logo of an OAuth client, for the hosted pages. Only a request for it reads it."""

from __future__ import annotations

import re

from portaria.core.callbacks import CLIENT_IN_PATH
from portaria.core.error_roots import Rejected
from portaria.core.item_keys import oauth_client_logo_key
from portaria.webhooks.light_table import LightTable, text

READ_S = 2.0

_VERSION = re.compile(r"[0-9a-f]{16}-[0-9]{1,4}x[0-9]{1,4}", re.ASCII)
# What a logo may be served as.
_TYPES = ("image/png", "image/svg+xml")


def read_logo(table: LightTable, platform: str, client: str, version: str) -> tuple[str, str]:
    """The content in base64, and its type. Raises `Rejected` (404 `unknown_logo`), `Retryable` and `AwsError`."""
    if CLIENT_IN_PATH.fullmatch(client) and _VERSION.fullmatch(version):
        item = table.get(oauth_client_logo_key(platform, client, version), READ_S)
        if item and text(item, "content_type") in _TYPES:
            return text(item, "content"), text(item, "content_type")
    raise Rejected("unknown_logo", "this OAuth client has no such logo", field="version", status=404)
