"""Find the connections that are due, and renew their tokens, one connection for each message."""

from collections.abc import Callable
from typing import Any

from aws_lambda_powertools import Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from portaria.aws import sqs_batch
from portaria.connections import renewal_sweep, request_budget
from portaria.core.logs import application_logger
from portaria.core.settings import RenewTokensSettings
from portaria.outbound.rate_limiter import RateLimiter

logger = application_logger()
metrics = Metrics()
settings = RenewTokensSettings.from_env()
request_budget.configure(settings.shared_outbound_addresses)
rate_limiter = RateLimiter(renewal_sweep.RENEWALS_PER_SECOND)


@logger.inject_lambda_context(clear_state=True)
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    return sqs_batch.handle(
        event, context, take, queue="Renewals", queue_url=settings.renewals_queue_url, logger=logger, metrics=metrics
    )


def take(body: str, time_left_s: Callable[[], float]) -> None:
    metrics.add_metric("RenewalMessages", MetricUnit.Count, 1)
    outcome = renewal_sweep.handle_message(body, settings, time_left_s, rate_limiter)
    logger.info("renewal_done", state=outcome.state, queued=outcome.queued)
    if outcome.state == "swept":
        metrics.add_metric("ConnectionsDue", MetricUnit.Count, outcome.queued)
    elif outcome.state == "renewed":
        metrics.add_metric("TokensRenewed", MetricUnit.Count, 1)
    elif outcome.state == "ended":
        metrics.add_metric("ConnectionsEnded", MetricUnit.Count, 1)
    if outcome.days_to_death is not None:
        metrics.add_metric("DaysToDeath", MetricUnit.Count, outcome.days_to_death)
