"""The body of a control call."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from local.simulators.world import BadInstruction


async def read_instruction(request: web.Request, known: set[str] | None = None) -> dict[str, Any]:
    """A control call's JSON object. Raises `BadInstruction` for any other body and for members that are not `known`."""
    given = json.loads(await request.read() or b"{}")
    if not isinstance(given, dict):
        raise BadInstruction("the body is not a JSON object")
    if known is not None and (unknown := given.keys() - known):
        raise BadInstruction(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}")
    return given
