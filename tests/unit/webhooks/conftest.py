"""accept_install with moto behind a loopback endpoint, and two OAuth clients of Kommo's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from portaria.aws.service_clients import boto3_client as client
from portaria.connections.oauth_clients import put
from portaria.core.callbacks import OAuthClient
from tests.fakes.aws.endpoint import aws_endpoint
from tests.fakes.aws.moto_cloud import Cloud, cloud
from tests.fakes.connections.accept_install import Function


@pytest.fixture(scope="module")
def aws() -> Iterator[Cloud]:
    with cloud() as made:
        yield made


@pytest.fixture
def function(aws: Cloud) -> Iterator[Function]:
    put(aws.table, OAuthClient("kommo", "crm", "client-id", "https://api.example.com/live/install/kommo/crm"), new=True)
    put(aws.table, OAuthClient("kommo", "other", "other-id", "https://api.example.com/x"), new=True)
    with aws_endpoint() as endpoint:
        made = Function(aws, endpoint)
        yield made
        made.handler.receiver._sqs.close()
        made.handler.table.close()
    aws.receive("exchanges")
    aws.receive("unproven_exchanges")
    dynamodb = client("dynamodb")
    for item in dynamodb.scan(TableName=aws.table.name)["Items"]:
        dynamodb.delete_item(TableName=aws.table.name, Key={name: item[name] for name in ("pk", "sk")})
