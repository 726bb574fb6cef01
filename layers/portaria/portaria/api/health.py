"""Whether the API answers, for load balancers and monitors: without a token, and without any detail."""

from __future__ import annotations

from typing import Any

RESOURCE = "/v1/health"
BODY = '{"status": "ok"}'


def answer(event: dict[str, Any]) -> dict[str, Any] | None:
    """The answer to a health check, or None for any other call."""
    if event.get("resource") != RESOURCE:
        return None
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return {"statusCode": 200, "headers": headers, "body": BODY}
