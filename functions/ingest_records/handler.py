"""Map records and send them to their destination in full requests."""

from typing import Any

from aws_lambda_powertools import Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from portaria.aws import queues, sqs_batch
from portaria.core.logs import application_logger
from portaria.core.settings import IngestRecordsSettings
from portaria.delivery import pipeline, retry_schedule

logger = application_logger()
metrics = Metrics()
settings = IngestRecordsSettings.from_env()
# By name, which is what an event source tells of its queue.
QUEUES = {url.rsplit("/", 1)[-1]: url for url in (settings.records_queue_url, settings.bulk_records_queue_url)}


@logger.inject_lambda_context(clear_state=True)
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    messages = {record["messageId"]: record for record in event["Records"]}
    queue_url = QUEUES.get(event["Records"][0]["eventSourceARN"].rsplit(":", 1)[-1], settings.records_queue_url)
    receives = {
        message_id: int(record["attributes"]["ApproximateReceiveCount"]) for message_id, record in messages.items()
    }
    bulk = queue_url == settings.bulk_records_queue_url
    sqs_batch.report_age(event, metrics, "BulkRecords" if bulk else "Records")
    outcome = pipeline.ingest(
        [pipeline.QueuedMessage(name, record["body"], receives[name]) for name, record in messages.items()],
        settings,
        lambda: context.get_remaining_time_in_millis() / 1000,
        bulk=bulk,
    )
    for message_id, asked_s in outcome.waiting.items():
        wait_s = retry_schedule.wait_s(asked_s, receives[message_id])
        queues.give_back(queue_url, messages[message_id]["receiptHandle"], wait_s)
    metrics.add_metric("RecordMessages", MetricUnit.Count, len(messages))
    metrics.add_metric("RecordMessagesGivenBack", MetricUnit.Count, len(outcome.waiting))
    for name, count in outcome.counts.items():
        metrics.add_metric(name, MetricUnit.Count, count)
    for percent in outcome.quota_left.values():
        metrics.add_metric("QuotaLeftPercent", MetricUnit.Percent, percent)
    logger.info("record_batch_ended", messages=len(messages), given_back=len(outcome.waiting), counts=outcome.counts)
    return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in outcome.waiting]}
