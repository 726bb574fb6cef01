"""Control of the simulated OAuth 2.0 providers.

| call | body or query → answer |
|---|---|
| `POST /oauth2/providers` | the fields of `oauth2.Provider` → `{host, authorize_url, token_url}` |
| `POST /oauth2/change` | `{name, …}` changes settings of a provider, such as `refresh_mode`, `grace_s`, `expires_in` |
| `POST /oauth2/grants` | `{name, scope?}` → tokens, as after a consent |
| `POST /oauth2/end` | `{name, revoke?}` expires its access tokens; with `revoke`, revokes its grants too |
| `GET /oauth2/state` | → for each provider `calls` by grant type and outcome (`refresh_token rotated`), and `grants` |
"""

from __future__ import annotations

from dataclasses import fields

from aiohttp import web

from local.simulators.control.instructions import read_instruction
from local.simulators.oauth2 import Provider
from local.simulators.platforms import Platforms


class OAuth2Calls:
    def __init__(self, platforms: Platforms) -> None:
        self.platforms = platforms

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/oauth2/providers", self.add_provider),
            web.post("/oauth2/change", self.change_provider),
            web.post("/oauth2/grants", self.issue_grant),
            web.post("/oauth2/end", self.end_tokens),
            web.get("/oauth2/state", self.show_state),
        ]

    async def add_provider(self, request: web.Request) -> web.Response:
        given = await read_instruction(request, {each.name for each in fields(Provider)})
        provider = self.platforms.oauth2.add_provider(given)
        urls = {f"{name}_url": f"https://{provider.host}/{name}" for name in ("authorize", "token")}
        return web.json_response({"host": provider.host, **urls})

    async def change_provider(self, request: web.Request) -> web.Response:
        given = await read_instruction(request, {each.name for each in fields(Provider)})
        self.platforms.oauth2.change_provider(given)
        return web.json_response({})

    async def issue_grant(self, request: web.Request) -> web.Response:
        given = await read_instruction(request, {"name", "scope"})
        return web.json_response(self.platforms.oauth2.issue_grant(given["name"], given.get("scope", "")))

    async def end_tokens(self, request: web.Request) -> web.Response:
        given = await read_instruction(request, {"name", "revoke"})
        self.platforms.oauth2.end_tokens(given["name"])
        if given.get("revoke"):
            self.platforms.oauth2.revoke(given["name"])
        return web.json_response({})

    async def show_state(self, request: web.Request) -> web.Response:
        return web.json_response({"providers": self.platforms.oauth2.dump()})
