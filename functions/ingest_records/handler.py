"""Map records and send them to their destination in full requests."""

from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from portaria import ingestion, queues
from portaria.settings import IngestRecordsSettings

logger = Logger()
metrics = Metrics()
settings = IngestRecordsSettings.from_env()


@logger.inject_lambda_context(clear_state=True)
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    messages = {record["messageId"]: record for record in event["Records"]}
    outcome = ingestion.ingest(
        [(message_id, record["body"]) for message_id, record in messages.items()],
        settings,
        lambda: context.get_remaining_time_in_millis() / 1000,
    )
    for message_id, asked_s in outcome.waiting.items():
        receives = int(messages[message_id]["attributes"]["ApproximateReceiveCount"])
        queues.give_back(
            settings.records_queue_url, messages[message_id]["receiptHandle"], ingestion.wait_s(asked_s, receives)
        )
    metrics.add_metric("RecordMessages", MetricUnit.Count, len(messages))
    metrics.add_metric("RecordMessagesGivenBack", MetricUnit.Count, len(outcome.waiting))
    for name, count in outcome.counts.items():
        metrics.add_metric(name, MetricUnit.Count, count)
    logger.info("a batch has ended", messages=len(messages), given_back=len(outcome.waiting), counts=outcome.counts)
    return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in outcome.waiting]}
