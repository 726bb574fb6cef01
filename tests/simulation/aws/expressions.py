"""DynamoDB's condition, update and key expressions, as far as the code uses them, compiled once and cached.

https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Expressions.OperatorsAndFunctions.html
Unsupported syntax raises `UnknownSyntax`, so that an expression is never true by mistake.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from functools import cache
from typing import Any, NoReturn

# An attribute's value in the request format: {"S": "…"}, {"N": "1"}.
Value = dict[str, Any]
Item = dict[str, Value]
Values = dict[str, Value]
Condition = Callable[[Item, Values], bool]
Operand = Callable[[Item, Values], Value | None]

_TOKEN = re.compile(r"\s*(:\w+|#\w+|[A-Za-z_]\w*|<=|>=|<>|[=<>(),+-])")
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_CLAUSES = ("SET", "REMOVE", "ADD", "DELETE")


class UnknownSyntax(BaseException):
    """The code under test must not catch it with `except Exception`."""


class Invalid(Exception):
    """An error that DynamoDB answers with a ValidationException."""


class Update:
    """`sets` and `adds` are pairs (attribute, operand); all operands are evaluated on the old item."""

    def __init__(self, sets: list[tuple[str, Operand]], removes: list[str], adds: list[tuple[str, Operand]]) -> None:
        self.sets, self.removes, self.adds = sets, removes, adds

    def apply(self, old: Item, values: Values) -> Item:
        new = dict(old)
        for name, operand in self.sets:
            value = operand(old, values)
            if value is None:
                raise Invalid("The provided expression refers to an attribute that does not exist in the item")
            new[name] = value
        for name in self.removes:
            new.pop(name, None)
        for name, operand in self.adds:
            value = operand(old, values)
            if value is None or "N" not in value:
                raise UnknownSyntax("ADD of anything but a number")
            new[name] = _number(_as_number(old.get(name, {"N": "0"})) + _as_number(value))
        return new


@cache
def condition(text: str, names: tuple[tuple[str, str], ...]) -> tuple[Condition, frozenset[str], frozenset[str]]:
    """The condition, and the `:values` and `#names` that it uses."""
    parser = _Parser(text, dict(names))
    made = parser.disjunction()
    parser.end()
    return made, frozenset(parser.used_values), frozenset(parser.used_names)


@cache
def update(text: str, names: tuple[tuple[str, str], ...]) -> tuple[Update, frozenset[str], frozenset[str]]:
    parser = _Parser(text, dict(names))
    made = parser.update()
    parser.end()
    return made, frozenset(parser.used_values), frozenset(parser.used_names)


class Key:
    """`pk = :pk`, with `begins_with(sk, :sk)` or one comparison of the sort key."""

    def __init__(self, pk: tuple[str, str], sk: tuple[str, str, str] | None) -> None:
        self.pk, self.sk = pk, sk


@cache
def key_condition(text: str, names: tuple[tuple[str, str], ...]) -> tuple[Key, frozenset[str], frozenset[str]]:
    parser = _Parser(text, dict(names))
    pk_name = parser.path()
    parser.expect("=")
    pk = (pk_name, parser.value_name())
    sk = None
    if parser.peek() == "AND":
        parser.take()
        if parser.peek() == "begins_with":
            parser.take()
            parser.expect("(")
            name = parser.path()
            parser.expect(",")
            sk = (name, "begins_with", parser.value_name())
            parser.expect(")")
        else:
            name, how = parser.path(), parser.take()
            if how not in _COMPARISONS:
                parser.unknown()
            sk = (name, how, parser.value_name())
    parser.end()
    return Key(pk, sk), frozenset(parser.used_values), frozenset(parser.used_names)


class _Parser:
    def __init__(self, text: str, names: dict[str, str]) -> None:
        self.text, self.names = text, names
        self.used_values: set[str] = set()
        self.used_names: set[str] = set()
        self.tokens: list[str] = []
        at = 0
        while text[at:].strip():
            match = _TOKEN.match(text, at)
            if not match:
                self.unknown()
            self.tokens.append(match[1])
            at = match.end()
        self.at = 0

    def unknown(self) -> NoReturn:
        raise UnknownSyntax(self.text)

    def peek(self, ahead: int = 0) -> str:
        return self.tokens[self.at + ahead] if self.at + ahead < len(self.tokens) else ""

    def take(self) -> str:
        token = self.peek()
        if not token:
            self.unknown()
        self.at += 1
        return token

    def expect(self, token: str) -> None:
        if self.take() != token:
            self.unknown()

    def end(self) -> None:
        if self.at != len(self.tokens):
            self.unknown()

    def path(self) -> str:
        token = self.take()
        if token.startswith("#"):
            self.used_names.add(token)
            if token not in self.names:
                raise Invalid(f"An expression attribute name used in the document path is not defined: {token}")
            return self.names[token]
        if not re.fullmatch(r"[A-Za-z_]\w*", token):
            self.unknown()
        return token

    def value_name(self) -> str:
        token = self.take()
        if not token.startswith(":"):
            self.unknown()
        self.used_values.add(token)
        return token

    def disjunction(self) -> Condition:
        made = [self.conjunction()]
        while self.peek() == "OR":
            self.take()
            made.append(self.conjunction())
        return made[0] if len(made) == 1 else lambda item, values: any(each(item, values) for each in made)

    def conjunction(self) -> Condition:
        made = [self.negation()]
        while self.peek() == "AND":
            self.take()
            made.append(self.negation())
        return made[0] if len(made) == 1 else lambda item, values: all(each(item, values) for each in made)

    def negation(self) -> Condition:
        if self.peek() == "NOT":
            self.take()
            inner = self.negation()
            return lambda item, values: not inner(item, values)
        return self.simple()

    def simple(self) -> Condition:
        token = self.peek()
        if token == "(":
            self.take()
            inner = self.disjunction()
            self.expect(")")
            return inner
        if self.peek(1) == "(" and token != "if_not_exists":
            return self.function()
        left = self.operand()
        how = self.take()
        if how == "<>":
            right = self.operand()
            return lambda item, values: left(item, values) != right(item, values)
        if how not in _COMPARISONS:
            self.unknown()
        compare, right = _COMPARISONS[how], self.operand()
        return lambda item, values: _compare(compare, left(item, values), right(item, values))

    def function(self) -> Condition:
        function = self.take()
        self.expect("(")
        name = self.path()
        if function == "begins_with":
            self.expect(",")
            start = self.value_name()
            self.expect(")")
            return lambda item, values: str(item.get(name, {}).get("S", "\0")).startswith(values[start]["S"])
        self.expect(")")
        if function == "attribute_exists":
            return lambda item, values: name in item
        if function == "attribute_not_exists":
            return lambda item, values: name not in item
        return self.unknown()

    def operand(self) -> Operand:
        token = self.peek()
        if token.startswith(":"):
            value = self.value_name()
            return lambda item, values: values[value]
        if token == "if_not_exists":
            self.take()
            self.expect("(")
            name = self.path()
            self.expect(",")
            other = self.operand()
            self.expect(")")
            return lambda item, values: item[name] if name in item else other(item, values)
        if self.peek(1) == "(":
            self.unknown()
        attribute = self.path()
        return lambda item, values: item.get(attribute)

    def sum(self) -> Operand:
        left = self.operand()
        if self.peek() not in ("+", "-"):
            return left
        sign = 1 if self.take() == "+" else -1
        right = self.operand()

        def add(item: Item, values: Values) -> Value | None:
            one, other = left(item, values), right(item, values)
            if one is None or other is None:
                return None
            if "N" not in one or "N" not in other:
                raise Invalid("An operand in the update expression has an incorrect data type")
            return _number(_as_number(one) + sign * _as_number(other))

        return add

    def update(self) -> Update:
        sets: list[tuple[str, Operand]] = []
        removes: list[str] = []
        adds: list[tuple[str, Operand]] = []
        seen: set[str] = set()
        while self.peek():
            clause = self.take()
            if clause not in _CLAUSES or clause in seen:
                self.unknown()
            seen.add(clause)
            while True:
                name = self.path()
                if clause == "SET":
                    self.expect("=")
                    sets.append((name, self.sum()))
                elif clause == "REMOVE":
                    removes.append(name)
                elif clause == "ADD":
                    adds.append((name, self.operand()))
                else:
                    self.unknown()
                if self.peek() != ",":
                    break
                self.take()
        touched = [name for name, _ in sets] + removes + [name for name, _ in adds]
        if len(touched) != len(set(touched)):
            raise Invalid("Two document paths overlap with each other")
        return Update(sets, removes, adds)


def _compare(compare: Callable[[Any, Any], bool], left: Value | None, right: Value | None) -> bool:
    """False where an attribute is missing or the types differ, as in DynamoDB."""
    if left is None or right is None:
        return False
    ((kind, one),) = left.items()
    ((other_kind, other),) = right.items()
    if kind != other_kind:
        return False
    if kind == "N":
        return compare(_as_number(left), _as_number(right))
    return compare(one, other)


def _as_number(value: Value) -> int | float:
    text = value["N"]
    try:
        return int(text)
    except ValueError:
        return float(text)


def _number(value: int | float) -> Value:
    return {"N": str(value)}
