"""Finding receipts and dead letters by an e-mail address of a record, and dead letters by the request that sent them."""

from __future__ import annotations

from typing import Any

import pytest

from portaria.records import record_index
from tests.fakes.api.manage import Manage
from tests.fakes.aws.moto_cloud import Cloud
from tests.fakes.records.dead_letters import letter, put, record

KOMMO = {
    "name": "Ana Souza",
    "custom_fields_values": [
        {"field_code": "EMAIL", "values": [{"value": "Ana@Example.com"}, {"value": "b@example.com"}]}
    ],
}


@pytest.fixture
def manage(stack: Cloud) -> Manage:
    return Manage(stack)


def found(manage: Manage, query: str) -> list[str]:
    answer = manage.call("GET", f"/dead-letters?{query}")
    assert answer.status == 200, answer.text
    return [each["id"] for each in answer.content["items"]]


def test_list_dead_letters_by_email_finds_any_address_of_the_record(manage: Manage, stack: Cloud) -> None:
    put(
        stack,
        letter("one", records=[record("1", **KOMMO)]),
        letter("two", records=[record("2", email="c@example.com")]),
    )
    assert found(manage, "email=ana@example.com") == ["one"]
    assert found(manage, "email=B%40EXAMPLE.com") == ["one"]
    assert found(manage, "email=c@example.com") == ["two"]
    assert found(manage, "email=d@example.com") == []


def test_list_dead_letters_by_request_finds_those_of_the_request(manage: Manage, stack: Cloud) -> None:
    put(stack, letter("one", request="req-1"), letter("two", request="req-2"), letter("three"))
    assert found(manage, "request=req-1") == ["one"]
    assert found(manage, "request=none") == []


@pytest.mark.parametrize("query", ["email=ana", "email=%20@%20", "email=", "request=%00"])
def test_list_dead_letters_by_what_is_no_address_is_refused(manage: Manage, query: str) -> None:
    assert manage.call("GET", f"/dead-letters?{query}").status == 400


@pytest.mark.parametrize("query", ["email=a@b.com", "destination=erp&email=a@b.com&record=crm/1"])
def test_list_receipts_by_email_needs_a_destination_and_no_record(manage: Manage, query: str) -> None:
    answer = manage.call("GET", f"/receipts?{query}")
    assert (answer.status, answer.content["type"].rpartition(":")[2]) == (400, "unclear_filters")


@pytest.mark.parametrize(
    ("data", "count"),
    [
        ({"a": "x@y.z", "b": ["x@y.z", " X@Y.Z "]}, 1),
        ({"text": "write to x@y.z soon", "at": "@", "none": None, "number": 7}, 0),
        ([f"{number}@y.z" for number in range(50)], record_index.MAX_EMAILS),
        ({"a": [["no"]] * 10_000, "z": "x@y.z"}, 1),
    ],
)
def test_emails_of_a_record_are_found_once_and_are_bounded(data: Any, count: int) -> None:
    assert len(record_index.emails(data)) == count


def test_emails_of_a_record_that_is_nested_deeply_are_found() -> None:
    deep: Any = "x@y.z"
    for _ in range(1_500):
        deep = [deep]
    assert record_index.emails(deep) == ["email:x@y.z"]
