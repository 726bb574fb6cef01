"""Kommo's response formats: HAL documents, problem documents and OAuth errors; and the reader of request bodies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import web


def hal(document: Mapping[str, Any], status: int = 200) -> web.Response:
    return web.json_response(document, status=status, content_type="application/hal+json")


def problem(status: int, title: str, **more: Any) -> web.Response:
    document = {"title": title, "type": f"https://httpstatus.es/{status}", "status": status, "detail": "", **more}
    return web.json_response(document, status=status, content_type="application/problem+json")


def unauthorized() -> web.Response:
    return problem(401, "Unauthorized", detail="Неверный логин или пароль")


def oauth_error(
    hint: str | None,
    status: int = 400,
    title: str = "Некорректный запрос",
    detail: str = "В запросе отсутствует ряд параметров или параметры невалидны",
) -> web.Response:
    """Kommo's answer to a refused token request. Kommo sends the Russian texts in every language."""
    document: dict[str, Any] = {"hint": hint} if hint else {}
    document |= {
        "title": title,
        "type": "https://developers.amocrm.com/v3/errors/OAuthProblemJson",
        "status": status,
        "detail": detail,
    }
    return web.json_response(document, status=status, content_type="application/problem+json")


async def read_body(request: web.BaseRequest) -> Mapping[str, Any]:
    """The fields of a JSON or form body; empty for any other body."""
    if request.content_type == "application/x-www-form-urlencoded":
        return await request.post()
    try:
        given = await request.json()
    except ValueError:
        return {}
    return given if isinstance(given, dict) else {}
