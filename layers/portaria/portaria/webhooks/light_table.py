"""Items of the table, read and written with the light client.

This module is on the webhooks' cold path: no boto3, no Powertools.
"""

from __future__ import annotations

import re

from portaria.aws.light_client import AwsClient
from portaria.core.error_roots import Retryable
from portaria.core.item_keys import ItemKey

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    # Attributes as DynamoDB writes them: {"state": {"S": "received"}}.
    Item = dict[str, Any]

# What is written: text, a whole number, or a map of texts.
Value = str | int | dict[str, str]

CONDITION_FAILED = "ConditionalCheckFailedException"
CANCELED = "TransactionCanceledException"


class LightTable:
    """One connection to DynamoDB, which a process keeps. Each method raises `Retryable` and `AwsError`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._client = AwsClient("dynamodb", "DynamoDB_20120810")

    def get(self, key: ItemKey, timeout_s: float) -> Item | None:
        """A strongly consistent read."""
        request = {"TableName": self.name, "Key": _typed_key(key), "ConsistentRead": True}
        item: Item | None = self._client.call("GetItem", request, timeout_s=timeout_s).get("Item")
        return item

    def get_both(self, first: ItemKey, second: ItemKey, timeout_s: float) -> dict[str, Item]:
        """Strongly consistent reads of two items in one call: those that exist, by partition key.

        Raises `Retryable` where the first was not read.
        """
        keys = [_typed_key(first), _typed_key(second)]
        asked = {self.name: {"Keys": keys, "ConsistentRead": True}}
        answer = self._client.call("BatchGetItem", {"RequestItems": asked}, timeout_s=timeout_s)
        if keys[0] in answer.get("UnprocessedKeys", {}).get(self.name, {}).get("Keys", []):
            raise Retryable("table_unavailable", "DynamoDB did not read an item of a batch")
        items: list[Item] = answer.get("Responses", {}).get(self.name, [])
        return {text(item, "pk"): item for item in items}

    def put(self, item: dict[str, Value], timeout_s: float, *, condition: str = "") -> None:
        request = self._put(item)
        if condition:
            request["ConditionExpression"] = condition
        self._client.call("PutItem", request, timeout_s=timeout_s)

    def update(
        self, key: ItemKey, expression: str, condition: str, values: dict[str, str | int], timeout_s: float
    ) -> Item:
        """Change an item on a condition and return it.

        The expressions name attributes `#name` and values `:name`.
        """
        request = self._update(key, expression, condition, values) | {"ReturnValues": "ALL_NEW"}
        item: Item = self._client.call("UpdateItem", request, timeout_s=timeout_s).get("Attributes", {})
        return item

    def update_and_put(
        self,
        key: ItemKey,
        expression: str,
        condition: str,
        values: dict[str, str | int],
        items: list[dict[str, Value]],
        timeout_s: float,
    ) -> None:
        """Change an item on a condition and put others, all or none. Raises `AwsError` with the code `CANCELED` also where
        another transaction was first."""
        writes = [
            {"Update": self._update(key, expression, condition, values)},
            *({"Put": self._put(item)} for item in items),
        ]
        self._client.call("TransactWriteItems", {"TransactItems": writes}, timeout_s=timeout_s)

    def _put(self, item: dict[str, Value]) -> dict[str, Any]:
        return {"TableName": self.name, "Item": {name: _typed(value) for name, value in item.items()}}

    def _update(self, key: ItemKey, expression: str, condition: str, values: dict[str, str | int]) -> dict[str, Any]:
        names = re.findall(r"#(\w+)", f"{expression} {condition}")
        return {
            "TableName": self.name,
            "Key": _typed_key(key),
            "UpdateExpression": expression,
            "ConditionExpression": condition,
            "ExpressionAttributeNames": {f"#{name}": name for name in names},
            "ExpressionAttributeValues": {f":{name}": _typed(value) for name, value in values.items()},
        }

    def close(self) -> None:
        self._client.close()


def text(item: Item, name: str) -> str:
    """An attribute as text, whatever its type; empty where the item does not have it."""
    return next(iter(item.get(name, {}).values()), "")


def _typed_key(key: ItemKey) -> dict[str, dict[str, str]]:
    return {"pk": {"S": key[0]}, "sk": {"S": key[1]}}


def _typed(value: Value) -> dict[str, Any]:
    if isinstance(value, dict):
        return {"M": {name: {"S": inner} for name, inner in value.items()}}
    return {"S": value} if isinstance(value, str) else {"N": str(value)}
