"""Count connections, installs, receipts and dead letters by state, for the overview."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from portaria.core.logs import application_logger
from portaria.core.settings import CountStatesSettings
from portaria.overview import count_run

logger = application_logger()
settings = CountStatesSettings.from_env()


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> None:
    logger.info("states_counted", parts=count_run.run(settings))
