"""moto's DynamoDB without work that it repeats on every call. Its responses stay the same: only the time they take changes.

- It checks an update expression again for each call, in ten passes over the tree. Three passes look at the expression, the
  names in it and the table's keys only: what they accepted once is not passed to them again.
- It copies the tree with `copy.deepcopy`, and asks for each node whether it is an instance of an abstract class.
- It parses each condition twice for each call. Its tree is the same for all names and values.
- It copies items with `copy.deepcopy`.
- It adds up the size of an item again for each of its attributes.
- It looks at each value in an item in several ways before it finds that it is a text.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from functools import cache, lru_cache
from typing import Any
from unittest.mock import patch

from moto.dynamodb import responses
from moto.dynamodb.comparisons import ConditionExpressionParser
from moto.dynamodb.exceptions import ItemSizeTooLarge
from moto.dynamodb.models.dynamo_type import DynamoType, Item, LimitedSizeDict
from moto.dynamodb.models.utilities import bytesize, dynamo_to_dict
from moto.dynamodb.parsing.ast_nodes import (  # type: ignore[attr-defined]
    DepthFirstTraverser,
    Expression,
    Node,
    UpdateExpressionAddAction,
    UpdateExpressionDeleteAction,
    UpdateExpressionFunction,
    UpdateExpressionRemoveAction,
    UpdateExpressionSetAction,
)
from moto.dynamodb.parsing.validators import (
    ActionCountValidator,
    ExpressionAttributeResolvingProcessor,
    OverlappingPathsValidator,
    UpdateHashRangeKeyValidator,
    Validator,
)

# moto's own limit.
MAX_ITEM_BYTES = 405_000
# The passes whose result does not depend on the item and the values.
OF_EXPRESSION = (ActionCountValidator, OverlappingPathsValidator, UpdateHashRangeKeyValidator)
ACTIONS = (
    UpdateExpressionSetAction, UpdateExpressionRemoveAction, UpdateExpressionDeleteAction, UpdateExpressionAddAction
)  # fmt: skip

Kind, Nonterminal = ConditionExpressionParser.Kind, ConditionExpressionParser.Nonterminal

_parse = ConditionExpressionParser.parse
_size = DynamoType.size
_cast: Any = DynamoType.cast_value.fget  # type: ignore[attr-defined]
_decimal = lru_cache(10_000)(Decimal)
_is: Any = cache(issubclass)
_handled: dict[type, tuple[type, ...]] = {}
_accepted: set[tuple[Any, ...]] = set()


# -------------------------------------------------------------------------------------------------------------- expressions


def _traverse(traverser: DepthFirstTraverser, node: Any) -> Any:
    kind = type(traverser)
    if kind not in _handled:
        _handled[kind] = tuple(traverser._processing_map())
    prepares = kind.pre_processing_of_child is not DepthFirstTraverser.pre_processing_of_child
    return _walk(traverser, node, -1, _handled[kind], prepares=prepares)


def _walk(traverser: Any, node: Any, child_id: int, handled: tuple[type, ...], *, prepares: bool) -> Any:
    kind, parent = type(node), node.parent
    if node.children is not None:
        for i, child in enumerate(node.children):
            if prepares:
                traverser.pre_processing_of_child(node, i)
            if _is(type(child), Node):
                _walk(traverser, child, i, handled, prepares=prepares)
    if _is(kind, handled):
        node = traverser.process(node)
        node.parent = parent
        if parent:
            parent.children[child_id] = node
    return node


def _prepare(processor: ExpressionAttributeResolvingProcessor, parent_node: Any, child_id: int) -> None:
    if _is(type(parent_node), ACTIONS):
        processor.resolving = child_id != 0


def _find_clauses(node: Any, clause_types: list[type]) -> list[Any]:
    clauses = []
    for child in node.children or []:
        kind = type(child)
        if kind in clause_types:
            clauses.append(child)
        elif _is(kind, (Expression, UpdateExpressionFunction)):
            clauses.extend(_find_clauses(child, clause_types))
    return clauses


def _copy(node: Any, parent: Any = None) -> Any:
    made = object.__new__(type(node))
    vars(made).update(vars(node))
    made.parent = parent
    if node.children is not None:
        made.children = [_copy(child, made) if _is(type(child), Node) else child for child in node.children]
    return made


def _make_validator(
    validator: Any,
    expression: Any,
    expression_attribute_names: dict[str, str],
    expression_attribute_values: dict[str, dict[str, Any]],
    item: Item,
    table: Any,
) -> None:
    validator.expression_attribute_names = expression_attribute_names
    validator.expression_attribute_values = expression_attribute_values
    validator.item = item
    validator.table = table
    validator.key = (expression, frozenset((expression_attribute_names or {}).items()), tuple(table.table_key_attrs))
    validator.processors = [
        each
        for each in validator.get_ast_processors()
        if validator.key not in _accepted or not isinstance(each, OF_EXPRESSION)
    ]
    validator.node_to_validate = _copy(expression)


def _validate(validator: Any) -> Any:
    node = validator.node_to_validate
    for processor in validator.processors:
        node = processor.traverse(node)
    _accepted.add(validator.key)
    return node


class _Names(dict[str, str]):
    """Each name in an expression in place of what it stands for."""

    def __missing__(self, name: str) -> str:
        return name


@cache
def _condition(expression: str) -> tuple[Any, tuple[str, ...], tuple[str, ...]]:
    """The tree of a condition with the names in it, and which names of attributes and values there are."""
    parser, made = ConditionExpressionParser(expression, _Names(), _Names()), []  # type: ignore[arg-type, var-annotated]
    with patch.object(parser, "_make_op_condition", made.append):
        _parse(parser)
    return made[0], tuple(parser.expr_attr_names_found), tuple(parser.expr_attr_values_found)


def _with_values(node: Any, names: Any, values: Any) -> Any:
    if node.children:
        return node._replace(children=[_with_values(child, names, values) for child in node.children])
    if node.kind == Kind.EXPRESSION_ATTRIBUTE_VALUE:
        return node._replace(value=values[node.text])
    if node.nonterminal == Nonterminal.IDENTIFIER and node.text.startswith("#"):
        return node._replace(value=names[node.text])
    return node


def _parse_condition(parser: ConditionExpressionParser) -> Any:
    if not parser.condition_expression:
        return _parse(parser)
    try:
        tree, names_found, values_found = _condition(parser.condition_expression)
    except Exception:
        return _parse(parser)
    node = _with_values(tree, parser.expression_attribute_names, parser.expression_attribute_values)
    parser.expr_attr_names_found.extend(names_found)
    parser.expr_attr_values_found.extend(values_found)
    return parser._make_op_condition(node)


# -------------------------------------------------------------------------------------------------------------------- items


def _make_type(value: Any, type_as_dict: Any) -> None:
    if type(type_as_dict) is DynamoType:
        kind, content = type_as_dict.type, type_as_dict.value
    else:
        kind = list(type_as_dict)[0]  # noqa: RUF015  (an IndexError, as moto raises)
        content = type_as_dict[kind]
    value.type = kind
    if kind == "L":
        content = [DynamoType(each) for each in content]
    elif kind == "M":
        content = {name: DynamoType(each) for name, each in content.items()}
    value.value = content


def _size_of(value: DynamoType) -> int:
    content = value.value
    if value.type == "S" and type(content) is str:
        return len(content) if content.isascii() else len(content.encode())
    return _size(value)


def _cast_value(value: Any) -> Any:
    if value.type == "S":
        return value.value
    return _decimal(value.value) if value.type == "N" else _cast(value)


def _make_item(item: Item, hash_key: DynamoType, range_key: DynamoType | None, attrs: dict[str, Any]) -> None:
    item.hash_key, item.range_key = hash_key, range_key
    item.attrs = LimitedSizeDict()
    size = 0
    for name, each in attrs.items():
        value = DynamoType(each)
        size += bytesize(name) + value.size()
        if size > MAX_ITEM_BYTES:
            raise ItemSizeTooLarge
        dict.__setitem__(item.attrs, name, value)


def _copy_type(value: Any, _memo: object = None) -> DynamoType:
    made = object.__new__(DynamoType)
    made.type, content = value.type, value.value
    if made.type == "L":
        made.value = [_copy_type(each) for each in content]
    elif made.type == "M":
        made.value = {name: _copy_type(each) for name, each in content.items()}
    else:
        made.value = list(content) if value.is_set() else content
    return made


def _copy_item(item: Any, _memo: object) -> Item:
    made: Any = object.__new__(Item)
    made.hash_key, made.range_key = _copy_type(item.hash_key), item.range_key and _copy_type(item.range_key)
    made.attrs = LimitedSizeDict()
    dict.update(made.attrs, {name: _copy_type(value) for name, value in item.attrs.items()})
    return made  # type: ignore[no-any-return]


def _to_dict(content: Any) -> Any:
    kind = type(content)
    if kind is DynamoType:
        if content.type in ("S", "N"):
            return {content.type: content.value}
        if content.type not in ("B", "BS"):
            return {content.type: _to_dict(content.value)}
    elif kind is str or kind is bool or kind is int:
        return content
    elif kind is dict or kind is LimitedSizeDict:
        return {name: _to_dict(each) for name, each in content.items()}
    elif kind is list:
        return [_to_dict(each) for each in content]
    return dynamo_to_dict(content)


@contextmanager
def fast_tables() -> Iterator[None]:
    with (
        patch.object(DepthFirstTraverser, "traverse", _traverse),
        patch.object(ExpressionAttributeResolvingProcessor, "pre_processing_of_child", _prepare),
        patch.object(Node, "find_clauses", _find_clauses),
        patch.object(Validator, "__init__", _make_validator),
        patch.object(Validator, "validate", _validate),
        patch.object(ConditionExpressionParser, "parse", _parse_condition),
        patch.object(DynamoType, "__init__", _make_type),
        patch.object(DynamoType, "size", _size_of),
        patch.object(DynamoType, "__deepcopy__", _copy_type),
        patch.object(DynamoType, "cast_value", property(_cast_value)),
        patch.object(Item, "__deepcopy__", _copy_item),
        patch.object(Item, "__init__", _make_item),
        patch.object(responses, "dynamo_to_dict", _to_dict),
    ):
        yield
