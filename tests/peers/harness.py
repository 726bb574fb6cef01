"""The product with a real authorization server: a stack in process, a browser, and several processes."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from typing import Any
from unittest.mock import patch
from urllib.parse import parse_qs, urljoin, urlsplit

import requests
from botocore.client import BaseClient

from portaria.connections import connection_store, oauth_clients
from portaria.connections.tokens.cache import Token, TokenCache
from portaria.connections.tokens.provider import TokenProvider
from portaria.connections.vault import Vault
from portaria.core import clock
from portaria.core.callbacks import OAuthClient, Secret
from portaria.core.entities import Connection
from portaria.core.http.messages import Request, Response
from portaria.core.item_keys import oauth_client_key
from portaria.installs import code_exchange
from portaria.installs.exchange_outcomes import ExchangeOutcome
from portaria.installs.install_messages import Install
from portaria.outbound import http_client
from portaria.platforms.oauth2.install import authorization_url
from tests.fakes.aws.moto_cloud import PREFIX, Cloud
from tests.fakes.connections import installs as fakes
from tests.peers.servers import CLIENTS, Client, Server

_REDIRECTS = (301, 302, 303, 307, 308)


class Harness:
    """One stack and one server. `sent` counts the requests to the token endpoint by grant type."""

    def __init__(self, stack: Cloud, server: Server) -> None:
        self.stack, self.server = stack, server
        self.table, self.vault = stack.table, Vault(PREFIX)
        self.sent: Counter[str] = Counter()
        for client in CLIENTS:
            self.register(client)

    def register(self, client: Client, **changes: Any) -> OAuthClient:
        url = self.server.url
        made = OAuthClient(
            "oauth2", client.name, client.client_id, client.redirect_uri, self.server.kind.scopes,
            url(self.server.kind.authorize), url(self.server.kind.token),
            "authorization_code" if client.redirect_uri else "client_credentials", client.token_auth, self.server.host,
        )._replace(**changes)  # fmt: skip
        oauth_clients.put(self.table, made, new=not self.table.get(*oauth_client_key("oauth2", made.name)))
        secret_id = self.vault.client_secret_id("oauth2", made.name)
        self.vault.replace(secret_id, {"client_secret": Secret(client.client_secret)})
        return made

    def client(self, name: str) -> OAuthClient:
        return oauth_clients.get(self.table, "oauth2", name)

    def connect(self, name: str = "plain") -> Connection:
        """The user consents, and the code becomes a connection of the client's name."""
        outcome = self.exchange(name, self.consent(name))
        assert outcome.state == "connected", outcome
        return self.connection(name)

    def consent(self, name: str, verifier: str | None = None) -> tuple[str, str]:
        """A browser on the consent page. Returns the code of the redirect, and PKCE's verifier."""
        client = self.client(name)
        verifier = verifier or secrets.token_urlsafe(40)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
        url = authorization_url(client, Secret("state-1"), challenge, client.scopes)
        with requests.Session() as browser:
            back = _browse(browser, url, client.redirect_uri)
        assert back["state"] == ["state-1"]
        return back["code"][0], verifier

    def exchange(self, name: str, came_back: tuple[str, str]) -> ExchangeOutcome:
        """Exchange a code as exchange_code does."""
        code, verifier = came_back
        if connection_store.find(self.table, name) is None:
            pending = Connection(name, "oauth2", "oauth2", self.server.host, "pending", 0, "", client=name)
            connection_store.create(self.table, pending)
        install = Install(
            secrets.token_hex(8), "oauth2", name, Secret(code), self.server.host, "browser", clock.now(), name,
            Secret(verifier),
        )  # fmt: skip
        return code_exchange.exchange(install, fakes.settings(self.stack), lambda: 40.0)

    def connection(self, name: str = "plain") -> Connection:
        return connection_store.get(self.table, name)

    def process(self) -> TokenProvider:
        """A new process, with empty caches."""
        return TokenProvider(
            self.table, self.vault, self.stack.environment["SEALING_KEY_ID"], lambda: 600.0, cache=TokenCache()
        )

    def pair(self, name: str = "plain") -> dict[str, str]:
        connection = self.connection(name)
        stored = self.vault.read(connection.secret_id, connection.version_id) or {}
        return {key: stored[key].reveal() for key in ("access_token", "refresh_token") if key in stored}

    def call(self, name: str = "plain", process: TokenProvider | None = None) -> int:
        """The status of a call to the API behind the server."""

        def build(token: Token) -> Request:
            headers = {"Authorization": f"Bearer {token.credentials['access_token'].reveal()}"}
            return Request("GET", self.server.url(self.server.kind.api), headers)

        return (process or self.process()).send(self.connection(name), build).status

    def post(self, path: str, name: str = "plain", **form: str) -> requests.Response:
        """A form that the client itself sends to one of the server's endpoints, which no part of the product sends."""
        client = next(each for each in CLIENTS if each.name == name)
        return requests.post(
            self.server.url(path), data=form, auth=(client.client_id, client.client_secret), timeout=20
        )


def _browse(browser: requests.Session, url: str, redirect_uri: str) -> dict[str, list[str]]:
    """Follow redirects and submit forms up to the redirect URI. Returns its query."""
    answer = browser.get(url, allow_redirects=False, timeout=20)
    for _ in range(20):
        if answer.status_code in _REDIRECTS:
            url = urljoin(url, answer.headers["Location"])
            if url.startswith(f"{redirect_uri}?"):
                return parse_qs(urlsplit(url).query)
            answer = browser.get(url, allow_redirects=False, timeout=20)
            continue
        action = re.search(r'<form[^>]*action="([^"]+)"', answer.text)
        assert action, f"{answer.status_code} at {url}: {answer.text[:500]}"
        hidden = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', answer.text))
        url = urljoin(url, unescape(action[1]))
        form = {**hidden, "login": "somebody", "password": "somebody"}
        answer = browser.post(url, data=form, allow_redirects=False, timeout=20)
    raise AssertionError("the browser went in circles")


@contextmanager
def beside(stack: Cloud, server: Server) -> Iterator[Harness]:
    """A harness whose token requests are counted, on an AWS with atomic conditional writes (moto's are not)."""
    harness, lock = Harness(stack, server), threading.RLock()
    send, call = http_client.send, BaseClient._make_api_call

    def counting(request: Request, **options: Any) -> Response:
        if request.url == server.url(server.kind.token):
            harness.sent[parse_qs((request.body or b"").decode())["grant_type"][0]] += 1
        return send(request, **options)

    def one_by_one(client: Any, *arguments: Any) -> Any:
        with lock:
            return call(client, *arguments)

    with patch.object(http_client, "send", counting), patch.object(BaseClient, "_make_api_call", one_by_one):
        yield harness
