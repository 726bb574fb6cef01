"""JMESPath, compiled: the expressions of a mapping, made into functions once and then called for every record.

The grammar, the functions and the meaning are the library's (https://jmespath.org): it parses, and tests hold each node here
against its own interpreter, which walks the tree again for every record and takes five times as long. Mappings are where a
full request's time goes; `bench/throughput.py` has the figures.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, cast

import jmespath
from jmespath.functions import Functions
from jmespath.visitor import TreeInterpreter

Search = Callable[[Any], Any]
Node = dict[str, Any]

# What nearly every mapping has: the first value of the custom field with a code.
_FIRST_WHERE = re.compile(
    r"([A-Za-z_]\w*)\[\?([A-Za-z_]\w*)=='([^'\\]*)'\]\.([A-Za-z_]\w*)\[\]\.([A-Za-z_]\w*) \| \[0\]", re.ASCII
)

# Nodes that give back what they are given.
_ITSELF = ("current", "identity")

_functions = Functions()
_interpreter = TreeInterpreter()
_equals = TreeInterpreter.COMPARATOR_FUNC["eq"]
_ORDERINGS = {name: TreeInterpreter.COMPARATOR_FUNC[name] for name in ("lt", "gt", "lte", "gte")}


def compiled(expression: str) -> Search:
    """What `jmespath.search(expression, …)` would find, as a function of the data.

    Raises `jmespath.exceptions.JMESPathError` for what is no expression. The function raises it where a call in it fails, and
    `TypeError` where it compares a number with a text.
    """
    compiled_by_library = jmespath.compile(expression)
    if usual := _FIRST_WHERE.fullmatch(expression):
        return _first_where(*usual.groups())
    return _compile(cast(Node, compiled_by_library.parsed))


def _first_where(base: str, tested: str, text: str, name: str, field: str) -> Search:
    """`base[?tested=='text'].name[].field | [0]` without the lists in between."""

    def search(value: Any) -> Any:
        elements = value.get(base) if type(value) is dict else None
        if type(elements) is not list:
            return None
        for element in elements:
            if type(element) is dict and element.get(tested) == text:
                found = element.get(name)
                for each in found if type(found) is list else (found,):
                    if type(each) is dict and (first := each.get(field)) is not None:
                        return first
        return None

    return search


def _compile(node: Node) -> Search:
    return _COMPILERS[node["type"]](node)


def _is_false(value: Any) -> bool:
    """JMESPath's idea of false: 0 is true."""
    return value is None or value is False or (not value and isinstance(value, str | list | dict))


def _is_comparable(value: Any) -> bool:
    """Numbers and, as the library has it, texts; what it cannot compare after all raises `TypeError`."""
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _field(node: Node) -> Search:
    name = node["value"]

    def search(value: Any) -> Any:
        return value.get(name) if type(value) is dict else None

    return search


def _chain(node: Node) -> Search:
    """Each child searches in what the one before it found."""
    steps = [_compile(child) for child in node["children"] if child["type"] not in _ITSELF] or [_itself(node)]
    if len(steps) == 1:
        return steps[0]
    first, *rest = steps
    if len(rest) == 1:
        (second,) = rest
        return lambda value: second(first(value))

    def search(value: Any) -> Any:
        value = first(value)
        for step in rest:
            value = step(value)
        return value

    return search


def _index(node: Node) -> Search:
    position = node["value"]

    def search(value: Any) -> Any:
        if not isinstance(value, list):
            return None
        try:
            return value[position]
        except IndexError:
            return None

    return search


def _slice(node: Node) -> Search:
    part = slice(*node["children"])
    return lambda value: value[part] if isinstance(value, list) else None


def _projection(node: Node) -> Search:
    base, each = (_compile(child) for child in node["children"])

    def search(value: Any) -> Any:
        elements = base(value)
        if not isinstance(elements, list):
            return None
        return [found for element in elements if (found := each(element)) is not None]

    return search


def _value_projection(node: Node) -> Search:
    base, each = (_compile(child) for child in node["children"])

    def search(value: Any) -> Any:
        elements = base(value)
        if not isinstance(elements, dict):
            return None
        return [found for element in elements.values() if (found := each(element)) is not None]

    return search


def _filter_projection(node: Node) -> Search:
    base, each, condition = (_compile(child) for child in node["children"])

    def search(value: Any) -> Any:
        elements = base(value)
        if not isinstance(elements, list):
            return None
        return [
            found for element in elements if not _is_false(condition(element)) and (found := each(element)) is not None
        ]

    return search


def _flatten(node: Node) -> Search:
    base = _compile(node["children"][0])

    def search(value: Any) -> Any:
        elements = base(value)
        if not isinstance(elements, list):
            return None
        flat: list[Any] = []
        for element in elements:
            if isinstance(element, list):
                flat += element
            else:
                flat.append(element)
        return flat

    return search


def _comparator(node: Node) -> Search:
    left, right = (_compile(child) for child in node["children"])
    name = node["value"]
    if name in ("eq", "ne"):
        wanted = name == "eq"
        return lambda value: bool(_equals(left(value), right(value))) is wanted
    compare = _ORDERINGS[name]

    def search(value: Any) -> Any:
        one, other = left(value), right(value)
        return compare(one, other) if _is_comparable(one) and _is_comparable(other) else None

    return search


def _or(node: Node) -> Search:
    first, second = (_compile(child) for child in node["children"])

    def search(value: Any) -> Any:
        found = first(value)
        return second(value) if _is_false(found) else found

    return search


def _and(node: Node) -> Search:
    first, second = (_compile(child) for child in node["children"])

    def search(value: Any) -> Any:
        found = first(value)
        return found if _is_false(found) else second(value)

    return search


def _literal(node: Node) -> Search:
    found = node["value"]
    return lambda value: found


def _itself(node: Node) -> Search:
    return lambda value: value


def _list(node: Node) -> Search:
    children = [_compile(child) for child in node["children"]]
    return lambda value: None if value is None else [child(value) for child in children]


def _dict(node: Node) -> Search:
    children = [(child["value"], _compile(child["children"][0])) for child in node["children"]]
    return lambda value: None if value is None else {name: child(value) for name, child in children}


def _interpreted(node: Node) -> Search:
    """What is rare is left to the library's own interpreter, with all that stands below it."""
    return lambda value: _interpreter.visit(cast(Any, node), value)


def _call(node: Node) -> Search:
    if any(child["type"] == "expref" for child in node["children"]):
        return _interpreted(node)
    name, arguments = node["value"], [_compile(child) for child in node["children"]]
    return lambda value: _functions.call_function(name, [argument(value) for argument in arguments])


_COMPILERS: dict[str, Callable[[Node], Search]] = {
    "field": _field,
    "subexpression": _chain,
    "index_expression": _chain,
    "pipe": _chain,
    "index": _index,
    "slice": _slice,
    "projection": _projection,
    "value_projection": _value_projection,
    "filter_projection": _filter_projection,
    "flatten": _flatten,
    "comparator": _comparator,
    "or_expression": _or,
    "and_expression": _and,
    "not_expression": _interpreted,
    "literal": _literal,
    "current": _itself,
    "identity": _itself,
    "multi_select_list": _list,
    "multi_select_dict": _dict,
    "function_expression": _call,
}
