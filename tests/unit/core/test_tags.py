"""What may be a tag."""

from __future__ import annotations

from typing import Any

import pytest

from portaria.core.errors import Rejected
from portaria.core.tags import MAX_BYTES, decode, encode, parse_tags

BAD_VALUES = {
    "empty": "",
    "too_long": "x" * 256,
    "number": 1,
    "null": None,
    "list": ["c-1"],
    "markup": "<b>Maria</b>",
    "script": "<script>alert(1)</script>",
    "closing_bracket": "a>b",
    "line_break": "a\nb",
    "carriage_return": "a\rb",
    "tab": "a\tb",
    "nul": "a\x00b",
    "escape": "\x1b[31mred",
    "delete": "a\x7fb",
    "c1_control": "a\x85b",
    "lone_surrogate": "a\ud800b",
    "right_to_left_override": "a\u202eb",
    "isolate": "a\u2066b",
    "zero_width_space": "a\u200bb",
    "zero_width_joiner": "a\u200db",
    "byte_order_mark": "\ufeffa",
    "no_break_space": "a\u00a0b",
    "line_separator": "a\u2028b",
    "private_use": "\ue000",
    "space_before": " a",
    "space_after": "a ",
}
BAD_KEYS = {
    "empty": "",
    "upper_case": "Customer_id",
    "hyphen": "customer-id",
    "dot": "customer.id",
    "space": "customer id",
    "accent": "cliente_id_é",
    "other_digits": "id_\u0661",
    "line_break": "customer_id\n",
    "too_long": "k" * 65,
    "markup": "<b>",
    "number": 1,
}


@pytest.mark.parametrize("value", BAD_VALUES.values(), ids=BAD_VALUES.keys())
def test_parse_tags_bad_value_is_refused_by_key_and_not_quoted(value: Any) -> None:
    with pytest.raises(Rejected) as refused:
        parse_tags({"customer_id": value})
    assert (refused.value.reason, refused.value.field) == ("bad_tags", "tags.customer_id")
    assert not isinstance(value, str) or len(value) < 3 or value not in refused.value.detail


@pytest.mark.parametrize("key", BAD_KEYS.values(), ids=BAD_KEYS.keys())
def test_parse_tags_bad_key_is_refused_and_not_quoted(key: Any) -> None:
    with pytest.raises(Rejected) as refused:
        parse_tags({key: "c-1"})
    assert (refused.value.reason, refused.value.field) == ("bad_tags", "tags")
    assert not isinstance(key, str) or len(key) < 5 or key not in refused.value.detail


@pytest.mark.parametrize("value", [None, "customer_id=1", ["customer_id"], 1, True])
def test_parse_tags_not_an_object_is_refused(value: Any) -> None:
    with pytest.raises(Rejected, match="bad_tags"):
        parse_tags(value)


def test_parse_tags_more_than_ten_are_refused() -> None:
    assert len(parse_tags({f"k{number}": "v" for number in range(10)})) == 10
    with pytest.raises(Rejected, match="this has 11"):
        parse_tags({f"k{number}": "v" for number in range(11)})


def test_parse_tags_whole_size_is_bounded_in_bytes() -> None:
    """Ten values of 255 ASCII characters fit; of characters of four bytes they do not."""
    most = {f"{'k' * 63}{number}": "v" * 255 for number in range(10)}
    assert parse_tags(most) == most
    with pytest.raises(Rejected, match=f"{MAX_BYTES:,} bytes"):
        parse_tags({f"k{number}": "\U0001f600" * 255 for number in range(10)})


@pytest.mark.parametrize(
    "value", ["c-1", "maria@example.com", "Padaria São João & Cia. (filial 2)", "日本", "'; DROP", "😀"]
)
def test_parse_tags_printable_text_is_kept_through_encoding(value: str) -> None:
    given = {"customer_id": value, "workspace_id": "w" * 255}
    assert decode(encode(parse_tags(given))) == given


def test_encode_no_tags_is_empty() -> None:
    assert (encode({}), decode("")) == ("", {})
