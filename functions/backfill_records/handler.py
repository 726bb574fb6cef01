"""Queue an account's records page by page: all of them in a backfill, the changed ones in a reconciliation."""

from collections.abc import Callable
from typing import Any

from aws_lambda_powertools import Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from portaria.aws import sqs_batch
from portaria.connections import request_budget
from portaria.core.logs import application_logger
from portaria.core.settings import BackfillRecordsSettings
from portaria.sources import backfill

logger = application_logger()
metrics = Metrics()
settings = BackfillRecordsSettings.from_env()
request_budget.configure(settings.shared_outbound_addresses)

# Metrics of final outcomes.
ENDS = {
    "done": "BackfillsDone",
    "failed": "BackfillsFailed",
    "reconciled": "ReconciliationsDone",
    "put_off": "ReconciliationsPutOff",
    "waiting": "ReconciliationsWaiting",
}


@logger.inject_lambda_context(clear_state=True)
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    return sqs_batch.handle(
        event, context, take, queue="Backfills", queue_url=settings.backfills_queue_url, logger=logger, metrics=metrics
    )


def take(body: str, time_left_s: Callable[[], float]) -> None:
    metrics.add_metric("BackfillMessages", MetricUnit.Count, 1)
    outcome = backfill.handle_message(body, settings, time_left_s)
    started = "ReconciliationsStarted" if outcome.state == "queued" else "BackfillsStarted"
    metrics.add_metric(started, MetricUnit.Count, outcome.started)
    metrics.add_metric("PagesRead", MetricUnit.Count, outcome.pages)
    metrics.add_metric("RecordsQueued", MetricUnit.Count, outcome.records)
    if outcome.state in ENDS:
        metrics.add_metric(ENDS[outcome.state], MetricUnit.Count, 1)
