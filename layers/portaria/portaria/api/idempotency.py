"""Idempotency keys: a request that is repeated with the same `Idempotency-Key` gets the answer of the first one.

A key belongs to its caller and operation and lives for a day. Stored are the answer and a keyed hash of the path and the body,
so that the table does not help to guess a credential. An answer that holds a secret is stored sealed (KMS). A request that was
refused or failed is forgotten, so the same key may try again. One whose outcome is unknown (504) is kept. So is one
that was sent to a platform whose response cannot be returned (502), if the operation must not be done twice.

https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/, by Powertools' idempotency utility.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Callable
from typing import Any

from aws_lambda_powertools.utilities.idempotency import DynamoDBPersistenceLayer, IdempotencyConfig, idempotent_function
from aws_lambda_powertools.utilities.idempotency.exceptions import (
    IdempotencyAlreadyInProgressError,
    IdempotencyInconsistentStateError,
    IdempotencyPersistenceLayerError,
    IdempotencyValidationError,
)

from portaria.aws.table import Table
from portaria.connections.credential_stores import sealing
from portaria.core.callbacks import Secret
from portaria.core.errors import Rejected, StackUnavailable

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


class IdempotencyStore:
    """What has been created, by key, in the table."""

    def __init__(self, table: Table) -> None:
        self._store = DynamoDBPersistenceLayer(
            table.name,
            key_attr="pk",
            sort_key_attr="sk",
            static_pk_value="IDEMPOTENCY",
            expiry_attr="expires_at",
            in_progress_expiry_attr="in_progress_until_ms",
            boto3_client=table.client,
        )

    def once(
        self, caller: str, operation: str, key: str, request: str, create: Callable[[], Content], context: Any
    ) -> Content:
        """Do it, or return what it came to the first time. `request` is the path and the body, as text.

        Raises what `create` raises, `Rejected` (422 `idempotency_key_reused`) for another request, `RequestInProgress`, and
        `Retryable` where the outcome cannot be read.
        """
        config = IdempotencyConfig(
            event_key_jmespath="key",
            payload_validation_jmespath="fingerprint",
            expires_after_seconds=KEPT_FOR_S,
            hash_function="sha256",
            lambda_context=context,
        )

        def run(*, asked: dict[str, str]) -> Content:
            return create()

        asked = {
            "key": json.dumps([caller, operation, key]),
            "fingerprint": hmac.digest(key.encode(), request.encode(), "sha256").hex(),
        }
        wrapped = idempotent_function(
            run, data_keyword_argument="asked", persistence_store=self._store, config=config, key_prefix="creation"
        )
        try:
            content: Content = wrapped(asked=asked)
        except IdempotencyValidationError:
            raise Rejected(
                "idempotency_key_reused",
                f"this {HEADER} was used with a different path or body before: use a new one for each request",
                field=HEADER,
                status=422,
            ) from None
        except IdempotencyAlreadyInProgressError:
            raise RequestInProgress(after_s=2) from None
        except (IdempotencyPersistenceLayerError, IdempotencyInconsistentStateError) as error:
            # Where the request itself raised and its record could not be taken back, that is what counts.
            raise StackUnavailable("outcome_unknown", f"the key could not be checked: {type(error).__name__}") from None
        return content
