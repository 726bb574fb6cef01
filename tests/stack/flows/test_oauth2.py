"""A connection to a generic OAuth 2.0 provider on the deployed template; a requests session plays the user's browser."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from html import unescape
from typing import Any
from urllib.parse import urljoin

import pytest

from tests.fakes.local_cloud.scenes import wait_for
from tests.fakes.local_cloud.session import LocalCloud, Web


class Provider:
    """A simulated provider, with this project's OAuth client and connection for it, named after the test."""

    def __init__(self, cloud: LocalCloud, **settings: Any) -> None:
        self.cloud = cloud
        self.name = f"p{secrets.token_hex(4)}"
        self.install_url = f"{cloud.public_url}/install/oauth2/{self.name}"
        secret = f"canary-{secrets.token_hex(16)}"
        self.urls = cloud.control.add_oauth2_provider(
            self.name, f"id-{self.name}", secret, redirect_uri=self.install_url, **settings
        )
        self.client = {
            "platform": "oauth2",
            "name": self.name,
            "client_id": f"id-{self.name}",
            "client_secret": secret,
            "redirect_uri": self.install_url,
            "scopes": "read write",
            "token_url": self.urls["token_url"],
            "api_domains": [self.urls["host"]],
        }

    def create(self, resource: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self.cloud.admin.post(f"{self.cloud.public_url}/admin/v1/{resource}", json=body)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    def connect(self, kind: str) -> dict[str, Any]:
        body = {"platform": "oauth2", "name": self.name, "kind": kind, "client": self.name}
        return self.create("connections", {**body, "allowed_domain": self.urls["host"]})

    def connection(self) -> dict[str, Any]:
        return dict(self.cloud.admin.get(f"{self.cloud.public_url}/admin/v1/connections/{self.name}").json())

    def link(self) -> str:
        answer = self.cloud.admin.post(f"{self.cloud.public_url}/admin/v1/connections/{self.name}/authorizations")
        assert answer.status_code == 201, answer.text
        return str(answer.json()["url"])

    def decide(self, browser: Web, link: str, decision: str) -> Any:
        """Open the link, consent or refuse on the provider's page, and return."""
        consent = browser.get(link)
        assert consent.url.startswith(f"{self.urls['authorize_url']}?"), consent.text
        choice = re.search(rf'href="([^"]*decision={decision}[^"]*)"', consent.text)
        assert choice, consent.text
        return browser.get(urljoin(consent.url, unescape(choice[1])))


@pytest.fixture
def browser(stack: LocalCloud) -> Iterator[Web]:
    with Web(stack.stack) as browser:
        yield browser


def test_oauth2_authorization_allowed_connects_the_connection_once(stack: LocalCloud, browser: Web) -> None:
    provider = Provider(stack, scopes="read")
    provider.create("oauth-clients", {**provider.client, "authorize_url": provider.urls["authorize_url"]})
    assert provider.connect("oauth2")["state"] == "pending"
    link = provider.link()

    shown = provider.decide(browser, link, "allow")

    assert shown.status_code == 200
    assert shown.url.startswith(f"{provider.install_url}/result/")
    assert "code=" not in shown.url
    connection = wait_for(provider.connection, lambda found: found["state"] != "pending")
    assert (connection["state"], connection["scopes"], connection["generation"]) == ("connected", "read", 1)
    ended = wait_for(
        lambda: browser.get(shown.url, headers={"Accept": "application/json"}).json(),
        lambda found: found["state"] in ("connected", "failed"),
    )
    assert ended["state"] == "connected"
    assert stack.control.oauth2(provider.name)["calls"] == {"authorization_code issued": 1}
    # A link opens once, even in the browser that used it.
    again = browser.get(link, headers={"Accept": "text/html"})
    assert again.status_code == 404
    assert "used_link" in again.text


def test_oauth2_authorization_denied_leaves_connection_pending(stack: LocalCloud, browser: Web) -> None:
    provider = Provider(stack)
    provider.create("oauth-clients", {**provider.client, "authorize_url": provider.urls["authorize_url"]})
    provider.connect("oauth2")

    shown = provider.decide(browser, provider.link(), "deny")

    assert shown.status_code == 200
    assert 'data-state="refused"' in shown.text
    assert provider.connection()["state"] == "pending"
    assert stack.control.oauth2(provider.name)["calls"] == {}


def test_oauth2_client_credentials_connect_without_authorization(stack: LocalCloud) -> None:
    provider = Provider(stack, token_auth="basic")
    provider.create("oauth-clients", {**provider.client, "grant": "client_credentials"})
    assert provider.connect("client_credentials")["state"] == "connected"
    calls = stack.control.oauth2(provider.name)["calls"]
    assert set(calls) == {"client_credentials issued"}
    answer = stack.admin.post(f"{stack.public_url}/admin/v1/connections/{provider.name}/authorizations")
    assert answer.status_code == 409
