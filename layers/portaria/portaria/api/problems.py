"""Refusals as RFC 9457 problem documents: what was wrong, in which field, never the value that came."""

from __future__ import annotations

from typing import Any

CONTENT_TYPE = "application/problem+json"

Problem = dict[str, Any]


def problem(status: int, reason: str, detail: str, *, field: str | None = None) -> Problem:
    """`reason` is the stable word for programs (`unknown_route`); `detail` is the sentence for the person who must act."""
    document: Problem = {
        "type": f"urn:portaria:problem:{reason}",
        "title": reason.replace("_", " ").capitalize(),
        "status": status,
        "detail": detail,
    }
    return document | ({"field": field} if field else {})
