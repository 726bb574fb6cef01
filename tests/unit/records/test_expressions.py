"""Compiled expressions return what the library's own interpreter returns, for any data."""

from __future__ import annotations

import contextlib
import re
from typing import Any

import jmespath
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jmespath.exceptions import JMESPathError

from portaria.core.errors import Rejected
from portaria.platforms.kommo import contacts
from portaria.records.mapping import expression_compiler, expressions
from portaria.records.mapping.expression_budget import Budget
from portaria.records.mapping.record_mapping import Mapping
from tests.fakes.records.contacts import contact

# Every kind of node, alone and inside others.
EXPRESSIONS = [
    "a", "b", "b.c", "a || b.c", "c && b",
    "a.b", "a.b.c", "@", "a[0]", "a[-1]", "a[9]", "a[1:]", "a[::-1]", "a[*]", "a[*].b", "a[].b", "a[][]", "*", "*.b",
    "a.*",
    "a[?b]", "a[?b=='x']", "a[?b=='x'].c", "a[?b=='x'].a[].c | [0]", "a[?b!='x']", "a[?b==`1`]", "a[?b==c]", "a[?b>`1`]",
    "a[?b<=`1`].c", "a[?b=='x' && c]", "a[?b || c].b", "a[?!b]", "a || b", "a && b", "!a", "a == b", "a != b", "a > b",
    "`[1, 2]`", "'x'",
    "[a, b]", "{x: a, y: b.c}", "a[].[b, c]", "a[*].{x: b}", "a | b", "a.b | [0]", "length(a)", "to_string(a)", "to_number(b)",
    "abs(a)", "join(',', a)", "sort_by(a, &b)", "map(&b, a)", "max_by(a, &b).c", "contains(a, 'x')", "not_null(a, b, c)",
    "keys(@)", "type(a)", "a[?contains(b, 'x')].c | [0]", "(a || b).c", "a[?b=='x'] | [0].c",
]  # fmt: skip

leaves = st.none() | st.booleans() | st.integers(-2, 2) | st.just(0.5) | st.sampled_from(["", "x", "y"])
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


def outcome(search: Any, data: Any) -> Any:
    """What the search returns, or how it fails. True is not equal to 1."""
    try:
        return repr(search(data))
    except (JMESPathError, TypeError) as error:
        return type(error)


@pytest.mark.parametrize("expression", EXPRESSIONS)
@settings(max_examples=15)
@given(st.dictionaries(st.sampled_from("abc"), values, max_size=3) | values)
def test_compiled_expression_returns_same_as_jmespath(expression: str, data: Any) -> None:
    assert outcome(expressions.compiled(expression), data) == outcome(jmespath.compile(expression).search, data)


class Failed(Exception):
    """The attribute whose expression failed."""


def failure(attribute: str, error: Exception) -> Exception:
    return Failed(attribute) if isinstance(error, JMESPathError | TypeError) else error


@settings(max_examples=200)
@given(
    st.lists(st.sampled_from(EXPRESSIONS), min_size=2, max_size=12),
    st.dictionaries(st.sampled_from("abc"), values, max_size=3) | values,
)
def test_compiled_mapping_returns_same_as_each_expression_alone(chosen: list[str], data: Any) -> None:
    # Given attributes whose expressions have much in common
    named = {f"x{number}": expression for number, expression in enumerate(chosen)}
    nodes = [(name, expressions.parsed(expression)) for name, expression in named.items()]
    search = expressions.compiled_mapping(nodes, Budget(), check=lambda name, value: value, failure=failure)
    # Then each has the value of its own expression, or the first one that fails is named
    expected = {}
    for name, expression in named.items():
        try:
            expected[name] = jmespath.search(expression, data)
        except (JMESPathError, TypeError):
            with pytest.raises(Failed, match=f"^{name}$"):
                search(data)
            return
    assert repr(search(data)) == repr(
        {name: value for name, value in expected.items() if value is not None and value != ""}
    )


@pytest.mark.parametrize("depth", [1, 5, 25])
def test_compiled_nested_projections_return_same_as_jmespath(depth: int) -> None:
    # Python itself takes 20 loops inside each other.
    expression = "[*].a" * depth + "[?b=='x']"
    nested: Any = [{"b": "x"}, {"b": "y"}]
    for _ in range(depth):
        nested = [{"a": nested}, {"a": None}]
    assert expressions.compiled(expression)(nested) == jmespath.search(expression, nested)


def test_compiled_expression_is_not_in_the_source() -> None:
    expression = 'a."\'); raise SystemExit #" || \'"""\\n\' || `{"\']": 1}`."\']"'
    data = {"a": {"'); raise SystemExit #": ""}}
    assert expressions.compiled(expression)(data) == jmespath.search(expression, data)
    writer = expression_compiler.Compiler(Budget(), is_partial=False)
    writer.compile(expressions.parsed(expression))
    source = "\n".join(line for function in writer._functions for line in function.lines)
    assert not re.search(r"raise|SystemExit|[\"'`#\\]", source)


def test_expression_compiler_supports_every_jmespath_node() -> None:
    visited = {name.removeprefix("visit_") for name in dir(jmespath.visitor.TreeInterpreter) if "visit_" in name}
    # A key-value pair is only valid inside a multi-select.
    missing = {node for node in visited - {"key_val_pair"} if not hasattr(expression_compiler.Compiler, f"_{node}")}
    assert not missing


def test_compiled_default_mapping_does_not_use_jmespath_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jmespath.visitor.TreeInterpreter, "visit", None)
    found = {name: expressions.compiled(each)(contact(1)) for name, each in contacts.DEFAULT_MAPPING.items()}
    assert found["email"] == "person1@example.com"
    assert found["phone"] == "+15550000001"


@pytest.mark.parametrize("expression", ["][", "a.", "foo bar", ""])
def test_compiled_invalid_expression_is_refused(expression: str) -> None:
    with pytest.raises(JMESPathError):
        expressions.compiled(expression)


@pytest.mark.parametrize(
    "expression",
    [
        '"MARKER"',
        '"MARKER\\n import os"',
        "'MARKER'",
        '`"MARKER"`',
        '`{"MARKER": ["MARKER"]}`',
        '{"MARKER": name}',
        "a[?MARKER == 'MARKER'].MARKER | [0]",
        "join('MARKER', MARKER[*].values[0])",
        "sort_by(MARKER, &MARKER)",
        "MARKER || 'MARKER' && !MARKER",
    ],
)
def test_compiler_source_contains_no_text_of_the_expression(expression: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = []

    def recorded(source: str, *given: Any) -> Any:
        sources.append(source)
        return compile(source, *given)

    monkeypatch.setattr(expression_compiler, "compile", recorded, raising=False)
    mapping = Mapping([("MARKER", expression)])
    for apply in (mapping.apply, mapping.apply_partial):
        with contextlib.suppress(Rejected):
            apply({"MARKER": "text"})
    assert sources
    assert not any("MARKER" in source for source in sources)


def test_mapping_first_values_of_several_texts_equal_jmespath() -> None:
    """All of them come from one reading of the list, which must consider the text of each."""
    codes = ["EMAIL", "PHONE", "NONE", "EMPTY"]
    expressions_of = {code: f"fields[?code=='{code}'].values[].value | [0]" for code in codes}
    expressions_of["NESTED"] = "a.b || fields[?code=='WEB'].values[].value | [0]"
    values = {
        "EMAIL": [{"value": None}, {"value": "a@b.c"}],
        "OTHER": [{"value": "x"}],
        "EMPTY": [],
        "WEB": [{"value": 1}],
    }
    fields: list[Any] = [{"code": code, "values": found} for code, found in values.items()]
    fields += [{"code": "PHONE", "values": {"value": "no list"}}, {"code": ["EMAIL"]}, "text"]
    fields += [{"code": "PHONE", "values": [{"value": "1"}]}, {"code": "EMAIL", "values": [{"value": "second"}]}]
    data = {"fields": fields}
    expected = {name: jmespath.search(each, data) for name, each in expressions_of.items()}
    assert Mapping(expressions_of.items()).apply(data) == {
        name: value for name, value in expected.items() if value is not None
    }
