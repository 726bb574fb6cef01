"""Signatures by the Standard Webhooks specification, version `v1` (HMAC-SHA256).

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import b64decode, b64encode
from collections.abc import Iterable

from portaria.core.callbacks import Secret

PREFIX = "whsec_"
# The specification asks for 24 to 64 bytes.
SECRET_BYTES = 32


def new_secret() -> Secret:
    return Secret(PREFIX + b64encode(secrets.token_bytes(SECRET_BYTES)).decode())


def headers(keys: Iterable[Secret], message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers of one attempt, signed with each of the secrets. `timestamp` is the attempt's, in epoch seconds."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(_signature(key, signed) for key in keys),
    }


def _signature(key: Secret, signed: bytes) -> str:
    raw = b64decode(key.reveal().removeprefix(PREFIX))
    return f"v1,{b64encode(hmac.digest(raw, signed, hashlib.sha256)).decode()}"
