"""Confirm an uninstall with the platform and remove the connection."""

from collections.abc import Callable
from typing import Any

from aws_lambda_powertools import Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from portaria.aws import sqs_batch
from portaria.connections import request_budget
from portaria.core.logs import application_logger
from portaria.core.settings import RemoveConnectionsSettings
from portaria.installs import uninstall

logger = application_logger()
metrics = Metrics()
settings = RemoveConnectionsSettings.from_env()
request_budget.configure(settings.shared_outbound_addresses)


@logger.inject_lambda_context(clear_state=True)
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    return sqs_batch.handle(
        event,
        context,
        handle_message,
        queue="Uninstalls",
        queue_url=settings.uninstalls_queue_url,
        logger=logger,
        metrics=metrics,
    )


def handle_message(body: str, time_left_s: Callable[[], float]) -> None:
    metrics.add_metric("UninstallMessages", MetricUnit.Count, 1)
    outcome = uninstall.handle_message(body, settings, time_left_s)
    logger.info("uninstall_message_done", state=outcome.state)
    if outcome.state == "removed":
        metrics.add_metric("ConnectionsRemoved", MetricUnit.Count, 1)
