"""`base[?tested=='text'].name[].field | [0]`: the expression in nearly every mapping, the first value of a custom field.

All such expressions of a mapping over the same list read it once, and look only at the elements that one of them asks for.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from portaria.records.mapping.expression_budget import Budget, Node, TooCostly


class FirstValue(NamedTuple):
    base: str
    tested: str
    name: str
    field: str


def match_first_value(node: Node) -> tuple[FirstValue, str] | None:
    """What a pipe searches, with the text, if it is such an expression."""
    match node["children"]:
        case [
            {
                "type": "projection",
                "children": [
                    {
                        "type": "flatten",
                        "children": [
                            {
                                "type": "filter_projection",
                                "children": [
                                    {"type": "field", "value": base},
                                    {"type": "field", "value": name},
                                    {
                                        "type": "comparator",
                                        "value": "eq",
                                        "children": [
                                            {"type": "field", "value": tested},
                                            {"type": "literal", "value": str(text)},
                                        ],
                                    },
                                ],
                            }
                        ],
                    },
                    {"type": "field", "value": field},
                ],
            },
            {"type": "index_expression", "children": [{"type": "identity"}, {"type": "index", "value": 0}]},
        ]:
            return FirstValue(base, tested, name, field), text
    return None


def first_values(data: Any, wanted: FirstValue, texts: set[str], budget: Budget) -> dict[str, Any]:
    """Return the first value of each text in `texts`. A text without a value is left out. Raises `TooCostly`."""
    found: dict[str, Any] = {}
    base, tested, name, field = wanted
    elements = data.get(base) if type(data) is dict else None
    if type(elements) is not list:
        return found
    left = budget.left - len(elements)
    if left < 0:
        raise TooCostly
    for element in elements:
        if type(element) is not dict or type(text := element.get(tested)) is not str:
            continue
        if text not in texts or text in found:
            continue
        values = element.get(name)
        for value in values if type(values) is list else (values,):
            left -= 1
            if type(value) is dict and (first := value.get(field)) is not None:
                found[text] = first
                break
    budget.left = left
    if left < 0:
        raise TooCostly
    return found
