"""Control of the simulated Marketo.

| call | body or query → answer |
|---|---|
| `POST /marketo/instances` | `{munchkin, client_id, client_secret, token_life_s?, …}`; `…` is quota, rate, custom objects |
| `POST /marketo/change` | `{munchkin, poison?, zero_lives?, daily_quota?, requests_per_s?, expire_token?, custom_objects?}` |
| `GET /marketo/state` | → counts for each instance |
| `GET /marketo/persons` | `?munchkin=&email=` (repeatable) → `{"persons": [{attributes, writes, id, …}], "failed"}` |
| `GET /marketo/objects` | `?munchkin=` → `{custom_objects: {name: {records, waiting, waited}}, companies, members, lists}` |
| `GET /marketo/requests` | `?munchkin=` → `{"requests": [{request_id, status, error_code, objects, bytes, …}]}` |
"""

from __future__ import annotations

from dataclasses import asdict

from aiohttp import web

from local.simulators.control.instructions import read_instruction
from local.simulators.platforms import Platforms


class MarketoCalls:
    def __init__(self, platforms: Platforms) -> None:
        self.platforms = platforms

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/marketo/instances", self.add_instance),
            web.post("/marketo/change", self.change_instance),
            web.get("/marketo/state", self.show_state),
            web.get("/marketo/persons", self.show_persons),
            web.get("/marketo/objects", self.show_objects),
            web.get("/marketo/requests", self.show_requests),
        ]

    async def add_instance(self, request: web.Request) -> web.Response:
        settings = {"token_life_s", "daily_quota", "requests_per_s", "custom_objects"}
        given = await read_instruction(request, {"munchkin", "client_id", "client_secret", *settings})
        return web.json_response({"munchkin": self.platforms.marketo.add_instance(given).munchkin})

    async def change_instance(self, request: web.Request) -> web.Response:
        settings = {"poison", "zero_lives", "daily_quota", "requests_per_s", "expire_token", "custom_objects"}
        given = await read_instruction(request, {"munchkin", *settings})
        instance = self.platforms.marketo.instance(given.pop("munchkin"))
        instance.define(given.pop("custom_objects", {}))
        if given.pop("expire_token", False):
            instance.token_expires_at = 0.0
        for name, value in given.items():
            setattr(instance, name, value)
        return web.json_response({})

    async def show_state(self, request: web.Request) -> web.Response:
        return web.json_response({"instances": self.platforms.marketo.dump()})

    async def show_persons(self, request: web.Request) -> web.Response:
        munchkin = request.query.get("munchkin", "")
        persons = self.platforms.marketo.persons(munchkin, request.query.getall("email", []))
        failed = self.platforms.marketo.instance(munchkin).failed
        return web.json_response({"persons": [asdict(person) for person in persons], "failed": failed})

    async def show_objects(self, request: web.Request) -> web.Response:
        instance = self.platforms.marketo.instance(request.query.get("munchkin", ""))
        return web.json_response(instance.dump_objects())

    async def show_requests(self, request: web.Request) -> web.Response:
        instance = self.platforms.marketo.instance(request.query.get("munchkin", ""))
        return web.json_response({"requests": instance.requests})
