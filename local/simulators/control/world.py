"""Control of what all simulators share: the clock, faults, counts of calls, and the proxy's hosts.

In `/calls`, `path` is the route's template (`/api/v4/contacts`). `outcome` is the status, `dropped`, or the status with the
fault that hid it (`200 lost`, `200 garbled`).

| call | body or query → answer |
|---|---|
| `POST /reset` | removes all data of the platforms, faults, counts, the clock's offset and the proxy's counts of hosts |
| `GET /clock` | → `{"now", "offset_s"}` |
| `POST /clock` | `{"advance_s": n}` moves the simulators' clock forward |
| `GET /calls` | `?platform=&host=&path=` → `{"total", "calls": [{platform, host, method, path, outcome, count}]}` |
| `GET /faults` | → `{"faults": [...]}`, each with `used`, the number of calls that it affected |
| `POST /faults` | the fields of `world.Fault` → the fault with its `id` |
| `DELETE /faults` | `?id=`; without it, removes all faults |
| `GET /proxy` | → `{"allowed": {host: {connections, bytes_sent, bytes_received}}, "refused": {host: attempts}}` |
"""

from __future__ import annotations

from dataclasses import asdict

from aiohttp import ClientSession, web

from local.simulators.control.instructions import read_instruction
from local.simulators.platforms import Platforms

CALL_FILTERS = ("platform", "host", "path")


class WorldCalls:
    def __init__(self, platforms: Platforms) -> None:
        self.platforms = platforms

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/reset", self.reset),
            web.get("/clock", self.show_clock),
            web.post("/clock", self.move_clock),
            web.get("/calls", self.show_calls),
            web.get("/faults", self.show_faults),
            web.post("/faults", self.set_fault),
            web.delete("/faults", self.clear_faults),
            web.get("/proxy", self.show_proxy),
        ]

    async def reset(self, request: web.Request) -> web.Response:
        self.platforms.reset()
        proxy_url = self.platforms.proxy_url
        async with ClientSession(trust_env=False) as session, session.delete(f"{proxy_url}/hosts"):
            return web.json_response({})

    async def show_clock(self, request: web.Request) -> web.Response:
        clock = self.platforms.world.clock
        return web.json_response({"now": clock.now(), "offset_s": clock.offset_s})

    async def move_clock(self, request: web.Request) -> web.Response:
        self.platforms.world.clock.offset_s += float((await read_instruction(request))["advance_s"])
        return await self.show_clock(request)

    async def show_calls(self, request: web.Request) -> web.Response:
        calls = [
            {**asdict(call), "count": count}
            for call, count in self.platforms.world.calls.items()
            if all(getattr(call, name) == request.query.get(name, getattr(call, name)) for name in CALL_FILTERS)
        ]
        return web.json_response({"total": sum(call["count"] for call in calls), "calls": calls})

    async def show_faults(self, request: web.Request) -> web.Response:
        return web.json_response({"faults": self.platforms.world.faults.dump()})

    async def set_fault(self, request: web.Request) -> web.Response:
        return web.json_response(asdict(self.platforms.world.faults.set(await read_instruction(request))))

    async def clear_faults(self, request: web.Request) -> web.Response:
        self.platforms.world.faults.clear(int(request.query["id"]) if "id" in request.query else None)
        return web.json_response({})

    async def show_proxy(self, request: web.Request) -> web.Response:
        proxy_url = self.platforms.proxy_url
        async with ClientSession(trust_env=False) as session, session.get(f"{proxy_url}/hosts") as answer:
            return web.json_response(await answer.json())
