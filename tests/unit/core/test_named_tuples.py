"""`NamedTuple` of the webhooks' cold path, against the one of `typing`."""

from __future__ import annotations

import copy
import pickle
import typing

import pytest

from portaria.core.cold_path import named_tuples


class Pair(named_tuples.NamedTuple):
    """A pair."""

    name: str
    number: int = 3

    @classmethod
    def named(cls, name: str) -> Pair:
        return cls(name)

    @property
    def doubled(self) -> int:
        return self.number * 2

    def __repr__(self) -> str:
        return f"<{self.name}>"


class Expected(typing.NamedTuple):
    """A pair."""

    name: str
    number: int = 3


def test_named_tuple_has_fields_defaults_and_documentation_of_typing() -> None:
    for attribute in ("_fields", "_field_defaults", "__doc__", "__module__", "__match_args__"):
        assert getattr(Pair, attribute) == getattr(Expected, attribute)
    assert list(Pair.__annotations__) == list(Expected.__annotations__)
    assert Pair.__qualname__ == "Pair"


def test_named_tuple_has_members_of_its_class_body() -> None:
    pair = Pair.named("a")
    assert (pair, pair.doubled, repr(pair)) == (("a", 3), 6, "<a>")
    assert pair._replace(number=4) == Pair("a", 4)
    assert copy.copy(pair) == pickle.loads(pickle.dumps(pair)) == pair


def test_named_tuple_field_without_default_after_one_with_default_is_refused() -> None:
    maker: typing.Any = type(named_tuples.NamedTuple)
    body = {"__annotations__": {"a": "int", "b": "int"}, "__module__": __name__, "__qualname__": "Wrong", "a": 1}
    with pytest.raises(TypeError, match="Wrong: a field without a default"):
        maker("Wrong", (named_tuples.NamedTuple,), body)
