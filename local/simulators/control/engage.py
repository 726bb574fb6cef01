"""Control of the simulated Engage. `environment` is `homologation` if it is omitted.

| call | body or query → answer |
|---|---|
| `POST /engage/users` | the fields of `engage.User` |
| `POST /engage/remove` | `{environment, customer_id, username}` |
| `POST /engage/people` | `{customer_id, logins, environment?}` adds logins for which identifiers can be registered |
| `POST /engage/end` | `{customer_id, environment?}` ends the tokens of the customer's users |
| `POST /engage/enter` | `{customer_id, key, environment?}`: a browser presents a sign-on key, once → `{user_login}` |
| `GET /engage/state` | → users with their `log_ins`; customers with `identifiers`, `keys_given` and `keys_used` |
"""

from __future__ import annotations

from dataclasses import fields

from aiohttp import web

from local.simulators.control.instructions import read_instruction
from local.simulators.engage import User
from local.simulators.platforms import Platforms


class EngageCalls:
    def __init__(self, platforms: Platforms) -> None:
        self.platforms = platforms

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/engage/users", self.add_user),
            web.post("/engage/remove", self.remove_user),
            web.post("/engage/people", self.add_people),
            web.post("/engage/end", self.end_tokens),
            web.post("/engage/enter", self.enter),
            web.get("/engage/state", self.show_state),
        ]

    async def add_user(self, request: web.Request) -> web.Response:
        hidden = {"log_ins", "tokens"}
        given = await read_instruction(request, {each.name for each in fields(User)} - hidden)
        self.platforms.engage.add_user(given)
        return web.json_response({})

    async def remove_user(self, request: web.Request) -> web.Response:
        given = await read_instruction(request, {"environment", "customer_id", "username"})
        self.platforms.engage.remove_user(**given)
        return web.json_response({})

    async def add_people(self, request: web.Request) -> web.Response:
        given = await read_instruction(request, {"customer_id", "logins", "environment"})
        self.platforms.engage.add_people(**given)
        return web.json_response({})

    async def end_tokens(self, request: web.Request) -> web.Response:
        self.platforms.engage.end_tokens(**await read_instruction(request, {"customer_id", "environment"}))
        return web.json_response({})

    async def enter(self, request: web.Request) -> web.Response:
        given = await read_instruction(request, {"customer_id", "key", "environment"})
        return web.json_response({"user_login": self.platforms.engage.enter(**given)})

    async def show_state(self, request: web.Request) -> web.Response:
        engage = self.platforms.engage
        return web.json_response({"users": engage.dump(), "customers": engage.dump_customers()})
