"""Synthetic contacts in Kommo's format, and Kommo's listing of them at the edge of `requests`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import requests
import responses

from portaria.connections import connection_store
from portaria.connections.vault import Vault
from portaria.core.callbacks import Secret
from portaria.core.entities import Connection, Route
from portaria.records import routes
from tests.fakes.aws.moto_cloud import PREFIX, Cloud
from tests.fakes.platforms import marketo
from tests.fakes.platforms.kommo import Answer

HOST = "acme.kommo.com"
SOURCE, DESTINATION, ROUTE = "kommo-acme-1001", "marketo-one", "people"


def contact(
    number: int, *, email: str | None = "", updated_at: int = 1_700_000_000, company: int = 0
) -> dict[str, Any]:
    """`email` is generated if it is empty and omitted if it is None."""
    email = f"person{number}@example.com" if email == "" else email
    values = [("PHONE", f"+1555{number:07d}"), *([("EMAIL", email)] if email else [])]
    return {
        "id": number,
        "name": f"Test Person{number}",
        "first_name": "Test",
        "last_name": f"Person{number}",
        "updated_at": updated_at,
        "custom_fields_values": [
            {"field_code": code, "field_type": "multitext", "values": [{"value": value, "enum_code": "WORK"}]}
            for code, value in values
        ],
        "_embedded": {"tags": [], "companies": [{"id": company}] if company else []},
    }


def person(number: int) -> dict[str, Any]:
    """The person that Marketo should have for a synthetic contact."""
    return {
        "firstName": "Test",
        "lastName": f"Person{number}",
        "email": f"person{number}@example.com",
        "phone": f"+1555{number:07d}",
    }


def set_up(cloud: Cloud, route: Route | None = None) -> Route:
    """A connection to Kommo, one to Marketo and a route between them."""
    vault = Vault(PREFIX)
    connect_kommo(cloud, 1)
    secret_id = vault.grant_id("marketo-one")
    credentials = {"client_id": Secret(marketo.CLIENT_ID), "client_secret": Secret(marketo.CLIENT_SECRET)}
    vault.create(secret_id, credentials)
    connection_store.create(
        cloud.table,
        Connection(
            DESTINATION, "marketo", "client_credentials", "mkto-ingestion-api.adobe.io", "connected", 1, secret_id,
            fields={"munchkin_id": marketo.MUNCHKIN},
        ),
    )  # fmt: skip
    route = route or Route(ROUTE, "client:kommo/acme", "contacts", DESTINATION)
    routes.put(cloud.table, route, new=True)
    return route


def connect_kommo(cloud: Cloud, generation: int) -> None:
    """Create or replace the connection to Kommo with the grant of a generation, whose token is `canary-access-{generation}`."""
    vault = Vault(PREFIX)
    secret_id = vault.grant_id(f"install-{generation}")
    token = {"access_token": f"canary-access-{generation}", "expires_at": "2999-01-01T00:00:00.000Z"}
    stored = {**token, "token_type": "bearer", "scopes": ""}
    vault.create(secret_id, {name: Secret(value) for name, value in stored.items()})
    connection = Connection(
        SOURCE,
        "kommo",
        "oauth2",
        HOST,
        "connected",
        generation,
        secret_id,
        client="acme",
        account_id="1001",
        updated_at="2026-01-01T00:00:00.000Z",
    )
    cloud.table.put(connection_store.to_item(connection))


class Listing:
    """Kommo's contacts and companies, at most `page_size` a page, and its webhooks.

    `before` holds answers to give to the next requests for contacts, each once, None for the true one; `meanwhile` is called
    before each of them. `tokens` are the access tokens that are good, `pages` those of contacts that were asked for.
    """

    def __init__(self, mock: responses.RequestsMock, contacts: list[dict[str, Any]], page_size: int = 250) -> None:
        self.contacts, self.page_size = contacts, page_size
        self.companies = {7: "Padaria Exemplo"}
        self.company_list: list[dict[str, Any]] = []
        self.before: list[Answer | Exception | None] = []
        self.meanwhile: Callable[[], object] = lambda: None
        self.tokens = {"canary-access-1"}
        self.pages: list[int] = []
        self.webhooks: list[dict[str, Any]] = []
        self.subscribe_status = 201
        self.unsubscribed: list[str] = []
        mock.add_callback("GET", re.compile(r"https://[a-z-]+\.kommo\.com/api/v4/contacts"), self._list_contacts)
        mock.add_callback("GET", re.compile(r"https://[a-z-]+\.kommo\.com/api/v4/companies"), self._list_companies)

    def take_webhooks(self, mock: responses.RequestsMock) -> None:
        url = re.compile(r"https://[a-z-]+\.kommo\.com/api/v4/webhooks")
        mock.add_callback("POST", url, self._subscribe)
        mock.add_callback("DELETE", url, self._unsubscribe)

    def _list_contacts(self, request: requests.PreparedRequest) -> Answer | Exception:
        self.pages.append(int(self._query(request)["page"][0]))
        self.meanwhile()
        if self.before and (answer := self.before.pop(0)):
            return answer
        return self._list(request, "contacts", self.contacts)

    def _list(self, request: requests.PreparedRequest, name: str, entities: list[dict[str, Any]]) -> Answer:
        if request.headers["Authorization"].removeprefix("Bearer ") not in self.tokens:
            return (
                401,
                {"Content-Type": "application/problem+json"},
                json.dumps({"title": "Unauthorized", "status": 401}),
            )
        query = {key: values[0] for key, values in self._query(request).items()}
        page, size = int(query["page"]), min(int(query["limit"]), self.page_size)
        since, until = (int(query.get(f"filter[updated_at][{end}]", default)) for end, default in EVER)
        order = "updated_at" if "order[updated_at]" in query else "id"
        found = [entity for entity in entities if since <= entity["updated_at"] <= until]
        found.sort(key=lambda entity: (entity[order], entity["id"]))
        shown = found[(page - 1) * size : page * size]
        links = {"next": {"href": "…"}} if len(found) > page * size else {}
        if not shown:
            return 204, {}, ""
        body = {"_page": page, "_links": links, "_embedded": {name: shown}}
        return 200, {"Content-Type": "application/hal+json"}, json.dumps(body)

    def _list_companies(self, request: requests.PreparedRequest) -> Answer:
        query = self._query(request)
        if "filter[id][]" not in query:
            return self._list(request, "companies", self.company_list)
        ids = [int(identifier) for identifier in query["filter[id][]"]]
        found = [{"id": one, "name": self.companies[one]} for one in ids if one in self.companies]
        return 200, {"Content-Type": "application/hal+json"}, json.dumps({"_embedded": {"companies": found}})

    def _subscribe(self, request: requests.PreparedRequest) -> Answer:
        if self.subscribe_status == 201:
            self.webhooks.append(json.loads(request.body or "{}"))
        return self.subscribe_status, {}, "{}"

    def _unsubscribe(self, request: requests.PreparedRequest) -> Answer:
        self.unsubscribed.append(json.loads(request.body or "{}")["destination"])
        return 204, {}, ""

    @staticmethod
    def _query(request: requests.PreparedRequest) -> dict[str, list[str]]:
        return parse_qs(urlsplit(str(request.url)).query)


EVER = (("from", "0"), ("to", "99999999999"))
