"""The control API as an aiohttp application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from local.simulators.control.adobe_io import AdobeCalls
from local.simulators.control.engage import EngageCalls
from local.simulators.control.kommo import KommoCalls
from local.simulators.control.leadconnector import LeadConnectorCalls
from local.simulators.control.marketo import MarketoCalls
from local.simulators.control.oauth2 import OAuth2Calls
from local.simulators.control.world import WorldCalls
from local.simulators.platforms import Platforms
from local.simulators.world import BadInstruction

CALLS = (WorldCalls, KommoCalls, MarketoCalls, AdobeCalls, OAuth2Calls, LeadConnectorCalls, EngageCalls)


def control_application(platforms: Platforms) -> web.Application:
    application = web.Application(middlewares=[answer_bad_instructions])
    for calls in CALLS:
        application.add_routes(calls(platforms).routes())
    return application


@web.middleware
async def answer_bad_instructions(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except (BadInstruction, KeyError, TypeError, ValueError) as wrong:
        return web.json_response({"error": f"{type(wrong).__name__}: {wrong}"}, status=400)
