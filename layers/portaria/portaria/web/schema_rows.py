"""The schemas of the OpenAPI document as rows of a table: one for each field, with its type and description."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from portaria.api.openapi.problems import REF, RESPONSES
from portaria.web import markdown

Document = dict[str, Any]


def fields(document: Document, schema: Document, prefix: str = "") -> list[Document]:
    """The fields of an object; a field of an inner object is named by its path (`connections[].name`)."""
    schema = _resolved(document, schema)
    rows = []
    for name, each in schema.get("properties", {}).items():
        inner = _resolved(document, each)
        rows.append(
            {
                "name": prefix + name,
                "type": _type(document, inner),
                "text": markdown.render(_description(inner)),
                "required": name in schema.get("required", ()),
            }
        )
        several = [_resolved(document, each) for each in inner.get("anyOf", [inner])]
        inner = next((each for each in several if {"items", "properties"} & set(each)), inner)
        nested = _resolved(document, inner.get("items", inner))
        if "properties" in nested:
            rows += fields(document, nested, f"{prefix}{name}{'[]' if 'items' in inner else ''}.")
    return rows


def about(document: Document, schema: Document) -> Markup:
    """The description of a schema, or of the items of a listing."""
    schema = _resolved(document, schema)
    items = schema.get("properties", {}).get("items", {})
    return markdown.render(_description(_resolved(document, items.get("items", schema))))


def response(document: Document, given: Document) -> Document:
    """A response, or the component that it refers to."""
    reference = given.get("$ref", "")
    found: Document = document["components"]["responses"][reference.removeprefix(RESPONSES)] if reference else given
    return found


def _description(schema: Document) -> str:
    return " ".join(str(schema.get("description", "")).split())


def _type(document: Document, schema: Document) -> str:
    schema = _resolved(document, schema)
    if "anyOf" in schema:
        return " or ".join(_type(document, each) for each in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    kind = schema.get("type", "any")
    if isinstance(kind, list):
        return " or ".join(kind)
    return f"array of {_type(document, schema['items'])}" if kind == "array" and "items" in schema else str(kind)


def _resolved(document: Document, schema: Document) -> Document:
    reference = schema.get("$ref", "")
    found: Document = document["components"]["schemas"][reference.removeprefix(REF)] if reference else schema
    return found
