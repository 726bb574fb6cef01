"""Process a batch of SQS messages. Failed messages return to their queue with a delay."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from portaria.aws import queues
from portaria.core import clock
from portaria.core.errors import Rejected, Retryable

FIRST_WAIT_S = 5.0
LONGEST_WAIT_S = 300.0

# Metric of messages that failed for an unexpected reason. Any such message rolls back a gradual deployment.
MESSAGES_FAILED = "MessagesFailed"

_processor = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)


def handle(
    event: dict[str, Any],
    context: LambdaContext,
    take: Callable[[str, Callable[[], float]], None],
    *,
    queue: str,
    queue_url: str,
    logger: Logger,
    metrics: Metrics,
) -> dict[str, Any]:
    """Call `take` with each message's body and the remaining time. Returns the messages that failed.

    `queue` names the queue in its metric (`Renewals` → `RenewalsAgeSeconds`).

    What raises `Rejected` is logged and done with, since doing it again cannot help.
    """

    def take_body(record: SQSRecord) -> None:
        take(record.body, lambda: context.get_remaining_time_in_millis() / 1000)

    return handle_records(event, context, take_body, queue=queue, queue_url=queue_url, logger=logger, metrics=metrics)


def handle_records(
    event: dict[str, Any],
    context: LambdaContext,
    take: Callable[[SQSRecord], None],
    *,
    queue: str,
    queue_url: str,
    logger: Logger,
    metrics: Metrics,
) -> dict[str, Any]:
    """The same for callers that need more of a message than its body."""

    def deliver(record: SQSRecord) -> None:
        receives = int(record.attributes.approximate_receive_count)
        try:
            take(record)
        except Rejected as rejected:
            logger.error("message_refused", reason=rejected.reason, detail=rejected.detail)
        except Retryable as later:
            after_s = wait_s(later.after_s, receives)
            logger.warning("message_delayed", reason=later.reason, detail=later.detail, after_s=after_s)
            queues.give_back(queue_url, record.receipt_handle, after_s)
            raise
        except Exception as error:
            # The exception's text may quote the request, so only its type and place are logged.
            logger.error("message_failed", error=type(error).__name__, at=traceback.format_tb(error.__traceback__))
            metrics.add_metric(MESSAGES_FAILED, MetricUnit.Count, 1)
            queues.give_back(queue_url, record.receipt_handle, wait_s(None, receives))
            raise

    report_age(event, metrics, queue)
    return dict(process_partial_response(event, deliver, _processor, context))


def report_age(event: dict[str, Any], metrics: Metrics, queue: str) -> None:
    """Emit the age of the oldest message of a batch in seconds, as the metric `{queue}AgeSeconds`.

    SQS's own ApproximateAgeOfOldestMessage leaves out messages that were received three times or more:
    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-available-cloudwatch-metrics.html
    """
    sent_at = min(int(record["attributes"]["SentTimestamp"]) for record in event["Records"]) / 1000
    age_s = max(0.0, clock.now().timestamp() - sent_at)
    metrics.add_metric(f"{queue}AgeSeconds", MetricUnit.Seconds, round(age_s, 3))


def wait_s(asked_s: float | None, receives: int) -> float:
    """The delay of a failed message: the requested time, else 5 to 300 s by the number of receives."""
    return max(asked_s or 0, min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(receives - 1, 10)))
