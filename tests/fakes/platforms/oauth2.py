"""An OAuth 2.0 provider and its API in process, at the edge of the outbound client, and a stack with one connection to it.

The local cloud's simulator is the full provider; this one is for tests that need a token of any life or an answer of any shape.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from unittest.mock import patch
from urllib.parse import parse_qs

from portaria.connections import connection_store, oauth_clients, vault
from portaria.connections.tokens.cache import Token, TokenCache
from portaria.connections.tokens.provider import TokenProvider
from portaria.connections.vault import Vault
from portaria.core import clock
from portaria.core.callbacks import OAuthClient, Secret
from portaria.core.entities import Connection
from portaria.core.errors import Retryable
from portaria.core.http.messages import Request, Response
from portaria.outbound import http_client
from tests.fakes.aws.moto_cloud import PREFIX, Cloud

NAME = "shop-main"
HOST, API = "login.example.com", "api.example.com"
CLIENT = OAuthClient(
    "oauth2",
    "shop",
    "client-1",
    "https://hooks.example.com/install/oauth2/shop",
    authorize_url=f"https://{HOST}/authorize",
    token_url=f"https://{HOST}/token",
    api_domains=API,
)


@dataclass
class Provider:
    """`answers` are given instead of tokens: each once, the last for ever. `dead` holds access tokens that the API refuses.

    `expires_in` is left out of the answers where it is None. `takes_s` is how long an answer takes.
    """

    expires_in: Any = 3_600
    rotates: bool = True
    takes_s: float = 0.0
    answers: list[Response | Retryable] = field(default_factory=list)
    dead: set[str] = field(default_factory=set)
    calls: Counter[str] = field(default_factory=Counter)
    shown: list[str] = field(default_factory=list)

    def send(self, request: Request, *, allowed_domain: str, follow_redirects: int = 0, owner: str = "") -> Response:
        http_client.check(request, allowed_domain)
        if request.url.startswith(f"https://{API}/"):
            token = request.headers["Authorization"].removeprefix("Bearer ")
            self.calls["api"] += 1
            return Response(401 if token in self.dead else 200)
        form = {name: values[0] for name, values in parse_qs((request.body or b"").decode()).items()}
        self.calls[form["grant_type"]] += 1
        clock.sleep(self.takes_s)
        if form["grant_type"] == "refresh_token":
            self.shown.append(form["refresh_token"])
        if self.answers:
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if isinstance(answer, Retryable):
                raise answer
            return answer
        return self.gives(sum(self.calls[grant] for grant in ("refresh_token", "client_credentials")))

    def gives(self, number: int) -> Response:
        body = {"access_token": f"canary-a-{number}", "token_type": "Bearer"}
        body |= {} if self.expires_in is None else {"expires_in": self.expires_in}
        body |= {"refresh_token": f"canary-r-{number}"} if self.rotates else {}
        return json_answer(200, body)


def json_answer(status: int, body: Any) -> Response:
    return Response(status, {"content-type": "application/json"}, json.dumps(body).encode())


class Shop:
    """A stack with the OAuth client `shop`, and `shop-main`, connected with the pair `canary-a-0` and `canary-r-0`."""

    def __init__(self, stack: Cloud, provider: Provider) -> None:
        self.stack, self.provider = stack, provider
        self.table, self.vault = stack.table, Vault(PREFIX)
        oauth_clients.put(self.table, CLIENT, new=True)
        client_secret = {"client_secret": Secret("canary-client-secret")}
        self.vault.create(self.vault.client_secret_id("oauth2", "shop"), client_secret)

    def connect(self, life_s: float, *, refresh_token: str = "canary-r-0", **more: Any) -> Connection:
        """Store a connection whose access token was just issued with this lifetime."""
        secret_id = f"{PREFIX}/grants/{NAME}"
        version = vault.version_id(secret_id, 1)
        now = clock.to_iso(clock.now())
        ends = clock.to_iso(clock.now() + timedelta(seconds=life_s))
        stored = {
            "access_token": "canary-a-0",
            "expires_at": ends,
            "given_at": now,
            "token_type": "bearer",
            "scopes": "",
        }
        stored |= {"refresh_token": refresh_token} if refresh_token else {}
        self.vault.create(secret_id, {name: Secret(text) for name, text in stored.items()} | more, version)
        made = Connection(
            NAME, "oauth2", "oauth2", API, "connected", 1, secret_id, version, client="shop", created_at=now,
            updated_at=now, granted_at=now, token_ends_at=ends,
        )  # fmt: skip
        self.table.put(connection_store.to_item(made))
        return made

    def process(self, time_left_s: float = 600.0, **more: Any) -> TokenProvider:
        """A new process, with empty caches."""
        key = self.stack.environment["SEALING_KEY_ID"]
        return TokenProvider(self.table, self.vault, key, lambda: time_left_s, cache=TokenCache(), **more)

    @property
    def connection(self) -> Connection:
        return connection_store.get(self.table, NAME)

    @property
    def item(self) -> dict[str, Any]:
        return connection_store.get_item(self.table, NAME)

    def token(self, process: TokenProvider | None = None) -> str:
        return (process or self.process()).token(self.connection).credentials["access_token"].reveal()

    def call(self, process: TokenProvider | None = None) -> int:
        """The status of a call to the API with the connection's token."""
        return (process or self.process()).send(self.connection, _request).status


def _request(token: Token) -> Request:
    headers = {"Authorization": f"Bearer {token.credentials['access_token'].reveal()}"}
    return Request("GET", f"https://{API}/me", headers)


@contextmanager
def serving(provider: Provider) -> Iterator[Provider]:
    """All requests of the outbound client reach this provider and its API."""
    with patch.object(http_client, "send", provider.send):
        yield provider
