"""Calls of JMESPath's functions. The library implements them; what it would check again for each call is prepared here once.

The library looks up each argument's type by name, which takes five times as long as most functions themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jmespath.functions import Functions

from portaria.records.mapping.expression_budget import CHARACTERS_A_STEP, Budget, charge_of

Arguments = list[Any]

_functions = Functions()
# The Python types that stand for JMESPath's in JSON. An `expref` is left to the library.
_TYPES: dict[str, tuple[type, ...]] = {
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
    "string": (str,),
    "number": (int, float),
}


def call_of(name: str, count: int, budget: Budget, cost: int, *, is_partial: bool) -> Callable[[Arguments], Any]:
    """A call of a function with `count` arguments, which charges the budget before. `cost` is as in `charge_of`.

    It raises what the library raises for a wrong call, and what the charge raises.
    """
    charge = charge_of(name, cost, is_partial=is_partial)

    def call(given: Arguments) -> Any:
        charge(budget, given)
        return _functions.call_function(name, given)

    def call_join(given: Arguments) -> Any:
        separator, texts = given
        if type(separator) is not str or type(texts) is not list:
            return call(given)
        try:
            length = sum(map(len, texts)) + len(separator) * (len(texts) + 1)
            budget.spend(len(texts) + length // CHARACTERS_A_STEP)
            return separator.join(texts)
        except TypeError:
            # The library says which element is not a text.
            return call(given)

    if name == "join" and count == 2:
        # The library checks the type of each text before.
        return call_join
    known = _functions.FUNCTION_TABLE.get(name)
    if not known or len(known["signature"]) != count or any(each.get("variadic") for each in known["signature"]):
        return call
    function = known["function"]
    checks = [(place, _check_of(each["types"])) for place, each in enumerate(known["signature"]) if each["types"]]

    def call_checked(given: Arguments) -> Any:
        charge(budget, given)
        for place, is_right in checks:
            if not is_right(given[place]):
                # The library says what is wrong.
                return _functions.call_function(name, given)
        return function(_functions, *given)

    return call_checked


def _check_of(types: list[str]) -> Callable[[Any], bool]:
    """Whether a value has one of a signature's types, such as `string` or `array-number`."""
    plain = {kind for each in types if "-" not in each for kind in _TYPES.get(each, ())}
    element_kinds = [set(_TYPES[each.partition("-")[2]]) for each in types if "-" in each]

    def is_right(value: Any) -> bool:
        return type(value) in plain

    def is_right_list(value: Any) -> bool:
        if type(value) is list:
            found = set(map(type, value))
            return any(found <= kinds for kinds in element_kinds)
        return type(value) in plain

    return is_right_list if element_kinds else is_right
