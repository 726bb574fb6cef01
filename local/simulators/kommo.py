"""Kommo, as developers.kommo.com describes it: consent, tokens, the contacts API, webhooks, limits.

Followed pages: oauth-20, get-token, button-on-site, contacts-list, companies-list, webhooks-general, limitations; and captured
events. docs/fidelity.md has the source of each payload.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import html
import json
import secrets
import time
import uuid
import zlib
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from aiohttp import ClientError, ClientSession, ClientTimeout, web

from local.simulators.people import Contacts, change, make_contacts, new_company, new_contact
from local.simulators.world import BadInstruction, Route, World, nginx_forbidden

CODE_LIFE_S = 20 * 60
ACCESS_LIFE_S = 24 * 3600
REFRESH_LIFE_S = 90 * 24 * 3600
MAX_PAGE = 250
MAX_WEBHOOKS = 100
# How long Kommo waits for an answer to an event, when it comes again, in minutes, and when it gives a destination up.
EVENT_TIMEOUT_S = 2.0
EVENTS_AGAIN_MIN = (5, 15, 15, 60)
MAX_BAD_ANSWERS = 100
EVENT_HEADERS = {"User-Agent": "amoCRM-Webhooks/3.0"}
API_HOST = "api-c.kommo.com"
CONSENT_HOSTS = ("www.kommo.com", "www.amocrm.com", "www.amocrm.ru")


@dataclass(frozen=True)
class Client:
    """An integration as registered with Kommo."""

    client_id: str
    client_secret: str
    redirect_uri: str
    name: str = "Portaria"


@dataclass
class Account:
    """A customer's account. Its contacts are made from `seed` when they are first asked for."""

    id: int
    subdomain: str
    domain: str
    name: str
    contact_count: int
    seed: int
    without_email: float
    webhooks: list[dict[str, Any]] = field(default_factory=list)
    bad_answers: Counter[str] = field(default_factory=Counter)
    delivered: Counter[str] = field(default_factory=Counter)
    recent: deque[float] = field(default_factory=deque)
    over_limit: deque[float] = field(default_factory=deque)
    blocked_until: float = 0.0
    _contacts: Contacts | None = None

    @property
    def host(self) -> str:
        return f"{self.subdomain}.{self.domain}"

    @property
    def contacts(self) -> Contacts:
        if self._contacts is None:
            self._contacts = make_contacts(
                self.id, self.host, self.contact_count, seed=self.seed, without_email=self.without_email
            )
        return self._contacts


@dataclass
class Code:
    """An authorization code, the calls that carried it, and the token pairs that it was exchanged for."""

    client_id: str
    host: str
    issued_at: float
    calls: int = 0
    issued: int = 0
    calls_after_issue: int = 0


@dataclass
class Grant:
    """What one exchange began: a chain of token pairs, all dead once a used refresh token is shown again."""

    client_id: str
    host: str
    pairs: int = 0
    revoked: bool = False


@dataclass
class Token:
    grant: Grant
    expires_at: float
    used: bool = False


@dataclass
class Limits:
    """Kommo's limit of requests, and what it does to those who do not keep it.

    `block_after` answers of 429 within 10 s block the account for `block_s` seconds. `codes_single_use` is how Kommo
    is; a test that wants to see what would be exchanged twice if the platform let it turns it off. `access_life_s` is for how
    long the access tokens given from now on are good. A minute of the waits between the deliveries of one event lasts
    `event_minute_s` seconds.
    """

    requests_per_s: int = 7
    block_after: int = 10
    block_s: float = 30.0
    codes_single_use: bool = True
    access_life_s: int = ACCESS_LIFE_S
    event_minute_s: float = 0.5


class Kommo:
    platform = "kommo"
    hosts: tuple[str, ...] = ("*.kommo.com", "*.amocrm.com", "*.amocrm.ru")

    def __init__(self, world: World, proxy_url: str = "") -> None:
        self.world = world
        self.proxy_url = proxy_url
        self.limits = Limits()
        self.deliveries: set[asyncio.Task[None]] = set()
        self.clients: dict[str, Client] = {}
        self.accounts: dict[str, Account] = {}
        self.codes: dict[str, Code] = {}
        self.grants: list[Grant] = []
        self.access_tokens: dict[str, Token] = {}
        self.refresh_tokens: dict[str, Token] = {}

    # ------------------------------------------------------------------------------------------------ what control sets

    def add_client(self, given: Mapping[str, Any]) -> Client:
        client = Client(**given)
        self.clients[client.client_id] = client
        return client

    def add_account(
        self,
        subdomain: str,
        *,
        domain: str = "kommo.com",
        name: str = "",
        contacts: int = 0,
        seed: int = 1,
        without_email: float = 0.05,
    ) -> Account:
        account = Account(
            id=30_000_000 + zlib.crc32(f"{subdomain}.{domain}".encode()) % 9_000_000,
            subdomain=subdomain,
            domain=domain,
            name=name or subdomain.replace("-", " ").title(),
            contact_count=contacts,
            seed=seed,
            without_email=without_email,
        )
        self.accounts[account.host] = account
        return account

    def issue_code(self, client_id: str, host: str) -> str:
        """A code for an installation of a client by an account. Raises `BadInstruction` if either is unknown."""
        if client_id not in self.clients:
            raise BadInstruction("no such client: POST /kommo/clients first")
        if host not in self.accounts:
            raise BadInstruction(f"no such account {host!r}: POST /kommo/accounts first")
        code = opaque(708)
        self.codes[code] = Code(client_id, host, self.world.clock.now())
        return code

    def leave(self, client_id: str, host: str) -> dict[str, str]:
        """An account disconnects a client: its grants are dead. The query of the signed hook that Kommo then sends."""
        client, account = self.clients.get(client_id), self.accounts.get(host)
        if client is None or account is None:
            raise BadInstruction("no such client or account")
        for grant in self.grants:
            if (grant.client_id, grant.host) == (client_id, host):
                grant.revoked = True
        signed = f"{client.client_id}|{account.id}".encode()
        return {
            "client_uuid": client.client_id,
            "account_id": str(account.id),
            "signature": hmac.new(client.client_secret.encode(), signed, hashlib.sha256).hexdigest(),
        }

    def move(self, host: str, subdomain: str) -> Account:
        """An account takes another subdomain: the old one answers 404, its tokens stay good."""
        account = self.accounts.pop(host, None)
        if account is None:
            raise BadInstruction(f"no such account {host!r}")
        account.subdomain = subdomain
        self.accounts[account.host] = account
        for grant in self.grants:
            if grant.host == host:
                grant.host = account.host
        return account

    def dump(self) -> dict[str, Any]:
        """All that is known, without any secret: codes go by their SHA-256."""
        return {
            "clients": [
                {"client_id": each.client_id, "redirect_uri": each.redirect_uri} for each in self.clients.values()
            ],
            "accounts": [
                {
                    "host": each.host,
                    "id": each.id,
                    "name": each.name,
                    "contacts": each.contact_count,
                    "webhooks": each.webhooks,
                    "delivered": dict(each.delivered),
                    "blocked": each.blocked_until > self.world.clock.now(),
                }
                for each in self.accounts.values()
            ],
            "codes": {
                hashlib.sha256(text.encode()).hexdigest(): {
                    "client_id": code.client_id,
                    "host": code.host,
                    "calls": code.calls,
                    "issued": code.issued,
                    "calls_after_issue": code.calls_after_issue,
                }
                for text, code in self.codes.items()
            },
            "grants": [
                {"client_id": each.client_id, "host": each.host, "pairs": each.pairs, "revoked": each.revoked}
                for each in self.grants
            ],
            "tokens_issued": sum(grant.pairs for grant in self.grants),
            "issued_twice": sum(code.issued > 1 for code in self.codes.values()),
            "called_after_issue": sum(code.calls_after_issue > 0 for code in self.codes.values()),
        }

    async def change(
        self,
        host: str,
        *,
        kind: str = "contact",
        id: int | None = None,
        fields: Mapping[str, str] | None = None,
        delete: bool = False,
        lost: bool = False,
        times: int = 1,
    ) -> dict[str, Any]:
        """Somebody makes, changes or deletes a contact or a company, and the account's webhooks hear of it.

        Without an `id` a new one is made. `fields` are those that `people.change` knows. `lost` events are never sent, the
        others `times` times. Returns the entity's `id` and `updated_at`, and the `answers` to the first deliveries.
        """
        account = self.accounts.get(host)
        if account is None or kind not in KINDS:
            raise BadInstruction(f"no such account, or a kind other than {', '.join(KINDS)}")
        entities = account.contacts.contacts if kind == "contact" else account.contacts.companies
        entity = next((each for each in entities if each["id"] == id), None)
        if id is not None and entity is None:
            raise BadInstruction(f"the account has no {kind} {id}")
        action = "delete" if delete else "update" if entity else "add"
        if entity is None:
            make = new_contact if kind == "contact" else new_company
            entity = make(account.id, account.host, entities, account.contacts.companies)
        if delete:
            entities.remove(entity)
        else:
            change(entity, fields or {}, account.contacts.companies)
            entity["updated_at"] = int(self.world.clock.now())
        if action == "add":
            entities.append(entity)
        answers = []
        if not lost:
            form = event_form(account, action, kind, entity)
            answers = [answer for _ in range(times) for answer in await self.tell(account, f"{action}_{kind}", form)]
        account.contact_count = len(account.contacts.contacts)
        return {"id": entity["id"], "updated_at": entity["updated_at"], "answers": answers}

    async def tell(self, account: Account, event: str, form: list[tuple[str, str]]) -> list[str]:
        """Deliver an event to each webhook that wants it; those that fail are delivered again later."""
        hooks = [hook for hook in account.webhooks if event in hook["settings"] and not hook["disabled"]]
        answers = [await self.deliver(account, hook, form) for hook in hooks]
        for hook, answer in zip(hooks, answers, strict=True):
            if not good(answer):
                task = asyncio.create_task(self.deliver_again(account, hook, form))
                self.deliveries.add(task)
                task.add_done_callback(self.deliveries.discard)
        return answers

    async def deliver_again(self, account: Account, hook: dict[str, Any], form: list[tuple[str, str]]) -> None:
        """After 5 and 15 minutes, and after bad answers of 5XX or none after 15 and 60 more."""
        for number, minutes in enumerate(EVENTS_AGAIN_MIN):
            await asyncio.sleep(minutes * self.limits.event_minute_s)
            answer = await self.deliver(account, hook, form)
            if good(answer) or (number and not answer.startswith("5") and answer != "no answer"):
                return

    async def deliver(self, account: Account, hook: dict[str, Any], form: list[tuple[str, str]]) -> str:
        """One delivery: the status of the answer, or `no answer`. It is counted, and a hook that fails too often disabled.

        The proxy's certificates are of an authority of its own, which is not looked up here.
        """
        url = hook["destination"]
        proxy = self.proxy_url if url.startswith("https://") else None
        try:
            async with (
                ClientSession(trust_env=False, timeout=ClientTimeout(total=EVENT_TIMEOUT_S)) as session,
                session.post(
                    url, data=form, headers=EVENT_HEADERS, proxy=proxy or None, ssl=False, allow_redirects=False
                ) as response,
            ):
                answer = str(response.status)
        except (ClientError, TimeoutError):
            answer = "no answer"
        self.count_answer(account, hook, answer)
        return answer

    def count_answer(self, account: Account, hook: dict[str, Any], answer: str) -> None:
        """Kommo counts those of two hours; here it is those in a row."""
        account.delivered[answer] += 1
        destination = hook["destination"]
        account.bad_answers[destination] = 0 if good(answer) else account.bad_answers[destination] + 1
        hook["disabled"] = account.bad_answers[destination] > MAX_BAD_ANSWERS

    # ---------------------------------------------------------------------------------------------------------- serving

    def routes(self, host: str) -> list[Route]:
        if host in CONSENT_HOSTS:
            return [
                Route("GET", "/oauth", self.consent_page),
                Route("GET", "/oauth/", self.consent_page),
                Route("POST", "/oauth/decision", self.decide),
                Route("GET", "/auth/button.js", self.button_script),
            ]
        if host == API_HOST:
            return [Route("GET", "/oauth2/account/current/subdomain", self.current_subdomain)]
        if host not in self.accounts:
            return []
        return [
            Route("POST", "/oauth2/access_token", self.token),
            Route("GET", "/api/v4/account", self.show_account),
            Route("GET", "/api/v4/contacts", self.list_contacts),
            Route("GET", "/api/v4/companies", self.list_companies),
            Route("GET", "/api/v4/webhooks", self.list_webhooks),
            Route("POST", "/api/v4/webhooks", self.subscribe),
            Route("DELETE", "/api/v4/webhooks", self.unsubscribe),
        ]

    def account(self, request: web.BaseRequest) -> str:
        return request.host.partition(".")[0]

    def failure(self, status: int) -> web.Response:
        if status == 403:
            return nginx_forbidden()
        if status >= 500:
            return web.Response(
                status=status, text=f"<html><head><title>{status}</title></head></html>", content_type="text/html"
            )
        return problem(status, {404: "Not Found", 429: "Too Many Requests"}.get(status, "Bad Request"))

    def refuse(self, request: web.BaseRequest) -> web.Response | None:
        """Seven requests a second for each account. A caller that continues gets 403 for every request."""
        account = self.accounts.get(request.host)
        if account is None:
            return None
        if account.blocked_until > self.world.clock.now():
            return nginx_forbidden()
        now = time.monotonic()
        forget(account.recent, now - 1)
        forget(account.over_limit, now - 10)
        if len(account.recent) < self.limits.requests_per_s:
            account.recent.append(now)
            return None
        account.over_limit.append(now)
        if len(account.over_limit) >= self.limits.block_after:
            account.blocked_until = self.world.clock.now() + self.limits.block_s
        return problem(429, "Too Many Requests", retry_after=1)

    # ---------------------------------------------------------------------------------------------------------- consent

    async def consent_page(self, request: web.BaseRequest, _: dict[str, str]) -> web.Response:
        client = self.clients.get(request.query.get("client_id", ""))
        if client is None:
            return web.Response(status=404, text="<h1>Integration not found</h1>", content_type="text/html")
        choices = "".join(
            f'<option value="{html.escape(host)}">{html.escape(account.name)} ({html.escape(host)})</option>'
            for host, account in self.accounts.items()
        )
        kept = "".join(
            f'<input type="hidden" name="{name}" value="{html.escape(request.query.get(name, ""))}">'
            for name in ("client_id", "state", "mode")
        )
        page = f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>Kommo (simulator)</title>
<style>body{{font:16px sans-serif;max-width:28rem;margin:3rem auto;padding:0 1rem}}
button,select{{font:inherit;padding:.5rem}}</style>
<h1>Allow {html.escape(client.name)} to use your account?</h1>
<form method="post" action="/oauth/decision">{kept}<input type="hidden" name="opener" value="">
<p><label>Account <select name="account">{choices}</select></label>
<p><button name="decision" value="allow">Allow</button> <button name="decision" value="deny">Deny</button></form>
<script>if (window.opener) document.forms[0].opener.value = "1"</script></html>"""
        return web.Response(text=page, content_type="text/html")

    async def decide(self, request: web.BaseRequest, _: dict[str, str]) -> web.Response:
        form = await request.post()
        client = self.clients.get(str(form.get("client_id")))
        host = str(form.get("account"))
        if client is None or (form.get("decision") == "allow" and host not in self.accounts):
            return self.failure(404)
        state = {"state": str(form["state"])} if form.get("state") else {}
        if form.get("decision") == "allow":
            answer = {"code": self.issue_code(client.client_id, host), **state, "referer": host}
        else:
            answer = {"error": "access_denied", **state}
        joint = "&" if "?" in client.redirect_uri else "?"
        url = f"{client.redirect_uri}{joint}{urlencode({**answer, 'client_id': client.client_id})}"
        if form.get("opener") and form.get("mode") == "popup":
            script = f"window.opener.location.href = {json.dumps(url)}; window.close()".replace("</", "<\\/")
            return web.Response(
                text=f"<!doctype html><title>Kommo</title><script>{script}</script>", content_type="text/html"
            )
        return web.Response(status=303, headers={"Location": url})

    async def button_script(self, request: web.BaseRequest, _: dict[str, str]) -> web.Response:
        return web.Response(text=BUTTON_SCRIPT, content_type="text/javascript")

    # ----------------------------------------------------------------------------------------------------------- tokens

    async def token(self, request: web.BaseRequest, _: dict[str, str]) -> web.Response:
        given = await body(request)
        code = self.codes.get(str(given.get("code")))
        if code:
            code.calls += 1
            code.calls_after_issue += code.issued > 0
        client = self.clients.get(str(given.get("client_id")))
        if not given.get("client_id"):
            return oauth_error("Check the `client_id` parameter")
        if client is None or client.client_secret != given.get("client_secret"):
            return oauth_error(None, 401, "Некорректный клиент", "Авторизация клиента не прошла")
        if given.get("redirect_uri") != client.redirect_uri:
            return oauth_error("Redirect URI is not associated with client")
        match given.get("grant_type"):
            case "authorization_code":
                return self.exchange(client, code, request.host)
            case "refresh_token":
                return self.refresh(client, str(given.get("refresh_token")), request.host)
        return oauth_error("Check the `grant_type` parameter")

    def exchange(self, client: Client, code: Code | None, host: str) -> web.Response:
        if code is None or code.client_id != client.client_id:
            return oauth_error("Cannot decrypt the authorization code")
        if code.issued and self.limits.codes_single_use:
            return oauth_error("Authorization code has been revoked")
        if self.world.clock.now() >= code.issued_at + CODE_LIFE_S:
            return oauth_error("Authorization code has expired")
        if code.host != host:
            return oauth_error("Invalid account")
        code.issued += 1
        grant = Grant(client.client_id, host)
        self.grants.append(grant)
        return self.issue(grant)

    def refresh(self, client: Client, refresh_token: str, host: str) -> web.Response:
        token = self.refresh_tokens.get(refresh_token)
        if token is None or token.grant.client_id != client.client_id or token.grant.host != host:
            return oauth_error("Token has been revoked", 401)
        if token.used:
            token.grant.revoked = True
        if token.grant.revoked:
            return oauth_error("Token has been revoked", 401)
        if self.world.clock.now() >= token.expires_at:
            return oauth_error("Token has expired", 401)
        token.used = True
        return self.issue(token.grant)

    async def current_subdomain(self, request: web.BaseRequest, _: dict[str, str]) -> web.Response:
        """Where the account of a refresh token lives now."""
        token = self.refresh_tokens.get(request.headers.get("X-Refresh-Token", ""))
        if token is None or token.grant.revoked:
            return unauthorized()
        account = self.accounts[token.grant.host]
        return web.json_response(
            {
                "id": account.id,
                "subdomain": account.subdomain,
                "domain": account.host,
                "top_level_domain": account.domain,
            }
        )

    def issue(self, grant: Grant) -> web.Response:
        grant.pairs += 1
        now = self.world.clock.now()
        access_token = json_web_token(grant, self.accounts[grant.host], now)
        refresh_token = opaque(968)
        self.access_tokens[access_token] = Token(grant, now + self.limits.access_life_s)
        self.refresh_tokens[refresh_token] = Token(grant, now + REFRESH_LIFE_S)
        return web.json_response(
            {
                "token_type": "Bearer",
                "expires_in": self.limits.access_life_s,
                "server_time": int(now),
                "access_token": access_token,
                "refresh_token": refresh_token,
            }
        )

    # -------------------------------------------------------------------------------------------------------------- API

    def authorized(self, request: web.BaseRequest) -> Account | None:
        """The account of a call with a valid bearer token for this host."""
        scheme, _, access_token = request.headers.get("Authorization", "").partition(" ")
        token = self.access_tokens.get(access_token)
        if (
            scheme.lower() != "bearer"
            or token is None
            or token.grant.revoked
            or token.grant.host != request.host
            or self.world.clock.now() >= token.expires_at
        ):
            return None
        return self.accounts[request.host]

    async def show_account(self, request: web.BaseRequest, _: dict[str, str]) -> web.Response:
        account = self.authorized(request)
        if account is None:
            return unauthorized()
        return hal(
            {
                "id": account.id,
                "name": account.name,
                "subdomain": account.subdomain,
                "created_at": 1_600_000_000,
                "created_by": 0,
                "updated_at": 1_700_000_000,
                "updated_by": 0,
                "current_user_id": account.id + 1,
                "country": "BR",
                "currency": "BRL",
                "currency_symbol": "R$",
                "is_technical_account": False,
                "_links": {"self": {"href": f"https://{account.host}/api/v4/account"}},
            }
        )

    async def list_contacts(self, request: web.BaseRequest, _: dict[str, str]) -> web.Response:
        account = self.authorized(request)
        return unauthorized() if account is None else listing(request, "contacts", account.contacts.contacts)

    async def list_companies(self, request: web.BaseRequest, _: dict[str, str]) -> web.Response:
        account = self.authorized(request)
        return unauthorized() if account is None else listing(request, "companies", account.contacts.companies)

    async def list_webhooks(self, request: web.BaseRequest, _: dict[str, str]) -> web.Response:
        account = self.authorized(request)
        if account is None:
            return unauthorized()
        wanted = request.query.get("filter[destination]")
        hooks = [hook for hook in account.webhooks if wanted in (None, hook["destination"])]
        return (
            hal({"_total_items": len(hooks), "_embedded": {"webhooks": hooks}}) if hooks else web.Response(status=204)
        )

    async def subscribe(self, request: web.BaseRequest, _: dict[str, str]) -> web.Response:
        account = self.authorized(request)
        if account is None:
            return unauthorized()
        given = await body(request)
        destination, settings = given.get("destination"), given.get("settings")
        if not isinstance(destination, str) or not isinstance(settings, list) or not settings:
            return problem(400, "Bad Request", detail="destination and settings are required")
        for hook in account.webhooks:
            if hook["destination"] == destination:
                hook |= {"settings": settings, "disabled": False}
                account.bad_answers[destination] = 0
                return hal(hook)
        if len(account.webhooks) >= MAX_WEBHOOKS:
            return problem(400, "Bad Request", detail="the account has 100 webhooks")
        hook = {
            "id": len(account.webhooks) + 1,
            "destination": destination,
            "settings": settings,
            "sort": given.get("sort", 10),
            "disabled": False,
            "account_id": account.id,
        }
        account.webhooks.append(hook)
        return hal(hook, 201)

    async def unsubscribe(self, request: web.BaseRequest, _: dict[str, str]) -> web.Response:
        account = self.authorized(request)
        if account is None:
            return unauthorized()
        destination = (await body(request)).get("destination")
        if not any(hook["destination"] == destination for hook in account.webhooks):
            return problem(404, "Not Found")
        account.webhooks = [hook for hook in account.webhooks if hook["destination"] != destination]
        return web.Response(status=204)


# --------------------------------------------------------------------------------------------------------------- events

KINDS = ("contact", "company")


def good(answer: str) -> bool:
    return answer.isdecimal() and 100 <= int(answer) <= 299


def event_form(account: Account, action: str, kind: str, entity: Mapping[str, Any]) -> list[tuple[str, str]]:
    """An event with what captured ones have (docs/fidelity.md): the format of API v2, companies among the contacts, every
    value a text, deletions with id and type only.

    The whole name stands for its parts, a field's id and name for its type, and an option's id for its code. An event of 2018
    had a contact's company, the later ones have none, so it is left out here.
    """
    form = [
        ("account[subdomain]", account.subdomain),
        ("account[id]", str(account.id)),
        ("account[_links][self]", f"https://{account.host}"),
    ]
    start = f"contacts[{action}][0]"
    form.append((f"{start}[id]", str(entity["id"])))
    if action == "delete":
        return [*form, (f"{start}[type]", kind)]
    form += [
        (f"{start}[{event_name}]", str(entity[name])) for event_name, name in EVENT_FIELDS.items() if name in entity
    ]
    for number, custom_field in enumerate(entity["custom_fields_values"] or []):
        place = f"{start}[custom_fields][{number}]"
        form += [(f"{place}[id]", str(custom_field["field_id"])), (f"{place}[name]", custom_field["field_name"])]
        for index, value in enumerate(custom_field["values"]):
            form.append((f"{place}[values][{index}][value]", event_value(custom_field["field_type"], value["value"])))
            if "enum_id" in value:
                form.append((f"{place}[values][{index}][enum]", str(value["enum_id"])))
        form += [(f"{place}[code]", custom_field["field_code"])] if custom_field["field_code"] else []
    form += [(f"{start}[{name}]", str(entity[name])) for name in ("created_at", "updated_at")]
    return [*form, (f"{start}[type]", kind)]


# An event's name for a field ← the API's.
EVENT_FIELDS = {
    "name": "name",
    "responsible_user_id": "responsible_user_id",
    "date_create": "created_at",
    "last_modified": "updated_at",
    "created_user_id": "created_by",
    "modified_user_id": "updated_by",
    "account_id": "account_id",
}


def event_value(field_type: str, value: Any) -> str:
    """A checkbox is 1 or 0, a birthday a date as people write it."""
    if field_type == "birthday":
        return datetime.fromtimestamp(value, UTC).strftime("%d.%m.%Y")
    return str(int(value)) if isinstance(value, bool) else str(value)


# -------------------------------------------------------------------------------------------------------------- wording


def hal(document: Mapping[str, Any], status: int = 200) -> web.Response:
    return web.json_response(document, status=status, content_type="application/hal+json")


def problem(status: int, title: str, **more: Any) -> web.Response:
    document = {"title": title, "type": f"https://httpstatus.es/{status}", "status": status, "detail": "", **more}
    return web.json_response(document, status=status, content_type="application/problem+json")


def unauthorized() -> web.Response:
    return problem(401, "Unauthorized", detail="Неверный логин или пароль")


def oauth_error(
    hint: str | None,
    status: int = 400,
    title: str = "Некорректный запрос",
    detail: str = "В запросе отсутствует ряд параметров или параметры невалидны",
) -> web.Response:
    """Kommo's words for a refused token request; the Russian ones are as they come."""
    document: dict[str, Any] = {"hint": hint} if hint else {}
    document |= {
        "title": title,
        "type": "https://developers.amocrm.com/v3/errors/OAuthProblemJson",
        "status": status,
        "detail": detail,
    }
    return web.json_response(document, status=status, content_type="application/problem+json")


def listing(request: web.BaseRequest, name: str, entities: list[dict[str, Any]]) -> web.Response:
    """One page of a collection: filtered, sorted, with a link to the next page; 204 past the end."""
    query = request.query
    try:
        page, limit = int(query.get("page", "1")), int(query.get("limit", "50"))
        ids = {int(value) for value in query.getall("filter[id][]", [])} | {
            int(value) for key, value in query.items() if key.startswith("filter[id][") and key != "filter[id][]"
        }
        since, until = (int(query.get(f"filter[updated_at][{end}]", default)) for end, default in EVER)
    except ValueError:
        return problem(400, "Bad Request", detail="page, limit and filters are numbers")
    if page < 1 or not 1 <= limit <= MAX_PAGE:
        return problem(400, "Bad Request", detail=f"page is at least 1, limit 1 to {MAX_PAGE}")
    found = [each for each in entities if since <= each["updated_at"] <= until and (not ids or each["id"] in ids)]
    order = next((key for key in ("updated_at", "created_at", "id") if f"order[{key}]" in query), "id")
    found.sort(key=lambda each: (each[order], each["id"]), reverse=query.get(f"order[{order}]") == "desc")
    shown = found[(page - 1) * limit : page * limit]
    if not shown:
        return web.Response(status=204)

    def link(number: int) -> dict[str, str]:
        rest = [(key, value) for key, value in query.items() if key not in ("page", "limit")]
        return {
            "href": f"https://{request.host}{request.path}?{urlencode([*rest, ('limit', limit), ('page', number)])}"
        }

    links = {"self": link(page)} | ({"next": link(page + 1)} if len(found) > page * limit else {})
    return hal({"_page": page, "_links": links, "_embedded": {name: shown}})


EVER = (("from", "0"), ("to", "99999999999"))


async def body(request: web.BaseRequest) -> Mapping[str, Any]:
    """The fields of a JSON or form body; none if it is neither."""
    if request.content_type == "application/x-www-form-urlencoded":
        return await request.post()
    try:
        given = await request.json()
    except ValueError:
        return {}
    return given if isinstance(given, dict) else {}


def forget(times: deque[float], before: float) -> None:
    while times and times[0] < before:
        times.popleft()


def opaque(length: int) -> str:
    """A code or a refresh token of the real one's beginning and length, with the mark that all secrets here have."""
    return f"def50200canary-{secrets.token_hex(length // 2)}"[:length]


def json_web_token(grant: Grant, account: Account, now: float) -> str:
    """An access token of the real one's shape and size, each of its parts marked. Nothing here verifies its signature."""

    def part(document: Mapping[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")

    identifier = f"canary-{secrets.token_hex(40)}"[:80]
    claims = {
        "aud": grant.client_id,
        "jti": identifier,
        "iat": int(now),
        "nbf": int(now),
        "exp": int(now + ACCESS_LIFE_S),
        "sub": str(account.id + 1),
        "grant_type": "",
        "account_id": account.id,
        "base_domain": account.domain,
        "version": 2,
        "scopes": ["crm", "files", "files_delete", "notifications", "push_notifications"],
        "hash_uuid": str(uuid.uuid4()),
        "api_domain": f"api-c.{account.domain}",
    }
    signature = f"canary-{base64.urlsafe_b64encode(secrets.token_bytes(256)).decode()}"[:342]
    return ".".join([part({"typ": "JWT", "alg": "RS256", "jti": identifier}), part(claims), signature])


# What https://www.kommo.com/auth/button.js does to a page: a button per script element, which opens the consent page.
BUTTON_SCRIPT = """(function () {
  document.querySelectorAll("script.kommo_oauth").forEach(function (script) {
    var data = script.dataset;
    if (data.rendered) return;
    data.rendered = "1";
    var button = document.createElement("button");
    button.type = "button";
    button.className = data.className || "kommo-oauth";
    button.textContent = data.title || "Connect with Kommo";
    button.addEventListener("click", function () {
      var query = new URLSearchParams({client_id: data.clientId, state: data.state || "", mode: data.mode || "popup"});
      var opened = window.open("https://www.kommo.com/oauth?" + query, "kommo_oauth", "width=750,height=580");
      if (!opened) window.location.href = "https://www.kommo.com/oauth?" + query;
    });
    script.parentNode.insertBefore(button, script.nextSibling);
  });
})();
"""
