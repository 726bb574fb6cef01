"""A queue's function as Powertools' documentation writes it: a batch processor, a model, one read and one call to an API."""

import os
from typing import Any

import boto3
import requests
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import BaseModel, ValidationError

logger = Logger()
metrics = Metrics()
processor = BatchProcessor(event_type=EventType.SQS)
table = boto3.resource("dynamodb").Table(os.environ.get("TABLE_NAME", "portaria"))
session = requests.Session()


class Message(BaseModel):
    id: str


def work(record: SQSRecord) -> None:
    try:
        logger.info("message", extra={"id": Message.model_validate_json(record.body).id})
    except ValidationError:
        logger.info("message_refused")
    table.get_item(Key={"pk": "PLAIN", "sk": "PLAIN"})
    metrics.add_metric("Messages", MetricUnit.Count, 1)


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> Any:
    return process_partial_response(event=event, record_handler=work, processor=processor, context=context)
