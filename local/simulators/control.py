"""The simulators' control: plain JSON over HTTP, on loopback. `local.control.Control` is its client.

In `/calls`, `path` is the route's template (`/api/v4/contacts`) and `outcome` the status, `dropped`, or the status with
what hid it (`200 lost`, `200 garbled`).

| call | body or query → answer |
|---|---|
| `POST /reset` | forget everything: clients, accounts, codes, instances, faults, counts, clock, the proxy's hosts |
| `GET /clock` | → `{"now", "offset_s"}` |
| `POST /clock` | `{"advance_s": n}` moves the simulators' time ahead |
| `GET /calls` | `?platform=&host=&path=` → `{"total", "calls": [{platform, host, method, path, outcome, count}]}`; see below |
| `GET /faults` | → `{"faults": [...]}`, each with `used`, how often it struck |
| `POST /faults` | see `world.Fault` for what can be said → the fault with its `id` |
| `DELETE /faults` | `?id=` or all |
| `POST /kommo/clients` | `{client_id, client_secret, redirect_uri, name?}` registers an integration |
| `POST /kommo/accounts` | `{subdomain, domain?, name?, contacts?, seed?, without_email?}` → `{host, id, …}` |
| `POST /kommo/codes` | `{client_id, account}` (a host) → `{code, referer, client_id, redirect_uri}` |
| `POST /kommo/limits` | any of `{requests_per_s, block_after, block_s, codes_single_use}` → all of them |
| `GET /kommo/state` | → clients, accounts with webhooks, codes by SHA-256 with calls and issues, grants, `issued_twice` |
| `GET /kommo/contacts` | `?account=` (a host) → `{"contacts", "companies"}` as the API would list them |
| `POST /marketo/instances` | `{munchkin, client_id, client_secret, token_life_s?, daily_quota?, requests_per_s?}` |
| `POST /marketo/change` | `{munchkin, poison?, zero_lives?, daily_quota?, requests_per_s?, expire_token?}` |
| `GET /marketo/state` | → one line of counts an instance |
| `GET /marketo/persons` | `?munchkin=` → `{"persons": [{attributes, writes, partition, request_id}], "failed"}` |
| `GET /marketo/requests` | `?munchkin=` → `{"requests": [{request_id, status, error_code, objects, bytes, …}]}` |
| `GET /proxy` | → `{"allowed": {host: {connections, bytes_sent, bytes_received}}, "refused": {host: attempts}}` |
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict, fields
from typing import Any

from aiohttp import ClientSession, web

from local.simulators.kommo import Client, Kommo, Limits
from local.simulators.marketo import Marketo
from local.simulators.serving import Front, NotSimulated
from local.simulators.world import BadInstruction, World


class Control:
    def __init__(self, proxy_url: str) -> None:
        self.proxy_url = proxy_url
        self.begin()

    def begin(self) -> None:
        """A new world in which nothing has happened."""
        self.world = World()
        self.kommo = Kommo(self.world)
        self.marketo = Marketo(self.world)
        self.front = Front(
            self.world,
            [
                self.kommo,
                self.marketo,
                NotSimulated("leadconnector", "services.leadconnectorhq.com"),
                NotSimulated("engage", "my.engage.bz", "sandbox.engage.bz", "one.engage.bz"),
                NotSimulated("adobe", "static.adobeioevents.com", "csm.adobe.io"),
            ],
        )

    def application(self) -> web.Application:
        application = web.Application(middlewares=[answer_bad_instructions])
        application.add_routes(
            [
                web.post("/reset", self.reset),
                web.get("/clock", self.show_clock),
                web.post("/clock", self.move_clock),
                web.get("/calls", self.show_calls),
                web.get("/faults", self.show_faults),
                web.post("/faults", self.set_fault),
                web.delete("/faults", self.clear_faults),
                web.post("/kommo/clients", self.add_client),
                web.post("/kommo/accounts", self.add_account),
                web.post("/kommo/codes", self.issue_code),
                web.post("/kommo/limits", self.set_limits),
                web.get("/kommo/state", self.show_kommo),
                web.get("/kommo/contacts", self.show_contacts),
                web.post("/marketo/instances", self.add_instance),
                web.post("/marketo/change", self.change_instance),
                web.get("/marketo/state", self.show_marketo),
                web.get("/marketo/persons", self.show_persons),
                web.get("/marketo/requests", self.show_requests),
                web.get("/proxy", self.show_proxy),
            ]
        )
        return application

    async def serve_platforms(self, request: web.Request) -> web.Response:
        return await self.front.serve(request)

    async def reset(self, request: web.Request) -> web.Response:
        self.begin()
        async with ClientSession(trust_env=False) as session, session.delete(f"{self.proxy_url}/hosts"):
            return web.json_response({})

    async def show_clock(self, request: web.Request) -> web.Response:
        return web.json_response({"now": self.world.clock.now(), "offset_s": self.world.clock.offset_s})

    async def move_clock(self, request: web.Request) -> web.Response:
        self.world.clock.offset_s += float((await instruction(request))["advance_s"])
        return await self.show_clock(request)

    async def show_calls(self, request: web.Request) -> web.Response:
        calls = [
            {**asdict(call), "count": count}
            for call, count in self.world.calls.items()
            if all(getattr(call, name) == request.query.get(name, getattr(call, name)) for name in CALL_FILTERS)
        ]
        return web.json_response({"total": sum(call["count"] for call in calls), "calls": calls})

    async def show_faults(self, request: web.Request) -> web.Response:
        return web.json_response({"faults": self.world.faults.dump()})

    async def set_fault(self, request: web.Request) -> web.Response:
        return web.json_response(asdict(self.world.faults.set(await instruction(request))))

    async def clear_faults(self, request: web.Request) -> web.Response:
        self.world.faults.clear(int(request.query["id"]) if "id" in request.query else None)
        return web.json_response({})

    async def add_client(self, request: web.Request) -> web.Response:
        client = self.kommo.add_client(await instruction(request, {each.name for each in fields(Client)}))
        return web.json_response({"client_id": client.client_id, "redirect_uri": client.redirect_uri})

    async def add_account(self, request: web.Request) -> web.Response:
        account = self.kommo.add_account(**await instruction(request))
        return web.json_response(
            {"host": account.host, "id": account.id, "name": account.name, "contacts": account.contact_count}
        )

    async def issue_code(self, request: web.Request) -> web.Response:
        given = await instruction(request)
        code = self.kommo.issue_code(given["client_id"], given["account"])
        client = self.kommo.clients[given["client_id"]]
        return web.json_response(
            {
                "code": code,
                "referer": given["account"],
                "client_id": client.client_id,
                "redirect_uri": client.redirect_uri,
            }
        )

    async def set_limits(self, request: web.Request) -> web.Response:
        given = await instruction(request, {each.name for each in fields(Limits)})
        self.kommo.limits = Limits(**{**asdict(self.kommo.limits), **given})
        return web.json_response(asdict(self.kommo.limits))

    async def show_kommo(self, request: web.Request) -> web.Response:
        return web.json_response(self.kommo.dump())

    async def show_contacts(self, request: web.Request) -> web.Response:
        account = self.kommo.accounts.get(request.query.get("account", ""))
        if account is None:
            raise BadInstruction("no such account")
        return web.json_response(asdict(account.contacts))

    async def add_instance(self, request: web.Request) -> web.Response:
        given = await instruction(
            request, {"munchkin", "client_id", "client_secret", "token_life_s", "daily_quota", "requests_per_s"}
        )
        return web.json_response({"munchkin": self.marketo.add_instance(given).munchkin})

    async def change_instance(self, request: web.Request) -> web.Response:
        given = await instruction(
            request, {"munchkin", "poison", "zero_lives", "daily_quota", "requests_per_s", "expire_token"}
        )
        instance = self.marketo.instance(given.pop("munchkin"))
        if given.pop("expire_token", False):
            instance.token_expires_at = 0.0
        for name, value in given.items():
            setattr(instance, name, value)
        return web.json_response({})

    async def show_marketo(self, request: web.Request) -> web.Response:
        return web.json_response({"instances": self.marketo.dump()})

    async def show_persons(self, request: web.Request) -> web.Response:
        instance = self.marketo.instance(request.query.get("munchkin", ""))
        return web.json_response(
            {"persons": [asdict(person) for person in instance.persons.values()], "failed": instance.failed}
        )

    async def show_requests(self, request: web.Request) -> web.Response:
        return web.json_response({"requests": self.marketo.instance(request.query.get("munchkin", "")).requests})

    async def show_proxy(self, request: web.Request) -> web.Response:
        async with ClientSession(trust_env=False) as session, session.get(f"{self.proxy_url}/hosts") as answer:
            return web.json_response(await answer.json())


CALL_FILTERS = ("platform", "host", "path")


@web.middleware
async def answer_bad_instructions(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except (BadInstruction, KeyError, TypeError, ValueError) as wrong:
        return web.json_response({"error": f"{type(wrong).__name__}: {wrong}"}, status=400)


async def instruction(request: web.Request, known: set[str] | None = None) -> dict[str, Any]:
    """A control call's JSON object. Raises `BadInstruction` for anything else and for members that are not `known`."""
    given = json.loads(await request.read() or b"{}")
    if not isinstance(given, dict):
        raise BadInstruction("the body is not a JSON object")
    if known is not None and (unknown := given.keys() - known):
        raise BadInstruction(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}")
    return given
