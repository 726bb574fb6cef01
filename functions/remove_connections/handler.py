"""Confirm that an account has left and remove its connection."""

from collections.abc import Callable
from typing import Any

from aws_lambda_powertools import Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from portaria.aws import sqs_batch
from portaria.core.logs import application_logger
from portaria.core.settings import RemoveConnectionsSettings
from portaria.installs import uninstall

logger = application_logger()
metrics = Metrics()
settings = RemoveConnectionsSettings.from_env()


@logger.inject_lambda_context(clear_state=True)
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    return sqs_batch.handle(
        event,
        context,
        take,
        queue="Uninstalls",
        queue_url=settings.uninstalls_queue_url,
        logger=logger,
        metrics=metrics,
    )


def take(body: str, time_left_s: Callable[[], float]) -> None:
    metrics.add_metric("UninstallMessages", MetricUnit.Count, 1)
    outcome = uninstall.handle_message(body, settings, time_left_s)
    logger.info("an uninstall message is done", state=outcome.state)
    if outcome.state == "removed":
        metrics.add_metric("ConnectionsRemoved", MetricUnit.Count, 1)
