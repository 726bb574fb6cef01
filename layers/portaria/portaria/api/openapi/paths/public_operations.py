"""How the operations outside the two doors are described: pages, lines of text, and parameters that several have."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from portaria.api import validation
from portaria.api.openapi import example_values, headers, parameters, tags

Document = dict[str, Any]

TEXT: Document = {"type": "string"}
PLATFORM = parameters.path(
    "platform",
    "The platform's name.",
    TEXT | {"pattern": f"^(?:{validation.PLATFORM_NAME})$"},
    example_values.parameter("path", "platform"),
)
# For what destinations call.
DESTINATION_PLATFORM = PLATFORM | {"example": example_values.parameter("path", "destination_platform")}
CLIENT = parameters.path(
    "client",
    "The OAuth client's name.",
    TEXT | {"pattern": f"^(?:{validation.CLIENT_NAME})$"},
    example_values.parameter("path", "client"),
)
ACCEPT_LANGUAGE = parameters.header(
    "Accept-Language",
    "The languages of the browser. Pages are in Portuguese, Spanish or English.",
    TEXT,
    "pt-BR,pt;q=0.9",
)
ACCEPT = parameters.header("Accept", "`text/html` for a page. Programs get one line of text.", TEXT, "text/html")


def operation(operation_id: str, tag: str, summary: str, description: str, **more: Any) -> Document:
    made = {
        "operationId": operation_id,
        "tags": [tags.TAGS[tag][0]],
        "summary": summary,
        "description": description,
        "security": [],
        **more,
    }
    return {name: value for name, value in made.items() if value != []}


def response(
    description: str,
    names: Iterable[str] = (),
    *,
    html: bool = False,
    text: str = "",
    json: Any = None,
    schema: Any = None,
) -> Document:
    """A response with a page, a line of text, or JSON."""
    content: Document = {}
    if html:
        page = TEXT | {"description": "A page in one of three languages."}
        content["text/html"] = {"schema": page, "example": '<!doctype html><html lang="pt-BR">…</html>'}
    if text:
        content["text/plain"] = {"schema": TEXT | {"description": "One line of text."}, "example": text}
    if json is not None:
        content["application/json"] = {"schema": schema, "example": json}
    made: Document = {"description": description, "headers": headers.refer(*names)}
    return {name: value for name, value in (made | {"content": content}).items() if value}


def later(description: str, **content: Any) -> Document:
    return response(description, [headers.RETRY_AFTER], **content)
