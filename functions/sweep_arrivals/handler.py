"""Queue the installs that accept_install stored in the table because the queue refused them."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from portaria.core.errors import Retryable
from portaria.core.logs import application_logger
from portaria.core.settings import SweepArrivalsSettings
from portaria.installs import arrival_sweep

logger = application_logger()
settings = SweepArrivalsSettings.from_env()


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> None:
    try:
        swept = arrival_sweep.sweep_arrivals(settings)
    except Retryable as later:
        logger.warning("kept_installs_not_queued", reason=later.reason)
        return
    if swept:
        logger.info("kept_installs_queued", count=swept)
