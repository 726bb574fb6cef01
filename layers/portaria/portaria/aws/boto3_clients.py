"""AWS clients with explicit time-outs and retries, one a service and process."""

from __future__ import annotations

from functools import cache
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

# Three tries, a connection in a second and an answer in three. A worker that has just been given a grant has 20 s left:
# enough for the vault to hang through all its tries and for the table to take the grant all the same.
CONFIG = Config(connect_timeout=1, read_timeout=3, retries={"mode": "standard", "total_max_attempts": 3})

# What a call raises that AWS refused, or never answered.
FAILURES = (ClientError, BotoCoreError)
# Of those refusals the ones that pass by themselves.
_PASSING = frozenset(
    {
        "InternalServerError", "ProvisionedThroughputExceededException", "RequestLimitExceeded", "ServiceUnavailable",
        "ThrottlingException", "TransactionConflictException",
    }
)  # fmt: skip


@cache
def client(service: str) -> Any:
    return boto3.client(service, config=CONFIG)


def error_code(error: Exception) -> str:
    """The AWS error code of a botocore ClientError (`ResourceNotFoundException`), or an empty string."""
    response = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def passes(error: Exception) -> bool:
    """Whether a failure may be gone when the same is tried again."""
    return isinstance(error, BotoCoreError) or error_code(error) in _PASSING
