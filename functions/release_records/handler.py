"""Send records that have waited in the table for their destination."""

from collections.abc import Callable
from typing import Any

from aws_lambda_powertools import Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from portaria.aws import sqs_batch
from portaria.core.logs import application_logger
from portaria.core.settings import ReleaseRecordsSettings
from portaria.delivery import record_release

logger = application_logger()
metrics = Metrics()
settings = ReleaseRecordsSettings.from_env()


@logger.inject_lambda_context(clear_state=True)
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    return sqs_batch.handle(
        event,
        context,
        handle_message,
        queue="WaitingRecords",
        queue_url=settings.waiting_records_queue_url,
        logger=logger,
        metrics=metrics,
    )


def handle_message(body: str, time_left_s: Callable[[], float]) -> None:
    outcome = record_release.handle_message(body, settings, time_left_s)
    logger.info("waiting_records_message_done", state=outcome.state, queued=outcome.queued, counts=outcome.counts)
    if outcome.records is not None:
        metrics.add_metric("RecordsWaiting", MetricUnit.Count, outcome.records)
    if outcome.oldest_s is not None:
        metrics.add_metric("OldestWaitingSeconds", MetricUnit.Seconds, outcome.oldest_s)
    if outcome.no_answer_s is not None:
        metrics.add_metric("NoAnswerSeconds", MetricUnit.Seconds, outcome.no_answer_s)
    for name, count in outcome.counts.items():
        metrics.add_metric(name, MetricUnit.Count, count)
    for percent in outcome.quota_left.values():
        metrics.add_metric("QuotaLeftPercent", MetricUnit.Percent, percent)
