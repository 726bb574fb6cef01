"""SQS: sending messages, and giving one back for later."""

from __future__ import annotations

import json
import logging
import math
import re
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from portaria import aws
from portaria.contract import Retryable

logger = logging.getLogger(__name__)

# SQS takes 1 MiB a message; messages of records are filled to a quarter, so that a batch of many fits into Lambda's 6 MB.
MAX_MESSAGE_BYTES = 1_000_000
MAX_BODY_BYTES = 240_000
MAX_DELAY_S = 43_200
# The longest that SQS delays a new message.
MAX_SEND_DELAY_S = 900

# JSON can escape what a message cannot carry: half a surrogate pair is no UTF-8, and SQS refuses these two characters.
_HALF_PAIRS = re.compile("[\ud800-\udfff]")
_REFUSED_BY_SQS = re.compile("[\ufffe\uffff]")


def encode(message: dict[str, Any]) -> str:
    """JSON that SQS takes and every reader can decode; half a surrogate pair becomes U+FFFD.

    Raises `ValueError` for NaN and infinities, which are no JSON.
    """
    text = json.dumps(message, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return _REFUSED_BY_SQS.sub(lambda match: f"\\u{ord(match[0]):04x}", _HALF_PAIRS.sub("\ufffd", text))


def send(queue_url: str, bodies: list[str], *, delay_s: float = 0) -> None:
    """Send bodies one by one, in order, to be visible after `delay_s` (0 to 900).

    A batch call would save nothing: SQS charges by 64 kB, which these fill. Raises `Retryable` where one was not taken,
    with those before it sent: the caller sends all of them again, so each must bear being sent twice.
    """
    delay = {"DelaySeconds": min(MAX_SEND_DELAY_S, math.ceil(delay_s))} if delay_s > 0 else {}
    for body in bodies:
        try:
            aws.client("sqs").send_message(QueueUrl=queue_url, MessageBody=body, **delay)
        except (ClientError, BotoCoreError) as error:
            reason = aws.error_code(error) or type(error).__name__
            raise Retryable("queue_unavailable", f"SQS did not take a message: {reason}") from error


def give_back(queue_url: str, receipt_handle: str, after_s: float) -> None:
    """Make a received message visible again after so many seconds (0 to 12 h).

    A failing call is only logged: the message then comes back when its visibility time-out ends.
    """
    try:
        aws.client("sqs").change_message_visibility(
            QueueUrl=queue_url, ReceiptHandle=receipt_handle, VisibilityTimeout=max(0, min(MAX_DELAY_S, round(after_s)))
        )
    except (ClientError, BotoCoreError) as error:
        logger.warning("a message's visibility was not changed", extra={"error": type(error).__name__})
