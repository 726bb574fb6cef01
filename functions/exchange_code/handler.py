"""Exchange a queued code for tokens, store them and record the connection."""

import traceback
from typing import Any

from aws_lambda_powertools import Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from portaria.aws import queues, sqs_batch
from portaria.core import clock
from portaria.core.entities import Retryable
from portaria.core.logs import application_logger
from portaria.core.settings import ExchangeCodeSettings
from portaria.installs import code_exchange

logger = application_logger()
metrics = Metrics()
processor = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)
settings = ExchangeCodeSettings.from_env()


@logger.inject_lambda_context(clear_state=True)
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    def exchange(record: SQSRecord) -> None:
        install = code_exchange.read_message(record.body)
        logger.append_keys(
            install_id=install.id, platform=install.platform, client=install.client, host=install.account_host
        )
        # The queue hides a message for 6 x the time-out; a code cannot wait that long for the next worker if this one dies.
        queues.give_back(settings.exchanges_queue_url, record.receipt_handle, code_exchange.LEASE_S + 1)
        # Each time that it is taken: of one whose answer is long in coming, the last counts.
        metrics.add_metric("CodeAgeSeconds", MetricUnit.Seconds, (clock.now() - install.received_at).total_seconds())
        try:
            outcome = code_exchange.exchange(install, settings, lambda: context.get_remaining_time_in_millis() / 1000)
        except Retryable as later:
            logger.warning("the install waits", reason=later.reason, detail=later.detail, after_s=later.after_s)
            queues.give_back(settings.exchanges_queue_url, record.receipt_handle, later.after_s or 5)
            raise
        except Exception as error:
            # Its text may quote what was sent, so only its kind and place are told.
            metrics.add_metric(sqs_batch.MESSAGES_FAILED, MetricUnit.Count, 1)
            logger.error(
                "install_failed_unexpectedly", error=type(error).__name__, at=traceback.format_tb(error.__traceback__)
            )
            queues.give_back(settings.exchanges_queue_url, record.receipt_handle, 10)
            raise
        age_s = (clock.now() - install.received_at).total_seconds()
        logger.info(
            "the install has ended", state=outcome.state, reason=outcome.reason, detail=outcome.detail, age_s=age_s
        )
        metrics.add_metric(f"Installs{outcome.state.capitalize()}", MetricUnit.Count, 1)
        metrics.add_metric("InstallAge", MetricUnit.Seconds, age_s)

    return dict(process_partial_response(event, exchange, processor, context))
