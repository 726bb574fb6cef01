"""Idempotency keys: a request that is repeated with the same `Idempotency-Key` gets the answer of the first one.

A key belongs to its caller and operation and lives for a day. Stored are the answer and a keyed hash of the path and the body,
so that the table does not help to guess a credential. An answer that holds a secret is stored sealed (KMS). A request that was
refused or failed is forgotten, so the same key may try again. One whose outcome is unknown (504) is kept. So is one
that was sent to a platform whose response cannot be returned (502), if the operation must not be done twice.

https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from portaria.connections.credential_stores import sealing
from portaria.core.callbacks import Secret
from portaria.core.errors import Rejected

KEPT_FOR_S = 24 * 3600
HEADER = "Idempotency-Key"
PROXY_HEADER = "X-Portaria-Idempotency-Key"
MAX_LENGTH = 255

# An answer that is larger is not kept: an item of DynamoDB holds 400 kB, and a sealed one grows by a third.
MAX_ANSWER_BYTES = 200_000

Content = dict[str, Any]


class RequestInProgress(Rejected):
    """The first request with the key has not ended. `after_s` is the wait in seconds before it is worth repeating."""

    def __init__(self, after_s: float) -> None:
        detail = f"the first request with this {HEADER} is still in progress, or was stopped before its end"
        super().__init__("request_in_progress", detail, field=HEADER, status=409)
        self.after_s = after_s


class WholeDay:
    """The time left of a request that must not be done twice: if it is stopped, its key is taken until the key expires."""

    def get_remaining_time_in_millis(self) -> int:
        return KEPT_FOR_S * 1000


def read_key(text: str) -> str:
    """Raises `Rejected` (`bad_idempotency_key`)."""
    if text and not re.fullmatch(rf"[\x21-\x7e]{{1,{MAX_LENGTH}}}", text):
        raise Rejected(
            "bad_idempotency_key",
            f"{HEADER} must be 1 to {MAX_LENGTH} printable ASCII characters without spaces; this has {len(text)}",
            field=HEADER,
        )
    return text


class KeptAnswers:
    """How the answers of one request are stored: as they are, or sealed where they hold a secret."""

    def __init__(self, sealing_key_id: str, is_secret: bool, caller: str, operation: str, key: str) -> None:
        self._sealing_key_id = sealing_key_id
        self._is_secret = is_secret
        self._context = {"idempotency": hashlib.sha256(json.dumps([caller, operation, key]).encode()).hexdigest()}
        self._seal: sealing.Seal | None = None

    def prepare(self) -> None:
        """Raises `Retryable` where KMS does not answer."""
        if self._is_secret:
            self._seal = sealing.prepare_seal(self._sealing_key_id, self._context)

    def store(self, target: str, etag: str, content: Content | None) -> Content:
        text = json.dumps(content, ensure_ascii=False)
        kept: Content = {"target": target, "etag": etag}
        if len(text.encode()) > MAX_ANSWER_BYTES:
            return kept | {"too_large": True}
        if self._seal:
            return kept | {"sealed": self._seal.seal({"content": Secret(text)})}
        return kept | {"content": content}

    def store_unknown(self, refused: Rejected) -> Content:
        """A request that was sent, and whose outcome the caller is not told."""
        return {"target": "", "etag": "", "unknown": [refused.reason, refused.detail, refused.status]}

    def read(self, kept: Content) -> Content | None:
        """Raises `Rejected` where the first request ended so (504, 502), or where its answer was too large (409)."""
        if "unknown" in kept:
            reason, detail, status = kept["unknown"]
            raise Rejected(reason, f"{detail}; use another {HEADER} to send it again", status=int(status))
        if "too_large" in kept:
            detail = f"the request was done before with this {HEADER}; its response is too large to be kept"
            raise Rejected("answer_not_kept", detail, field=HEADER, status=409)
        if "sealed" in kept:
            opened = sealing.unseal(self._sealing_key_id, self._context, str(kept["sealed"]))
            content: Content | None = json.loads(opened["content"].reveal())
            return content
        return kept["content"]  # type: ignore[no-any-return]
