"""Whether the API answers, for load balancers and monitors: without a token, and without any detail."""

from __future__ import annotations

from typing import Any

from portaria.core.http.request import HttpRequest

RESOURCE = "/v1/health"
BODY = '{"status": "ok"}'


def answer(request: HttpRequest) -> dict[str, Any] | None:
    """The response to a health check, or None for any other request."""
    if request.resource != RESOURCE:
        return None
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return {"statusCode": 200, "headers": headers, "body": BODY}
