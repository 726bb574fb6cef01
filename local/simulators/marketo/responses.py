"""Adobe's error body and its time format."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from aiohttp import web

MESSAGES = {
    "401013": "Oauth token is not valid",
    "403010": "Oauth token is missing",
    "404040": "Resource not found",
    "429001": "Service usage limit reached",
    "4000801": "Bad request",
    "4000802": "Bad data",
    "4030801": "Not authorized",
    "4290801": "Daily quota reached",
    "5000801": "Internal server error",
}


def error(code: str) -> web.Response:
    """The first three digits of a code are the HTTP status."""
    return web.json_response(
        {"error_code": code, "message": MESSAGES[code]},
        status=int(code[:3]),
        headers={"X-Request-Id": uuid.uuid4().hex},
    )


def iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
