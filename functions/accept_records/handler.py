"""Accept records at a copy of a destination's own API, and queue them for ingest_records."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from portaria.api.data_ingestion import DataIngestionApi
from portaria.aws.table import Table
from portaria.core.http.request import HttpRequest
from portaria.core.logs import application_logger
from portaria.core.settings import AcceptRecordsSettings

logger = application_logger()
settings = AcceptRecordsSettings.from_env()
api = DataIngestionApi(Table(settings.table_name), settings.records_queue_url, logger)


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    return api.answer(HttpRequest.from_event(event))
