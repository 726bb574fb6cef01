"""JMESPath, compiled: the expressions of a mapping, made into functions once and then called for every record.

The grammar, the functions and their meaning are the library's (https://jmespath.org): it parses, and tests compare each node
here with the library's own interpreter, which walks the tree again for every record and takes five times as long. Mappings are
where a full request's time goes; `bench/throughput.py` has the figures.

An expression of a few hundred characters can multiply its input without end. Whatever can is charged to a `Budget` before it
is done: a step for each element that is looked at or made, times the nodes that look at it, and one for each 32 characters.
The cost of an operation is charged once for a whole list, so the usual mapping pays nothing that can be measured.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, cast

import jmespath
from jmespath.exceptions import JMESPathError
from jmespath.functions import Functions
from jmespath.visitor import TreeInterpreter

Search = Callable[[Any], Any]
Node = dict[str, Any]

# Of one record, for all the expressions of its mapping together: some milliseconds. A contact with 500 custom fields, 20 of
# them mapped by conditions, takes 40,000.
MAX_STEPS = 100_000
# What a step holds of text.
CHARACTERS_A_STEP = 32
# JSON may write one character as an escape of this many.
ESCAPE_LENGTH = 6
# Texts below this are compared at no charge.
SHORT_TEXT = 1_000
# How deep an expression may be nested: each level takes frames of Python's stack, when it is compiled and when it is called.
MAX_DEPTH = 60
# A float from here on may stand for an integer that a JSON reader could not hold.
LEAST_INEXACT = 2.0**63

# What nearly every mapping has: the first value of the custom field with a code.
_FIRST_WHERE = re.compile(
    r"([A-Za-z_]\w*)\[\?([A-Za-z_]\w*)=='([^'\\]*)'\]\.([A-Za-z_]\w*)\[\]\.([A-Za-z_]\w*) \| \[0\]", re.ASCII
)

# Nodes that give back what they are given.
_ITSELF = ("current", "identity")
# A call takes as long as so many of the other nodes.
_COSTS = {
    "function_expression": 10,
    "multi_select_list": 3,
    "multi_select_dict": 4,
    "flatten": 3,
    "filter_projection": 3,
}
# Functions whose result depends on every key of an object.
_OF_ALL_KEYS = ("keys", "values", "length", "merge", "to_string", "contains")

_functions = Functions()
_equals = TreeInterpreter.COMPARATOR_FUNC["eq"]
_ORDERINGS = {name: TreeInterpreter.COMPARATOR_FUNC[name] for name in ("lt", "gt", "lte", "gte")}
_MISSING = object()


class TooCostly(Exception):
    """An evaluation would look at, or make, more than its budget allows."""


class Lacking(Exception):
    """An expression needs what a partial record does not have."""


class Inexact(Exception):
    """An expression would write a number whose exact digits are lost."""


class Budget:
    """The steps that an evaluation has left. `start` begins a new one; `spend` raises `TooCostly` before too much is done."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = MAX_STEPS

    def start(self) -> None:
        self.left = MAX_STEPS

    def spend(self, steps: int) -> None:
        self.left -= steps
        if self.left < 0:
            raise TooCostly

    def spend_text(self, length: int) -> None:
        self.spend(length // CHARACTERS_A_STEP)

    def spend_value(self, value: Any, *, is_partial: bool = False) -> None:
        """What it takes to look at a whole value, however often a part of it occurs.

        Raises `Inexact` for a number in it whose digits are lost, and `Lacking` for an object of a partial record.
        """
        waiting = [value]
        while waiting:
            each = waiting.pop()
            kind = type(each)
            if kind is list:
                self.spend(len(each) + 1)
                waiting += each
            elif kind is dict:
                if is_partial:
                    raise Lacking
                self.spend(2 * len(each) + 1)
                waiting += each
                waiting += each.values()
            elif kind is str:
                self.spend_text(ESCAPE_LENGTH * len(each))
            elif kind is float and abs(each) >= LEAST_INEXACT:
                raise Inexact


def compiled(expression: str, budget: Budget | None = None, *, is_partial: bool = False) -> Search:
    """What `jmespath.search(expression, …)` would find, as a function of the data.

    With a `budget` the caller starts it before each evaluation. With `is_partial` the function raises `Lacking` where it needs
    a key that an object of the data does not have.

    Raises `jmespath.exceptions.JMESPathError` for what is no expression, or one that is nested deeper than `MAX_DEPTH`. The
    function raises it where a call in it fails, `TypeError` where it compares a number with a text, `TooCostly` and `Inexact`.
    """
    try:
        parsed = cast(Node, jmespath.compile(expression).parsed)
    except (RecursionError, ValueError) as error:
        if isinstance(error, JMESPathError):
            raise
        raise TooDeep("the expression cannot be read: it is nested too deeply") from None
    _check_depth(parsed)
    usual = _FIRST_WHERE.fullmatch(expression)
    if usual and not is_partial:
        return _first_where(*usual.groups())
    if budget is not None:
        return _Compiler(budget, is_partial).compile(parsed)
    own = Budget()
    search = _Compiler(own, is_partial).compile(parsed)

    def started(value: Any) -> Any:
        own.start()
        return search(value)

    return started


class TooDeep(JMESPathError):
    """An expression is nested deeper than `MAX_DEPTH`."""


def _check_depth(parsed: Node) -> None:
    level, depth = [parsed], 0
    while level:
        if depth > MAX_DEPTH:
            raise TooDeep(f"an expression may be nested {MAX_DEPTH} levels deep; this goes deeper")
        level = [child for node in level for child in _children(node)]
        depth += 1


def _children(node: Node) -> Iterator[Node]:
    # A slice's children are numbers.
    return (child for child in node.get("children", ()) if isinstance(child, dict))


def _cost(node: Node) -> int:
    """How many steps it takes to search in one element of a list: one for each node, more for those that do more."""
    cost, waiting = 0, [node]
    while waiting:
        each = waiting.pop()
        cost += _COSTS.get(each["type"], 1)
        waiting += _children(each)
    return cost


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


def _is_false(value: Any) -> bool:
    """JMESPath's idea of false: 0 is true."""
    return value is None or value is False or (not value and isinstance(value, str | list | dict))


def _is_comparable(value: Any) -> bool:
    """Numbers and, as the library has it, texts; what it cannot compare after all raises `TypeError`."""
    return isinstance(value, str | int | float) and not isinstance(value, bool)


class _Expression:
    """An argument like `&name`. The library's functions know it by the name of its class and call `visit`."""

    def __init__(self, search: Search) -> None:
        self.expression = search

    def visit(self, search: Search, value: Any) -> Any:
        return search(value)


class _Compiler:
    """Makes functions of nodes, which charge one budget. Those for partial records raise `Lacking`."""

    def __init__(self, budget: Budget, is_partial: bool) -> None:
        self.budget = budget
        self.is_partial = is_partial

    def compile(self, node: Node) -> Search:
        search: Search = getattr(self, f"_{node['type']}")(node)
        return search

    def _field(self, node: Node) -> Search:
        name = node["value"]

        def search(value: Any) -> Any:
            return value.get(name) if type(value) is dict else None

        def search_partial(value: Any) -> Any:
            if type(value) is not dict:
                return None
            if (found := value.get(name, _MISSING)) is _MISSING:
                raise Lacking
            return found

        return search_partial if self.is_partial else search

    def _chain(self, node: Node) -> Search:
        """Each child searches in what the one before it found."""
        steps = [self.compile(child) for child in node["children"] if child["type"] not in _ITSELF]
        if not steps:
            return self._current(node)
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

    _subexpression = _index_expression = _pipe = _chain

    def _index(self, node: Node) -> Search:
        position = node["value"]

        def search(value: Any) -> Any:
            if not isinstance(value, list):
                return None
            try:
                return value[position]
            except IndexError:
                return None

        return search

    def _slice(self, node: Node) -> Search:
        part, spend = slice(*node["children"]), self.budget.spend

        def search(value: Any) -> Any:
            if not isinstance(value, list):
                return None
            spend(len(range(*part.indices(len(value)))))
            return value[part]

        return search

    def _projection(self, node: Node) -> Search:
        base, each = (self.compile(child) for child in node["children"])
        cost, spend = _cost(node["children"][1]), self.budget.spend

        def search(value: Any) -> Any:
            elements = base(value)
            if not isinstance(elements, list):
                return None
            spend(cost * len(elements))
            return [found for element in elements if (found := each(element)) is not None]

        return search

    def _value_projection(self, node: Node) -> Search:
        base, each = (self.compile(child) for child in node["children"])
        cost, spend, is_partial = _cost(node["children"][1]), self.budget.spend, self.is_partial

        def search(value: Any) -> Any:
            elements = base(value)
            if not isinstance(elements, dict):
                return None
            if is_partial:
                raise Lacking
            spend(cost * len(elements))
            return [found for element in elements.values() if (found := each(element)) is not None]

        return search

    def _filter_projection(self, node: Node) -> Search:
        base, each, condition = (self.compile(child) for child in node["children"])
        cost, spend = sum(_cost(child) for child in node["children"][1:]), self.budget.spend

        def search(value: Any) -> Any:
            elements = base(value)
            if not isinstance(elements, list):
                return None
            spend(cost * len(elements))
            return [
                found
                for element in elements
                if not _is_false(condition(element)) and (found := each(element)) is not None
            ]

        return search

    def _flatten(self, node: Node) -> Search:
        base, spend = self.compile(node["children"][0]), self.budget.spend

        def search(value: Any) -> Any:
            elements = base(value)
            if not isinstance(elements, list):
                return None
            spend(len(elements))
            flat: list[Any] = []
            for element in elements:
                if isinstance(element, list):
                    spend(len(element))
                    flat += element
                else:
                    flat.append(element)
            return flat

        return search

    def _comparator(self, node: Node) -> Search:
        left, right = (self.compile(child) for child in node["children"])
        name = node["value"]
        wanted = name == "eq"
        look_at = self._look_at

        def equal(value: Any) -> Any:
            one, other = left(value), right(value)
            if type(one) is str and (type(other) is not str or len(one) < SHORT_TEXT):
                return (one == other) is wanted
            if type(one) is type(other) and type(one) in (str, list, dict):
                look_at(one)
            return bool(_equals(one, other)) is wanted

        if name in ("eq", "ne"):
            return equal
        compare = _ORDERINGS[name]

        def ordered(value: Any) -> Any:
            one, other = left(value), right(value)
            if not _is_comparable(one) or not _is_comparable(other):
                return None
            if type(one) is str:
                look_at(one)
            return compare(one, other)

        return ordered

    def _or_expression(self, node: Node) -> Search:
        first, second = (self.compile(child) for child in node["children"])

        def search(value: Any) -> Any:
            found = first(value)
            return second(value) if _is_false(found) else found

        return search

    def _and_expression(self, node: Node) -> Search:
        first, second = (self.compile(child) for child in node["children"])

        def search(value: Any) -> Any:
            found = first(value)
            return found if _is_false(found) else second(value)

        return search

    def _not_expression(self, node: Node) -> Search:
        inner = self.compile(node["children"][0])

        def search(value: Any) -> Any:
            found = inner(value)
            # A number is true, 0 as well.
            return not found and not _is_number(found)

        return search

    def _literal(self, node: Node) -> Search:
        found = node["value"]
        return lambda value: found

    def _current(self, node: Node) -> Search:
        return lambda value: value

    _identity = _current

    def _multi_select_list(self, node: Node) -> Search:
        children, spend = [self.compile(child) for child in node["children"]], self.budget.spend

        def search(value: Any) -> Any:
            if value is None:
                return None
            spend(len(children) + 1)
            return [child(value) for child in children]

        return search

    def _multi_select_dict(self, node: Node) -> Search:
        children = [(child["value"], self.compile(child["children"][0])) for child in node["children"]]
        spend = self.budget.spend

        def search(value: Any) -> Any:
            if value is None:
                return None
            spend(2 * len(children) + 1)
            return {name: child(value) for name, child in children}

        return search

    def _expref(self, node: Node) -> Search:
        inner, spend_text = self.compile(node["children"][0]), self.budget.spend_text

        def search(value: Any) -> Any:
            found = inner(value)
            if type(found) is str:
                spend_text(len(found))
            return found

        expression = _Expression(search)
        return lambda value: expression

    def _function_expression(self, node: Node) -> Search:
        name, arguments = node["value"], [self.compile(child) for child in node["children"]]
        # What a function does with an expression, it does for each element of the list beside it.
        cost = 1 + sum(_cost(child) for child in node["children"] if child["type"] == "expref")
        charge = self._charge

        def search(value: Any) -> Any:
            given = [argument(value) for argument in arguments]
            charge(name, given, cost)
            return _functions.call_function(name, given)

        return search

    def _look_at(self, value: Any) -> None:
        self.budget.spend_value(value, is_partial=self.is_partial)

    def _charge(self, name: str, given: list[Any], cost: int) -> None:
        """Charge a call before it is made."""
        budget = self.budget
        for argument in given:
            kind = type(argument)
            if kind is str:
                budget.spend_text(len(argument))
            elif kind is list:
                budget.spend(cost * len(argument))
            elif kind is dict:
                if self.is_partial and name in _OF_ALL_KEYS:
                    raise Lacking
                budget.spend(len(argument))
        if not given:
            return
        first = given[0]
        if name == "to_string" and type(first) is not str:
            self._look_at(first)
        elif name == "to_number" and type(first) is str and len(first) >= SHORT_TEXT:
            budget.spend(len(first))
        elif name in ("sort", "max", "min") and type(first) is list:
            budget.spend_text(_length(first))
        elif name == "join" and len(given) == 2 and type(first) is str and type(given[1]) is list:
            budget.spend_text(_length(given[1]) + len(first) * len(given[1]))
        elif name == "contains" and len(given) == 2 and type(first) is list:
            if type(given[1]) in (list, dict):
                self._look_at(first)
            elif type(given[1]) is str:
                budget.spend_text(len(given[1]) * len(first))


def _length(elements: list[Any]) -> int:
    """Of all the texts in a list."""
    return sum(len(each) for each in elements if type(each) is str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
