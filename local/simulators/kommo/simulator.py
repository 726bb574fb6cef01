"""The simulated Kommo: its hosts, routes and rate limit, and changes to an account's contacts and companies."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from local.simulators.kommo.api import Api
from local.simulators.kommo.consent import ConsentPage
from local.simulators.kommo.events import event_form
from local.simulators.kommo.responses import problem
from local.simulators.kommo.state import State
from local.simulators.kommo.token_endpoint import TokenEndpoint
from local.simulators.kommo.webhooks import WebhookSender
from local.simulators.people import change_entity, new_company, new_contact
from local.simulators.world import BadInstruction, Route, World, nginx_forbidden

API_HOST = "api-c.kommo.com"
CONSENT_HOSTS = ("www.kommo.com", "www.amocrm.com", "www.amocrm.ru")
KINDS = ("contact", "company")


class Kommo:
    platform = "kommo"
    hosts: tuple[str, ...] = ("*.kommo.com", "*.amocrm.com", "*.amocrm.ru")

    def __init__(self, world: World, proxy_url: str = "") -> None:
        self.state = State(world.clock)
        self.webhooks = WebhookSender(self.state, proxy_url)
        self.consent = ConsentPage(self.state)
        self.tokens = TokenEndpoint(self.state)
        self.api = Api(self.state)

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
        """Create, change or delete a contact or a company, and send the event to the account's webhooks.

        Without an `id` a new entity is created. `fields` are those that `people.change_entity` accepts. A `lost` event is
        not sent; any other is sent `times` times. Returns the entity's `id` and `updated_at`, the form of the `event`, and the
        `answers` to the first deliveries.
        """
        account = self.state.account(host)
        if kind not in KINDS:
            raise BadInstruction(f"kind must be one of {', '.join(KINDS)}")
        entities = account.contacts.contacts if kind == "contact" else account.contacts.companies
        entity = next((each for each in entities if each["id"] == id), None)
        if id is not None and entity is None:
            raise BadInstruction(f"the account has no {kind} {id}")
        action = "delete" if delete else "update" if entity else "add"
        if entity is None:
            create = new_contact if kind == "contact" else new_company
            entity = create(account.id, account.host, entities, account.contacts.companies)
        if delete:
            entities.remove(entity)
        else:
            change_entity(entity, fields or {}, account.contacts.companies)
            entity["updated_at"] = int(self.state.clock.now())
        if action == "add":
            entities.append(entity)
        answers = []
        form = event_form(account, action, kind, entity)
        if not lost:
            for _ in range(times):
                answers += await self.webhooks.send(account, f"{action}_{kind}", form)
        account.contact_count = len(account.contacts.contacts)
        return {"id": entity["id"], "updated_at": entity["updated_at"], "event": form, "answers": answers}

    # ------------------------------------------------------------------------------------------------ serving.Simulator

    def routes(self, host: str) -> list[Route]:
        if host in CONSENT_HOSTS:
            return self.consent.routes()
        if host == API_HOST:
            return [Route("GET", "/oauth2/account/current/subdomain", self.tokens.current_subdomain)]
        if host not in self.state.accounts:
            return []
        return [Route("POST", "/oauth2/access_token", self.tokens.answer), *self.api.routes()]

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
        """Allow seven requests per second for each account. A caller that continues gets 403 for every request."""
        account = self.state.accounts.get(request.host)
        if account is None:
            return None
        limits, clock = self.state.limits, self.state.clock
        if account.blocked_until > clock.now():
            return nginx_forbidden()
        now = time.monotonic()
        drop_before(account.recent, now - 1)
        drop_before(account.over_limit, now - 10)
        if len(account.recent) < limits.requests_per_s:
            account.recent.append(now)
            return None
        account.over_limit.append(now)
        if len(account.over_limit) >= limits.block_after:
            account.blocked_until = clock.now() + limits.block_s
        return problem(429, "Too Many Requests", retry_after=1)


def drop_before(times: deque[float], start: float) -> None:
    while times and times[0] < start:
        times.popleft()
