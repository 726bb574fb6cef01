"""The function `call_connection`, called as API Gateway calls it, and connections for it to call."""

from __future__ import annotations

import io
from typing import Any

from portaria.connections import connection_store, vault
from portaria.connections.tokens.cache import PROCESS_CACHE
from portaria.connections.vault import Vault
from portaria.core.callbacks import Secret
from portaria.core.entities import Connection
from tests.fakes.api.manage import Answer, proxy_event, read, with_headers
from tests.fakes.aws import functions
from tests.fakes.aws.moto_cloud import PREFIX, Cloud

HOST = "api.example.com"
KEY = "canary-key/with+signs"
CREDENTIALS = {
    "api_key": {"key": KEY},
    "basic": {"username": "someone", "password": "canary-password"},
    "password": {"username": "someone", "password": "canary-password"},
    "bearer": {"token": "canary-token"},
    "oauth2": {
        "access_token": "canary-access",
        "refresh_token": "canary-refresh",
        "expires_at": "2099-01-01T00:00:00.000Z",
        "token_type": "bearer",
        "scopes": "",
    },
}


class Calling:
    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.module = functions.load("call_connection", cloud.environment)
        self.log = io.StringIO()
        functions.log_to(self.log)
        PROCESS_CACHE.clear()

    def connect(self, name: str, kind: str = "api_key", **changes: Any) -> Connection:
        """A connection as the API creates it."""
        store = Vault(PREFIX)
        secret_id = store.grant_id(name)
        version = vault.version_id(secret_id, 1)
        store.create(secret_id, {key: Secret(text) for key, text in CREDENTIALS[kind].items()}, version)
        given: dict[str, Any] = {
            "platform": "http",
            "allowed_domain": HOST,
            "state": "connected",
            "generation": 1,
            "fields": {"header_name": "X-Api-Key"} if kind == "api_key" else {},
        }
        connection = Connection(name=name, kind=kind, secret_id=secret_id, version_id=version, **(given | changes))
        connection_store.create(self.cloud.table, connection)
        return connection

    def call(self, body: Any, name: str = "keyed", **headers: str) -> Answer:
        """A `body` that is text is sent unchanged. No response and no log line ever contains a credential."""
        event = with_headers(proxy_event("POST", f"/connections/{name}/call", body), **headers)
        answer = read(event, self.module.handler(event, functions.Context()))
        for text in (answer.text, str(answer.headers), self.log.getvalue()):
            assert "canary" not in text
        return answer
