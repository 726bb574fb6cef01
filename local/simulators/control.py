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
| `POST /kommo/departures` | `{client_id, account}`: the account disconnects → the query of Kommo's signed hook |
| `POST /kommo/moves` | `{account, subdomain}`: the account takes another subdomain → `{host}` |
| `POST /kommo/limits` | any of `kommo.Limits` (`requests_per_s`, `access_life_s`, `event_minute_s`, …) → all of them |
| `POST /kommo/changes` | `{account, kind?, id?, fields?, delete?, lost?, times?}`, see `Kommo.change` → `{id, updated_at, …}` |
| `GET /kommo/state` | → clients, accounts with webhooks, codes by SHA-256 with calls and issues, grants, `issued_twice` |
| `GET /kommo/contacts` | `?account=` (a host) → `{"contacts", "companies"}` as the API would list them |
| `POST /marketo/instances` | `{munchkin, client_id, client_secret, token_life_s?}` and, as below, quota, rate, custom objects |
| `POST /marketo/change` | `{munchkin, poison?, zero_lives?, daily_quota?, requests_per_s?, expire_token?, custom_objects?}` |
| `GET /marketo/state` | → one line of counts an instance |
| `GET /marketo/persons` | `?munchkin=&email=` (none or many) → `{"persons": [{attributes, writes, id, …}], "failed"}` |
| `GET /marketo/objects` | `?munchkin=` → `{custom_objects: {name: {records, waiting, waited}}, companies, members, lists}` |
| `GET /marketo/requests` | `?munchkin=` → `{"requests": [{request_id, status, error_code, objects, bytes, …}]}` |
| `POST /adobe/registrations` | `{url, client_id}` registers a webhook → `{active}`, whether it answered the challenge |
| `POST /adobe/deliveries` | `{url, munchkin, shape?, times?}` reports the outcome of requests to it → `{events, done}` |
| `POST /oauth2/providers` | see `oauth2.Provider` for what can be said → `{host, authorize_url, token_url}` |
| `POST /oauth2/change` | `{name, …}`: other settings of a provider, such as `refresh_mode`, `grace_s`, `expires_in` |
| `POST /oauth2/grants` | `{name, scope?}` → tokens, as after a consent |
| `POST /oauth2/end` | `{name, revoke?}`: its access tokens end now; with `revoke` its grants too |
| `GET /oauth2/state` | → a line a provider: `calls` by grant type and outcome (`refresh_token rotated`), `grants` |
| `POST /leadconnector/locations` | `{id, name?, requests_per_window?, requests_per_day?, refuses_duplicates?}` |
| `POST /leadconnector/tokens` | `{token, location, scopes?}` makes a private integration token |
| `POST /leadconnector/rotate` | `{token, new, expire_now?}`: the old one works for 7 more days of the clock, or no more |
| `POST /leadconnector/revoke` | `{token, after_s?}` lets it die |
| `GET /leadconnector/state` | → locations with contacts, tokens by SHA-256 with `calls` and whether each `works` |
| `POST /engage/users` | see `engage.User` for what can be said; `environment` is `homologation` if left out, here and below |
| `POST /engage/remove` | `{environment, customer_id, username}` |
| `POST /engage/people` | `{customer_id, logins, environment?}`: logins that identifiers can be registered for |
| `POST /engage/end` | `{customer_id, environment?}`: the tokens of the customer's users end now |
| `POST /engage/enter` | `{customer_id, key, environment?}`: a browser brings a sign-on's key, good for once → `{user_login}` |
| `GET /engage/state` | → users with their `log_ins`; customers with `identifiers`, `keys_given` and `keys_used` |
| `GET /proxy` | → `{"allowed": {host: {connections, bytes_sent, bytes_received}}, "refused": {host: attempts}}` |
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict, fields
from typing import Any

from aiohttp import ClientSession, web

from local.simulators.adobe_io import AdobeIO
from local.simulators.engage import Engage, User
from local.simulators.kommo import Client, Kommo, Limits
from local.simulators.leadconnector import LeadConnector
from local.simulators.marketo import Marketo
from local.simulators.oauth2 import OAuth2, Provider
from local.simulators.serving import Front
from local.simulators.world import BadInstruction, World


class Control:
    def __init__(self, proxy_url: str) -> None:
        self.proxy_url = proxy_url
        self.begin()

    def begin(self) -> None:
        """A new world in which nothing has happened."""
        self.world = World()
        self.kommo = Kommo(self.world, self.proxy_url)
        self.marketo = Marketo(self.world)
        self.leadconnector = LeadConnector(self.world)
        self.engage = Engage(self.world)
        self.oauth2 = OAuth2(self.world)
        self.adobe = AdobeIO(self.world, self.proxy_url)
        self.connect()

    def connect(self) -> None:
        """Let the platforms' calls reach these simulators."""
        self.front = Front(
            self.world, [self.kommo, self.marketo, self.oauth2, self.leadconnector, self.engage, self.adobe]
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
                web.post("/kommo/departures", self.disconnect),
                web.post("/kommo/moves", self.move),
                web.post("/kommo/limits", self.set_limits),
                web.post("/kommo/changes", self.change_entity),
                web.get("/kommo/state", self.show_kommo),
                web.get("/kommo/contacts", self.show_contacts),
                web.post("/marketo/instances", self.add_instance),
                web.post("/marketo/change", self.change_instance),
                web.get("/marketo/state", self.show_marketo),
                web.get("/marketo/persons", self.show_persons),
                web.get("/marketo/objects", self.show_objects),
                web.get("/marketo/requests", self.show_requests),
                web.post("/adobe/registrations", self.register),
                web.post("/adobe/deliveries", self.deliver),
                web.post("/oauth2/providers", self.add_provider),
                web.post("/oauth2/change", self.change_provider),
                web.post("/oauth2/grants", self.give_grant),
                web.post("/oauth2/end", self.end_tokens),
                web.get("/oauth2/state", self.show_oauth2),
                web.post("/leadconnector/locations", self.add_location),
                web.post("/leadconnector/tokens", self.add_token),
                web.post("/leadconnector/rotate", self.rotate_token),
                web.post("/leadconnector/revoke", self.revoke_token),
                web.get("/leadconnector/state", self.show_leadconnector),
                web.post("/engage/users", self.add_user),
                web.post("/engage/remove", self.remove_user),
                web.post("/engage/people", self.add_people),
                web.post("/engage/end", self.end_engage_tokens),
                web.post("/engage/enter", self.enter),
                web.get("/engage/state", self.show_engage),
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

    async def change_entity(self, request: web.Request) -> web.Response:
        given = await instruction(request, {"account", "kind", "id", "fields", "delete", "lost", "times"})
        return web.json_response(await self.kommo.change(given.pop("account"), **given))

    async def disconnect(self, request: web.Request) -> web.Response:
        given = await instruction(request, {"client_id", "account"})
        return web.json_response(self.kommo.leave(given["client_id"], given["account"]))

    async def move(self, request: web.Request) -> web.Response:
        given = await instruction(request, {"account", "subdomain"})
        return web.json_response({"host": self.kommo.move(given["account"], given["subdomain"]).host})

    async def show_kommo(self, request: web.Request) -> web.Response:
        return web.json_response(self.kommo.dump())

    async def show_contacts(self, request: web.Request) -> web.Response:
        account = self.kommo.accounts.get(request.query.get("account", ""))
        if account is None:
            raise BadInstruction("no such account")
        return web.json_response(asdict(account.contacts))

    async def add_instance(self, request: web.Request) -> web.Response:
        settings = {"token_life_s", "daily_quota", "requests_per_s", "custom_objects"}
        given = await instruction(request, {"munchkin", "client_id", "client_secret", *settings})
        return web.json_response({"munchkin": self.marketo.add_instance(given).munchkin})

    async def change_instance(self, request: web.Request) -> web.Response:
        settings = {"poison", "zero_lives", "daily_quota", "requests_per_s", "expire_token", "custom_objects"}
        given = await instruction(request, {"munchkin", *settings})
        instance = self.marketo.instance(given.pop("munchkin"))
        instance.define(given.pop("custom_objects", {}))
        if given.pop("expire_token", False):
            instance.token_expires_at = 0.0
        for name, value in given.items():
            setattr(instance, name, value)
        return web.json_response({})

    async def show_marketo(self, request: web.Request) -> web.Response:
        return web.json_response({"instances": self.marketo.dump()})

    async def show_persons(self, request: web.Request) -> web.Response:
        munchkin = request.query.get("munchkin", "")
        persons = self.marketo.persons(munchkin, request.query.getall("email", []))
        failed = self.marketo.instance(munchkin).failed
        return web.json_response({"persons": [asdict(person) for person in persons], "failed": failed})

    async def show_objects(self, request: web.Request) -> web.Response:
        return web.json_response(self.marketo.dump_objects(request.query.get("munchkin", "")))

    async def show_requests(self, request: web.Request) -> web.Response:
        return web.json_response({"requests": self.marketo.instance(request.query.get("munchkin", "")).requests})

    async def register(self, request: web.Request) -> web.Response:
        return web.json_response(
            {"active": await self.adobe.register(**await instruction(request, {"url", "client_id"}))}
        )

    async def deliver(self, request: web.Request) -> web.Response:
        given = await instruction(request, {"url", "munchkin", "shape", "times"})
        events = self.marketo.take_news(given["munchkin"])
        done = await self.adobe.deliver(given["url"], events, given.get("shape", "flat"), given.get("times", 1))
        return web.json_response({"events": len(events), "done": done})

    async def add_provider(self, request: web.Request) -> web.Response:
        provider = self.oauth2.add_provider(await instruction(request, {each.name for each in fields(Provider)}))
        urls = {f"{name}_url": f"https://{provider.host}/{name}" for name in ("authorize", "token")}
        return web.json_response({"host": provider.host, **urls})

    async def change_provider(self, request: web.Request) -> web.Response:
        self.oauth2.change_provider(await instruction(request, {each.name for each in fields(Provider)}))
        return web.json_response({})

    async def give_grant(self, request: web.Request) -> web.Response:
        given = await instruction(request, {"name", "scope"})
        return web.json_response(self.oauth2.give(given["name"], given.get("scope", "")))

    async def end_tokens(self, request: web.Request) -> web.Response:
        given = await instruction(request, {"name", "revoke"})
        self.oauth2.end_tokens(given["name"])
        if given.get("revoke"):
            self.oauth2.revoke(given["name"])
        return web.json_response({})

    async def show_oauth2(self, request: web.Request) -> web.Response:
        return web.json_response({"providers": self.oauth2.dump()})

    async def add_location(self, request: web.Request) -> web.Response:
        given = await instruction(
            request, {"id", "name", "requests_per_window", "requests_per_day", "refuses_duplicates"}
        )
        return web.json_response({"id": self.leadconnector.add_location(given).id})

    async def add_token(self, request: web.Request) -> web.Response:
        self.leadconnector.add_token(**await instruction(request, {"token", "location", "scopes"}))
        return web.json_response({})

    async def rotate_token(self, request: web.Request) -> web.Response:
        self.leadconnector.rotate_token(**await instruction(request, {"token", "new", "expire_now"}))
        return web.json_response({})

    async def revoke_token(self, request: web.Request) -> web.Response:
        self.leadconnector.revoke_token(**await instruction(request, {"token", "after_s"}))
        return web.json_response({})

    async def show_leadconnector(self, request: web.Request) -> web.Response:
        return web.json_response(self.leadconnector.dump())

    async def add_user(self, request: web.Request) -> web.Response:
        hidden = {"log_ins", "tokens"}
        self.engage.add_user(await instruction(request, {each.name for each in fields(User)} - hidden))
        return web.json_response({})

    async def remove_user(self, request: web.Request) -> web.Response:
        self.engage.remove_user(**await instruction(request, {"environment", "customer_id", "username"}))
        return web.json_response({})

    async def add_people(self, request: web.Request) -> web.Response:
        self.engage.add_people(**await instruction(request, {"customer_id", "logins", "environment"}))
        return web.json_response({})

    async def end_engage_tokens(self, request: web.Request) -> web.Response:
        self.engage.end_tokens(**await instruction(request, {"customer_id", "environment"}))
        return web.json_response({})

    async def enter(self, request: web.Request) -> web.Response:
        login = self.engage.enter(**await instruction(request, {"customer_id", "key", "environment"}))
        return web.json_response({"user_login": login})

    async def show_engage(self, request: web.Request) -> web.Response:
        return web.json_response({"users": self.engage.dump(), "customers": self.engage.dump_customers()})

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
