"""The function `manage`, called as API Gateway calls it."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from portaria import aws
from tests.fakes import functions
from tests.fakes.aws import TABLE, Cloud

API_HOST = "abc123.execute-api.us-east-1.amazonaws.com"
API_URL = f"https://{API_HOST}/live"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    text: str = field(repr=False)

    @property
    def content(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.text)
        return content


class Manage:
    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.module = functions.load("manage", cloud.environment)
        self.log = io.StringIO()
        functions.log_to(self.log)

    def call(self, method: str, path: str, body: Any = None, **changes: Any) -> Answer:
        """`path` is below /admin/v1, with its query; a `body` that is text is sent as it is."""
        return self.answer(proxy_event(method, path, body) | changes)

    def answer(self, event: dict[str, Any]) -> Answer:
        result = self.module.handler(event, functions.Context())
        headers = {name: ", ".join(values) for name, values in result["multiValueHeaders"].items()}
        assert headers["Cache-Control"] == "no-store"
        answer = Answer(result["statusCode"], headers, result["body"] or "")
        if answer.status >= 400:
            assert headers["Content-Type"] == "application/problem+json"
            assert {"type", "title", "status", "detail"} <= set(answer.content)
            assert answer.content["status"] == answer.status
        return answer


def proxy_event(method: str, path: str, body: Any = None) -> dict[str, Any]:
    parts = urlsplit(path)
    query = parse_qs(parts.query, keep_blank_values=True)
    full_path = f"/admin/v1{unquote(parts.path)}"
    return {
        "resource": "/admin/v1/{proxy+}",
        "path": full_path,
        "httpMethod": method,
        "headers": {"Host": API_HOST, "Content-Type": "application/json"},
        "multiValueHeaders": {"Host": [API_HOST], "Content-Type": ["application/json"]},
        "queryStringParameters": {name: values[-1] for name, values in query.items()} or None,
        "multiValueQueryStringParameters": query or None,
        "pathParameters": None,
        "stageVariables": None,
        "requestContext": {
            "path": f"/live{full_path}",
            "stage": "live",
            "domainName": API_HOST,
            "apiId": "abc123",
            "httpMethod": method,
            "requestId": "00000000-0000-4000-8000-000000000001",
            "identity": {"userArn": "arn:aws:iam::123456789012:user/administrator", "sourceIp": "192.0.2.1"},
        },
        "body": body if body is None or isinstance(body, str) else json.dumps(body),
        "isBase64Encoded": False,
    }


def secrets_stored() -> list[str]:
    answer = aws.client("secretsmanager").list_secrets(IncludePlannedDeletion=True)
    return [entry["Name"] for entry in answer["SecretList"]]


def empty() -> None:
    """Leave the stack as it was when it was new: making another takes longer than a test."""
    for item in aws.client("dynamodb").scan(TableName=TABLE)["Items"]:
        aws.client("dynamodb").delete_item(TableName=TABLE, Key={"pk": item["pk"], "sk": item["sk"]})
    for name in secrets_stored():
        aws.client("secretsmanager").delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)
