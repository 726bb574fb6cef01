"""Where the API describes itself: its document as JSON, and the same as a page for people. Neither needs a token."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

from markupsafe import Markup, escape

from portaria.access.scopes import NARROWABLE, SCOPES
from portaria.api import openapi
from portaria.web import render

METHODS = ("get", "post", "put", "patch", "delete")
CACHED = "public, max-age=300"


def answer(event: dict[str, Any]) -> dict[str, Any] | None:
    """The answer to one of the two, or None for any other call."""
    match event.get("resource"):
        case "/v1/openapi.json":
            headers = {"Content-Type": "application/json", "X-Content-Type-Options": "nosniff"}
            body = _document()
        case "/v1/reference":
            page = _page()
            headers, body = page.headers, page.body
        case _:
            return None
    return {"statusCode": 200, "headers": headers | {"Cache-Control": CACHED}, "body": body}


@cache
def _document() -> str:
    return json.dumps(openapi.document(), ensure_ascii=False)


@cache
def _page() -> render.Page:
    document = openapi.document()
    groups = [
        {
            "title": tag["name"],
            "text": tag["description"],
            "operations": [
                _operation(document, method, path, operation)
                for path, methods in document["paths"].items()
                for method, operation in methods.items()
                if method in METHODS and tag["name"] in operation["tags"]
            ],
        }
        for tag in document["tags"]
    ]
    scopes = [(name, text, name in NARROWABLE) for name, text in SCOPES.items()]
    return render.reference(groups=groups, scopes=scopes)


def _operation(document: dict[str, Any], method: str, path: str, operation: dict[str, Any]) -> dict[str, Any]:
    """What the page shows of an operation."""
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    answers = {status: _answer(document, each) for status, each in operation["responses"].items()}
    good = next(answer for status, answer in answers.items() if int(status) < 400)
    shown = good.get("content", {}).get("application/json", {}).get("schema", {})
    return {
        "id": operation["operationId"],
        "method": method.upper(),
        "path": path,
        "summary": operation["summary"],
        "description": _marked(operation["description"]),
        "parameters": [
            {
                "name": each["name"],
                "where": each["in"],
                "text": each.get("description", ""),
                "required": each.get("required"),
            }
            for each in operation.get("parameters", [])
        ],
        "fields": _fields(document, body),
        "about_fields": _about(document, body),
        "answer": _fields(document, shown),
        "about_answer": _about(document, shown),
        "statuses": [(status, _marked(answer["description"])) for status, answer in answers.items()],
    }


def _marked(text: str) -> Markup:
    """A sentence with its `code` marked as such."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped just before


def _about(document: dict[str, Any], schema: dict[str, Any]) -> Markup:
    schema = _resolved(document, schema)
    items = schema.get("properties", {}).get("items", {})
    return _marked(" ".join(_resolved(document, items.get("items", schema)).get("description", "").split()))


def _fields(document: dict[str, Any], schema: dict[str, Any], prefix: str = "") -> list[dict[str, Any]]:
    """The fields of an object, those within it named by their path."""
    schema = _resolved(document, schema)
    rows = []
    for name, each in schema.get("properties", {}).items():
        inner = _resolved(document, each)
        rows.append(
            {
                "name": prefix + name,
                "type": _type(document, inner),
                "text": _marked(inner.get("description", "")),
                "required": name in schema.get("required", ()),
            }
        )
        several = [_resolved(document, each) for each in inner.get("anyOf", [inner])]
        inner = next((each for each in several if {"items", "properties"} & set(each)), inner)
        nested = _resolved(document, inner.get("items", inner))
        if "properties" in nested:
            rows += _fields(document, nested, f"{prefix}{name}{'[]' if 'items' in inner else ''}.")
    return rows


def _type(document: dict[str, Any], schema: dict[str, Any]) -> str:
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


def _answer(document: dict[str, Any], response: dict[str, Any]) -> dict[str, Any]:
    reference = response.get("$ref", "")
    return document["components"]["responses"][reference.removeprefix(openapi.RESPONSES)] if reference else response


def _resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref", "")
    return document["components"]["schemas"][reference.removeprefix(openapi.REF)] if reference else schema
