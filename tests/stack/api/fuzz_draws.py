"""Calls that schemathesis and hypothesis make up of an operation: good ones, bad ones, and good bodies spoilt in one place."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from enum import Enum
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

from tests.stack.api.fuzz_operations import Body, Case, Json, Operation


class How(Enum):
    """How a call comes about. `BEST` should succeed. The others are made up by the document (`GOOD`, `BAD`); the same, about a
    thing that exists; a good body for one that exists; that body spoilt in one place; and no JSON object at all.
    """

    BEST = "best"
    GOOD = "good"
    BAD = "bad"
    GOOD_KNOWN = "good, known"
    BAD_KNOWN = "bad, known"
    SEED = "seed"
    SPOILT = "spoilt seed"
    RAW = "raw"


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(allow_nan=False),
    st.text(max_size=40),
    st.sampled_from(
        ["", " ", "\x00", "\ud800", "a" * 5_000, "🦊" * 300, "*", "../..", "connection:crm", "https://169.254.169.254/"]
    ),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
RAW = st.one_of(
    st.sampled_from(
        [
            b"",
            b" ",
            b"{",
            b"{}",
            b"[]",
            b"null",
            b'"x"',
            b'{"name": "a", "name": "b"}',
            b'{"name": NaN}',
            b'{"name": 1e999}',
            b"\xff\xfe{}",
            b'{"name": "\xc3"}',
            b"\xef\xbb\xbf{}",
            b"[" * 5_000,
            b'{"a":' * 3_000,
            b'{"name": "\\ud800"}',
            b'{"n": ' + b"9" * 5_000 + b"}",
            b'{"name": "' + b"a" * 400_000 + b'"}',
        ]
    ),
    st.binary(max_size=40),
)


@dataclass
class Draw:
    """One made-up call. `numbers` choose among what exists when it goes out."""

    how: How
    case: Case
    numbers: tuple[int, int, int, int]
    value: Json = None
    raw: bytes = b""


def spoil(body: Body, numbers: tuple[int, int, int, int], value: Json) -> Json:
    """A body with one place of it gone, or with something else in it, or with one more."""
    spoilt = deepcopy(body)
    places = list(_places(spoilt)) or [(spoilt, "nothing")]
    holder, key = places[numbers[2] % len(places)]
    match numbers[3] % 3:
        case 0:
            holder[key] = value
        case 1:
            holder.pop(key, None) if isinstance(holder, dict) else holder.pop(key)
        case 2 if isinstance(holder, dict):
            holder[str(numbers[1])] = value
        case _:
            holder.append(value)
    return spoilt


def _places(value: Json) -> Iterator[tuple[Any, Any]]:
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield value, key
        if isinstance(inner, dict | list):
            yield from _places(inner)


def draws(operation: Operation, number: int) -> list[Draw]:
    """So many made-up calls of an operation, the same in each run."""
    good = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
    bad = operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)
    hows = [How.GOOD, How.BAD]
    if "{" in operation.path:
        hows += [How.GOOD_KNOWN, How.BAD_KNOWN]
    if operation.body:
        hows += [How.SEED, How.SPOILT, How.SPOILT, How.SPOILT, How.RAW]
    found: list[Draw] = []
    numbers = st.tuples(*[st.integers(0, 1_000_000)] * 4)

    @settings(
        max_examples=number,
        phases=[Phase.generate],
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(hows), st.data(), numbers)
    def draw(how: How, data: st.DataObject, chosen: tuple[int, int, int, int]) -> None:
        case = data.draw(bad if how in (How.BAD, How.BAD_KNOWN) else good)
        made = Draw(how, case, chosen)
        if how is How.SPOILT:
            made.value = data.draw(VALUES)
        if how is How.RAW:
            made.raw = data.draw(RAW)
        found.append(made)

    draw()
    return found
