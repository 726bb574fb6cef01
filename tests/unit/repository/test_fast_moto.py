"""moto answers the same with and without `tests.fakes.aws.fast_moto`."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import boto3
from moto import mock_aws

from tests.fakes.aws.fast_moto import fast_moto

ITEM: dict[str, Any] = {
    "pk": {"S": "a"},
    "empty": {"S": ""},
    "number": {"N": "-12.5"},
    "bytes": {"B": b"\x00\xff"},
    "true": {"BOOL": True},
    "false": {"BOOL": False},
    "null": {"NULL": True},
    "texts": {"SS": ["a", "b"]},
    "numbers": {"NS": ["1", "2"]},
    "list": {"L": [{"S": "x"}, {"M": {"deep": {"L": [{"N": "0"}, {"BOOL": False}]}}}]},
    "no_list": {"L": []},
    "map": {"M": {"one": {"S": "1"}, "two": {"B": b"2"}}},
    "no_map": {"M": {}},
}


def answers(how: AbstractContextManager[None]) -> list[Any]:
    with mock_aws(), how:
        table = boto3.client("dynamodb")
        table.create_table(
            TableName="t",
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        )
        table.put_item(TableName="t", Item=ITEM)
        key = {"pk": {"S": "a"}}
        return [
            table.get_item(TableName="t", Key=key)["Item"],
            table.scan(TableName="t")["Items"],
            table.query(
                TableName="t", KeyConditionExpression="pk = :pk", ExpressionAttributeValues={":pk": {"S": "a"}}
            )["Items"],
            table.delete_item(TableName="t", Key=key, ReturnValues="ALL_OLD")["Attributes"],
        ]


def test_fast_moto_answers_with_the_items_that_moto_answers_with() -> None:
    assert answers(fast_moto()) == answers(nullcontext()) == [ITEM, [ITEM], [ITEM], ITEM]
