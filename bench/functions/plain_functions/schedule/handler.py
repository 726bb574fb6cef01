"""A function that a schedule or another function invokes, as Powertools' documentation writes it: one query and one message."""

import os
from typing import Any

import boto3
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext
from boto3.dynamodb.conditions import Key
from pydantic import BaseModel

logger = Logger()
metrics = Metrics()
table = boto3.resource("dynamodb").Table(os.environ.get("TABLE_NAME", "portaria"))
sqs = boto3.client("sqs")


class Due(BaseModel):
    pk: str


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, int]:
    found = [Due.model_validate(item) for item in table.query(KeyConditionExpression=Key("pk").eq("PLAIN"))["Items"]]
    metrics.add_metric("Due", MetricUnit.Count, len(found))
    return {"due": len(found)}
