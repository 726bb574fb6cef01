"""The budget of an evaluation: how many steps a mapping may take for one record.

An expression of a few hundred characters can multiply its input without end. Each such operation is charged before it is
done: a step for each element that is read or made, times the nodes that read it, and a step for each 32 characters. A list's
operation is charged once for the whole list, so the usual mapping pays nothing measurable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

Node = dict[str, Any]

# Of one record, for all the expressions of its mapping together: some milliseconds. A contact with 500 custom fields, 20 of
# them mapped by conditions, takes 40,000.
MAX_STEPS = 100_000
# The characters of text that one step covers.
CHARACTERS_A_STEP = 32
# JSON may write one character as an escape of this many.
ESCAPE_LENGTH = 6
# Texts below this are compared at no charge.
SHORT_TEXT = 1_000
# A float from here on may stand for an integer that a JSON reader could not hold.
LEAST_INEXACT = 2.0**63

# The cost of a node in steps, if it is not one.
_COSTS = {
    "function_expression": 10,
    "multi_select_list": 3,
    "multi_select_dict": 4,
    "flatten": 3,
    "filter_projection": 3,
}
# Functions whose result depends on every key of an object.
_OF_ALL_KEYS = ("keys", "values", "length", "merge", "to_string", "contains")


class TooCostly(Exception):
    """An evaluation would read or make more than its budget allows."""


class Lacking(Exception):
    """An expression needs a value that a partial record does not have."""


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
        """Charge the reading of a whole value, each time that a part of it occurs.

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


def children(node: Node) -> Iterator[Node]:
    # A slice's children are numbers.
    return (child for child in node.get("children", ()) if isinstance(child, dict))


def cost_of(node: Node) -> int:
    """How many steps it takes to search in one element of a list: one for each node, more for those that do more."""
    cost, waiting = 0, [node]
    while waiting:
        each = waiting.pop()
        cost += _COSTS.get(each["type"], 1)
        waiting += children(each)
    return cost


# What a call costs beyond its arguments' length, if its arguments have the right types.
Charge = Callable[[Budget, list[Any]], None]


def charge_of(name: str, cost: int, *, is_partial: bool) -> Charge:
    """The charge of a call, made before it. `cost` is what the function does with each element of a list.

    The charge raises `TooCostly`, `Inexact`, and `Lacking` if the result depends on all keys of a partial record's object.
    """
    reads_keys = is_partial and name in _OF_ALL_KEYS
    charge_more = _CHARGES.get(name)

    def charge(budget: Budget, given: list[Any]) -> None:
        steps = 0
        for argument in given:
            kind = type(argument)
            if kind is str:
                steps += len(argument) // CHARACTERS_A_STEP
            elif kind is list:
                steps += cost * len(argument)
            elif kind is dict:
                if reads_keys:
                    raise Lacking
                steps += len(argument)
        budget.spend(steps)
        if charge_more and given:
            charge_more(budget, given)

    def charge_to_string(budget: Budget, given: list[Any]) -> None:
        charge(budget, given)
        if given and type(given[0]) not in (str, int):
            budget.spend_value(given[0], is_partial=is_partial)

    def charge_contains(budget: Budget, given: list[Any]) -> None:
        charge(budget, given)
        if len(given) == 2 and type(given[0]) is list:
            if type(given[1]) in (list, dict):
                budget.spend_value(given[0], is_partial=is_partial)
            elif type(given[1]) is str:
                budget.spend_text(len(given[1]) * len(given[0]))

    return {"to_string": charge_to_string, "contains": charge_contains}.get(name, charge)


def _charge_number(budget: Budget, given: list[Any]) -> None:
    if type(given[0]) is str and len(given[0]) >= SHORT_TEXT:
        budget.spend(len(given[0]))


def _charge_texts(budget: Budget, given: list[Any]) -> None:
    if type(given[0]) is list:
        budget.spend_text(_length(given[0]))


def _charge_join(budget: Budget, given: list[Any]) -> None:
    if len(given) == 2 and type(given[0]) is str and type(given[1]) is list:
        budget.spend_text(_length(given[1]) + len(given[0]) * len(given[1]))


_CHARGES: dict[str, Charge] = {
    "to_number": _charge_number,
    "sort": _charge_texts,
    "max": _charge_texts,
    "min": _charge_texts,
    "join": _charge_join,
}


def _length(elements: list[Any]) -> int:
    """Of all the texts in a list."""
    return sum([len(each) for each in elements if type(each) is str])
