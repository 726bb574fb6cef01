"""The domains for an OAuth client's tokens: registered with the client, and checked for each of its connections."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import responses
from hypothesis import given
from hypothesis import strategies as st

from portaria.connections import connection_store, oauth_clients
from portaria.connections.vault import Vault
from portaria.core.callbacks import OAuthClient, Secret, domain_inside
from portaria.core.entities import Connection
from portaria.core.item_keys import oauth_client_key
from portaria.core.stored_reasons import ConnectionReason
from portaria.outbound import http_client
from tests.fakes.api.manage import Manage, watched
from tests.fakes.aws.moto_cloud import PREFIX, Cloud

MACHINE: dict[str, Any] = {
    "platform": "oauth2",
    "name": "machine",
    "grant": "client_credentials",
    "client_id": "client-1",
    "client_secret": "canary-client-secret",
    "token_url": "https://login.example.com/token",
    "api_domains": ["api.example.com", "*.shop.example.com"],
}
CONSENT = {
    **MACHINE,
    "name": "consent",
    "grant": "authorization_code",
    "authorize_url": "https://login.example.com/authorize",
}
KOMMO = {"platform": "kommo", "name": "acme", "client_id": "client-1", "client_secret": "canary-client-secret"}
OWN = ("api.example.com", "shop.example.com", "eu.shop.example.com", "*.eu.shop.example.com", "*.shop.example.com")
FOREIGN = (
    "evil.example.net",
    "example.com",
    "*.example.com",
    "*.api.example.com",
    "api.example.com.evil.net",
    "xshop.example.com",
)


@pytest.fixture
def manage(stack: Cloud) -> Iterator[Manage]:
    with watched(stack) as manage, responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        mock.add("POST", MACHINE["token_url"], json={"access_token": "canary-token", "expires_in": 3600})
        yield manage


def connect(manage: Manage, client: str, domain: str, **more: Any) -> Any:
    kind = "client_credentials" if client == "machine" else "oauth2"
    body = {"platform": "oauth2", "name": "one", "kind": kind, "client": client, "allowed_domain": domain}
    return manage.call("POST", "/connections", {**body, **more})


def legacy(
    manage: Manage, platform: str = "oauth2", name: str = "consent", grant: str = "authorization_code"
) -> OAuthClient:
    """A client as it was stored before `api_domains` existed."""
    client = OAuthClient(
        platform, name, "client-1", f"https://api.example.com/install/{platform}/{name}",
        authorize_url=CONSENT["authorize_url"], token_url=CONSENT["token_url"], grant=grant,
    )  # fmt: skip
    if platform == "kommo":
        client = client._replace(authorize_url="", token_url="")
    oauth_clients.put(manage.cloud.table, client, new=True)
    vault = Vault(PREFIX)
    vault.replace(vault.client_secret_id(platform, name), {"client_secret": Secret("canary-client-secret")})
    pk, sk = oauth_client_key(platform, name)
    manage.cloud.table.update(pk, sk, "REMOVE api_domains")
    return client


def stored(manage: Manage, client: str, domain: str, state: str, platform: str = "oauth2") -> Connection:
    made = Connection("one", platform, "oauth2", domain, state, 1, "", client=client)
    connection_store.create(manage.cloud.table, made)
    return made


# ------------------------------------------------------------------------------------------------- creating a connection


@pytest.mark.parametrize("client", [MACHINE, CONSENT], ids=lambda client: client["name"])
@pytest.mark.parametrize("domain", OWN)
def test_create_connection_inside_client_domains_is_created(
    manage: Manage, client: dict[str, Any], domain: str
) -> None:
    manage.call("POST", "/oauth-clients", client)
    made = connect(manage, client["name"], domain)
    assert (made.status, made.content.get("allowed_domain")) == (201, domain)


@pytest.mark.parametrize("client", [MACHINE, CONSENT], ids=lambda client: client["name"])
@pytest.mark.parametrize("domain", FOREIGN)
def test_create_connection_outside_client_domains_is_refused(
    manage: Manage, client: dict[str, Any], domain: str
) -> None:
    """A program that may create connections cannot choose where the client's tokens are sent."""
    manage.call("POST", "/oauth-clients", client)
    refused = connect(manage, client["name"], domain)
    assert (refused.status, refused.content["field"]) == (400, "allowed_domain")
    assert refused.content["type"].endswith(":domain_not_registered")
    assert "api_domains" in refused.content["detail"]
    assert connection_store.find(manage.cloud.table, "one") is None


def test_create_connection_client_without_domains_is_refused(manage: Manage) -> None:
    legacy(manage, name="machine", grant="client_credentials")
    refused = connect(manage, "machine", "api.example.com")
    assert (refused.status, refused.content["field"]) == (409, "client")
    assert refused.content["type"].endswith(":api_domains_missing")
    assert "administrator must add api.example.com to its api_domains" in refused.content["detail"]


# -------------------------------------------------------------------------------------------------------- authorization


@pytest.mark.parametrize(("state", "status"), [("pending", 409), ("connected", 201), ("needs_reconnect", 201)])
def test_authorize_client_without_domains_allows_only_connections_that_had_tokens(
    manage: Manage, state: str, status: int
) -> None:
    legacy(manage)
    stored(manage, "consent", "api.example.com", state)
    answer = manage.call("POST", "/connections/one/authorizations")
    assert answer.status == status
    if status == 409:
        assert answer.content["type"].endswith(":api_domains_missing")


@pytest.mark.parametrize("state", ["pending", "connected", "needs_reconnect"])
def test_authorize_connection_outside_client_domains_is_refused(manage: Manage, state: str) -> None:
    manage.call("POST", "/oauth-clients", CONSENT)
    stored(manage, "consent", "evil.example.net", state)
    answer = manage.call("POST", "/connections/one/authorizations")
    assert answer.status == 409
    assert answer.content["type"].endswith(":domain_not_registered")


# --------------------------------------------------------------------------------------------------------- OAuth clients


@pytest.mark.parametrize("client", [MACHINE, CONSENT], ids=lambda client: client["name"])
def test_create_oauth_client_without_domains_is_refused(manage: Manage, client: dict[str, Any]) -> None:
    answer = manage.call("POST", "/oauth-clients", {name: client[name] for name in client if name != "api_domains"})
    assert (answer.status, answer.content["field"]) == (400, "api_domains")


@pytest.mark.parametrize(
    "domains",
    [
        [], "api.example.com", ["*.com.au"], ["127.0.0.1"], ["https://api.example.com"], ["api.example.com/x"], ["*"],
        ["localhost"], [1], [""], ["api.example.com", "github.io"], [f"a{number}.example.com" for number in range(21)],
    ],
    ids=repr,
)  # fmt: skip
def test_create_oauth_client_invalid_domains_are_refused(manage: Manage, domains: Any) -> None:
    answer = manage.call("POST", "/oauth-clients", {**MACHINE, "api_domains": domains})
    assert answer.status == 400
    assert answer.content["field"].startswith("api_domains")
    assert manage.call("GET", "/oauth-clients").content["items"] == []


def test_create_oauth_client_domains_are_lowercased_and_deduplicated(manage: Manage) -> None:
    body = {**MACHINE, "api_domains": ["API.example.com", "api.example.com", "*.Shop.example.com"]}
    assert manage.call("POST", "/oauth-clients", body).content["api_domains"] == [
        "api.example.com",
        "*.shop.example.com",
    ]


def test_replace_oauth_client_without_domains_keeps_them(manage: Manage) -> None:
    manage.call("POST", "/oauth-clients", MACHINE)
    body = {"client_id": "client-2", "token_url": MACHINE["token_url"]}
    answer = manage.call("PUT", "/oauth-clients/oauth2/machine", body)
    assert (answer.status, answer.content["api_domains"]) == (200, MACHINE["api_domains"])


def test_replace_oauth_client_domains_that_exclude_a_connection_is_refused(manage: Manage) -> None:
    manage.call("POST", "/oauth-clients", MACHINE)
    connect(manage, "machine", "eu.shop.example.com")
    body = {name: value for name, value in MACHINE.items() if name not in ("platform", "name")}
    narrowed = manage.call("PUT", "/oauth-clients/oauth2/machine", {**body, "api_domains": ["api.example.com"]})
    assert (narrowed.status, narrowed.content["field"]) == (409, "api_domains")
    assert "one is outside" in narrowed.content["detail"]
    manage.call("DELETE", "/connections/one")
    assert (
        manage.call("PUT", "/oauth-clients/oauth2/machine", {**body, "api_domains": ["api.example.com"]}).status == 200
    )


def test_replace_oauth_client_without_stored_domains_warns(manage: Manage) -> None:
    legacy(manage)
    stored(manage, "consent", "api.example.com", "connected")
    body = {name: CONSENT[name] for name in ("client_id", "authorize_url", "token_url")}
    silent = manage.call("PUT", "/oauth-clients/oauth2/consent", body)
    assert (silent.status, silent.content["api_domains"]) == (200, [])
    assert "api_domains is missing" in silent.content["warnings"][0]
    named = manage.call("PUT", "/oauth-clients/oauth2/consent", {**body, "api_domains": ["api.example.com"]})
    assert (named.status, named.content["warnings"]) == (200, [])


def test_replace_oauth_client_reconnects_connections_stopped_by_refused_grants(manage: Manage) -> None:
    manage.call("POST", "/oauth-clients", MACHINE)
    stored(manage, "machine", "api.example.com", "connected")
    pk, sk = connection_store.key("one")
    ended = {":state": "needs_reconnect", ":reason": ConnectionReason.REFUSED_TOO_LONG}
    names = {"#state": "state", "#reason": "reason"}
    manage.cloud.table.update(pk, sk, "SET #state = :state, #reason = :reason", values=ended, names=names)
    body = {"client_id": "client-1", "client_secret": "canary-right", "token_url": MACHINE["token_url"]}
    assert manage.call("PUT", "/oauth-clients/oauth2/machine", body).status == 200
    assert connection_store.get(manage.cloud.table, "one").state == "connected"


# ---------------------------------------------------------------------------------------- platforms with domains of their own


def test_create_kommo_client_without_domains_has_platform_domain(manage: Manage) -> None:
    assert manage.call("POST", "/oauth-clients", KOMMO).content["api_domains"] == ["*.kommo.com"]
    other = manage.call("POST", "/oauth-clients", {**KOMMO, "name": "ru", "api_domains": ["*.amocrm.ru"]})
    assert (other.status, other.content["api_domains"]) == (201, ["*.amocrm.ru"])


@pytest.mark.parametrize("domain", ["evil.example.net", "kommo.com.evil.net", "*.com", "*.amocrm.net"])
def test_create_kommo_client_with_foreign_domains_is_refused(manage: Manage, domain: str) -> None:
    answer = manage.call("POST", "/oauth-clients", {**KOMMO, "api_domains": ["*.kommo.com", domain]})
    assert (answer.status, answer.content["field"].partition(".")[0]) == (400, "api_domains")


def test_api_domains_legacy_kommo_client_is_kommo_com(manage: Manage) -> None:
    client = legacy(manage, "kommo", "acme")
    assert oauth_clients.api_domains(client) == ("*.kommo.com",)
    assert manage.call("GET", "/oauth-clients/kommo/acme").content["api_domains"] == ["*.kommo.com"]


# ----------------------------------------------------------------------------------------------------------- validation


labels = st.sampled_from(["a", "b", "api", "example", "com"])
names = st.lists(labels, min_size=2, max_size=4).map(".".join)
domains = names | names.map(lambda name: f"*.{name}")


@given(domain=domains, registered=domains, host=names)
def test_domain_inside_any_host_it_allows_is_allowed_by_registered_domain(
    domain: str, registered: str, host: str
) -> None:
    if domain_inside(domain, (registered,)) and http_client.host_allowed(host, domain):
        assert http_client.host_allowed(host, registered)
