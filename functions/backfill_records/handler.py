"""Read an account's records page by page into the Records queue."""

import traceback
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from portaria import backfills, queues
from portaria.contract import Retryable
from portaria.settings import BackfillRecordsSettings

logger = Logger()
metrics = Metrics()
processor = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)
settings = BackfillRecordsSettings.from_env()


@logger.inject_lambda_context(clear_state=True)
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    def backfill(record: SQSRecord) -> None:
        receives = int(record.attributes.approximate_receive_count)
        metrics.add_metric("BackfillMessages", MetricUnit.Count, 1)
        try:
            outcome = backfills.take(record.body, settings, lambda: context.get_remaining_time_in_millis() / 1000)
        except Retryable as later:
            after_s = backfills.wait_s(later.after_s, receives)
            logger.warning("a backfill waits", reason=later.reason, detail=later.detail, after_s=after_s)
            queues.give_back(settings.backfills_queue_url, record.receipt_handle, after_s)
            raise
        except Exception as error:
            # Its text may quote a record, so only its kind and place are told.
            logger.error("a backfill waits", error=type(error).__name__, at=traceback.format_tb(error.__traceback__))
            queues.give_back(settings.backfills_queue_url, record.receipt_handle, backfills.wait_s(None, receives))
            raise
        metrics.add_metric("BackfillsStarted", MetricUnit.Count, outcome.started)
        metrics.add_metric("PagesRead", MetricUnit.Count, outcome.pages)
        metrics.add_metric("RecordsQueued", MetricUnit.Count, outcome.records)
        if outcome.state in ("done", "failed"):
            metrics.add_metric(f"Backfills{outcome.state.capitalize()}", MetricUnit.Count, 1)

    return dict(process_partial_response(event, backfill, processor, context))
