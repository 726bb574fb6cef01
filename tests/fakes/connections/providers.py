"""Platforms and an OAuth 2.0 provider that accept certain credentials, for connections of all kinds."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs

import requests
import responses

from portaria.connections.oauth_clients import put
from portaria.connections.vault import Vault
from portaria.core.callbacks import OAuthClient, Secret
from tests.fakes.aws.moto_cloud import PREFIX, Cloud
from tests.fakes.platforms.engage import Engage
from tests.fakes.platforms.leadconnector import LeadConnector

OLD, NEW = "pit-canary-old", "pit-canary-new"


PROVIDER = "login.example.com"


class World:
    """The platforms, each with the credentials it accepts, and an OAuth provider with one client of each grant type."""

    def __init__(self, mock: responses.RequestsMock, stack: Cloud) -> None:
        self.mock = mock
        self.engage = Engage(mock)
        self.leadconnector = LeadConnector(mock, OLD, NEW)
        self.granted = "read"
        self.asked: list[dict[str, str]] = []
        mock.add_callback("POST", f"https://{PROVIDER}/token", self._token)
        for name, grant in (("shop-app", "authorization_code"), ("shop-machine", "client_credentials")):
            client = OAuthClient(
                "oauth2", name, "client-1", f"https://api.example.com/install/oauth2/{name}", "read write",
                f"https://{PROVIDER}/authorize", f"https://{PROVIDER}/token", grant, "post", "*.example.com",
            )  # fmt: skip
            put(stack.table, client, new=True)
            vault = Vault(PREFIX)
            vault.replace(vault.client_secret_id("oauth2", name), {"client_secret": Secret("canary-client")})

    def _token(self, request: requests.PreparedRequest) -> Any:
        body = request.body.decode() if isinstance(request.body, bytes) else str(request.body)
        self.asked.append({name: values[0] for name, values in parse_qs(body).items()})
        answer = {"access_token": "canary-token", "token_type": "bearer", "expires_in": 3600}
        answer |= {"scope": self.granted} if self.granted else {}
        return 200, {"Content-Type": "application/json"}, json.dumps(answer)
