"""moto responds the same with and without `tests.fakes.aws.fast_moto`, `fast_botocore` and `direct_calls`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, ParamValidationError
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


def make_table(table: Any, names: list[str]) -> None:
    table.create_table(
        TableName="t",
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in names],
        KeySchema=[
            {"AttributeName": name, "KeyType": kind} for name, kind in zip(names, ("HASH", "RANGE"), strict=False)
        ],
    )


def table_responses(context: AbstractContextManager[None]) -> list[Any]:
    with mock_aws(), context:
        table = boto3.client("dynamodb")
        make_table(table, ["pk"])
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


def refusal(call: Callable[[], object]) -> Any:
    """What botocore or moto raises, with everything that the response of AWS has except its time and its id."""
    with pytest.raises((ClientError, ParamValidationError, KeyError, ValueError)) as refused:
        call()
    if isinstance(refused.value, ClientError):
        metadata = refused.value.response["ResponseMetadata"]
        return {**refused.value.response, "ResponseMetadata": (metadata["HTTPStatusCode"], metadata["RetryAttempts"])}
    return repr(refused.value)


def refusals(context: AbstractContextManager[None]) -> list[Any]:
    with mock_aws(), context:
        table, sqs, events = boto3.client("dynamodb"), boto3.client("sqs"), boto3.client("events")
        key: dict[str, Any] = {"TableName": "t", "Key": {"pk": {"S": "a"}}}
        make_table(table, ["pk"])
        table.put_item(TableName="t", Item=ITEM)

        def update(expression: str, **more: Any) -> Any:
            return refusal(lambda: table.update_item(**key, UpdateExpression=expression, **more))

        def put(item: dict[str, Any], **more: Any) -> Any:
            return refusal(lambda: table.put_item(TableName="t", Item=item, **more))

        one = {":one": {"N": "1"}}
        old = {"ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
        return [
            # By botocore, before the call.
            refusal(lambda: table.get_item(TableName="t")),
            refusal(lambda: table.get_item(TableName="t", Key={"pk": {"S": 1}})),
            refusal(lambda: table.get_item(TableName="t", Key={"pk": {}}, Unknown=1)),
            refusal(lambda: table.query(TableName="t", Limit=0)),
            put({"pk": {"L": [{"M": {"a": {"B": 1}}}]}}),
            refusal(lambda: sqs.send_message(QueueUrl="u", MessageBody=None)),
            refusal(lambda: sqs.send_message_batch(QueueUrl="u", Entries=[{"Id": "1"}])),
            refusal(lambda: events.put_events(Entries=[])),
            refusal(lambda: events.put_events(Entries=[{"Time": "never"}])),
            # By moto.
            refusal(lambda: table.get_item(TableName="other", Key={"pk": {"S": "a"}})),
            refusal(lambda: table.get_item(TableName="t", Key={"other": {"S": "a"}})),
            refusal(lambda: sqs.get_queue_url(QueueName="other")),
            put({"pk": {"S": "a"}}, ConditionExpression="attribute_not_exists(pk)", **old),
            put({"pk": {"S": "a"}}, ConditionExpression="a = :one AND"),
            put({"pk": {"S": "a"}}, ConditionExpression="#a = :one", ExpressionAttributeValues=one),
            put({"pk": {"S": ""}}),
            put({"pk": {"N": "1"}}),
            put({"pk": {"S": "a"}, "big": {"S": "x" * 410_000}}),
            put({"pk": {"S": "a"}, "number": {"N": "one"}}),
            update("SET a = :one, a = :one", ExpressionAttributeValues=one),
            update("SET pk = :one", ExpressionAttributeValues=one),
            update("SET a = :two", ExpressionAttributeValues=one),
            update("SET #a = :one", ExpressionAttributeValues=one),
            update("SET a = b + :one", ExpressionAttributeValues=one),
            update("SET a = empty + :one", ExpressionAttributeValues=one),
            update("SET a.b = :one", ExpressionAttributeValues=one),
            update("SET a = :one SET b = :one", ExpressionAttributeValues=one),
            update("SET a = :one", ExpressionAttributeValues=one, ConditionExpression="number > :one", **old),
            update("SET a = :one", ExpressionAttributeValues={**one, ":more": {"S": "x"}}),
            update("SET big = :big", ExpressionAttributeValues={":big": {"S": "x" * 410_000}}),
        ]


def test_fast_moto_refusals_equal_those_of_botocore_and_moto() -> None:
    told = refusals(fast())
    assert told == refusals(nullcontext())
    # The second time, when expressions are known.
    assert told == refusals(fast())


def encryption_and_update_responses(context: AbstractContextManager[None]) -> list[Any]:
    with mock_aws(), context:
        kms, table, secrets = boto3.client("kms"), boto3.client("dynamodb"), boto3.client("secretsmanager")
        key_id, encryption = kms.create_key()["KeyMetadata"]["KeyId"], {"connection": "c"}
        sealed = kms.encrypt(KeyId=key_id, Plaintext=b"\x00text", EncryptionContext=encryption)["CiphertextBlob"]
        plain = kms.decrypt(KeyId=key_id, CiphertextBlob=sealed, EncryptionContext=encryption)["Plaintext"]
        made = secrets.create_secret(Name="a", SecretBinary=b"\xff")
        found = secrets.get_secret_value(SecretId="a")
        make_table(table, ["pk"])
        key: dict[str, Any] = {"TableName": "t", "Key": {"pk": {"S": "a"}}}
        made_twice = [
            table.update_item(
                **key,
                UpdateExpression="SET #l = list_append(if_not_exists(#l, :none), :more), n = :n ADD s :s, c :n REMOVE gone",
                ExpressionAttributeNames={"#l": "list"},
                ExpressionAttributeValues={
                    ":none": {"L": []}, ":more": {"L": [{"S": "x"}, {"B": b"y"}]}, ":n": {"N": "1.5"}, ":s": {"SS": ["a"]},
                },
                ConditionExpression="NOT attribute_exists(#l) OR (size(#l) < :n AND s IN (:s, :n)) OR n BETWEEN :n AND :n",
                ReturnValues=values,
            ).get("Attributes")
            for values in ("ALL_NEW", "UPDATED_OLD", "UPDATED_NEW", "ALL_OLD", "NONE")
        ]  # fmt: skip
        items = table.batch_get_item(RequestItems={"t": {"Keys": [key["Key"]], "ConsistentRead": True}})["Responses"][
            "t"
        ]
        return [plain, type(made["ARN"]), found["SecretBinary"], type(found["CreatedDate"]), *made_twice, items]


def test_fast_moto_encryption_and_update_responses_equal_those_of_moto() -> None:
    responses = encryption_and_update_responses(fast())
    assert responses == encryption_and_update_responses(nullcontext())
    assert responses == encryption_and_update_responses(fast())
    assert responses[0] == b"\x00text"


def transaction_responses(context: AbstractContextManager[None], *, has_range_key: bool) -> list[Any]:
    """A transaction that is carried out, and one whose last condition fails after an update, a put and a deletion."""
    names = ["pk", "sk"] if has_range_key else ["pk"]
    with mock_aws(), context:
        table = boto3.client("dynamodb")
        make_table(table, names)

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
