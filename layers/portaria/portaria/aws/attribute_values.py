"""Attribute values of DynamoDB, as `boto3.dynamodb.types` converts them; importing that would import all of boto3.

https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_AttributeValue.html
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from decimal import Clamped, Context, Decimal, Inexact, Overflow, Rounded, Underflow
from typing import Any

# A number has 38 digits.
_NUMBERS = Context(Emin=-128, Emax=126, prec=38, traps=[Clamped, Overflow, Inexact, Rounded, Underflow])
# Every integer of so many characters is exact.
_SURELY_EXACT = 38


def typed(value: Any) -> dict[str, Any]:
    """The attribute value of `None`, a bool, int, Decimal, text, bytes, list, tuple, mapping or set of texts.

    Raises `TypeError` for another type, among them `float`, and `decimal.Inexact` or `decimal.Rounded` for a number that
    DynamoDB would not keep exactly.
    """
    if isinstance(value, str):
        return {"S": value}
    if value is None:
        return {"NULL": True}
    if isinstance(value, bool):
        return {"BOOL": value}
    if isinstance(value, int | Decimal):
        return {"N": _number(value)}
    if isinstance(value, Mapping):
        return {"M": {name: typed(inner) for name, inner in value.items()}}
    if isinstance(value, list | tuple):
        return {"L": [typed(inner) for inner in value]}
    if isinstance(value, bytes):
        return {"B": value}
    if isinstance(value, float):
        raise TypeError("DynamoDB's numbers are exact: use an int or a Decimal instead of a float")
    if isinstance(value, Set) and value and all(isinstance(each, str) for each in value):
        return {"SS": list(value)}
    raise TypeError(f"DynamoDB has no type for a {type(value).__name__}")


def plain(value: Mapping[str, Any]) -> Any:
    """The Python value of an attribute value. A number is an int if it is whole, otherwise a float."""
    ((kind, content),) = value.items()
    match kind:
        case "S" | "BOOL":
            return content
        case "N":
            return _int_or_float(content)
        case "M":
            return {name: plain(inner) for name, inner in content.items()}
        case "L":
            return [plain(inner) for inner in content]
        case "NULL":
            return None
        case "B":
            return bytes(content)
        case "SS":
            return set(content)
        case "NS":
            return {_int_or_float(each) for each in content}
        case "BS":
            return {bytes(each) for each in content}
    raise TypeError(f"unknown attribute type {kind}")


def _number(value: int | Decimal) -> str:
    text = str(value)
    if isinstance(value, int) and len(text) <= _SURELY_EXACT:
        return text
    number = str(_NUMBERS.create_decimal(value))
    if number in ("Infinity", "-Infinity", "NaN"):
        raise TypeError("DynamoDB has neither infinity nor NaN")
    return number


def _int_or_float(text: str) -> int | float:
    if text.isdecimal():
        return int(text)
    number = Decimal(text)
    return int(number) if number == number.to_integral_value() else float(number)
