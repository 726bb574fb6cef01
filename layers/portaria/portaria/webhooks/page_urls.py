"""Relative URLs between the hosted pages, so that they work under any stage or base path."""

from __future__ import annotations

from portaria.core.http.request import HttpRequest


def beside(request: HttpRequest, rest: str) -> str:
    """A URL below `/install/{platform}/{client}`, as seen from there."""
    return rest if request.path.endswith("/") else f"{request.path_parameter('client')}/{rest}"


def above_result(request: HttpRequest, rest: str) -> str:
    """The same, as seen from `…/result/{install}`."""
    # API Gateway also matches a path with a trailing slash.
    return f"../../{rest}" if request.path.endswith("/") else f"../{rest}"


def is_of_result(request: HttpRequest) -> bool:
    return request.resource.endswith("/result/{install}")
