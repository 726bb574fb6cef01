"""Move the installs that accept_install kept in the table, because the queue failed, into the queue."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from portaria import installs
from portaria.contract import Retryable
from portaria.logs import application_logger
from portaria.settings import SweepArrivalsSettings

logger = application_logger()
settings = SweepArrivalsSettings.from_env()


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> None:
    try:
        swept = installs.sweep_arrivals(settings)
    except Retryable as later:
        logger.warning("kept installs wait another minute", reason=later.reason)
        return
    if swept:
        logger.info("kept installs were queued", count=swept)
