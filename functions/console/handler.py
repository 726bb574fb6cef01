"""The console: pages for operators and administrators. What they do is done by the API's operations."""

from functools import partial
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from portaria.api.operation import ApiContext
from portaria.api.operation_tables import index
from portaria.api.router import Service
from portaria.aws import lambda_functions
from portaria.core.http.request import HttpRequest
from portaria.core.logs import application_logger
from portaria.core.settings import ConsoleSettings
from portaria.web.console.application import Console

logger = application_logger()
settings = ConsoleSettings.from_env()


def invoke(event: dict[str, Any]) -> dict[str, Any]:
    """Carry out an operation in the function `call_connection`."""
    return lambda_functions.invoke(settings.call_connection_function, event)


service = Service(partial(index.find, index.MANAGE), ApiContext.from_settings(settings), logger)
console = Console(service, invoke, logger)


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    return console.answer(HttpRequest.from_event(event), context)
