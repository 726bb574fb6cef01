"""moto responds the same with and without `tests.fakes.aws.fast_moto`, `fast_botocore` and `direct_calls`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from tests.fakes.aws.direct_calls import direct_calls
from tests.fakes.aws.fast_botocore import fast_botocore
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


@contextmanager
def fast() -> Iterator[None]:
    with fast_moto(), fast_botocore(), direct_calls():
        yield


def table_responses(context: AbstractContextManager[None]) -> list[Any]:
    with mock_aws(), context:
        table = boto3.client("dynamodb")
        table.create_table(
            TableName="t",
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        )
        table.put_item(TableName="t", Item=ITEM)
        key = {"pk": {"S": "a"}}
        found = [
            table.get_item(TableName="t", Key=key)["Item"],
            table.scan(TableName="t")["Items"],
            table.query(
                TableName="t", KeyConditionExpression="pk = :pk", ExpressionAttributeValues={":pk": {"S": "a"}}
            )["Items"],
        ]
        updated = table.update_item(
            TableName="t",
            Key=key,
            UpdateExpression="SET #n = if_not_exists(#n, :zero) + :one, plain = :text REMOVE texts",
            ExpressionAttributeNames={"#n": "count"},
            ExpressionAttributeValues={":zero": {"N": "0"}, ":one": {"N": "1"}, ":text": {"S": "é/+ %20"}},
            ReturnValues="UPDATED_NEW",
        )
        with pytest.raises(ClientError) as refused:
            table.put_item(TableName="t", Item=ITEM, ConditionExpression="attribute_not_exists(pk)")
        found += [updated["Attributes"], refused.value.response["Error"]]
        return [*found, table.delete_item(TableName="t", Key=key, ReturnValues="ALL_OLD")["Attributes"]]


def queue_and_secret_responses(context: AbstractContextManager[None]) -> list[Any]:
    with mock_aws(), context:
        sqs, secrets = boto3.client("sqs"), boto3.client("secretsmanager")
        url = sqs.create_queue(QueueName="q", Attributes={"VisibilityTimeout": "0"})["QueueUrl"]
        sqs.send_message(QueueUrl=url, MessageBody="é & <b>", MessageAttributes={})
        (message,) = sqs.receive_message(QueueUrl=url)["Messages"]
        secrets.create_secret(Name="a/b", SecretString="é")
        with pytest.raises(ClientError) as missing:
            secrets.get_secret_value(SecretId="a/c")
        value = secrets.get_secret_value(SecretId="a/b")["SecretString"]
        return [url, message["Body"], message["MD5OfBody"], value, missing.value.response["Error"]]


def test_fast_moto_table_responses_equal_those_of_moto() -> None:
    responses = table_responses(fast())
    assert responses == table_responses(nullcontext())
    assert responses[:3] == [ITEM, [ITEM], [ITEM]]


def test_fast_moto_queue_and_secret_responses_equal_those_of_moto() -> None:
    assert queue_and_secret_responses(fast()) == queue_and_secret_responses(nullcontext())


def transaction_responses(context: AbstractContextManager[None], *, has_range_key: bool) -> list[Any]:
    """A transaction that is carried out, and one whose last condition fails after an update, a put and a deletion."""
    names = ["pk", "sk"] if has_range_key else ["pk"]
    with mock_aws(), context:
        table = boto3.client("dynamodb")
        table.create_table(
            TableName="t",
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in names],
            KeySchema=[
                {"AttributeName": name, "KeyType": kind} for name, kind in zip(names, ("HASH", "RANGE"), strict=False)
            ],
        )

        def key(text: str) -> dict[str, Any]:
            return {name: {"S": text} for name in names}

        def writes(condition: str) -> list[dict[str, Any]]:
            update = {
                "TableName": "t",
                "Key": key("updated"),
                "UpdateExpression": "SET deep.#n = :new, #n = :new",
                "ExpressionAttributeNames": {"#n": "count"},
                "ExpressionAttributeValues": {":new": {"N": "2"}},
            }
            check = {"TableName": "t", "Key": key("checked"), "ConditionExpression": condition}
            return [
                {"Update": update},
                {"Put": {"TableName": "t", "Item": {**key("put"), "value": {"S": "new"}}}},
                {"Delete": {"TableName": "t", "Key": key("deleted")}},
                {"ConditionCheck": check},
            ]

        for name in ("updated", "put", "deleted", "checked", "other"):
            table.put_item(TableName="t", Item={**key(name), "deep": {"M": {"count": {"N": "1"}}}})
        with pytest.raises(ClientError) as refused:
            table.transact_write_items(TransactItems=writes("attribute_not_exists(pk)"))
        before = table.scan(TableName="t")["Items"]
        table.transact_write_items(TransactItems=writes("attribute_exists(pk)"))
        return [refused.value.response["CancellationReasons"], before, table.scan(TableName="t")["Items"]]


@pytest.mark.parametrize("has_range_key", [True, False])
def test_fast_moto_transaction_responses_equal_those_of_moto(has_range_key: bool) -> None:
    responses = transaction_responses(fast(), has_range_key=has_range_key)
    assert responses == transaction_responses(nullcontext(), has_range_key=has_range_key)
    _, undone, done = responses
    assert all(item["deep"] == {"M": {"count": {"N": "1"}}} for item in undone)
    assert len(undone) == 5
    assert len(done) == 4
