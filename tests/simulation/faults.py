"""Faults of an outgoing call, and what the code that made the call sees."""

from __future__ import annotations

import random

from botocore.exceptions import ClientError, ReadTimeoutError

from portaria.core.errors import AnswerLost, Unreachable
from portaria.core.http.messages import Response
from tests.simulation.aws.cloud import error

# Of every call: the process crashes; the worker pauses for longer than its lease; its message is delivered twice.
EVERYWHERE = ("crash_before", "crash_after", "pause_before", "pause_after", "duplicate")
# Of AWS: no response, with and without the effect; refused, once or for minutes; done without response, and retried by boto3.
OF_AWS = (*EVERYWHERE, "timeout_before", "timeout_after", "throttle", "outage", "retried")
# Of a platform: no response, not reached, rate limited, an error before and after the effect.
OF_HTTP = (*EVERYWHERE, "timeout_before", "timeout_after", "unreachable", "rate_limited", "error_before", "error_after")

OUTAGE_S = 120.0
LONGEST_INDEX_LAG_S = 60.0
AWS_TIMEOUT_S = 9.0
CONNECT_TIMEOUT_S = 3.0


def is_http(name: str) -> bool:
    return "." not in name.partition(" ")[0]


def kinds(name: str) -> tuple[str, ...]:
    return OF_HTTP if is_http(name) else OF_AWS


def throttled(name: str) -> ClientError:
    service = name.partition(".")[0]
    return error("ProvisionedThroughputExceededException" if service == "dynamodb" else "ThrottlingException", name)


def index_lag_s(rng: random.Random) -> float:
    """How long a write takes to appear in an index: mostly a fraction of a second, sometimes a minute.

    DynamoDB documents no bound: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/GSI.html
    """
    chance = rng.random()
    return (
        chance * 0.1 if chance < 0.7 else (chance - 0.7) * 10 if chance < 0.95 else LONGEST_INDEX_LAG_S * rng.random()
    )


def no_answer(name: str) -> Exception:
    if is_http(name):
        return AnswerLost("the platform gave no answer")
    timeout: Exception = ReadTimeoutError(endpoint_url=name)
    return timeout


def unreachable() -> Exception:
    return Unreachable("the platform was not reached")


def refused(status: int) -> Response:
    headers = {"retry-after": "3"} if status == 429 else {}
    return Response(status, {"content-type": "text/html", **headers}, b"<html></html>")
