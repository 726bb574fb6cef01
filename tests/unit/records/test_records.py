"""Packing, mapping, coalescing and filling requests: nothing lost, nothing twice, no limit exceeded."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from portaria.core import record_messages
from portaria.core.callbacks import Record
from portaria.core.entities import Target
from portaria.core.errors import Rejected
from portaria.platforms.kommo import contacts
from portaria.platforms.marketo import persons
from portaria.records.mapping import record_mapping, request_filling
from portaria.records.mapping.record_mapping import Message, MessageRecords, OutgoingRecord, RejectedRecord, Source
from portaria.records.mapping.request_filling import Chunk
from tests.fakes.records.contacts import contact, person

MESSAGE = Message("m1", "kommo-acme-1001", "contacts", "backfill", MessageRecords([]), route="people")
BY_EMAIL = Target("marketo-one", "persons", options=(("field1", "email"),))

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
    st.builds(Record, st.text(min_size=1, max_size=5), st.integers(0, 2**40), some_data, st.booleans()), max_size=15
)


def pack(*some: Record) -> list[str]:
    return record_messages.pack(
        some, connection="kommo-acme-1001", object="contacts", origin="backfill", read_at=5, route="people"
    )


def unpack(bodies: list[str]) -> list[Any]:
    return [one for body in bodies for one in record_mapping.read_message("m", body).records]


def read(record: Any) -> Record:
    """A record as it is in a message, decoded."""
    message = replace(MESSAGE, content=MessageRecords([record]))
    source = record_mapping.read_record(message, 0, record)
    return Record(source.key, source.updated_at, source.record["data"], source.is_partial)


def outgoing(attributes: dict[str, Any], key: str = "1", version: int = 0) -> OutgoingRecord:
    return OutgoingRecord(key, attributes, (Source(MESSAGE, 0, key, version),), ("people",))


# --- packing


@given(some_records)
def test_pack_records_are_unpacked_unchanged(some: list[Record]) -> None:
    assert [read(one) for one in unpack(pack(*some))] == some


@pytest.mark.parametrize("letter", ["x", "é", "美", "🌻", "\n"])
def test_pack_fills_messages_to_the_byte(letter: str) -> None:
    # Given two records that together make exactly the limit
    frame_bytes = len(pack(Record("1", 0, {}))[0].encode()) - len(
        record_messages.encode({"key": "1", "updated_at": 0, "data": {}})
    )
    half = Record("1", 0, {"v": letter * 10_000})
    left_over = record_messages.MAX_BODY_BYTES - len(pack(half)[0].encode()) - 1
    empty = len(record_messages.encode({"key": "2", "updated_at": 0, "data": {"v": ""}}))
    fitting = Record("2", 0, {"v": "y" * (left_over - empty)})
    # Then they are one message of that size, and one byte more makes two
    (body,) = pack(half, fitting)
    assert len(body.encode()) == record_messages.MAX_BODY_BYTES
    assert frame_bytes > 0
    one_more = pack(half, Record("2", 0, {"v": "y" * (left_over - empty + 1)}))
    assert [len(json.loads(body)["records"]) for body in one_more] == [1, 1]


def test_pack_record_over_message_size_is_sent_alone() -> None:
    large = Record("2", 0, {"v": "é" * 200_000})
    bodies = pack(Record("1", 0, {}), large, Record("3", 0, {}))
    assert [[one["key"] for one in json.loads(body)["records"]] for body in bodies] == [["1"], ["2"], ["3"]]
    assert read(unpack(bodies)[1]) == large


def test_pack_record_over_sqs_limit_is_replaced_by_its_refusal() -> None:
    bodies = pack(Record("1", 0, {}), Record("2", 5, {"v": "é" * 520_000}), Record("3", 0, {}))
    assert all(len(body.encode()) <= record_messages.MAX_MESSAGE_BYTES for body in bodies)
    one, two, three = unpack(bodies)
    assert (one["key"], three["key"]) == ("1", "3")
    with pytest.raises(
        Rejected, match=r"record_too_large: the record has 10400\d\d bytes; a message can carry 1039\d\d\d"
    ):
        read(two)


@pytest.mark.parametrize("data", [{"v": float("nan")}, {"v": float("inf")}])
def test_pack_record_not_json_is_replaced_by_its_refusal(data: dict[str, Any]) -> None:
    one, two = unpack(pack(Record("1", 0, data), Record("2", 0, {})))
    with pytest.raises(Rejected, match="record_unreadable"):
        read(one)
    assert read(two).key == "2"


def test_pack_characters_refused_by_sqs_are_escaped_and_lone_surrogates_replaced() -> None:
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
def test_read_message_invalid_is_refused(body: str) -> None:
    with pytest.raises(Rejected, match="message_unreadable"):
        record_mapping.read_message("m1", body)


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
def test_read_record_invalid_is_refused(record: Any) -> None:
    with pytest.raises(Rejected, match="record_unreadable"):
        read(record)


# --- mapping


def map_one(data: dict[str, Any], mapping: dict[str, str], target: Target = BY_EMAIL) -> dict[str, Any]:
    """What the request body contains."""
    attributes = persons.check(record_mapping.mapping_of(mapping).apply(data), target)
    (filled,) = request_filling.fill([outgoing(attributes)], frame_bytes=0, max_objects=1, max_bytes=1_000_000)
    if isinstance(filled, RejectedRecord):
        raise Rejected(filled.reason, filled.detail)
    result: dict[str, Any] = orjson.loads(filled.text)
    return result


def test_mapping_default_turns_kommo_contact_into_person() -> None:
    data = contact(1)
    data["_embedded"]["companies"] = [{"id": 7, "name": "Padaria Exemplo"}]
    assert map_one(data, contacts.DEFAULT_MAPPING) == {**person(1), "company": "Padaria Exemplo"}


def test_mapping_empty_source_values_are_omitted() -> None:
    data = {**contact(1), "last_name": "", "first_name": None, "name": "Only Name"}
    mapped = map_one(data, contacts.DEFAULT_MAPPING)
    assert mapped["firstName"] == "Only Name"
    assert "lastName" not in mapped
    assert "company" not in mapped


def test_mapping_false_and_zero_are_kept() -> None:
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
def test_mapping_failure_has_reason_without_values(mapping: dict[str, str], data: dict[str, Any], reason: str) -> None:
    with pytest.raises(Rejected) as refused:
        map_one(data, mapping)
    assert refused.value.reason == reason
    assert "canary" not in str(refused.value)


def test_mapping_one_of_two_dedupe_fields_is_enough() -> None:
    either = Target("marketo-one", "persons", options=(("field1", "email"), ("field2", "phone")))
    assert map_one({"p": "1"}, {"email": "e", "phone": "p"}, either) == {"phone": "1"}


def test_mapping_of_invalid_expression_names_its_attribute() -> None:
    with pytest.raises(Rejected, match="bad_mapping: the expression of lastName is not a valid expression"):
        record_mapping.mapping_of({"email": "e", "lastName": "][canary"})


def test_mapping_of_same_expressions_is_cached() -> None:
    assert record_mapping.mapping_of({"email": "e"}) is record_mapping.mapping_of({"email": "e"})


# --- coalescing


def sources(some: list[tuple[str, int]]) -> list[Source]:
    return [Source(MESSAGE, number, key, at) for number, (key, at) in enumerate(some)]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), max_size=30))
def test_newest_keeps_latest_version_of_each_record(some: list[tuple[str, int]]) -> None:
    versions = sources(some)
    left, older = record_mapping.newest(versions)
    assert Counter(one.key for one in left) == Counter({key for key, _ in some})
    assert older == len(versions) - len(left)
    for one in left:
        rivals = [other for other in versions if other.key == one.key]
        assert one.version == max(rival.version for rival in rivals)
        assert one is [rival for rival in rivals if rival.version == one.version][-1]


def test_newest_same_second_keeps_the_later_reading() -> None:
    early, late = (Source(replace(MESSAGE, read_at=read_at), 0, "1", 100) for read_at in (7, 9))
    assert record_mapping.newest([late, early]) == ([late], 1)


@given(st.permutations([(key, at) for key in "ab" for at in range(3)]))
def test_newest_is_independent_of_order_and_repetition(order: list[tuple[str, int]]) -> None:
    left, _ = record_mapping.newest(sources(order) + sources(order))
    assert {(one.key, one.version[0]) for one in left} == {("a", 2), ("b", 2)}


upserts = st.tuples(st.sampled_from("ab"), st.dictionaries(st.sampled_from("xyz"), st.integers(0, 9), max_size=3))


@given(st.lists(upserts, max_size=12), st.randoms())
def test_merged_equals_upserts_in_sequence(some: list[tuple[str, Any]], random: Any) -> None:
    # Given objects that arrive in any order
    expected: dict[str, dict[str, int]] = {}
    for key, attributes in some:
        expected.setdefault(key, {}).update(attributes)
    arriving = [outgoing(attributes, key, version) for version, (key, attributes) in enumerate(some)]
    random.shuffle(arriving)
    # When they are merged
    merged = record_mapping.merged(arriving)
    # Then each identity occurs once, with the newest of each attribute and the ids of all its objects
    assert {one.identity: one.attributes for one in merged} == expected
    assert sum(len(one.sources) for one in merged) == len(some)
    for one in merged:
        assert [source.version for source in one.sources] == sorted(source.version for source in one.sources)


# --- filling


def filled(some: list[OutgoingRecord], **limits: int) -> tuple[list[Chunk], list[RejectedRecord]]:
    """The requests, and the records that fit into none."""
    parts = list(request_filling.fill(some, **limits))
    chunks = [part for part in parts if isinstance(part, Chunk)]
    return chunks, [part for part in parts if isinstance(part, RejectedRecord)]


@given(st.lists(st.text(max_size=12), max_size=60), st.integers(1, 9), st.integers(10, 120), st.integers(0, 20))
def test_fill_requests_are_full_complete_and_within_limits(
    texts: list[str], max_objects: int, max_bytes: int, frame_bytes: int
) -> None:
    some = [outgoing({"v": text}, str(index)) for index, text in enumerate(texts)]
    length = {one.identity: len(orjson.dumps(one.attributes)) for one in some}
    chunks, refused = filled(some, frame_bytes=frame_bytes, max_objects=max_objects, max_bytes=max_bytes)
    # Nothing lost, nothing twice, order kept
    aside = {one.sources[0].key for one in refused}
    assert [one for chunk in chunks for one in chunk] == [one for one in some if one.identity not in aside]
    assert len(refused) == len(aside)
    assert aside == {key for key, size in length.items() if frame_bytes + size > max_bytes}

    def size(chunk: list[OutgoingRecord]) -> int:
        return frame_bytes + len(b",".join(orjson.dumps(one.attributes) for one in chunk))

    for chunk in chunks:
        assert 1 <= len(chunk) <= max_objects
        assert size(chunk) <= max_bytes
    # And no request ends before it is full
    for chunk, following in itertools.pairwise(chunks):
        assert len(chunk) == max_objects or size([*chunk, following[0]]) > max_bytes


@pytest.mark.parametrize(("count", "requests"), [(999, [999]), (1_000, [1_000]), (1_001, [1_000, 1])])
def test_fill_requests_are_limited_to_1000_objects(count: int, requests: list[int]) -> None:
    some = [outgoing({}, str(number)) for number in range(count)]
    chunks, _ = filled(some, frame_bytes=50, max_objects=persons.MAX_OBJECTS, max_bytes=persons.MAX_BODY_BYTES)
    assert [len(chunk) for chunk in chunks] == requests


@pytest.mark.parametrize("letter", ["x", "é", "美", "🌻"])
@pytest.mark.parametrize(("extra", "requests"), [(-1, 1), (0, 1), (1, 2)])
def test_fill_request_body_is_limited_to_a_million_bytes(letter: str, extra: int, requests: int) -> None:
    # Given persons whose body has the limit, one byte less or one more
    before, after = persons.frame(BY_EMAIL)
    width = len(letter.encode())
    first = {"email": letter * (300_000 // width)}
    taken = len(before) + len(orjson.dumps(first)) + 1 + len(after) + len(b'{"v":""}')
    padding = persons.MAX_BODY_BYTES + extra - taken
    second = {"v": letter * (padding // width) + "y" * (padding % width)}
    # When they are put together
    chunks, refused = filled(
        [outgoing(first, "1"), outgoing(second, "2")],
        frame_bytes=len(before) + len(after),
        max_objects=persons.MAX_OBJECTS,
        max_bytes=persons.MAX_BODY_BYTES,
    )
    # Then they are one request only while they fit
    assert len(chunks) == requests
    assert refused == []
    if requests == 1:
        body = before + chunks[0].text + after
        assert len(body) == persons.MAX_BODY_BYTES + extra
        assert len(json.loads(body)["persons"]) == 2


@pytest.mark.parametrize(("extra", "aside"), [(0, 0), (1, 1)])
def test_fill_object_over_limit_is_refused_with_size_and_limit(extra: int, aside: int) -> None:
    attributes = {"v": "é" * 100 + "y" * extra}
    limit = len(orjson.dumps(attributes)) - extra
    chunks, refused = filled(
        [outgoing({}, "1"), outgoing(attributes, "2"), outgoing({}, "3")],
        frame_bytes=10, max_objects=1, max_bytes=limit + 10,
    )  # fmt: skip
    assert len(refused) == aside
    assert len(chunks) == 3 - aside
    for one in refused:
        assert one.reason == "record_too_large"
        assert one.detail == f"the record has {limit + 1} bytes in a request; {limit} are allowed"


# --- cost limits of a mapping, and numbers without a representation


def test_mapping_apply_costly_expression_is_refused_with_its_attribute() -> None:
    mapping = record_mapping.mapping_of({"email": "email", "x": "a[]" + " | [@,@][]" * 18})
    with pytest.raises(Rejected, match="mapping_too_costly: the expression of x") as refused:
        mapping.apply({"email": "a@example.com", "a": [1]})
    assert refused.value.field == "x"


def test_mapping_apply_budget_is_per_record() -> None:
    mapping = record_mapping.mapping_of({"x": "a[*] | [0]"})
    data = {"a": list(range(30_000))}
    assert [mapping.apply(data) for _ in range(10)] == [{"x": 0}] * 10


@pytest.mark.parametrize(
    "expression",
    ["ceil(to_number('inf'))", "to_number('nan')", "a[::0]", "name < number", "abs(name)", "contains(name, a)"],
)  # fmt: skip
def test_mapping_apply_failing_evaluation_is_a_refusal(expression: str) -> None:
    with pytest.raises(Rejected, match=r"mapping_failed|bad_value"):
        record_mapping.mapping_of({"x": expression}).apply({"a": [1], "name": "Ana", "number": 1})


@pytest.mark.parametrize("number", [12345678901234567890123, 2**64, -(2**63) - 1])
def test_mapping_apply_integer_over_64_bits_becomes_text(number: int) -> None:
    (record,) = unpack(pack(Record("1", 0, {"n": number, "inner": [{"n": number}], "text": "x"})))
    mapping = record_mapping.mapping_of({"n": "n", "t": "to_string(n)", "i": "inner[].n | [0]"})
    assert mapping.apply(record["data"]) == dict.fromkeys("nti", str(number))


@pytest.mark.parametrize("number", [2**64 - 1, -(2**63), 1234567890123456789])
def test_mapping_apply_integer_of_64_bits_stays_a_number(number: int) -> None:
    (record,) = unpack(pack(Record("1", 0, {"n": number})))
    assert record_mapping.mapping_of({"n": "n"}).apply(record["data"]) == {"n": number}


@pytest.mark.parametrize("expression", ["n", "to_string(n)", "to_string([n])", "to_string(@)"])
def test_mapping_apply_integer_read_as_float_is_refused(expression: str) -> None:
    """A message of another writer, whose integer was read as a float."""
    body = pack(Record("1", 0, {"n": 0}))[0].replace('"n":0', '"n":12345678901234567890123')
    (record,) = unpack([body])
    with pytest.raises(Rejected, match="bad_value: x is a number of more than 64 bits"):
        record_mapping.mapping_of({"x": expression}).apply(record["data"])
