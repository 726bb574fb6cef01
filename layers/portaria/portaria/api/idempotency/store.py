"""Idempotency keys in the table, by Powertools' idempotency utility.

`router` imports this module with the first request that has a key, because Powertools' utility imports boto3.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable
from typing import Any

from aws_lambda_powertools.utilities.idempotency import DynamoDBPersistenceLayer, IdempotencyConfig, idempotent_function
from aws_lambda_powertools.utilities.idempotency.exceptions import (
    IdempotencyAlreadyInProgressError,
    IdempotencyInconsistentStateError,
    IdempotencyPersistenceLayerError,
    IdempotencyValidationError,
)

from portaria.api.idempotency.keys import HEADER, KEPT_FOR_S, Content, RequestInProgress
from portaria.aws import service_clients
from portaria.aws.table import Table
from portaria.core.errors import Rejected, StackUnavailable


class IdempotencyStore:
    """Stores the answer of each creation in the table, by its idempotency key."""

    def __init__(self, table: Table) -> None:
        self._store = DynamoDBPersistenceLayer(
            table.name,
            key_attr="pk",
            sort_key_attr="sk",
            static_pk_value="IDEMPOTENCY",
            expiry_attr="expires_at",
            in_progress_expiry_attr="in_progress_until_ms",
            boto3_client=service_clients.boto3_client("dynamodb"),
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
