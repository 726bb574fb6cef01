"""The API function of `api`, which also tests a credential at a platform with the request that `manage` sends."""

import json
import os
from typing import Any

import boto3
import requests
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import BaseModel

logger = Logger()
metrics = Metrics()
app = APIGatewayRestResolver()
table = boto3.resource("dynamodb").Table(os.environ.get("TABLE_NAME", "portaria"))
session = requests.Session()


class Credentials(BaseModel):
    client_id: str
    client_secret: str


class Found(BaseModel):
    key: str
    is_known: bool


@app.not_found
def answer(error: Exception) -> Response[str]:
    item = table.get_item(Key={"pk": "PLAIN", "sk": "PLAIN"}).get("Item")
    sent = json.loads(app.current_event.body or "{}")
    credentials = Credentials.model_validate(sent["credentials"])
    host = f"{sent['fields']['munchkin_id'].lower()}.mktorest.com"
    parameters = {"grant_type": "client_credentials", **credentials.model_dump()}
    tested = session.get(f"https://{host}/identity/oauth/token", params=parameters, timeout=10)
    metrics.add_metric("Answers", MetricUnit.Count, 1)
    return Response(
        tested.status_code, "application/json", Found(key="PLAIN", is_known=item is not None).model_dump_json()
    )


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    return app.resolve(event, context)
