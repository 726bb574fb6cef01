"""Store and queue the deliveries of each event on the bus, one for each webhook that subscribes to it."""

from collections.abc import Callable
from typing import Any

from aws_lambda_powertools import Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from portaria.aws import sqs_batch
from portaria.core.logs import application_logger
from portaria.core.settings import FanOutEventsSettings
from portaria.notifications import event_fan_out

logger = application_logger()
metrics = Metrics()
settings = FanOutEventsSettings.from_env()


@logger.inject_lambda_context(clear_state=True)
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    queued: list[int] = []

    def fan_out(body: str, time_left_s: Callable[[], float]) -> None:
        queued.append(event_fan_out.fan_out(body, settings))

    answer = sqs_batch.handle(
        event,
        context,
        fan_out,
        queue="WebhookEvents",
        queue_url=settings.webhook_events_queue_url,
        logger=logger,
        metrics=metrics,
    )
    metrics.add_metric("WebhookDeliveriesQueued", MetricUnit.Count, sum(queued))
    logger.info("events_fanned_out", events=len(queued), deliveries=sum(queued))
    return answer
