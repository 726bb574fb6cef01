"""JMESPath, compiled: the expressions of a mapping, made into functions once and then called for every record.

The library (https://jmespath.org) parses and defines the language, and tests compare each node here with its interpreter. The
interpreter walks the tree again for every record: with it, a batch takes about four times as long (docs/decisions.md).

`expression_compiler` makes the functions, and `expression_budget` bounds what one evaluation may do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import jmespath
from jmespath.exceptions import JMESPathError

from portaria.records.mapping.expression_budget import Budget, Node, children
from portaria.records.mapping.expression_compiler import Check, Compiler, Search

# How deep an expression may be nested: each level takes frames of Python's stack, when it is compiled and when it is called.
MAX_DEPTH = 60


def compiled(expression: str, budget: Budget | None = None, *, is_partial: bool = False) -> Search:
    """A function of the data that returns what `jmespath.search(expression, …)` returns.

    A caller that gives a `budget` starts it before each evaluation. With `is_partial`, the function raises `Lacking` if it
    needs a key that an object of the data does not have.

    Raises as `parsed` does. The function raises `JMESPathError` if a call in it fails, `TypeError` if it compares a number with
    a text, `TooCostly` and `Inexact`.
    """
    node = parsed(expression)
    if budget is not None:
        return Compiler(budget, is_partial).compile(node)
    own = Budget()
    search = Compiler(own, is_partial).compile(node)

    def started(value: Any) -> Any:
        own.start()
        return search(value)

    return started


def compiled_mapping(
    nodes: Iterable[tuple[str, Node]], budget: Budget, *, check: Check, failure: Callable[[str, Exception], Exception]
) -> Search:
    """A function of the data that returns all attributes, of which `nodes` has the parsed expressions.

    See `Compiler.compile_mapping`.
    """
    return Compiler(budget, is_partial=False).compile_mapping(nodes, check=check, failure=failure)


def parsed(expression: str) -> Node:
    """Raises `jmespath.exceptions.JMESPathError` if the expression is invalid, or nested deeper than `MAX_DEPTH`."""
    try:
        node = cast(Node, jmespath.compile(expression).parsed)
    except (RecursionError, ValueError) as error:
        if isinstance(error, JMESPathError):
            raise
        raise TooDeep("the expression cannot be read: it is nested too deeply") from None
    _check_depth(node)
    return node


class TooDeep(JMESPathError):
    """An expression is nested deeper than `MAX_DEPTH`."""


def _check_depth(parsed: Node) -> None:
    level, depth = [parsed], 0
    while level:
        if depth > MAX_DEPTH:
            raise TooDeep(f"an expression may be nested {MAX_DEPTH} levels deep; this goes deeper")
        level = [child for node in level for child in children(node)]
        depth += 1
