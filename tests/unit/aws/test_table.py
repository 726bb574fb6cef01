"""The table on moto: items, conditions, pages and their cursors."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from unittest.mock import MagicMock, patch

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from portaria.aws import service_clients
from portaria.aws.table import Conflict, Table, cursor_after, put_of, update_of
from portaria.core.errors import Rejected
from tests.fakes.aws.lost_answers import puts_sent_twice
from tests.fakes.aws.moto_cloud import cloud


@pytest.fixture(scope="module")
def table() -> Iterator[Table]:
    """One table for the module. Each test has keys of its own."""
    with cloud() as stack:
        yield stack.table


def item(pk: str, sk: str = "ITEM", **attributes: Any) -> dict[str, Any]:
    return {"pk": pk, "sk": sk, **attributes}


@pytest.mark.parametrize(
    "value",
    [
        *("", "text", "São", 0, -1, 2**62, 10**30, 1.5, True, False, b"bytes", b""),
        *([], ["a", 1, [True]], {}, {"a": {"b": [1, None]}}),
    ],
    ids=repr,
)
def test_table_value_is_read_back_with_its_type(table: Table, value: Any) -> None:
    table.put(item("VALUE", value=Decimal(str(value)) if isinstance(value, float) else value))
    found = table.get("VALUE", "ITEM")
    assert found is not None
    assert found["value"] == value
    assert type(found["value"]) is type(value)


def test_table_put_none_attribute_is_omitted(table: Table) -> None:
    table.put(item("NONE", value=None, other=1))
    assert table.get("NONE", "ITEM") == item("NONE", other=1)


@pytest.mark.parametrize("new", [True, False])
def test_table_put_revision_sent_twice_succeeds(table: Table, new: bool) -> None:
    """Given a write whose first answer was lost, so that botocore's second one conflicts with it, then it has succeeded."""
    pk = f"TWICE#{new}"
    before = "" if new else table.put_revision(item(pk), new=True)
    with puts_sent_twice(pk):
        revision = table.put_revision(item(pk, value=1), new=new, revision=before)
    assert table.get(pk, "ITEM") == item(pk, value=1, revision=revision)
    with pytest.raises(Conflict):
        table.put_revision(item(pk), new=new, revision=before)


def test_table_put_float_is_refused(table: Table) -> None:
    with pytest.raises(TypeError, match="Decimal"):
        table.put(item("FLOAT", value=0.1))
    assert table.get("FLOAT", "ITEM") is None


def test_table_nested_numbers_are_plain(table: Table) -> None:
    table.put(item("DEEP", value={"list": [1, Decimal("2.5"), {"n": Decimal("1E+2")}], "bytes": [b"x"]}))
    found = table.get("DEEP", "ITEM")
    assert found is not None
    assert json.dumps(found["value"]["list"]) == '[1, 2.5, {"n": 100}]'
    assert found["value"]["bytes"] == [b"x"]


def test_table_put_all_writes_at_most_25_items_per_call(table: Table) -> None:
    # moto accepts more: tests/aws/recorded/dynamodb.py.
    client = MagicMock()
    client.batch_write_item.return_value = {"UnprocessedItems": {}}
    with patch.object(service_clients, "client", return_value=client):
        table.put_all(item(f"MANY#{number}") for number in range(60))
    sizes = [len(call.kwargs["RequestItems"][table.name]) for call in client.batch_write_item.call_args_list]
    assert sizes == [25, 25, 10]


def test_table_reads_are_strongly_consistent_except_on_indexes(table: Table) -> None:
    client = MagicMock()
    client.get_item.return_value, client.query.return_value = {}, {"Items": []}
    with patch.object(service_clients, "client", return_value=client):
        table.get("A", "B")
        table.query("A")
        table.query("A", index="listing")
    assert client.get_item.call_args.kwargs["ConsistentRead"] is True
    on_table, on_index = (call.kwargs for call in client.query.call_args_list)
    assert on_table["ConsistentRead"] is True
    assert "ConsistentRead" not in on_index  # an index refuses it


def test_table_put_condition_failed_is_a_conflict_with_existing_item(table: Table) -> None:
    table.put(item("TWICE", by="first", n=1), condition="attribute_not_exists(pk)")
    with pytest.raises(Conflict) as conflict:
        table.put(item("TWICE", by="second"), condition="attribute_not_exists(pk)")
    assert conflict.value.item == item("TWICE", by="first", n=1)
    assert "first" not in str(conflict.value)
    assert table.get("TWICE", "ITEM") == item("TWICE", by="first", n=1)


def test_table_update_returns_whole_item_or_conflict(table: Table) -> None:
    table.put(item("UPDATE", a=1, b=2))
    after = table.update(
        "UPDATE", "ITEM", "SET #a = :a REMOVE b", condition="b = :b", values={":a": 5, ":b": 2}, names={"#a": "a"}
    )
    assert after == item("UPDATE", a=5)
    with pytest.raises(Conflict) as conflict:
        table.update("UPDATE", "ITEM", "SET a = :a", condition="b = :b", values={":a": 6, ":b": 2})
    assert conflict.value.item == item("UPDATE", a=5)


def test_table_update_missing_item_conflict_has_no_item(table: Table) -> None:
    with pytest.raises(Conflict) as conflict:
        table.update("NOBODY", "ITEM", "SET a = :a", condition="attribute_exists(pk)", values={":a": 1})
    assert conflict.value.item is None
    assert table.get("NOBODY", "ITEM") is None


def test_table_delete_with_condition_conflicts_and_can_be_repeated(table: Table) -> None:
    table.put(item("DELETE", generation=2))
    with pytest.raises(Conflict):
        table.delete("DELETE", "ITEM", condition="generation = :one", values={":one": 1})
    table.delete("DELETE", "ITEM", condition="generation = :two", values={":two": 2})
    table.delete("DELETE", "ITEM")
    assert table.get("DELETE", "ITEM") is None


def test_table_write_all_is_atomic(table: Table) -> None:
    table.put(item("TOGETHER-1", n=1))
    writes = [
        update_of("TOGETHER-1", "ITEM", "SET n = :two", "n = :one", {":one": 1, ":two": 2}),
        put_of(item("TOGETHER-2"), "attribute_not_exists(pk)"),
    ]
    table.write_all(writes)
    with pytest.raises(Conflict):
        table.write_all([update_of("TOGETHER-1", "ITEM", "SET n = :n", "", {":n": 9}), writes[1]])
    assert table.get("TOGETHER-1", "ITEM") == item("TOGETHER-1", n=2)
    assert table.get("TOGETHER-2", "ITEM") == item("TOGETHER-2")


@pytest.mark.parametrize(
    ("reasons", "is_conflict"),
    [
        (["None", "ConditionalCheckFailed"], True),
        (["TransactionConflict", "None"], True),
        (["ConditionalCheckFailed", "TransactionConflict"], True),
        (["ThrottlingError", "None"], False),
        (["ValidationError"], False),
        (["ItemCollectionSizeLimitExceeded"], False),
        (["ConditionalCheckFailed", "ProvisionedThroughputExceeded"], False),
    ],
)
def test_table_write_all_cancelled_is_a_conflict_only_for_condition_reasons(
    table: Table, reasons: list[str], is_conflict: bool
) -> None:
    response: Any = {
        "Error": {"Code": "TransactionCanceledException", "Message": "cancelled"},
        "CancellationReasons": [{"Code": reason} for reason in reasons],
    }
    client = MagicMock(**{"transact_write_items.side_effect": ClientError(response, "TransactWriteItems")})
    with (
        patch.object(service_clients, "client", return_value=client),
        pytest.raises(Conflict if is_conflict else ClientError),
    ):
        table.write_all([put_of(item("X"))])


@pytest.mark.parametrize("operation", ["put", "update", "delete"])
def test_table_write_other_error_is_not_a_conflict(table: Table, operation: str) -> None:
    error = ClientError({"Error": {"Code": "ThrottlingException", "Message": ""}}, operation)
    client = MagicMock(**{f"{operation}_item.side_effect": error})
    calls: dict[str, Any] = {
        "put": lambda: table.put(item("X"), condition="attribute_not_exists(pk)"),
        "update": lambda: table.update("X", "ITEM", "SET a = :a", condition="a = :a", values={":a": 1}),
        "delete": lambda: table.delete("X", "ITEM", condition="a = :a", values={":a": 1}),
    }
    with patch.object(service_clients, "client", return_value=client), pytest.raises(ClientError):
        calls[operation]()


@pytest.fixture(scope="module")
def listing(table: Table) -> Table:
    for number in range(7):
        table.put(item(f"LISTED#{number}", list_pk="LIST", list_sk=f"{number:03d}", n=number))
        table.put(item("PARTITION", f"{'a' if number < 4 else 'b'}{number}", n=number))
        table.put(item(f"ROUTE#{number}", source="connection:one", n=number))
    return table


@pytest.mark.parametrize(("pk", "index"), [("LIST", "listing"), ("PARTITION", ""), ("connection:one", "by_source")])
@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8])
@pytest.mark.parametrize("newest_first", [False, True])
def test_table_query_pages_have_no_gaps_or_duplicates(
    listing: Table, pk: str, index: str, limit: int, newest_first: bool
) -> None:
    seen: list[int] = []
    cursor: str | None = None
    for _ in range(20):
        items, cursor = listing.query(pk, index=index, limit=limit, cursor=cursor, newest_first=newest_first)
        assert len(items) <= limit
        seen += [found["n"] for found in items]
        if not cursor:
            break
        assert cursor.isascii()
        assert not set(cursor) & set("+/=&?# ")
    assert seen == sorted(range(7), reverse=newest_first)


def test_table_query_sort_key_prefix_narrows_items(listing: Table) -> None:
    assert [found["n"] for found in listing.query("PARTITION", sk_prefix="b")[0]] == [4, 5, 6]
    assert [found["n"] for found in listing.query_all("PARTITION", sk_prefix="a")] == [0, 1, 2, 3]
    assert listing.query("PARTITION", sk_prefix="c") == ([], None)


def test_table_cursor_after_item_continues_behind_it(listing: Table) -> None:
    items, _ = listing.query("LIST", index="listing")
    rest, _ = listing.query("LIST", index="listing", cursor=cursor_after(items[4]))
    assert [found["n"] for found in rest] == [5, 6]


def cursor_of(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "cursor",
    ["!", "x", "é", "\x00", "null", cursor_of("null"), cursor_of("1"), cursor_of('"text"'), cursor_of("[]"),
     cursor_of('{"pk": 1}'), cursor_of('{"pk": {"S": "x"}}'), cursor_of('{"pk": null}'), cursor_of('{"pk": ["x"]}'),
     cursor_of("{"), cursor_of("\udcff".encode("utf-8", "replace").decode()), cursor_of("[" * 100_000),
     cursor_of('{"a":' * 100_000)],
    ids=lambda cursor: ascii(cursor)[:30],
)  # fmt: skip
def test_table_query_forged_cursor_is_refused(listing: Table, cursor: str) -> None:
    with pytest.raises(Rejected, match="bad_cursor") as refused:
        listing.query("LIST", index="listing", cursor=cursor)
    assert refused.value.field == "cursor"


def test_table_query_cursor_of_another_list_is_refused(listing: Table) -> None:
    """DynamoDB answers with a ValidationException. Without a cursor that is a fault of the code and is not hidden."""
    error = ClientError({"Error": {"Code": "ValidationException", "Message": "outside query boundaries"}}, "Query")
    client = MagicMock(**{"query.side_effect": error})
    with patch.object(service_clients, "client", return_value=client):
        with pytest.raises(Rejected, match="bad_cursor"):
            listing.query("LIST", cursor=cursor_of('{"pk": "X", "sk": "Y"}'))
        with pytest.raises(ClientError):
            listing.query("LIST")


@given(st.text(max_size=200))
def test_table_query_arbitrary_cursor_is_accepted_or_refused(cursor: str) -> None:
    client = MagicMock()
    client.query.return_value = {"Items": []}
    reasons = []
    with patch.object(service_clients, "client", return_value=client):
        try:
            Table("t").query("LIST", cursor=cursor)
        except Rejected as refused:
            reasons.append(refused.reason)
    # The cursor is refused, or the query is made: nothing else happens.
    assert (reasons, client.query.call_count) in ((["bad_cursor"], 0), ([], 1))


class _BatchReads:
    """DynamoDB, which has every item and answers half of a call's keys. Its first two calls must be in progress together."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.meeting = threading.Barrier(2, timeout=5)

    def batch_get_item(self, RequestItems: dict[str, Any]) -> dict[str, Any]:  # noqa: N803
        keys = RequestItems["t"]["Keys"]
        self.sizes.append(len(keys))
        if len(self.sizes) <= 2:
            self.meeting.wait()
        half = (len(keys) + 1) // 2
        left = {"t": {**RequestItems["t"], "Keys": keys[half:]}} if keys[half:] else {}
        return {"Responses": {"t": keys[:half]}, "UnprocessedKeys": left}


@pytest.mark.parametrize("count", [101, 1_000, 2_345])
def test_table_get_many_more_than_a_call_takes_reads_all_with_concurrent_calls(count: int) -> None:
    keys = [(f"MARK#{number}", "MARK") for number in range(count)]
    reads = _BatchReads()
    with patch.object(service_clients, "client", return_value=reads):
        found = Table("t").get_many(keys)
    assert found == {(pk, sk): {"pk": pk, "sk": sk} for pk, sk in keys}
    assert max(reads.sizes) == 100


def test_table_get_many_a_call_fails_raises_its_error() -> None:
    error = ClientError({"Error": {"Code": "ProvisionedThroughputExceededException"}}, "BatchGetItem")
    client = MagicMock(**{"batch_get_item.side_effect": [{"Responses": {}}, error, {"Responses": {}}]})
    with patch.object(service_clients, "client", return_value=client), pytest.raises(ClientError):
        Table("t").get_many([(f"MARK#{number}", "MARK") for number in range(300)])
