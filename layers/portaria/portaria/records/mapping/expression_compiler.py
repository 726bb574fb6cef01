"""The nodes of an expression, made into functions. Each function searches in one value and charges the budget.

The grammar and the meaning of each node are the library's: https://jmespath.org/specification.html
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jmespath.functions import Functions
from jmespath.visitor import TreeInterpreter

from portaria.records.mapping.expression_budget import SHORT_TEXT, Budget, Lacking, Node, charge_call, cost_of

Search = Callable[[Any], Any]

# Nodes that return their argument.
_ITSELF = ("current", "identity")

_functions = Functions()
_equals = TreeInterpreter.COMPARATOR_FUNC["eq"]
_ORDERINGS = {name: TreeInterpreter.COMPARATOR_FUNC[name] for name in ("lt", "gt", "lte", "gte")}
_MISSING = object()


def _is_false(value: Any) -> bool:
    """Whether JMESPath treats a value as false. 0 is true."""
    return value is None or value is False or (not value and isinstance(value, str | list | dict))


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
        cost, spend = cost_of(node["children"][1]), self.budget.spend

        def search(value: Any) -> Any:
            elements = base(value)
            if not isinstance(elements, list):
                return None
            spend(cost * len(elements))
            return [found for element in elements if (found := each(element)) is not None]

        return search

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
        base, each, condition = (self.compile(child) for child in node["children"])
        cost, spend = sum(cost_of(child) for child in node["children"][1:]), self.budget.spend

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
        budget, is_partial = self.budget, self.is_partial

        def search(value: Any) -> Any:
            given = [argument(value) for argument in arguments]
            charge_call(budget, name, given, cost, is_partial=is_partial)
            return _functions.call_function(name, given)

        return search

    def _look_at(self, value: Any) -> None:
        self.budget.spend_value(value, is_partial=self.is_partial)
