"""What answers are made of, for docs/openapi.yaml. A test holds every kind of answer against its model.

One convention: a value that is absent is null, never an empty text; a time is an RFC 3339 date-time; the name of a count
ends in
`_count`.
"""

from __future__ import annotations

from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, WithJsonSchema

Time = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]


class Output(BaseModel):
    """An answer's fields, all of them always present; those that may be null say so by their type."""

    # Built when it is first used: a cold start needs few of the models.
    model_config = ConfigDict(extra="forbid", defer_build=True)


def with_nulls(model: type[BaseModel], content: dict[str, Any]) -> dict[str, Any]:
    """An answer in which a text that is empty, and may be absent by its model, is null."""
    return {
        name: _with_nulls(model.model_fields[name].annotation, value) if name in model.model_fields else value
        for name, value in content.items()
    }


def _with_nulls(annotation: Any, value: Any) -> Any:
    if value == "" and type(None) in get_args(annotation):
        return None
    inner = [
        each for each in (annotation, *get_args(annotation)) if isinstance(each, type) and issubclass(each, BaseModel)
    ]
    if not inner:
        return value
    if isinstance(value, dict):
        return with_nulls(inner[0], value)
    if isinstance(value, list):
        return [with_nulls(inner[0], each) if isinstance(each, dict) else each for each in value]
    return value
