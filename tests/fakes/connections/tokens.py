"""A connected Kommo account, and processes that request its token."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import responses

from portaria.connections import connection_store, oauth_clients, vault
from portaria.connections.tokens.cache import TokenCache
from portaria.connections.tokens.provider import TokenProvider
from portaria.connections.vault import Vault
from portaria.core import clock
from portaria.core.callbacks import OAuthClient, Secret
from portaria.core.entities import Connection
from tests.fakes.aws.moto_cloud import PREFIX, Cloud
from tests.fakes.platforms import kommo as kommo_fake
from tests.fakes.platforms.kommo import Kommo
from tests.fakes.virtual_time import DAY_S, VirtualClock

NAME = "kommo-acme-1"


TOKEN_PATH = "/oauth2/access_token"


class Harness:
    """One stack, a connected Kommo account, and processes that request its token."""

    def __init__(self, stack: Cloud, mock: responses.RequestsMock, time: VirtualClock) -> None:
        self.stack, self.mock, self.time = stack, mock, time
        self.kommo = Kommo(mock)
        self.vault = Vault(PREFIX)
        self.table = stack.table
        oauth_clients.put(
            self.table, OAuthClient("kommo", "acme", kommo_fake.CLIENT_ID, kommo_fake.REDIRECT_URI), new=True
        )
        client_secret = {"client_secret": Secret(kommo_fake.CLIENT_SECRET)}
        self.vault.create(self.vault.client_secret_id("kommo", "acme"), client_secret)
        pair = self.kommo.connect("one", "acme")
        self.connection = self.add(
            Connection(
                NAME, "kommo", "oauth2", "acme.kommo.com", "connected", 1, f"{PREFIX}/grants/{NAME}", client="acme"
            ),
            {
                "access_token": Secret(pair["access_token"]),
                "refresh_token": Secret(pair["refresh_token"]),
                "expires_at": Secret(clock.to_iso(clock.now() + timedelta(days=1))),
                "token_type": Secret("bearer"),
                "scopes": Secret("crm"),
                "webhook_key": Secret("canary-webhook-key"),
            },
        )

    def add(self, connection: Connection, credentials: vault.Credentials) -> Connection:
        version = vault.version_id(connection.secret_id, 0)
        self.vault.create(connection.secret_id, credentials, version)
        now = clock.to_iso(clock.now())
        ends = credentials["expires_at"].reveal() if "expires_at" in credentials else ""
        made = replace(
            connection, version_id=version, created_at=now, updated_at=now, granted_at=now, token_ends_at=ends
        )
        self.table.put(connection_store.to_item(made))
        return made

    def process(self, time_left_s: float = 600.0, cache: TokenCache | None = None, **more: Any) -> TokenProvider:
        """A new process, with empty caches."""
        key = self.stack.environment["SEALING_KEY_ID"]
        return TokenProvider(self.table, self.vault, key, lambda: time_left_s, cache=cache or TokenCache(), **more)

    def ask(self, **how: Any) -> str:
        """The access token that a new process gets."""
        return self.process(**how).token(connection_store.get(self.table, NAME)).credentials["access_token"].reveal()

    @property
    def item(self) -> dict[str, Any]:
        return connection_store.get_item(self.table, NAME)

    def expire(self) -> None:
        self.time.passed_s += DAY_S

    def stored(self) -> vault.Credentials:
        return self.vault.read(self.item["secret_id"], self.item["version_id"]) or {}
