"""Control of the simulated LeadConnector.

| call | body or query → answer |
|---|---|
| `POST /leadconnector/locations` | `{id, name?, requests_per_window?, requests_per_day?, refuses_duplicates?}` |
| `POST /leadconnector/tokens` | `{token, location, scopes?}` creates a private integration token |
| `POST /leadconnector/rotate` | `{token, new, expire_now?}`: the old token ends in 7 days, or now |
| `POST /leadconnector/revoke` | `{token, after_s?}` ends the token |
| `GET /leadconnector/state` | → locations with contacts, tokens by SHA-256 with `calls` and whether each `works` |
"""

from __future__ import annotations

from aiohttp import web

from local.simulators.control.instructions import read_instruction
from local.simulators.platforms import Platforms


class LeadConnectorCalls:
    def __init__(self, platforms: Platforms) -> None:
        self.platforms = platforms

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/leadconnector/locations", self.add_location),
            web.post("/leadconnector/tokens", self.add_token),
            web.post("/leadconnector/rotate", self.rotate_token),
            web.post("/leadconnector/revoke", self.revoke_token),
            web.get("/leadconnector/state", self.show_state),
        ]

    async def add_location(self, request: web.Request) -> web.Response:
        settings = {"name", "requests_per_window", "requests_per_day", "refuses_duplicates"}
        given = await read_instruction(request, {"id", *settings})
        return web.json_response({"id": self.platforms.leadconnector.add_location(given).id})

    async def add_token(self, request: web.Request) -> web.Response:
        self.platforms.leadconnector.add_token(**await read_instruction(request, {"token", "location", "scopes"}))
        return web.json_response({})

    async def rotate_token(self, request: web.Request) -> web.Response:
        self.platforms.leadconnector.rotate_token(**await read_instruction(request, {"token", "new", "expire_now"}))
        return web.json_response({})

    async def revoke_token(self, request: web.Request) -> web.Response:
        self.platforms.leadconnector.revoke_token(**await read_instruction(request, {"token", "after_s"}))
        return web.json_response({})

    async def show_state(self, request: web.Request) -> web.Response:
        return web.json_response(self.platforms.leadconnector.dump())
