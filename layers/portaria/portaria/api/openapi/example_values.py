"""The examples of the document, all of one invented stack. They are data files: the code names no platform.

`objects` of a file has one example for each schema, from which the examples of its properties are taken. `properties` has those
of properties that are null or empty in it, by `Schema.property`, or by the property's name for all schemas.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

from portaria.api import openapi

_FILES = ("access", "connections", "delivery", "stack", "webhooks")


@cache
def objects() -> dict[str, dict[str, Any]]:
    """An object of each schema."""
    return {name: value for file in _FILES for name, value in _read(file)["objects"].items()}


@cache
def properties() -> dict[str, Any]:
    """A value of each property that has none in its object."""
    return {name: value for file in _FILES for name, value in _read(file)["properties"].items()}


def parameter(where: str, name: str) -> str:
    """The value of a parameter: `path` or `filters`. One in the path may have the name of its collection."""
    value: str = _read("parameters")[where][name]
    return value


@cache
def _read(file: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((files(openapi) / "examples" / f"{file}.json").read_text("utf-8"))
    return found
