"""Control of the simulated Kommo. An `account` is identified by its host.

| call | body or query → answer |
|---|---|
| `POST /kommo/clients` | `{client_id, client_secret, redirect_uri, name?}` registers an integration |
| `POST /kommo/accounts` | `{subdomain, domain?, name?, contacts?, seed?, without_email?}` → `{host, id, …}` |
| `POST /kommo/codes` | `{client_id, account}` → `{code, referer, client_id, redirect_uri}` |
| `POST /kommo/departures` | `{client_id, account}`: the account disconnects → the query of Kommo's signed webhook |
| `POST /kommo/moves` | `{account, subdomain}`: the account changes its subdomain → `{host}` |
| `POST /kommo/limits` | any of `kommo.state.Limits` (`requests_per_s`, `access_life_s`, `event_minute_s`, …) → all of them |
| `POST /kommo/changes` | `{account, kind?, id?, fields?, delete?, lost?, times?}` (`Kommo.change`) → `{id, event, …}` |
| `GET /kommo/state` | → clients, accounts with webhooks, codes by SHA-256 with calls and issues, grants, `issued_twice` |
| `GET /kommo/contacts` | `?account=` → `{"contacts", "companies"}` as the API lists them |
"""

from __future__ import annotations

from dataclasses import asdict, fields

from aiohttp import web

from local.simulators.control.instructions import read_instruction
from local.simulators.kommo.state import Client, Limits
from local.simulators.platforms import Platforms


class KommoCalls:
    def __init__(self, platforms: Platforms) -> None:
        self.platforms = platforms

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/kommo/clients", self.add_client),
            web.post("/kommo/accounts", self.add_account),
            web.post("/kommo/codes", self.issue_code),
            web.post("/kommo/departures", self.disconnect),
            web.post("/kommo/moves", self.move),
            web.post("/kommo/limits", self.set_limits),
            web.post("/kommo/changes", self.change),
            web.get("/kommo/state", self.show_state),
            web.get("/kommo/contacts", self.show_contacts),
        ]

    async def add_client(self, request: web.Request) -> web.Response:
        given = await read_instruction(request, {each.name for each in fields(Client)})
        client = self.platforms.kommo.state.add_client(given)
        return web.json_response({"client_id": client.client_id, "redirect_uri": client.redirect_uri})

    async def add_account(self, request: web.Request) -> web.Response:
        account = self.platforms.kommo.state.add_account(**await read_instruction(request))
        return web.json_response(
            {"host": account.host, "id": account.id, "name": account.name, "contacts": account.contact_count}
        )

    async def issue_code(self, request: web.Request) -> web.Response:
        given = await read_instruction(request)
        state = self.platforms.kommo.state
        code = state.issue_code(given["client_id"], given["account"])
        client = state.clients[given["client_id"]]
        return web.json_response(
            {
                "code": code,
                "referer": given["account"],
                "client_id": client.client_id,
                "redirect_uri": client.redirect_uri,
            }
        )

    async def disconnect(self, request: web.Request) -> web.Response:
        given = await read_instruction(request, {"client_id", "account"})
        return web.json_response(self.platforms.kommo.state.disconnect(given["client_id"], given["account"]))

    async def move(self, request: web.Request) -> web.Response:
        given = await read_instruction(request, {"account", "subdomain"})
        return web.json_response({"host": self.platforms.kommo.state.move(given["account"], given["subdomain"]).host})

    async def set_limits(self, request: web.Request) -> web.Response:
        given = await read_instruction(request, {each.name for each in fields(Limits)})
        state = self.platforms.kommo.state
        state.limits = Limits(**{**asdict(state.limits), **given})
        return web.json_response(asdict(state.limits))

    async def change(self, request: web.Request) -> web.Response:
        given = await read_instruction(request, {"account", "kind", "id", "fields", "delete", "lost", "times"})
        return web.json_response(await self.platforms.kommo.change(given.pop("account"), **given))

    async def show_state(self, request: web.Request) -> web.Response:
        return web.json_response(self.platforms.kommo.state.dump())

    async def show_contacts(self, request: web.Request) -> web.Response:
        account = self.platforms.kommo.state.account(request.query.get("account", ""))
        return web.json_response(asdict(account.contacts))
