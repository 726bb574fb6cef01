"""boto3 clients with explicit timeouts and retries, one for each service in a process."""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

# Three attempts, each with one second to connect and three to answer. A worker that has just received a grant has 20 s left.
# That is enough for Secrets Manager to time out three times, and for the table to store the grant then.
CONFIG = Config(connect_timeout=1, read_timeout=3, retries={"mode": "standard", "total_max_attempts": 3})

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
    with _making:
        return boto3.client(service, config=CONFIG)


def error_code(error: Exception) -> str:
    """The AWS error code of a botocore ClientError (`ResourceNotFoundException`), or an empty string."""
    response = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def passes(error: Exception) -> bool:
    """Whether a failure is temporary, so that a retry may succeed."""
    return isinstance(error, BotoCoreError) or error_code(error) in _PASSING
