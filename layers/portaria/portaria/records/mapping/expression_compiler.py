"""The nodes of an expression, made into functions. Each function searches in one value and charges the budget.

The grammar and the meaning of each node are the library's: https://jmespath.org/specification.html
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jmespath.visitor import TreeInterpreter

from portaria.records.mapping import expression_functions
from portaria.records.mapping.expression_budget import SHORT_TEXT, Budget, Lacking, Node, TooCostly, charge_of, cost_of

Search = Callable[[Any], Any]

# Nodes that return their argument.
_ITSELF = ("current", "identity")
# Nodes whose children each search in the result of the one before.
_CHAINS = ("subexpression", "index_expression", "pipe")

_equals = TreeInterpreter.COMPARATOR_FUNC["eq"]
_ORDERINGS = {name: TreeInterpreter.COMPARATOR_FUNC[name] for name in ("lt", "gt", "lte", "gte")}
_MISSING = object()


def _is_false(value: Any) -> bool:
    """Whether JMESPath treats a value as false. 0 is true."""
    return not value and (value is None or value is False or isinstance(value, str | list | dict))


def _path_of(node: Node) -> list[str | int] | None:
    """The fields and positions that a node like `a.b[0]` follows; None if it does anything else."""
    kind = node["type"]
    if kind in _ITSELF:
        return []
    if kind in ("field", "index"):
        return [node["value"]]
    if kind not in _CHAINS:
        return None
    paths = [_path_of(child) for child in node["children"]]
    return None if None in paths else [step for path in paths if path for step in path]


def _tested_text(node: Node) -> tuple[str, str] | None:
    """The field and the text of a condition like `field=='text'`; None for any other."""
    if node["type"] != "comparator" or node["value"] != "eq":
        return None
    field, literal = node["children"]
    if field["type"] != "field" or literal["type"] != "literal" or type(literal["value"]) is not str:
        return None
    return field["value"], literal["value"]


def _is_comparable(value: Any) -> bool:
    """Whether the library compares a value: a number or a text. A number with a text raises `TypeError`."""
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class _Expression:
    """An argument like `&name`. The library's functions recognize it by the name of its class and call `visit`."""

    def __init__(self, search: Search) -> None:
        self.expression = search

    def visit(self, search: Search, value: Any) -> Any:
        return search(value)


class _Selections:
    """Nodes that select parts of a value, or put parts together."""

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
        """Each child searches in the result of the one before it."""
        path = None if self.is_partial else _path_of(node)
        if path:
            return self._path(path)
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

    def _path(self, path: list[str | int]) -> Search:
        def search(value: Any) -> Any:
            for step in path:
                kind = type(value)
                if kind is dict:
                    value = value.get(step)  # noqa: PLW2901
                elif kind is list and type(step) is int and -len(value) <= step < len(value):
                    value = value[step]  # noqa: PLW2901
                else:
                    return None
            return value

        return search

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
        base, each = self.compile(node["children"][0]), self._each(node["children"][1])
        cost, spend = cost_of(node["children"][1]), self.budget.spend

        def search(value: Any) -> Any:
            elements = base(value)
            if not isinstance(elements, list):
                return None
            spend(cost * len(elements))
            return each(elements)

        return search

    def _each(self, node: Node) -> Callable[[list[Any]], list[Any]]:
        """What a node finds in each element of a list, without null."""
        if node["type"] in _ITSELF:
            return lambda elements: [element for element in elements if element is not None]
        if node["type"] == "field" and not self.is_partial:
            name = node["value"]
            return lambda elements: [
                found for element in elements if type(element) is dict and (found := element.get(name)) is not None
            ]
        search = self.compile(node)
        return lambda elements: [found for element in elements if (found := search(element)) is not None]

    def _value_projection(self, node: Node) -> Search:
        base, each = (self.compile(child) for child in node["children"])
        cost, spend, is_partial = cost_of(node["children"][1]), self.budget.spend, self.is_partial

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
        base, each = self.compile(node["children"][0]), self._each(node["children"][1])
        passing = self._passing(node["children"][2])
        cost, spend = sum(cost_of(child) for child in node["children"][1:]), self.budget.spend

        def search(value: Any) -> Any:
            elements = base(value)
            if not isinstance(elements, list):
                return None
            spend(cost * len(elements))
            return each(passing(elements))

        return search

    def _passing(self, condition: Node) -> Callable[[list[Any]], list[Any]]:
        """The elements of a list that meet a condition."""
        tested = None if self.is_partial else _tested_text(condition)
        if tested:
            name, text = tested
            return lambda elements: [
                element for element in elements if type(element) is dict and element.get(name) == text
            ]
        search = self.compile(condition)
        return lambda elements: [element for element in elements if not _is_false(search(element))]

    def _flatten(self, node: Node) -> Search:
        base, budget = self.compile(node["children"][0]), self.budget

        def search(value: Any) -> Any:
            elements = base(value)
            if not isinstance(elements, list):
                return None
            left = budget.left - len(elements)
            flat: list[Any] = []
            for element in elements:
                if type(element) is list:
                    left -= len(element)
                    if left < 0:
                        raise TooCostly
                    flat += element
                else:
                    flat.append(element)
            budget.left = left
            budget.spend(0)
            return flat

        return search

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

    def _literal(self, node: Node) -> Search:
        found = node["value"]
        return lambda value: found

    def _current(self, node: Node) -> Search:
        return lambda value: value

    _identity = _current


class Compiler(_Selections):
    """Makes functions of nodes, which charge one budget. Functions for partial records (`is_partial`) raise `Lacking`.

    `_Selections` has the nodes that select; here are comparisons, logic and calls. A method has its node's name.
    """

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
            return second(value) if not found and _is_false(found) else found

        return search

    def _and_expression(self, node: Node) -> Search:
        first, second = (self.compile(child) for child in node["children"])

        def search(value: Any) -> Any:
            found = first(value)
            return found if not found and _is_false(found) else second(value)

        return search

    def _not_expression(self, node: Node) -> Search:
        inner = self.compile(node["children"][0])

        def search(value: Any) -> Any:
            found = inner(value)
            # A number is true, 0 as well.
            return not found and not _is_number(found)

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
        # A function evaluates an expression argument for each element of its list argument.
        cost = 1 + sum(cost_of(child) for child in node["children"] if child["type"] == "expref")
        budget, charge = self.budget, charge_of(name, cost, is_partial=self.is_partial)
        call = expression_functions.call_of(name, len(arguments))

        def search(value: Any) -> Any:
            given = [argument(value) for argument in arguments]
            charge(budget, given)
            return call(given)

        return search

    def _look_at(self, value: Any) -> None:
        self.budget.spend_value(value, is_partial=self.is_partial)
