"""Kommo's API v4: the account, contacts, companies, and subscriptions to webhooks."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from local.simulators.kommo.contact_writes import ContactWrites
from local.simulators.kommo.responses import hal, problem, read_body, unauthorized
from local.simulators.kommo.state import Account, State
from local.simulators.world import Route

MAX_PAGE = 250
MAX_WEBHOOKS = 100
# The defaults of `filter[updated_at][from]` and `filter[updated_at][to]`.
UPDATED_AT_DEFAULTS = (("from", "0"), ("to", "99999999999"))


class Api:
    def __init__(self, state: State) -> None:
        self.state = state
        self.contact_writes = ContactWrites(state.clock, self.authorized)

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/api/v4/account", self.show_account),
            Route("GET", "/api/v4/contacts", self.list_contacts),
            *self.contact_writes.routes(),
            Route("GET", "/api/v4/companies", self.list_companies),
            Route("GET", "/api/v4/webhooks", self.list_webhooks),
            Route("POST", "/api/v4/webhooks", self.subscribe),
            Route("DELETE", "/api/v4/webhooks", self.unsubscribe),
        ]

    def authorized(self, request: web.BaseRequest) -> Account | None:
        """The account of a request with a valid bearer token for this host."""
        scheme, _, access_token = request.headers.get("Authorization", "").partition(" ")
        token = self.state.access_tokens.get(access_token)
        if (
            scheme.lower() != "bearer"
            or token is None
            or token.grant.revoked
            or token.grant.host != request.host
            or self.state.clock.now() >= token.expires_at
        ):
            return None
        return self.state.accounts[request.host]

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
        return unauthorized() if account is None else page_of(request, "contacts", account.contacts.contacts)

    async def list_companies(self, request: web.BaseRequest, _: dict[str, str]) -> web.Response:
        account = self.authorized(request)
        return unauthorized() if account is None else page_of(request, "companies", account.contacts.companies)

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
        given = await read_body(request)
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
        destination = (await read_body(request)).get("destination")
        if not any(hook["destination"] == destination for hook in account.webhooks):
            return problem(404, "Not Found")
        account.webhooks = [hook for hook in account.webhooks if hook["destination"] != destination]
        return web.Response(status=204)


def page_of(request: web.BaseRequest, name: str, entities: list[dict[str, Any]]) -> web.Response:
    """One page of a collection, filtered and sorted, with a link to the next page; 204 after the last page."""
    query = request.query
    try:
        page, limit = int(query.get("page", "1")), int(query.get("limit", "50"))
        ids = {int(value) for value in query.getall("filter[id][]", [])} | {
            int(value) for key, value in query.items() if key.startswith("filter[id][") and key != "filter[id][]"
        }
        since, until = (int(query.get(f"filter[updated_at][{end}]", value)) for end, value in UPDATED_AT_DEFAULTS)
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
