"""Invoking a function of this stack and waiting for its answer."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from portaria.aws import service_clients
from portaria.core.errors import Retryable


@cache
def _client() -> Any:
    from botocore.config import Config  # noqa: PLC0415

    # One attempt: a second one could do twice what the first one did. API Gateway waits 29 seconds for the caller.
    config = Config(connect_timeout=1, read_timeout=27, retries={"total_max_attempts": 1})
    return service_clients.boto3_client("lambda", config)


def invoke(function: str, event: dict[str, Any]) -> dict[str, Any]:
    """The function's answer. Raises `Retryable` (`function_unavailable`), also where it is not known what the function did."""
    try:
        answer = _client().invoke(FunctionName=function, Payload=json.dumps(event).encode())
    except service_clients.FAILURES as error:
        detail = "the function did not answer; the request may have been carried out: check before you repeat it"
        raise Retryable("function_unavailable", detail, answer_lost=True) from error
    if answer.get("FunctionError"):
        raise Retryable(
            "function_unavailable", "the function failed: look at its log (portaria logs)", answer_lost=True
        )
    found: dict[str, Any] = json.loads(answer["Payload"].read())
    return found
