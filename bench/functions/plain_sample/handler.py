"""What accept_install is measured against: the shortest way to queue an event with boto3."""

import json
import os
from typing import Any

import boto3

sqs = boto3.client("sqs")


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    body = json.dumps(event["queryStringParameters"])
    sqs.send_message(QueueUrl=os.environ["EXCHANGES_QUEUE_URL"], MessageBody=body)
    return {"statusCode": 200, "body": "received"}
