"""The transparent proxy on the deployed template: a client whose base URL is a connection of Portaria."""

from __future__ import annotations

import secrets
from typing import Any

import requests

from tests.fakes.local_cloud.scenes import secret
from tests.fakes.local_cloud.session import LocalCloud

LEADCONNECTOR = "services.leadconnectorhq.com"


class Client:
    """A vendor's client: it knows the API's paths and headers, and takes a base URL and a token."""

    def __init__(self, session: requests.Session, base_url: str, token: str) -> None:
        self.session, self.base_url = session, base_url
        self.headers = {"Authorization": f"Bearer {token}", "Version": "2021-07-28"}

    def request(self, method: str, path: str, headers: dict[str, str] | None = None, **sent: Any) -> requests.Response:
        return self.session.request(method, f"{self.base_url}{path}", headers=self.headers | (headers or {}), **sent)


def test_client_with_another_base_url_works_through_the_proxy(stack: LocalCloud) -> None:
    """Given a connection and a token that may call it, when a client uses the proxy as its base URL, then the API's statuses,
    headers and bodies arrive, and Portaria's own errors can be told from them."""
    name, location = f"t{secrets.token_hex(4)}", secrets.token_hex(8)
    pit = secret("pit-")
    stack.control.add_leadconnector_location(location)
    stack.control.add_leadconnector_token(pit, location)
    admin = f"{stack.public_url}/admin/v1"
    connection = {"name": name, "platform": "http", "kind": "bearer", "allowed_domain": LEADCONNECTOR}
    made = stack.admin.post(f"{admin}/connections", json={**connection, "credentials": {"token": pit}})
    assert made.status_code == 201, made.text
    integration = {"name": "client", "scopes": [f"connections:call@{name}"]}
    token = stack.admin.post(f"{admin}/private-integrations", json=integration).json()["token"]
    client = Client(stack.web, f"{stack.public_url}/v1/connections/{name}/proxy", token)

    found = client.request("GET", f"/locations/{location}")
    assert (found.status_code, found.json()["location"]["id"]) == (200, location)
    assert found.headers["Content-Type"].startswith("application/json")
    assert "X-Portaria-Error" not in found.headers

    contact = client.request("POST", "/contacts/upsert", json={"locationId": location, "email": "maria@example.com"})
    assert contact.status_code == 201, contact.text
    shown = client.request("GET", f"/contacts/{contact.json()['contact']['id']}")
    assert (shown.status_code, "maria@example.com" in shown.text) == (200, True)

    refused = client.request("PUT", "/none", data=b"\x00\xff\x89PNG", headers={"Content-Type": "image/png"})
    assert (refused.status_code, "X-Portaria-Error" in refused.headers) == (404, False)

    for other in (
        Client(stack.web, client.base_url, "portaria_" + "0" * 48),
        Client(stack.web, client.base_url.replace(name, "none"), token),
    ):
        own = other.request("GET", f"/locations/{location}")
        assert (own.status_code in (401, 403), own.headers["X-Portaria-Error"]) == (True, "true")
        assert own.headers["Content-Type"] == "application/problem+json"
    entries = stack.admin.get(f"{admin}/audit", params={"limit": 20}).json()["items"]
    assert {"proxy_post", "proxy_put"} <= {entry["operation"] for entry in entries if entry["target"] == name}
