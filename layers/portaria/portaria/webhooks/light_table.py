"""Items of the table, read and written with the light client.

This module is on the webhooks' cold path: no boto3, no Powertools.
"""

from __future__ import annotations

import re
from typing import Any

from portaria.aws.light_client import AwsClient
from portaria.core.error_roots import Retryable
from portaria.core.item_keys import ItemKey

# Attributes as DynamoDB writes them: {"state": {"S": "received"}}.
Item = dict[str, Any]

CONDITION_FAILED = "ConditionalCheckFailedException"


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

    def put(self, item: dict[str, str | int], timeout_s: float, *, condition: str = "") -> None:
        request: dict[str, Any] = {
            "TableName": self.name,
            "Item": {name: _typed(value) for name, value in item.items()},
        }
        if condition:
            request["ConditionExpression"] = condition
        self._client.call("PutItem", request, timeout_s=timeout_s)

    def update(
        self, key: ItemKey, expression: str, condition: str, values: dict[str, str | int], timeout_s: float
    ) -> Item:
        """Change an item on a condition and return it.

        The expressions name attributes `#name` and values `:name`.
        """
        names = re.findall(r"#(\w+)", f"{expression} {condition}")
        request = {
            "TableName": self.name,
            "Key": _typed_key(key),
            "UpdateExpression": expression,
            "ConditionExpression": condition,
            "ExpressionAttributeNames": {f"#{name}": name for name in names},
            "ExpressionAttributeValues": {f":{name}": _typed(value) for name, value in values.items()},
            "ReturnValues": "ALL_NEW",
        }
        item: Item = self._client.call("UpdateItem", request, timeout_s=timeout_s).get("Attributes", {})
        return item

    def close(self) -> None:
        self._client.close()


def text(item: Item, name: str) -> str:
    """An attribute as text, whatever its type; empty where the item does not have it."""
    return next(iter(item.get(name, {}).values()), "")


def _typed_key(key: ItemKey) -> dict[str, dict[str, str]]:
    return {"pk": {"S": key[0]}, "sk": {"S": key[1]}}


def _typed(value: str | int) -> dict[str, str]:
    return {"S": value} if isinstance(value, str) else {"N": str(value)}
