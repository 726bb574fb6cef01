"""The one DynamoDB table: items as plain dictionaries, conditional writes, queries by page.

The module that owns a kind of item defines its keys (`CONNECTION#{name}` in `connection_store`).
"""

from __future__ import annotations

import base64
import json
import math
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from botocore.exceptions import ClientError

from portaria.aws import attribute_values, service_clients
from portaria.core import clock
from portaria.core.errors import Rejected, StackUnavailable

Item = dict[str, Any]
One = TypeVar("One")
Found = TypeVar("Found")

# The keys of the table and of its indexes.
INDEXES = {
    "": ("pk", "sk"),
    "listing": ("list_pk", "list_sk"),
    "by_source": ("source", "pk"),
    "by_due": ("due_pk", "due_at"),
    "by_filter": ("filter_pk", "filter_sk"),
}

# The most items that one batch read may have, and how many batch reads are made at once. Ten would be faster by a few
# milliseconds, and cost more processor time and a burst of calls.
MAX_READS, CONCURRENT_READS = 100, 5
# The most items that one batch write may have, and how often in a row one may fail completely.
MAX_WRITES, MAX_VAIN_BATCHES = 25, 5

# DynamoDB's limit for a sort key is 1,024 bytes.
MAX_PLACE_LENGTH = 300

# The client keeps ten connections.
MAX_CONCURRENT = 10


class Conflict(Exception):
    """A condition did not hold: another writer was first. `item` is the stored item, if it is known."""

    def __init__(self, item: Item | None = None) -> None:
        super().__init__("the item has changed")
        self.item = item


class Table:
    """`condition` is a DynamoDB condition expression; its `:values` and `#names` come in `values` and `names`."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def client(self) -> Any:
        """The client of DynamoDB."""
        return service_clients.client("dynamodb")

    def get(self, pk: str, sk: str) -> Item | None:
        """A strongly consistent read."""
        answer = self.client.get_item(TableName=self.name, Key=_key(pk, sk), ConsistentRead=True)
        return _plain(answer["Item"]) if "Item" in answer else None

    def get_many(self, keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Item]:
        """Return the items that exist, by their keys. Reads are strongly consistent, and each call reads up to a hundred items.

        More than a hundred are read with concurrent calls. Each thread makes an equal share of the calls: a task for each call
        would cost more than reading the answers.
        """
        wanted = list(keys)
        share = MAX_READS * max(1, math.ceil(len(wanted) / (MAX_READS * CONCURRENT_READS)))
        parts = [wanted[start : start + share] for start in range(0, len(wanted), share)]
        found: dict[tuple[str, str], Item] = {}
        for items in run_concurrently(self._get_part, parts):
            found |= items
        return found

    def _get_part(self, waiting: list[tuple[str, str]]) -> dict[tuple[str, str], Item]:
        found: dict[tuple[str, str], Item] = {}
        while waiting:
            asked, waiting = waiting[:MAX_READS], waiting[MAX_READS:]
            wanted = {"Keys": [_key(pk, sk) for pk, sk in asked], "ConsistentRead": True}
            answer = self.client.batch_get_item(RequestItems={self.name: wanted})
            for item in map(_plain, answer["Responses"].get(self.name, [])):
                found[item["pk"], item["sk"]] = item
            left = answer.get("UnprocessedKeys", {}).get(self.name, {}).get("Keys", [])
            waiting += [(key["pk"]["S"], key["sk"]["S"]) for key in left]
        return found

    def put(
        self,
        item: Item,
        *,
        condition: str = "",
        values: Item | None = None,
        names: dict[str, str] | None = None,
        unique: Iterable[str] = (),
    ) -> None:
        """Raises `Conflict` if the condition does not hold.

        The SDK sends a write again if it gets no answer, and then the write conflicts with itself. If the stored item has the
        same `unique` attributes, which no other write gives it together, that is no conflict.
        """
        own = tuple(unique)
        try:
            self._write("put_item", {"Item": _typed(item)}, condition, values, names)
        except Conflict as conflict:
            stored = conflict.item or {}
            if not own or any(stored.get(name) != item[name] for name in own):
                raise

    def put_revision(self, item: Item, *, new: bool, revision: str = "") -> str:
        """Put an item with a new `revision`, which identifies this change, and return it.

        Raises `Conflict` if a new one exists already, or an old one does not or has another revision than the one given.
        """
        fresh = uuid.uuid4().hex
        condition = (
            "attribute_not_exists(pk)" if new else "revision = :revision" if revision else "attribute_exists(pk)"
        )
        values = {":revision": revision} if revision and not new else None
        self.put(item | {"revision": fresh}, condition=condition, values=values, unique=("revision",))
        return fresh

    def update(
        self,
        pk: str,
        sk: str,
        expression: str,
        *,
        condition: str = "",
        values: Item | None = None,
        names: dict[str, str] | None = None,
    ) -> Item:
        """Returns the whole item after the update. Raises `Conflict` if the condition does not hold."""
        call = {"Key": _key(pk, sk), "UpdateExpression": expression, "ReturnValues": "ALL_NEW"}
        return _plain(self._write("update_item", call, condition, values, names).get("Attributes", {}))

    def delete(
        self,
        pk: str,
        sk: str,
        *,
        condition: str = "",
        values: Item | None = None,
        names: dict[str, str] | None = None,
    ) -> None:
        """Raises `Conflict` if the condition does not hold."""
        self._write("delete_item", {"Key": _key(pk, sk)}, condition, values, names)

    def write_all(self, writes: list[dict[str, Any]]) -> None:
        """Write all of these or none. Each is made by `put_of`, `update_of` or `delete_of`. Raises `Conflict`."""
        items = [{kind: {"TableName": self.name, **call}} for write in writes for kind, call in write.items()]
        try:
            self.client.transact_write_items(TransactItems=items)
        except ClientError as error:
            reasons = {reason.get("Code") for reason in error.response.get("CancellationReasons", [])}
            if service_clients.error_code(error) == "TransactionCanceledException" and reasons <= {
                "None",
                "ConditionalCheckFailed",
                "TransactionConflict",
            }:
                raise Conflict from None
            raise

    def postpone(self, item: Item, due_at: str) -> bool:
        """Postpone an item of the index `by_due`. False if another writer has changed its due time."""
        values = {":later": due_at, ":due_at": item["due_at"]}
        try:
            self.update(item["pk"], item["sk"], "SET due_at = :later", condition="due_at = :due_at", values=values)
        except Conflict:
            return False
        return True

    def query(
        self,
        pk: str,
        *,
        index: str = "",
        sk_prefix: str = "",
        sk_until: str = "",
        sk_from: str = "",
        newest_first: bool = False,
        limit: int | None = None,
        cursor: str | None = None,
        attributes: Sequence[str] = (),
    ) -> tuple[list[Item], str | None]:
        """One page of the items under a partition key, and the cursor of the next page or None.

        `index` is empty for the table itself, `listing` (by list_pk), `by_source`, `by_due` or `by_filter` (keys only).
        Indexes are eventually consistent. `sk_prefix`, or `sk_from` and `sk_until`, narrow the sort key; the last two are
        included. With `attributes`, the items have only these, which saves work here but no read units.
        """
        pk_name, sk_name = INDEXES[index]
        narrow, bounds = _narrow(sk_prefix, sk_from, sk_until)
        call: dict[str, Any] = {
            "TableName": self.name,
            "KeyConditionExpression": "#pk = :pk" + narrow,
            "ExpressionAttributeNames": {"#pk": pk_name} | ({"#sk": sk_name} if narrow else {}),
            "ExpressionAttributeValues": _typed({":pk": pk} | bounds),
            "ScanIndexForward": not newest_first,
        }
        if index:
            call["IndexName"] = index
        else:
            call["ConsistentRead"] = True
        if limit:
            call["Limit"] = limit
        if attributes:
            shown = {f"#a{number}": name for number, name in enumerate(attributes)}
            call["ProjectionExpression"] = ", ".join(shown)
            call["ExpressionAttributeNames"] |= shown
        if cursor:
            call["ExclusiveStartKey"] = _typed(_read_cursor(cursor))
        try:
            answer = self.client.query(**call)
        except ClientError as error:
            # A cursor that was invented, or belongs to another listing, has no place in this one.
            if cursor and service_clients.error_code(error) == "ValidationException":
                raise _bad_cursor() from None
            raise
        last = answer.get("LastEvaluatedKey")
        return [_plain(item) for item in answer["Items"]], encode_cursor(_plain(last)) if last else None

    def put_all(self, items: Iterable[Item]) -> None:
        """Put many items unconditionally, in any order and not atomically. Raises `Retryable` if some were not written."""
        waiting = [{"PutRequest": {"Item": _typed(item)}} for item in items]
        tries = 0
        while waiting:
            answer = self.client.batch_write_item(RequestItems={self.name: waiting[:MAX_WRITES]})
            left = answer.get("UnprocessedItems", {}).get(self.name, [])
            tries = _again(tries) if len(left) == len(waiting[:MAX_WRITES]) else 0
            waiting = left + waiting[MAX_WRITES:]

    def query_all(self, pk: str, *, index: str = "", sk_prefix: str = "") -> Iterator[Item]:
        cursor: str | None = None
        while True:
            items, cursor = self.query(pk, index=index, sk_prefix=sk_prefix, cursor=cursor)
            yield from items
            if not cursor:
                return

    def _write(
        self, operation: str, call: dict[str, Any], condition: str, values: Item | None, names: dict[str, str] | None
    ) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = getattr(self.client, operation)(
                TableName=self.name, **call, **_conditional(condition, values, names)
            )
            return answer
        except ClientError as error:
            if service_clients.error_code(error) == "ConditionalCheckFailedException":
                found = error.response.get("Item")
                raise Conflict(_plain(found) if found else None) from None
            raise


def _narrow(prefix: str, first: str, last: str) -> tuple[str, Item]:
    """The condition on a sort key, and its values."""
    if prefix:
        return " AND begins_with(#sk, :sk)", {":sk": prefix}
    if first and last:
        return " AND #sk BETWEEN :sk AND :last", {":sk": first, ":last": last}
    if first:
        return " AND #sk >= :sk", {":sk": first}
    return (" AND #sk <= :sk", {":sk": last}) if last else ("", {})


def _again(tries: int) -> int:
    """Pause after a batch of which nothing was written. Raises `Retryable` if that repeats."""
    if tries >= MAX_VAIN_BATCHES:
        raise StackUnavailable("storage_busy", "the table does not accept writes now")
    clock.sleep(0.05 * 2**tries)
    return tries + 1


def run_concurrently(work: Callable[[One], Found], items: Sequence[One]) -> list[Found]:
    """The results of `work` for each, in order, with concurrent calls. Raises what `work` raises."""
    if len(items) <= 1:
        return [work(item) for item in items]
    with ThreadPoolExecutor(min(MAX_CONCURRENT, len(items))) as pool:
        return list(pool.map(work, items))


def put_of(
    item: Item, condition: str = "", values: Item | None = None, names: dict[str, str] | None = None
) -> dict[str, Any]:
    return {"Put": {"Item": _typed(item), **_in_transaction(condition, values, names)}}


def update_of(
    pk: str,
    sk: str,
    expression: str,
    condition: str = "",
    values: Item | None = None,
    names: dict[str, str] | None = None,
) -> dict[str, Any]:
    return {
        "Update": {"Key": _key(pk, sk), "UpdateExpression": expression, **_in_transaction(condition, values, names)}
    }


def delete_of(
    pk: str, sk: str, condition: str = "", values: Item | None = None, names: dict[str, str] | None = None
) -> dict[str, Any]:
    return {"Delete": {"Key": _key(pk, sk), **_in_transaction(condition, values, names)}}


def _conditional(condition: str, values: Item | None, names: dict[str, str] | None) -> dict[str, Any]:
    call = _in_transaction(condition, values, names)
    if condition:
        call["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
    return call


def _in_transaction(condition: str, values: Item | None, names: dict[str, str] | None) -> dict[str, Any]:
    call: dict[str, Any] = {}
    if condition:
        call["ConditionExpression"] = condition
    if values:
        call["ExpressionAttributeValues"] = _typed(values)
    if names:
        call["ExpressionAttributeNames"] = names
    return call


def _key(pk: str, sk: str) -> dict[str, Any]:
    return {"pk": {"S": pk}, "sk": {"S": sk}}


def _typed(item: Item) -> dict[str, Any]:
    return {name: attribute_values.typed(value) for name, value in item.items() if value is not None}


def _plain(item: dict[str, Any]) -> Item:
    return {name: attribute_values.plain(value) for name, value in item.items()}


def cursor_after(item: Item) -> str:
    """The cursor that continues after an item of the index `listing`."""
    return encode_cursor({name: item[name] for name in ("pk", "sk", "list_pk", "list_sk")})


def encode_cursor(place: Any) -> str:
    """A place in a listing (any JSON value) as text that callers send back."""
    return base64.urlsafe_b64encode(json.dumps(place, separators=(",", ":")).encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> Any:
    """The place of a cursor, of any type, because callers can send anything. Raises `ValueError` or `RecursionError`."""
    return json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))


def read_place(cursor: str) -> str:
    """The place of a cursor that holds a sort key. Raises `Rejected` (`bad_cursor`)."""
    try:
        place = decode_cursor(cursor)
    except (ValueError, RecursionError):
        raise _bad_cursor() from None
    if (
        not isinstance(place, str)
        or not 1 <= len(place) <= MAX_PLACE_LENGTH
        or not (place.isascii() and place.isprintable())
    ):
        raise _bad_cursor()
    return place


def _read_cursor(cursor: str) -> Item:
    try:
        key = decode_cursor(cursor)
        if not all(isinstance(name, str) and isinstance(value, str) for name, value in key.items()):
            raise ValueError
    except (ValueError, AttributeError, RecursionError):
        raise _bad_cursor() from None
    return dict(key)


def _bad_cursor() -> Rejected:
    return Rejected(
        "bad_cursor",
        "the cursor is not valid: send the next_cursor of the last response, or none to begin again",
        field="cursor",
    )
