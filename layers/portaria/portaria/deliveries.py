"""One batch of SQS messages through one function: what fails goes back to its queue for as long as it should stay away."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from portaria import queues
from portaria.contract import Rejected, Retryable

FIRST_WAIT_S = 5.0
LONGEST_WAIT_S = 300.0

_processor = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)


def handle(
    event: dict[str, Any],
    context: LambdaContext,
    take: Callable[[str, Callable[[], float]], None],
    *,
    queue_url: str,
    logger: Logger,
) -> dict[str, Any]:
    """Give each message's body, and the time left, to `take`; answer with the messages that go back.

    What raises `Rejected` is logged and done with, since doing it again cannot help.
    """

    def take_body(record: SQSRecord) -> None:
        take(record.body, lambda: context.get_remaining_time_in_millis() / 1000)

    return handle_records(event, context, take_body, queue_url=queue_url, logger=logger)


def handle_records(
    event: dict[str, Any],
    context: LambdaContext,
    take: Callable[[SQSRecord], None],
    *,
    queue_url: str,
    logger: Logger,
) -> dict[str, Any]:
    """The same for who must know more of a message than its body."""

    def deliver(record: SQSRecord) -> None:
        receives = int(record.attributes.approximate_receive_count)
        try:
            take(record)
        except Rejected as rejected:
            logger.error("a message was refused", reason=rejected.reason, detail=rejected.detail)
        except Retryable as later:
            after_s = wait_s(later.after_s, receives)
            logger.warning("a message waits", reason=later.reason, detail=later.detail, after_s=after_s)
            queues.give_back(queue_url, record.receipt_handle, after_s)
            raise
        except Exception as error:
            # Its text may quote what was sent, so only its kind and place are told.
            logger.error("a message waits", error=type(error).__name__, at=traceback.format_tb(error.__traceback__))
            queues.give_back(queue_url, record.receipt_handle, wait_s(None, receives))
            raise

    return dict(process_partial_response(event, deliver, _processor, context))


def wait_s(asked_s: float | None, receives: int) -> float:
    """How long a message stays away: as long as asked, and 5 to 300 s by the number of times that it has come in vain."""
    return max(asked_s or 0, min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(receives - 1, 10)))
