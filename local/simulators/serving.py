"""Dispatch of the platforms' requests to the simulators by host, with injected faults and counts of the outcomes."""

from __future__ import annotations

import asyncio
from typing import Protocol

from aiohttp import web

from local.proxy import matches
from local.simulators.world import Call, Fault, Route, World, nginx_forbidden


class Simulator(Protocol):
    platform: str
    hosts: tuple[str, ...]

    def routes(self, host: str) -> list[Route]:
        """The routes of a host."""

    def account(self, request: web.BaseRequest) -> str:
        """The account of a request, which faults can select; empty if there is none."""

    def refuse(self, request: web.BaseRequest) -> web.Response | None:
        """The refusal of a request that exceeds a limit or lacks valid credentials; None to continue."""

    def failure(self, status: int) -> web.Response:
        """This platform's answer with a status that a fault demands."""


class Front:
    """Serves every request that the proxy passes on."""

    def __init__(self, world: World, simulators: list[Simulator]) -> None:
        self.world = world
        self.simulators = simulators

    async def serve(self, request: web.Request) -> web.Response:
        host = request.headers.get("Host", "").removesuffix(":443")
        simulator = next((each for each in self.simulators if any(matches(host, name) for name in each.hosts)), None)
        if simulator is None:
            return web.json_response({"message": "this host is not simulated"}, status=421)
        # Read the whole request first: a client has sent it even if the platform drops the connection or refuses.
        await request.read()
        template = request.path
        found = None
        for route in simulator.routes(host):
            parts = route.match(request)
            if parts is not None:
                template, found = route.template, (route.handler, parts)
                break
        fault = self.world.faults.strike(simulator.platform, simulator.account(request), request)
        if fault and fault.kind == "slow":
            await asyncio.sleep(fault.seconds)
        response: web.Response | None
        if fault and fault.kind == "dropped":
            response, outcome = None, "dropped"
        else:
            response = _fault_answer(simulator, fault) or simulator.refuse(request)
            if response is None:
                response = await found[0](request, found[1]) if found else simulator.failure(404)
            outcome = str(response.status)
        if fault and fault.kind == "garbled":
            response = web.Response(text='{"_embedded": {"conta', content_type="application/json")
            outcome += " garbled"
        if fault and fault.kind == "lost_answer":
            response = None
            outcome += " lost"
        self.world.calls[Call(simulator.platform, host, request.method, template, outcome)] += 1
        if response is None:
            if request.transport:
                request.transport.abort()
            # The connection is closed, so this is not sent. The server requires a return value.
            return web.Response()
        return response


def _fault_answer(simulator: Simulator, fault: Fault | None) -> web.Response | None:
    """The answer that a fault sends without processing the request."""
    match fault.kind if fault else None:
        case "status":
            return simulator.failure(fault.status if fault else 500)
        case "rate_limited":
            return simulator.failure(429)
        case "forbidden":
            return nginx_forbidden()
    return None
