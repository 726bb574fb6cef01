"""Send SQS messages, and return a received message to its queue."""

from __future__ import annotations

import logging
import math

from botocore.exceptions import BotoCoreError, ClientError

from portaria.aws import service_clients
from portaria.core.errors import StackUnavailable
from portaria.core.record_messages import encode

__all__ = ["encode", "give_back", "send"]

logger = logging.getLogger(__name__)

# SQS hides a message for 12 hours in total since its receive. A function runs for 15 minutes at most, so this always fits.
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-visibility-timeout.html
MAX_HIDDEN_S = 39_600
# The longest that SQS delays a new message.
MAX_SEND_DELAY_S = 900


def send(queue_url: str, bodies: list[str], *, delay_s: float = 0, tenant: str = "") -> None:
    """Send bodies one by one, in order, to be visible after `delay_s` (0 to 900).

    Messages of one `tenant` share a message group, by which SQS keeps those of others from waiting behind many of one.

    A batch call would save nothing: SQS charges by 64 kB, which these fill. Raises `Retryable` if one was not taken,
    with those before it sent: the caller sends all of them again, so each must bear being sent twice.
    """
    given: dict[str, int | str] = {"DelaySeconds": min(MAX_SEND_DELAY_S, math.ceil(delay_s))} if delay_s > 0 else {}
    given |= {"MessageGroupId": tenant} if tenant else {}
    for body in bodies:
        try:
            service_clients.client("sqs").send_message(QueueUrl=queue_url, MessageBody=body, **given)
        except (ClientError, BotoCoreError) as error:
            reason = service_clients.error_code(error) or type(error).__name__
            raise StackUnavailable("queue_unavailable", f"SQS did not accept a message: {reason}") from error


def give_back(queue_url: str, receipt_handle: str, after_s: float) -> None:
    """Make a received message visible again after so many seconds (0 to 11 h).

    A failing call is only logged: the message then comes back when its visibility time-out ends.
    """
    try:
        service_clients.client("sqs").change_message_visibility(
            QueueUrl=queue_url,
            ReceiptHandle=receipt_handle,
            VisibilityTimeout=max(0, min(MAX_HIDDEN_S, round(after_s))),
        )
    except (ClientError, BotoCoreError) as error:
        logger.warning("visibility_not_changed", extra={"error": type(error).__name__})
