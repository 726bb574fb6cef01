"""The API, for administrators (AWS IAM, /admin/v1) and for private integrations (/v1)."""

from functools import partial
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from portaria.api import health
from portaria.api.operation import ApiContext
from portaria.api.operation_tables import index
from portaria.api.router import Service
from portaria.core.http.request import HttpRequest
from portaria.core.logs import application_logger
from portaria.core.settings import ManageSettings

logger = application_logger()
settings = ManageSettings.from_env()
# Where the API describes itself. Their module takes as long to import as it takes to answer most other requests.
DESCRIPTIONS = ("/v1/openapi.json", "/v1/reference")

service = Service(partial(index.find, index.MANAGE), ApiContext.from_settings(settings), logger)


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    request = HttpRequest.from_event(event)
    if request.resource in DESCRIPTIONS:
        from portaria.web import reference  # noqa: PLC0415

        return reference.answer(request)
    return health.answer(request) or service.answer(request, context)
