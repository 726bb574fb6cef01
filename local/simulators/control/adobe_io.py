"""Control of the simulated Adobe I/O Events.

| call | body or query → answer |
|---|---|
| `POST /adobe/registrations` | `{url, client_id}` registers a webhook → `{active}`: whether it answered the challenge |
| `POST /adobe/deliveries` | `{url, munchkin, shape?, times?}` delivers the outcomes of requests to it → `{events, done}` |
"""

from __future__ import annotations

from aiohttp import web

from local.simulators.control.instructions import read_instruction
from local.simulators.platforms import Platforms


class AdobeCalls:
    def __init__(self, platforms: Platforms) -> None:
        self.platforms = platforms

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/adobe/registrations", self.register),
            web.post("/adobe/deliveries", self.deliver),
        ]

    async def register(self, request: web.Request) -> web.Response:
        given = await read_instruction(request, {"url", "client_id"})
        return web.json_response({"active": await self.platforms.adobe.register(**given)})

    async def deliver(self, request: web.Request) -> web.Response:
        given = await read_instruction(request, {"url", "munchkin", "shape", "times"})
        events = self.platforms.marketo.take_events(given["munchkin"])
        shape, times = given.get("shape", "flat"), given.get("times", 1)
        done = await self.platforms.adobe.deliver(given["url"], events, shape, times)
        return web.json_response({"events": len(events), "done": done})
