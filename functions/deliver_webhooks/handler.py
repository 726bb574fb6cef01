"""Attempt deliveries of webhooks, find those that are due, and publish how many records became dead letters."""

from collections.abc import Callable
from typing import Any

from aws_lambda_powertools import Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from portaria.aws import sqs_batch
from portaria.aws.table import Table
from portaria.core.logs import application_logger
from portaria.core.settings import DeliverWebhooksSettings
from portaria.notifications.delivery_worker import Worker
from portaria.records import dead_letter_counts

logger = application_logger()
metrics = Metrics()
settings = DeliverWebhooksSettings.from_env()
worker = Worker(settings)
table = Table(settings.table_name)


@logger.inject_lambda_context(clear_state=True)
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    queue_name = settings.slow_webhook_deliveries_queue_url.rsplit("/", 1)[-1]
    is_patient = event["Records"][0]["eventSourceARN"].rsplit(":", 1)[-1] == queue_name

    def deliver(body: str, time_left_s: Callable[[], float]) -> None:
        outcome = worker.handle(body, time_left_s, is_patient=is_patient)
        if outcome == "swept":
            dead_letter_counts.publish(table, settings.bus_name)
        logger.info("webhook_message_done", outcome=outcome)

    worker.counts.clear()
    answer = sqs_batch.handle(
        event,
        context,
        deliver,
        queue="SlowWebhookDeliveries" if is_patient else "WebhookDeliveries",
        queue_url=settings.slow_webhook_deliveries_queue_url if is_patient else settings.webhook_deliveries_queue_url,
        logger=logger,
        metrics=metrics,
    )
    for name, count in worker.counts.items():
        metrics.add_metric(name, MetricUnit.Count, count)
    return answer
