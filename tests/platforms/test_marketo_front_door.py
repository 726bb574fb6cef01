"""How accept_records reads a body: keys that distinguish records, and refusal of what it cannot deliver."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portaria.core import record_messages
from portaria.core.callbacks import Record
from portaria.core.errors import Rejected
from portaria.platforms.marketo import data_ingestion_api
from portaria.records.mapping import record_mapping

PERSONS = "/subscriptions/{subscription}/persons"


def keys(*persons: dict[str, Any], fields: dict[str, str] | None = None) -> list[str]:
    body: dict[str, Any] = {"persons": list(persons)} | ({"dedupeFields": fields} if fields else {})
    ((_, made),) = data_ingestion_api.parse(PERSONS, {}, json.dumps(body).encode(), "one", 1).groups
    return [record.key for record in made]


def test_marketo_record_key_email_is_case_insensitive() -> None:
    assert set(keys({"email": "A@Example.com"}, {"email": "a@example.COM", "x": 1})) == {"a@example.com"}


def test_marketo_record_key_number_equals_its_text() -> None:
    assert set(keys({"id": 5}, {"id": "5"}, fields={"field1": "id"})) == {"5"}


def test_marketo_record_key_of_two_fields_is_unique() -> None:
    texts = ["".join(letters) for length in (1, 2) for letters in product("a|\\", repeat=length)]
    pairs = list(product(texts, repeat=2))
    made = keys(*({"one": one, "two": two} for one, two in pairs), fields={"field1": "one", "field2": "two"})
    assert len(set(made)) == len(pairs)


@pytest.mark.parametrize("person", [{}, {"email": ""}, {"email": None}, {"name": "Maria"}])
def test_marketo_record_key_without_value_is_a_hash_of_the_record(person: dict[str, Any]) -> None:
    first, same, other = keys(person, dict(reversed(person.items())), person | {"x": 1})
    assert first == same != other
    assert len(first) == 32


def test_marketo_record_key_long_value_is_hashed() -> None:
    long, other = keys({"email": "x" * 300}, {"email": "x" * 301})
    assert len(long) == len(other) == 32
    assert long != other
    assert keys({"email": "x" * 255}) == ["x" * 255]


numbers = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
values = st.none() | st.booleans() | numbers | st.text(max_size=20)


@given(st.lists(st.dictionaries(st.text(max_size=10), values, max_size=6), min_size=1, max_size=5))
def test_marketo_parse_persons_are_read_from_queue_unchanged(persons: list[dict[str, Any]]) -> None:
    sent = data_ingestion_api.parse(PERSONS, {}, json.dumps({"persons": persons}).encode(), "one", 1)
    ((target, made),) = sent.groups
    bodies = record_messages.pack(
        made,
        connection="c",
        object="persons",
        origin=record_messages.FRONT_DOOR,
        read_at=1,
        target=record_mapping.target_fields(target),
    )
    message = record_mapping.read_message("id", bodies[0])
    assert message.target == target
    assert [record_mapping.read_record(message, *each).record["data"] for each in enumerate(message.records)] == persons


@pytest.mark.parametrize(
    ("reason", "status", "code"),
    [
        ("token_missing", 401, "403010"),
        ("missing_scope", 403, "4030801"),
        ("anything", 400, "4000801"),
        ("anything", 413, "4000801"),
        ("anything", 404, "404040"),
        ("anything", 503, "5000801"),
    ],
)
def test_marketo_refusal_has_adobe_code_and_message(reason: str, status: int, code: str) -> None:
    refusal = data_ingestion_api.refusal(reason, status, "what to do")
    assert (refusal.code, refusal.status) == (code, int(code[:3]))
    assert refusal.body == {"error_code": code, "message": f"{data_ingestion_api.MESSAGES[code]}: what to do"}


def test_marketo_error_codes_have_messages_and_are_readable() -> None:
    from portaria.platforms.marketo import ingestion

    codes = {*data_ingestion_api.CODES.values(), *data_ingestion_api.CODES_BY_STATUS.values()}
    assert codes == set(data_ingestion_api.MESSAGES)
    assert codes <= set(ingestion.MEANINGS)


def test_marketo_parse_record_holds_exactly_what_was_sent() -> None:
    sent = data_ingestion_api.parse(PERSONS, {}, b'{"persons":[{"email":"a"}]}', "one", 7)
    assert sent.groups[0][1] == [Record("a", 7, {"email": "a"})]
    with pytest.raises(Rejected):
        data_ingestion_api.parse("/subscriptions/{subscription}/leads", {}, b"{}", "one", 7)
