"""The schemas of the API's document, made from the pydantic models, with an example for each object and each property."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from portaria.api.openapi import example_values
from portaria.api.openapi.problems import REF
from portaria.api.validation import RULE

Document = dict[str, Any]

_SURROGATES = r"\ud800-\udfff"


def name_of(model: type[BaseModel]) -> str:
    """The class's name. `ConnectionOutput` → `Connection`: the suffix keeps it apart from the entity of that name."""
    return model.__name__.removesuffix("Output")


def refer(model: type[BaseModel], schemas: Document) -> Document:
    """Put a model's schema, and those in it, among `schemas`."""
    name = name_of(model)
    if name not in schemas:
        made = model.model_json_schema(ref_template=f"{REF}{{model}}")
        inner = made.pop("$defs", {})
        names = [name_of(each) for each in model.__mro__ if issubclass(each, BaseModel)]
        for each, schema in {**inner, name: made}.items():
            complete = _complete(names if each == name else [each], schema)
            if schemas.setdefault(each, complete) != complete:
                raise ValueError(f"two schemas have the name {each}")
    return {"$ref": f"{REF}{name}"}


def listing(items: Document, item_example: Any) -> Document:
    """The schema of a page, whose items have the schema `items`."""
    shown = {"items": [item_example], "next_cursor": None}
    return {
        "type": "object",
        "description": "One page of a list.",
        "properties": {
            "items": {
                "type": "array",
                "description": "The items of this page, which may be fewer than `limit` before the last page.",
                "items": items,
                "examples": [[item_example]],
            },
            "next_cursor": {
                "type": ["string", "null"],
                "description": "Where the next page begins: send it as `cursor`. Null on the last page.",
                "examples": [example_values.properties()["next_cursor"]],
            },
        },
        "required": ["items", "next_cursor"],
        "additionalProperties": False,
        "examples": [shown],
    }


def example(model: type[BaseModel]) -> Document:
    """An object of this model. Raises `KeyError` if `example_values` has none."""
    return example_values.objects()[name_of(model)]


def _complete(names: list[str], schema: Document) -> Document:
    """A model's schema with its title, its rules in words and its examples. `names` are the model's and those it inherits."""
    shown = example_values.objects().get(names[0], {})
    properties = {field: _property(names, field, each, shown) for field, each in schema.get("properties", {}).items()}
    made = {**portable(schema), "title": names[0], "properties": properties}
    return made | ({"examples": [shown]} if shown else {})


def _property(names: list[str], field: str, schema: Document, shown: Document) -> Document:
    made: Document = portable(schema)
    description = str(made.get("description", ""))
    made["description"] = " ".join([description, *_rules(made)]).strip()
    value = shown.get(field)
    if value in (None, [], {}):
        keys = [*(f"{name}.{field}" for name in names), field]
        several = example_values.properties()
        value = next((several[key] for key in keys if key in several), value)
    return made if value is None else made | {"examples": [value]}


def _rules(schema: Document) -> list[str]:
    """The rules of `validation.Matching` as sentences, taken out of the schema."""
    found = []
    for each in (schema, *schema.get("anyOf", ())):
        places = {
            "Must be": each,
            "Each must be": each.get("items"),
            "Each name must be": each.get("propertyNames"),
            "Each value must be": each.get("additionalProperties"),
        }
        found += [f"{words} {place.pop(RULE)}." for words, place in places.items() if place and RULE in _keys(place)]
    return found


def _keys(schema: Any) -> set[str]:
    return set(schema) if isinstance(schema, dict) else set()


def portable(schema: Any) -> Any:
    """Without the default null, which the API never puts in a field, and without surrogates in patterns: they are characters
    of Python's, and not of JSON's, so that other languages refuse the pattern.
    """
    if isinstance(schema, dict):
        kept = {name: portable(inner) for name, inner in schema.items()}
        return {name: inner for name, inner in kept.items() if name != "default" or inner is not None}
    if isinstance(schema, list):
        return [portable(inner) for inner in schema]
    return schema.replace(_SURROGATES, "") if isinstance(schema, str) else schema
