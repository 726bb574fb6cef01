"""Packing, mapping, coalescing and filling: nothing lost, nothing twice, no limit passed."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from portaria import queues, records
from portaria.contract import Record, Rejected, Route
from portaria.platforms.kommo import contacts
from portaria.platforms.marketo import persons
from portaria.records import Message, Outgoing
from tests.fakes.people import contact, person

ROUTE = Route("people", "client:kommo/acme", "contacts", "marketo-one")
MESSAGE = Message("m1", "kommo-acme-1001", "people", "contacts", "backfill", [])

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
some_data = st.dictionaries(st.text(max_size=5), json_values)
some_records = st.lists(
    st.builds(Record, st.text(min_size=1, max_size=5), st.integers(0, 2**40), some_data), max_size=15
)


def pack(*some: Record) -> list[str]:
    return records.pack("kommo-acme-1001", ROUTE, "backfill", some)


def unpack(bodies: list[str]) -> list[Any]:
    return [one for body in bodies for one in records.read_message("m", body).records]


def outgoing(encoded: bytes, key: str = "1", updated_at: int = 0, route: str = "people") -> Outgoing:
    message = Message("m1", "kommo-acme-1001", route, "contacts", "backfill", [])
    return Outgoing(message, {"key": key}, key, updated_at, encoded)


# --- packing


@given(some_records)
def test_packed_records_come_out_as_they_went_in(some: list[Record]) -> None:
    assert [records.read_record(one) for one in unpack(pack(*some))] == some


@pytest.mark.parametrize("letter", ["x", "é", "美", "🌻", "\n"])
def test_messages_are_filled_to_the_byte(letter: str) -> None:
    # Given two records that together make exactly the limit
    frame_bytes = len(pack(Record("1", 0, {}))[0].encode()) - len(
        queues.encode({"key": "1", "updated_at": 0, "data": {}})
    )
    half = Record("1", 0, {"v": letter * 10_000})
    left_over = queues.MAX_BODY_BYTES - len(pack(half)[0].encode()) - 1
    empty = len(queues.encode({"key": "2", "updated_at": 0, "data": {"v": ""}}))
    fitting = Record("2", 0, {"v": "y" * (left_over - empty)})
    # Then they are one message of that size, and one byte more makes two
    (body,) = pack(half, fitting)
    assert len(body.encode()) == queues.MAX_BODY_BYTES
    assert frame_bytes > 0
    one_more = pack(half, Record("2", 0, {"v": "y" * (left_over - empty + 1)}))
    assert [len(json.loads(body)["records"]) for body in one_more] == [1, 1]


def test_a_record_over_the_message_size_travels_alone_and_blocks_no_other() -> None:
    large = Record("2", 0, {"v": "é" * 200_000})
    bodies = pack(Record("1", 0, {}), large, Record("3", 0, {}))
    assert [[one["key"] for one in json.loads(body)["records"]] for body in bodies] == [["1"], ["2"], ["3"]]
    assert records.read_record(unpack(bodies)[1]) == large


def test_a_record_that_no_message_can_carry_is_named_in_its_place() -> None:
    bodies = pack(Record("1", 0, {}), Record("2", 5, {"v": "é" * 500_000}), Record("3", 0, {}))
    assert all(len(body.encode()) <= records.MAX_RECORD_MESSAGE_BYTES for body in bodies)
    one, two, three = unpack(bodies)
    assert (one["key"], three["key"]) == ("1", "3")
    with pytest.raises(
        Rejected, match=r"record_too_large: the record has 10000\d\d bytes; a message can carry 999\d\d\d"
    ):
        records.read_record(two)


@pytest.mark.parametrize("data", [{"v": float("nan")}, {"v": float("inf")}])
def test_a_record_that_is_no_json_is_named_in_its_place(data: dict[str, Any]) -> None:
    one, two = unpack(pack(Record("1", 0, data), Record("2", 0, {})))
    with pytest.raises(Rejected, match="record_unreadable"):
        records.read_record(one)
    assert records.read_record(two).key == "2"


def test_characters_that_sqs_refuses_arrive_and_half_a_pair_is_replaced() -> None:
    (body,) = pack(Record("1", 0, {"v": "\uffff\ufffe\x00\ud83d", "é": "🌻"}))
    assert not {"\uffff", "\ufffe", "\x00"} & set(body)
    assert unpack([body])[0]["data"] == {"v": "\uffff\ufffe\x00\ufffd", "é": "🌻"}


# --- reading


@pytest.mark.parametrize(
    "body",
    [
        "",
        "null",
        "[]",
        "{}",
        '{"version":2,"connection":"c","route":"r","object":"o","origin":"b","records":[]}',
        '{"version":1,"connection":"c","route":"r","object":"o","origin":"b","records":{}}',
        '{"version":1,"connection":"c","route":7,"object":"o","origin":"b","records":[]}',
        '{"version":1,"connection":"c","route":"r","object":"o","records":[]}',
    ],
)
def test_what_is_no_records_message_is_refused(body: str) -> None:
    with pytest.raises(Rejected, match="message_unreadable"):
        records.read_message("m1", body)


@pytest.mark.parametrize(
    "record",
    [
        None,
        7,
        [],
        {},
        {"key": 1, "updated_at": 1, "data": {}},
        {"key": "1", "updated_at": "1", "data": {}},
        {"key": "1", "updated_at": True, "data": {}},
        {"key": "1", "updated_at": 1, "data": []},
        {"key": "1", "updated_at": 1, "refused": {"reason": "x"}},
    ],
)
def test_what_is_no_record_is_refused_by_itself(record: Any) -> None:
    with pytest.raises(Rejected, match="record_unreadable"):
        records.read_record(record)


# --- mapping


def map_one(
    data: dict[str, Any], mapping: dict[str, str], dedupe_fields: tuple[str, ...] = ("email",)
) -> dict[str, Any]:
    source = {"key": "1", "updated_at": 1, "data": data}
    encoded = records.map_record(MESSAGE, source, records.mapping_of(mapping), dedupe_fields).encoded
    result: dict[str, Any] = orjson.loads(encoded)
    return result


def test_a_kommo_contact_becomes_a_person_by_default() -> None:
    data = contact(1)
    data["_embedded"]["companies"] = [{"id": 7, "name": "Padaria Exemplo"}]
    assert map_one(data, contacts.DEFAULT_MAPPING) == {**person(1), "company": "Padaria Exemplo"}


def test_what_is_empty_at_the_source_erases_nothing() -> None:
    data = {**contact(1), "last_name": "", "first_name": None, "name": "Only Name"}
    mapped = map_one(data, contacts.DEFAULT_MAPPING)
    assert mapped["firstName"] == "Only Name"
    assert "lastName" not in mapped
    assert "company" not in mapped


def test_false_and_zero_are_values() -> None:
    assert map_one({"e": "a@example.com", "f": False, "z": 0}, {"email": "e", "f": "f", "z": "z"}) == {
        "email": "a@example.com",
        "f": False,
        "z": 0,
    }


@pytest.mark.parametrize(
    ("mapping", "data", "reason"),
    [
        ({"email": "e"}, {}, "no_dedupe_value"),
        ({"email": "e"}, {"e": ""}, "no_dedupe_value"),
        ({"email": "e", "n": "abs(v)"}, {"e": "a@example.com", "v": "canary"}, "mapping_failed"),
        ({"email": "e", "n": "v"}, {"e": "a@example.com", "v": ["canary"]}, "bad_value"),
        ({"email": "e", "n": "v"}, {"e": "a@example.com", "v": {"canary": 1}}, "bad_value"),
        ({"email": "e", "n": "v"}, {"e": "a@example.com", "v": "canary\ud800"}, "bad_value"),
    ],
)
def test_a_record_that_cannot_be_mapped_says_why_without_its_values(
    mapping: dict[str, str], data: dict[str, Any], reason: str
) -> None:
    with pytest.raises(Rejected) as refused:
        map_one(data, mapping)
    assert refused.value.reason == reason
    assert "canary" not in str(refused.value)


def test_one_of_two_dedupe_fields_is_enough() -> None:
    assert map_one({"p": "1"}, {"email": "e", "phone": "p"}, ("email", "phone")) == {"phone": "1"}


def test_an_expression_that_cannot_be_read_names_its_attribute() -> None:
    with pytest.raises(Rejected, match="bad_mapping: the expression of lastName cannot be read"):
        records.mapping_of({"email": "e", "lastName": "][canary"})


def test_a_mapping_is_compiled_once() -> None:
    assert records.mapping_of({"email": "e"}) is records.mapping_of({"email": "e"})


# --- coalescing


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.sampled_from(["r1", "r2"])), max_size=30))
def test_of_each_record_the_newest_goes_and_the_newest_goes_last(some: list[tuple[str, int, str]]) -> None:
    versions = [outgoing(str(index).encode(), key, at, route) for index, (key, at, route) in enumerate(some)]
    left = records.coalesce(versions)
    assert Counter((one.message.route, one.key) for one in left) == Counter({(route, key) for key, _, route in some})
    for one in left:
        rivals = [other for other in versions if (other.message.route, other.key) == (one.message.route, one.key)]
        assert one.updated_at == max(rival.updated_at for rival in rivals)
        assert one is [rival for rival in rivals if rival.updated_at == one.updated_at][-1]
    assert [one.updated_at for one in left] == sorted(one.updated_at for one in left)


@given(st.permutations([(key, at) for key in "ab" for at in range(3)]))
def test_order_and_repetition_change_nothing(order: list[tuple[str, int]]) -> None:
    versions = [outgoing(f"{key}{at}".encode(), key, at) for key, at in order]
    assert {one.encoded for one in records.coalesce(versions * 2)} == {b"a2", b"b2"}


# --- filling


@given(
    st.lists(st.text(max_size=12).map(lambda text: orjson.dumps({"v": text})), max_size=60),
    st.integers(1, 9),
    st.integers(10, 120),
    st.integers(0, 20),
)
def test_requests_are_full_whole_and_within_their_limits(
    encoded: list[bytes], max_objects: int, max_bytes: int, frame_bytes: int
) -> None:
    some = [outgoing(one, str(index)) for index, one in enumerate(encoded)]
    chunks, too_large = records.fill(some, frame_bytes=frame_bytes, max_objects=max_objects, max_bytes=max_bytes)
    # Nothing lost, nothing twice, order kept
    aside = {one.records[0]["key"] for one in too_large}
    assert [one for chunk in chunks for one in chunk] == [one for one in some if one.key not in aside]
    assert len(too_large) == len(aside)
    assert aside == {one.key for one in some if frame_bytes + len(one.encoded) > max_bytes}

    def size(chunk: list[Outgoing]) -> int:
        return frame_bytes + len(b",".join(one.encoded for one in chunk))

    for chunk in chunks:
        assert 1 <= len(chunk) <= max_objects
        assert size(chunk) <= max_bytes
    # And no request ends before it is full
    for chunk, following in itertools.pairwise(chunks):
        assert len(chunk) == max_objects or size([*chunk, following[0]]) > max_bytes


@pytest.mark.parametrize(("count", "requests"), [(999, [999]), (1_000, [1_000]), (1_001, [1_000, 1])])
def test_a_thousand_objects_are_one_request(count: int, requests: list[int]) -> None:
    some = [outgoing(b"{}", str(number)) for number in range(count)]
    chunks, _ = records.fill(some, frame_bytes=50, max_objects=persons.MAX_OBJECTS, max_bytes=persons.MAX_BODY_BYTES)
    assert [len(chunk) for chunk in chunks] == requests


@pytest.mark.parametrize("letter", ["x", "é", "美", "🌻"])
@pytest.mark.parametrize(("extra", "requests"), [(-1, 1), (0, 1), (1, 2)])
def test_the_real_body_is_cut_at_a_million_bytes(letter: str, extra: int, requests: int) -> None:
    # Given persons whose body has the limit, one byte less or one more
    before, after = persons.frame(("email",), "", "normal")
    width = len(letter.encode())
    first = orjson.dumps({"email": letter * (300_000 // width)})
    padding = persons.MAX_BODY_BYTES + extra - len(before) - len(first) - 1 - len(after) - len(b'{"v":""}')
    second = orjson.dumps({"v": letter * (padding // width) + "y" * (padding % width)})
    # When they are put together
    chunks, too_large = records.fill(
        [outgoing(first, "1"), outgoing(second, "2")],
        frame_bytes=len(before) + len(after),
        max_objects=persons.MAX_OBJECTS,
        max_bytes=persons.MAX_BODY_BYTES,
    )
    # Then they are one request only while they fit
    assert len(chunks) == requests
    assert too_large == []
    if requests == 1:
        body = before + b",".join(one.encoded for one in chunks[0]) + after
        assert len(body) == persons.MAX_BODY_BYTES + extra
        assert len(json.loads(body)["persons"]) == 2


@pytest.mark.parametrize(("extra", "aside"), [(0, 0), (1, 1)])
def test_one_object_over_the_limit_is_named_with_size_and_limit(extra: int, aside: int) -> None:
    encoded = orjson.dumps({"v": "é" * 100 + "y" * extra})
    limit = len(encoded) - extra
    chunks, too_large = records.fill(
        [outgoing(b"{}", "1"), outgoing(encoded, "2"), outgoing(b"{}", "3")],
        frame_bytes=10, max_objects=1, max_bytes=limit + 10,
    )  # fmt: skip
    assert len(too_large) == aside
    assert len(chunks) == 3 - aside
    for one in too_large:
        assert one.reason == "record_too_large"
        assert one.detail == f"the record has {limit + 1} bytes in a request; {limit} are allowed"
