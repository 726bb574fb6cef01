"""The OpenAPI document as JSON, and the reference page. Neither needs a token."""

from __future__ import annotations

import json
import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

from portaria import web
from portaria.access.scopes import NARROWABLE, SCOPES
from portaria.api.api_url import api_url
from portaria.api.openapi import document as api_document
from portaria.api.openapi import problem_types, tags
from portaria.core.http.request import HttpRequest
from portaria.web import markdown, render, schema_rows

METHODS = ("get", "head", "post", "put", "patch", "delete")
CACHED = "public, max-age=300"
# The page's text in the language of the OpenAPI document.
ENGLISH = "en"
TEXTS = "reference_texts.toml"


def answer(request: HttpRequest) -> dict[str, Any]:
    """The response to a request for `/v1/openapi.json` or `/v1/reference`."""
    if request.resource == "/v1/openapi.json":
        headers = {"Content-Type": "application/json", "X-Content-Type-Options": "nosniff"}
        body = _document(api_url(request).removeprefix("https://"))
    else:
        page = _page(_language(request))
        headers, body = page.headers, page.body
    return {"statusCode": 200, "headers": headers | {"Cache-Control": CACHED}, "body": body}


def _language(request: HttpRequest) -> str:
    """The language of the query (`?lang=pt`), or else of the browser."""
    wanted = request.query.get("lang", [""])[-1:]
    if wanted and wanted[0] in render.LANGUAGES:
        return wanted[0]
    return render.language_of(request.headers.get("accept-language"))


@cache
def _document(host: str) -> str:
    return json.dumps(api_document.build(host), ensure_ascii=False)


@cache
def texts() -> dict[str, dict[str, dict[str, Any]]]:
    """The page's texts by section, name and language."""
    return tomllib.loads((files(web) / TEXTS).read_text("utf-8"))


@cache
def _page(language: str) -> render.Page:
    document = api_document.build()
    chrome = {name: markdown.render(text[language]) for name, text in texts()["chrome"].items()}
    groups = [_group(document, name, language) for name in tags.TAGS]
    scopes = [(name, text, name in NARROWABLE) for name, text in SCOPES.items()]
    problems = [(reason, markdown.render(each.meaning)) for reason, each in sorted(problem_types.every().items())]
    return render.reference(language, chrome=chrome, groups=groups, scopes=scopes, problems=problems)


def _group(document: dict[str, Any], name: str, language: str) -> dict[str, Any]:
    title, text = tags.TAGS[name]
    operations = [
        _operation(document, method, path, operation, language)
        for path, methods in (*document["paths"].items(), *document["webhooks"].items())
        for method, operation in methods.items()
        if method in METHODS and title in operation["tags"]
    ]
    if language != ENGLISH:
        title, text = texts()["tag"][name][language]
    return {"id": name, "title": title, "text": markdown.render(text), "operations": operations}


def _operation(
    document: dict[str, Any], method: str, path: str, operation: dict[str, Any], language: str
) -> dict[str, Any]:
    """An operation as the page shows it."""
    name, summary = operation["operationId"], operation["summary"]
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    responses = {status: schema_rows.response(document, each) for status, each in operation["responses"].items()}
    good = next(response for status, response in responses.items() if status == "default" or status[0] in "23")
    answer = good.get("content", {}).get("application/json", {})
    shown = answer.get("schema", {})
    return {
        "id": name,
        "method": method.upper(),
        "path": path,
        "summary": summary if language == ENGLISH else texts()["summary"][name][language],
        "description": markdown.render(operation["description"]),
        "parameters": [
            {
                "name": each["name"],
                "where": each["in"],
                "text": markdown.render(each.get("description", "")),
                "required": each.get("required"),
            }
            for each in operation.get("parameters", [])
        ],
        "fields": schema_rows.fields(document, content.get("schema", {})),
        "about_fields": schema_rows.about(document, content.get("schema", {})),
        "example": _example(content),
        "answer_example": _example(answer),
        "answer": schema_rows.fields(document, shown),
        "about_answer": schema_rows.about(document, shown),
        "statuses": [(status, markdown.render(each["description"])) for status, each in responses.items()],
    }


def _example(content: dict[str, Any]) -> str:
    return json.dumps(content["example"], indent=2, ensure_ascii=False) if "example" in content else ""
