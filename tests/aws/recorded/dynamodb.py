"""DynamoDB: conditions, transactions, batches, values."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import ClientError

from tests.aws.expectations import MEMORY, MOTO, Expectation, content, refusal
from tests.aws.stand_ins import TABLE, Aws

Item = dict[str, Any]
BATCH_WRITE_PAGE = "https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchWriteItem.html"
BATCH_GET_PAGE = "https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchGetItem.html"
TRANSACT_PAGE = "https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html"
PUT_PAGE = "https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_PutItem.html"


def dynamodb(test: str) -> str:
    return f"test_dynamodb::TestDynamoDB::{test}"


def _item(aws: Aws, **values: Any) -> Item:
    return {"pk": {"S": aws.fresh("item")}, "sk": {"S": "item"}, **values}


def _key(item: Item) -> Item:
    return {"pk": item["pk"], "sk": item["sk"]}


def _get(aws: Aws, item: Item) -> Item | None:
    answer = aws.dynamodb.get_item(TableName=TABLE, Key=_key(item), ConsistentRead=True)
    return dict(answer["Item"]) if "Item" in answer else None


def _failed_condition(aws: Aws, **more: str) -> Any:
    item = _item(aws, price={"N": "650"}, product={"S": "sporting goods"})
    aws.dynamodb.put_item(TableName=TABLE, Item=item)
    try:
        aws.dynamodb.update_item(
            TableName=TABLE,
            Key=_key(item),
            UpdateExpression="SET price = :price",
            ConditionExpression="price < :least",
            ExpressionAttributeValues={":price": {"N": "1"}, ":least": {"N": "500"}},
            **more,
        )
    except ClientError as error:
        return error.response["Error"]["Code"], error.response.get("Item") == item, "Item" in error.response
    return "accepted"


def _cancelled(aws: Aws, **more: str) -> Any:
    stored, new = _item(aws, value={"S": "stored"}), _item(aws)
    aws.dynamodb.put_item(TableName=TABLE, Item=stored)
    put: Item = {"TableName": TABLE, "Item": stored, "ConditionExpression": "attribute_not_exists(pk)", **more}
    try:
        aws.dynamodb.transact_write_items(
            TransactItems=[{"Put": put}, {"Put": {"TableName": TABLE, "Item": new}}], ClientRequestToken=aws.fresh()
        )
    except ClientError as error:
        reasons = error.response["CancellationReasons"]
        shown = [(reason["Code"], reason.get("Item") == stored) for reason in reasons]
        return error.response["Error"]["Code"], shown, _get(aws, new)
    return "accepted"


def _repeated_transaction(aws: Aws) -> Any:
    item, token = _item(aws, count={"N": "1"}), aws.fresh("token")
    aws.dynamodb.put_item(TableName=TABLE, Item=item)
    update = {
        "TableName": TABLE,
        "Key": _key(item),
        "UpdateExpression": "ADD #count :one",
        "ExpressionAttributeNames": {"#count": "count"},
        "ExpressionAttributeValues": {":one": {"N": "1"}},
    }
    for _ in range(2):
        aws.dynamodb.transact_write_items(TransactItems=[{"Update": update}], ClientRequestToken=token)
    return (_get(aws, item) or {})["count"]


def _one_item_twice(aws: Aws) -> str:
    item = _item(aws)
    put = {"Put": {"TableName": TABLE, "Item": item}}
    delete = {"Delete": {"TableName": TABLE, "Key": _key(item)}}
    return refusal(aws.dynamodb.transact_write_items, TransactItems=[put, delete])


def _write_transaction(aws: Aws, count: int) -> str:
    puts = [{"Put": {"TableName": TABLE, "Item": _item(aws)}} for _ in range(count)]
    return refusal(aws.dynamodb.transact_write_items, TransactItems=puts)


def _binary(aws: Aws) -> Any:
    item = _item(aws, data={"B": b"\x90"}, empty={"B": b""})
    put = {"Put": {"TableName": TABLE, "Item": item}}
    aws.dynamodb.transact_write_items(TransactItems=[put], ClientRequestToken=aws.fresh())
    found = _get(aws, item) or {}
    return found["data"], found["empty"]


def _empty_text(aws: Aws) -> Any:
    item = _item(aws, data={"S": ""})
    aws.dynamodb.put_item(TableName=TABLE, Item=item)
    return (_get(aws, item) or {})["data"]


def _empty_key(aws: Aws) -> str:
    return refusal(aws.dynamodb.put_item, TableName=TABLE, Item={"pk": {"S": ""}, "sk": {"S": "item"}})


def _returned(aws: Aws) -> Any:
    item = _item(aws, data={"S": "first"})
    first = aws.dynamodb.put_item(TableName=TABLE, Item=item, ReturnValues="ALL_OLD")
    second = aws.dynamodb.put_item(TableName=TABLE, Item=item | {"data": {"S": "second"}}, ReturnValues="ALL_OLD")
    return content(first), second.get("Attributes", {}).get("data")


def _batch_write(aws: Aws, count: int) -> Any:
    puts = [{"PutRequest": {"Item": _item(aws)}} for _ in range(count)]
    code = refusal(aws.dynamodb.batch_write_item, RequestItems={TABLE: puts})
    return code


def _batch_write_answer(aws: Aws) -> Any:
    puts = [{"PutRequest": {"Item": _item(aws)}} for _ in range(2)]
    return aws.dynamodb.batch_write_item(RequestItems={TABLE: puts})["UnprocessedItems"]


def _batch_write_twice(aws: Aws) -> str:
    put = {"PutRequest": {"Item": _item(aws)}}
    return refusal(aws.dynamodb.batch_write_item, RequestItems={TABLE: [put, put]})


def _no_sort_key(aws: Aws) -> str:
    put = {"PutRequest": {"Item": {"pk": {"S": aws.fresh("item")}}}}
    return refusal(aws.dynamodb.batch_write_item, RequestItems={TABLE: [put]})


def _batch_get(aws: Aws, count: int) -> Any:
    keys = [_key(_item(aws)) for _ in range(count)]
    return refusal(aws.dynamodb.batch_get_item, RequestItems={TABLE: {"Keys": keys}})


def _batch_get_nothing(aws: Aws) -> Any:
    answer = content(aws.dynamodb.batch_get_item(RequestItems={TABLE: {"Keys": [_key(_item(aws))]}}))
    return answer["Responses"], answer["UnprocessedKeys"]


def _batch_get_twice(aws: Aws) -> str:
    key = _key(_item(aws))
    return refusal(aws.dynamodb.batch_get_item, RequestItems={TABLE: {"Keys": [key, key]}})


def _missing_table(aws: Aws) -> str:
    put = {"Put": {"TableName": "missing-table", "Item": _item(aws)}}
    return refusal(aws.dynamodb.transact_write_items, TransactItems=[put], ClientRequestToken=aws.fresh())


CONDITION, VALIDATION = "ConditionalCheckFailedException", "ValidationException"
ALL_OLD = {"ReturnValuesOnConditionCheckFailure": "ALL_OLD"}

EXPECTATIONS = (
    Expectation(
        "dynamodb_failed_condition_returns_the_old_item_when_asked",
        dynamodb("test_return_values_on_conditions_check_failure::items"),
        lambda aws: _failed_condition(aws, **ALL_OLD),
        (CONDITION, True, True),
    ),
    Expectation(
        "dynamodb_failed_condition_returns_no_item_unasked",
        PUT_PAGE,
        _failed_condition,
        (CONDITION, False, False),
    ),
    Expectation(
        "dynamodb_cancelled_transaction_names_a_reason_for_each_item_and_writes_nothing",
        dynamodb("test_transaction_write_canceled::Error"),
        _cancelled,
        ("TransactionCanceledException", [("ConditionalCheckFailed", False), ("None", False)], None),
    ),
    Expectation(
        "dynamodb_cancelled_transaction_returns_the_old_item_when_asked",
        TRANSACT_PAGE,
        lambda aws: _cancelled(aws, **ALL_OLD),
        ("TransactionCanceledException", [("ConditionalCheckFailed", True), ("None", False)], None),
    ),
    Expectation(
        "dynamodb_repeated_transaction_token_writes_once",
        dynamodb("test_dynamodb_idempotent_writing"),
        _repeated_transaction,
        {"N": "2"},
        differs={MOTO: {"N": "3"}},
    ),
    Expectation(
        "dynamodb_transaction_with_one_item_twice_is_refused",
        TRANSACT_PAGE,
        _one_item_twice,
        VALIDATION,
    ),
    Expectation(
        "dynamodb_transaction_of_more_than_100_items_is_refused",
        TRANSACT_PAGE,
        lambda aws: _write_transaction(aws, 101),
        VALIDATION,
    ),
    Expectation(
        "dynamodb_transaction_keeps_binary_values",
        dynamodb("test_transaction_write_binary_data::GetItem"),
        _binary,
        ({"B": b"\x90"}, {"B": b""}),
    ),
    Expectation(
        "dynamodb_missing_table_is_not_found",
        dynamodb("test_batch_write_not_existing_table::exc-not-found-transact-write-items"),
        _missing_table,
        "ResourceNotFoundException",
        lacks={MEMORY: "the in-memory AWS has one table"},
    ),
    Expectation(
        "dynamodb_empty_text_is_a_value",
        dynamodb("test_empty_and_binary_values::PutFirstItem"),
        _empty_text,
        {"S": ""},
    ),
    Expectation(
        "dynamodb_empty_text_is_no_key",
        PUT_PAGE,
        _empty_key,
        VALIDATION,
    ),
    Expectation(
        "dynamodb_put_returns_the_old_item_when_asked",
        dynamodb("test_return_values_in_put_item::PutFirstItemOLD"),
        _returned,
        ({}, {"S": "first"}),
        lacks={MEMORY: "the product asks no put for the old item"},
    ),
    Expectation(
        "dynamodb_batch_write_leaves_nothing_unprocessed",
        dynamodb("test_batch_write_items::BatchWriteResponse"),
        _batch_write_answer,
        {},
    ),
    Expectation(
        "dynamodb_batch_write_of_more_than_25_is_refused",
        BATCH_WRITE_PAGE,
        lambda aws: _batch_write(aws, 26),
        VALIDATION,
        differs={MOTO: ""},
    ),
    Expectation(
        "dynamodb_batch_write_with_one_item_twice_is_refused",
        BATCH_WRITE_PAGE,
        _batch_write_twice,
        VALIDATION,
    ),
    Expectation(
        "dynamodb_batch_write_without_the_sort_key_is_refused",
        dynamodb("test_batch_write_not_matching_schema::ValidationException"),
        _no_sort_key,
        VALIDATION,
    ),
    Expectation(
        "dynamodb_batch_get_of_missing_items_answers_an_empty_list",
        dynamodb("test_dynamodb_get_batch_items::Response"),
        _batch_get_nothing,
        ({TABLE: []}, {}),
    ),
    Expectation(
        "dynamodb_batch_get_of_more_than_100_is_refused",
        BATCH_GET_PAGE,
        lambda aws: _batch_get(aws, 101),
        VALIDATION,
    ),
    Expectation(
        "dynamodb_batch_get_with_one_key_twice_is_refused",
        BATCH_GET_PAGE,
        _batch_get_twice,
        VALIDATION,
    ),
)
