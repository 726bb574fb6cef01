"""Idempotency keys: a creation that is sent again with the same `Idempotency-Key` gets the first one's answer.

A key is its caller's and its operation's own and lives for a day. What is stored is the answer, without what is told only
once (a token), and a keyed hash of the body: nobody who reads the table can guess a credential from it. A creation that was
refused or failed is forgotten, so the same key may try again.

https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/, by Powertools' idempotency utility.
"""

from __future__ import annotations

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
from portaria.core.entities import Rejected, Retryable

KEPT_FOR_S = 24 * 3600
HEADER = "Idempotency-Key"
MAX_LENGTH = 255

Content = dict[str, Any]


def read_key(text: str) -> str:
    """Raises `Rejected` (`bad_idempotency_key`)."""
    if text and not re.fullmatch(rf"[\x21-\x7e]{{1,{MAX_LENGTH}}}", text):
        raise Rejected(
            "bad_idempotency_key",
            f"{HEADER} must be 1 to {MAX_LENGTH} printable ASCII characters without spaces; this has {len(text)}",
            field=HEADER,
        )
    return text


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
        self, caller: str, operation: str, key: str, body: str, create: Callable[[], Content], context: Any
    ) -> Content:
        """Do it, or answer what it came to the first time.

        Raises what `create` raises, `Rejected` (422 `idempotency_key_reused`) for another body, and `Retryable` where the first
        one is still being worked on or its outcome cannot be read.
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
            "fingerprint": hmac.digest(key.encode(), body.encode(), "sha256").hex(),
        }
        wrapped = idempotent_function(
            run, data_keyword_argument="asked", persistence_store=self._store, config=config, key_prefix="creation"
        )
        try:
            content: Content = wrapped(asked=asked)
        except IdempotencyValidationError:
            raise Rejected(
                "idempotency_key_reused", f"this {HEADER} came with another body before", field=HEADER, status=422
            ) from None
        except IdempotencyAlreadyInProgressError:
            raise Retryable(
                "creation_in_progress", "the first call with this key is still being worked on", after_s=2
            ) from None
        except (IdempotencyPersistenceLayerError, IdempotencyInconsistentStateError) as error:
            # Where the creation itself raised and its record could not be taken back, that is what counts.
            raise Retryable(
                "creation_unknown", f"whether this key was used cannot be said now: {type(error).__name__}"
            ) from None
        return content
