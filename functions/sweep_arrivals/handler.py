"""Move the installs that accept_install kept in the table, because the queue failed, into the queue."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from portaria.core.entities import Retryable
from portaria.core.logs import application_logger
from portaria.core.settings import SweepArrivalsSettings
from portaria.installs import code_exchange

logger = application_logger()
settings = SweepArrivalsSettings.from_env()


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> None:
    try:
        swept = code_exchange.sweep_arrivals(settings)
    except Retryable as later:
        logger.warning("kept installs wait another minute", reason=later.reason)
        return
    if swept:
        logger.info("kept installs were queued", count=swept)
