"""Clients of AWS services with explicit timeouts and retries, one for each service in a process.

The services that most functions call have a client of our own that does not import boto3 (see `json_client`).
"""

from __future__ import annotations

import threading
from functools import cache
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from portaria.aws import json_client

if TYPE_CHECKING:
    from botocore.config import Config

# Raised by a call that AWS refused or did not answer.
FAILURES = (ClientError, BotoCoreError)
# Codes of temporary refusals.
_PASSING = frozenset(
    {
        "InternalServerError", "ProvisionedThroughputExceededException", "RequestLimitExceeded", "ServiceUnavailable",
        "ThrottlingException", "TransactionConflictException",
    }
)  # fmt: skip


# boto3's default session is not thread-safe while it creates a client. Clients are thread-safe.
_making = threading.Lock()


@cache
def client(service: str) -> Any:
    """The service's `JsonClient`, or boto3's client if it has none. Both have the methods of boto3's."""
    if service in json_client.SERVICES:
        return json_client.JsonClient(service)
    return boto3_client(service)


@cache
def boto3_client(service: str, config: Config | None = None) -> Any:
    """boto3's client, by default with three attempts, each with one second to connect and three to answer.

    For services that `json_client` does not have, and for libraries that need boto3.
    """
    # Imported here, because it takes about half of a function's cold start.
    import boto3  # noqa: PLC0415
    from botocore.config import Config  # noqa: PLC0415

    retries = {"mode": "standard", "total_max_attempts": 3}
    with _making:
        return boto3.client(service, config=config or Config(connect_timeout=1, read_timeout=3, retries=retries))


def error_code(error: Exception) -> str:
    """The AWS error code of a botocore ClientError (`ResourceNotFoundException`), or an empty string."""
    response = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def passes(error: Exception) -> bool:
    """Whether a failure is temporary, so that a retry may succeed."""
    return isinstance(error, BotoCoreError) or error_code(error) in _PASSING
