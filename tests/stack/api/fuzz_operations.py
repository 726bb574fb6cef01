"""The operations of the API's document, as schemathesis reads them."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import schemathesis
from schemathesis.schemas import APIOperation

Json = Any
Body = dict[str, Json]
Operation = APIOperation[Any, Any, Any, Any]
Case = schemathesis.Case[Any]
Path = dict[str, str]
Parameters = tuple[str, ...]


def parameters_of(operation: Operation) -> list[str]:
    return [step[1:-1] for step in operation.path.split("/") if step.startswith("{")]


def key_of(operation: Operation) -> tuple[str, ...]:
    """What an operation is about: the resource and the names of the path's parameters."""
    return (operation.path.split("/")[1], *parameters_of(operation))


def example_of(operation: Operation) -> Body | None:
    """The document's example of a body."""
    content = operation.definition.raw.get("requestBody", {}).get("content", {})
    example: Body | None = content.get("application/json", {}).get("example")
    return deepcopy(example)


def operation_id(operation: Operation) -> str:
    return str(operation.definition.raw["operationId"])
