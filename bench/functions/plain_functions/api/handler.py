"""An API function as Powertools' documentation writes it: a resolver, a model and one read from the table."""

import os
from typing import Any

import boto3
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import BaseModel

logger = Logger()
metrics = Metrics()
app = APIGatewayRestResolver()
table = boto3.resource("dynamodb").Table(os.environ.get("TABLE_NAME", "portaria"))


class Found(BaseModel):
    key: str
    is_known: bool


@app.not_found
def answer(error: Exception) -> Response[str]:
    item = table.get_item(Key={"pk": "PLAIN", "sk": "PLAIN"}).get("Item")
    metrics.add_metric("Answers", MetricUnit.Count, 1)
    return Response(200, "application/json", Found(key="PLAIN", is_known=item is not None).model_dump_json())


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    return app.resolve(event, context)
