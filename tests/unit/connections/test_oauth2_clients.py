"""OAuth clients of generic providers: endpoints and grant types, and what a Kommo client may not set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from portaria.connections import connection_store, oauth_clients
from portaria.core.callbacks import OAuthClient
from portaria.core.entities import Connection
from portaria.core.item_keys import oauth_client_key
from tests.fakes.api.manage import API_HOST, NO_BRANDING, Manage, secrets_stored, watched
from tests.fakes.aws.moto_cloud import Cloud

CLIENT: dict[str, Any] = {
    "platform": "oauth2",
    "name": "erp",
    "client_id": "client-1",
    "client_secret": "canary-client-secret",
    "scopes": "read write",
    "authorize_url": "https://login.example.com/authorize?prompt=consent",
    "token_url": "https://login.example.com/token?tenant=one",
    "api_domains": ["api.example.com"],
}
KOMMO = {"platform": "kommo", "name": "acme", "client_id": "client-1", "client_secret": "canary-client-secret"}
WITHOUT_CONSENT = {
    **{name: value for name, value in CLIENT.items() if name != "authorize_url"},
    "grant": "client_credentials",
}
ENDPOINTS = ("authorize_url", "token_url")


@pytest.fixture
def manage(stack: Cloud) -> Iterator[Manage]:
    with watched(stack) as manage:
        yield manage


def without(body: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name not in names}


class TestGenericProviderClients:
    def test_create_oauth2_client_is_shown_and_listed_with_endpoints(self, manage: Manage) -> None:
        created = manage.call("POST", "/oauth-clients", CLIENT)
        assert created.status == 201
        assert created.content == {
            "platform": "oauth2",
            "name": "erp",
            "client_id": "client-1",
            "credentials_set": ["client_secret"],
            "redirect_uri": f"https://{API_HOST}/live/install/oauth2/erp",
            "scopes": "read write",
            "api_domains": ["api.example.com"],
            # There is no public install page: each connection has its own links.
            "install_page_url": None,
            "grant": "authorization_code",
            "authorize_url": CLIENT["authorize_url"],
            "token_url": CLIENT["token_url"],
            "token_auth": "basic",
            **NO_BRANDING,
            "warnings": [],
        }
        assert manage.call("GET", "/oauth-clients/oauth2/erp").content == created.content
        [listed] = manage.call("GET", "/oauth-clients").content["items"]
        assert listed == without(created.content, "warnings")

    def test_create_oauth2_client_is_stored_with_all_fields(self, manage: Manage) -> None:
        manage.call("POST", "/oauth-clients", {**CLIENT, "token_auth": "post"})
        assert oauth_clients.get(manage.cloud.table, "oauth2", "erp") == OAuthClient(
            "oauth2",
            "erp",
            "client-1",
            f"https://{API_HOST}/live/install/oauth2/erp",
            "read write",
            CLIENT["authorize_url"],
            CLIENT["token_url"],
            "authorization_code",
            "post",
            "api.example.com",
        )

    def test_create_oauth2_client_client_credentials_needs_no_authorize_url(self, manage: Manage) -> None:
        created = manage.call("POST", "/oauth-clients", WITHOUT_CONSENT)
        assert (created.status, created.content["grant"], created.content["authorize_url"]) == (
            201,
            "client_credentials",
            None,
        )

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            (without(CLIENT, "authorize_url"), "authorize_url"),
            (without(CLIENT, "token_url"), "token_url"),
            (without(WITHOUT_CONSENT, "token_url"), "token_url"),
            ({**CLIENT, "grant": "client_credentials"}, "authorize_url"),
            ({**CLIENT, "grant": "password"}, "grant"),
            ({**CLIENT, "grant": "implicit"}, "grant"),
            ({**CLIENT, "grant": 1}, "grant"),
            ({**CLIENT, "token_auth": "none"}, "token_auth"),
            ({**CLIENT, "token_auth": "client_secret_jwt"}, "token_auth"),
            ({**CLIENT, "token_url": "canary-token"}, "token_url"),
            ({**CLIENT, "tokenUrl": "https://login.example.com/token"}, "tokenUrl"),
        ],
        ids=repr,
    )
    def test_create_oauth2_client_invalid_field_is_refused_and_nothing_stored(
        self, manage: Manage, body: dict[str, Any], field: str
    ) -> None:
        answer = manage.call("POST", "/oauth-clients", body)
        assert (answer.status, answer.content["field"]) == (400, field)
        assert secrets_stored() == []
        assert manage.call("GET", "/oauth-clients").content["items"] == []

    @pytest.mark.parametrize("field", ENDPOINTS)
    @pytest.mark.parametrize(
        "url",
        [
            "https://login.example.com/token",
            "https://login.example.com",
            "https://login.example.com:443/token",
            "https://LOGIN.example.com/token",
            "https://login.example.com/o/token?realm=a%20b&x=*",
            "https://xn--bcher-kva.example.com/token",
            "https://tenant.eu.auth0.com/token",
            "https://login.example.com/" + "a" * 474,
        ],
    )
    def test_create_oauth2_client_public_https_endpoint_is_accepted(self, manage: Manage, field: str, url: str) -> None:
        answer = manage.call("POST", "/oauth-clients", {**CLIENT, field: url})
        assert (answer.status, answer.content.get(field)) == (201, url)

    @pytest.mark.parametrize("field", ENDPOINTS)
    @pytest.mark.parametrize(
        "url",
        [
            "",
            "login.example.com/token",
            "http://login.example.com/token",
            "HTTPS://login.example.com/token",
            "ftps://login.example.com/token",
            "https://",
            "https:///token",
            "https://login.example.com/token#fragment",
            "https://login.example.com/token#",
            "https://user@login.example.com/token",
            "https://user:canary@login.example.com/token",
            "https://login.example.com\\@evil.example/token",
            "https://login.example.com\\token",
            "https://login.example.com:8443/token",
            "https://login.example.com:/token",
            "https://login.example.com:443443/token",
            "https://login.example.com/a token",
            "https://login.example.com/token\n",
            "https://login.example.com/\r\nx: y",
            "https://login.example.com/tok\u00e9n",
            "https://lög\u00efn.example.com/token",
            "https://login.example.com/" + "a" * 475,
            "https://127.0.0.1/token",
            "https://2130706433/token",
            "https://0x7f.1/token",
            "https://[::1]/token",
            "https://169.254.169.254/latest/meta-data",
            "https://localhost/token",
            "https://metadata.google.internal/token",
            "https://login.local/token",
            "https://login.test/token",
            "https://com/token",
            "https://com.au/token",
            "https://myshopify.com/token",
            "https://*.example.com/token",
            "https://login.*.com/token",
            "https://login.example.com./token",
            "https://.example.com/token",
            "https://login..example.com/token",
            "https://-login.example.com/token",
            "https://log_in.example.com/token",
            "https://%6cogin.example.com/token",
            "https://" + "a" * 64 + ".example.com/token",
            "https://[bad/token",
            1,
            ["https://login.example.com/token"],
        ],
        ids=repr,
    )
    def test_create_oauth2_client_endpoint_not_public_https_is_refused(
        self, manage: Manage, field: str, url: Any
    ) -> None:
        answer = manage.call("POST", "/oauth-clients", {**CLIENT, field: url})
        assert (answer.status, answer.content["field"]) == (400, field)
        assert answer.content["detail"].startswith(f"{field} ")
        assert secrets_stored() == []

    @pytest.mark.parametrize(
        "name",
        ["response_type", "client_id", "redirect_uri", "scope", "state", "code_challenge", "code_challenge_method"],
    )
    def test_create_oauth2_client_authorize_url_with_reserved_parameter_is_refused(
        self, manage: Manage, name: str
    ) -> None:
        url = f"https://login.example.com/authorize?prompt=consent&{name}="
        answer = manage.call("POST", "/oauth-clients", {**CLIENT, "authorize_url": url})
        assert (answer.status, answer.content["field"]) == (400, "authorize_url")
        assert name in answer.content["detail"]

    def test_replace_oauth2_client_all_fields_except_name_and_grant_change(self, manage: Manage) -> None:
        manage.call("POST", "/oauth-clients", CLIENT)
        body = {
            "client_id": "client-2",
            "authorize_url": "https://other.example.com/authorize",
            "token_url": "https://login.example.com/other",
            "token_auth": "post",
        }
        answer = manage.call("PUT", "/oauth-clients/oauth2/erp", body)
        assert answer.status == 200
        assert {name: answer.content[name] for name in body} == body

        fixed = manage.call(
            "PUT", "/oauth-clients/oauth2/erp", {**without(body, "authorize_url"), "grant": "client_credentials"}
        )
        assert (fixed.status, fixed.content["field"]) == (409, "grant")
        assert manage.call("GET", "/oauth-clients/oauth2/erp").content == answer.content

    def test_replace_oauth2_client_other_token_host_requires_secret_and_no_connections(self, manage: Manage) -> None:
        manage.call("POST", "/oauth-clients", CLIENT)
        moved = {**without(CLIENT, "platform", "name", "client_secret"), "token_url": "https://other.example.com/token"}
        silent = manage.call("PUT", "/oauth-clients/oauth2/erp", moved)
        assert (silent.status, silent.content["field"]) == (400, "client_secret")

        connection = Connection("any-name", "oauth2", "oauth2", "api.example.com", "connected", 1, "", client="erp")
        connection_store.create(manage.cloud.table, connection)
        used = manage.call("PUT", "/oauth-clients/oauth2/erp", {**moved, "client_secret": "canary-new-secret"})
        assert (used.status, used.content["field"]) == (409, "token_url")
        assert manage.call("GET", "/oauth-clients/oauth2/erp").content["token_url"] == CLIENT["token_url"]

        manage.cloud.table.delete(*connection_store.key("any-name"))
        free = manage.call("PUT", "/oauth-clients/oauth2/erp", {**moved, "client_secret": "canary-new-secret"})
        assert (free.status, free.content["token_url"]) == (200, "https://other.example.com/token")

    def test_replace_oauth2_client_without_grant_keeps_it(self, manage: Manage) -> None:
        manage.call("POST", "/oauth-clients", WITHOUT_CONSENT)
        for body in (
            without(WITHOUT_CONSENT, "platform", "name"),
            {"client_id": "x", "token_url": CLIENT["token_url"]},
        ):
            answer = manage.call("PUT", "/oauth-clients/oauth2/erp", body)
            assert (answer.status, answer.content["grant"]) == (200, "client_credentials")
        answer = manage.call("PUT", "/oauth-clients/oauth2/erp", without(CLIENT, "platform", "name"))
        assert answer.status == 400

    def test_delete_oauth2_client_used_by_connection_is_refused(self, manage: Manage) -> None:
        manage.call("POST", "/oauth-clients", CLIENT)
        manage.call("POST", "/oauth-clients", {**CLIENT, "name": "erp-two"})
        connection = Connection("any-name", "oauth2", "oauth2", "api.example.com", "pending", 0, "", client="erp")
        connection_store.create(manage.cloud.table, connection)

        answer = manage.call("DELETE", "/oauth-clients/oauth2/erp")
        assert answer.status == 409
        assert "any-name" in answer.content["detail"]
        assert manage.call("DELETE", "/oauth-clients/oauth2/erp-two").status == 204

    def test_delete_oauth2_client_used_only_by_removed_connection_is_deleted(self, manage: Manage) -> None:
        manage.call("POST", "/oauth-clients", CLIENT)
        connection = Connection("any-name", "oauth2", "oauth2", "api.example.com", "removed", 1, "", client="erp")
        connection_store.create(manage.cloud.table, connection)
        assert manage.call("DELETE", "/oauth-clients/oauth2/erp").status == 204


class TestKnownPlatformClients:
    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("authorize_url", "https://login.example.com/authorize"),
            ("token_url", "https://login.example.com/token"),
            ("grant", "authorization_code"),
            ("grant", "client_credentials"),
            ("token_auth", "basic"),
        ],
    )
    def test_kommo_client_with_endpoint_or_grant_is_refused(self, manage: Manage, field: str, value: str) -> None:
        created = manage.call("POST", "/oauth-clients", {**KOMMO, field: value})
        assert (created.status, created.content["field"]) == (400, field)
        assert secrets_stored() == []
        assert manage.call("POST", "/oauth-clients", KOMMO).status == 201
        replaced = manage.call("PUT", "/oauth-clients/kommo/acme", {"client_id": "client-2", field: value})
        assert (replaced.status, replaced.content["field"]) == (400, field)

    def test_create_kommo_client_shows_install_page_and_no_endpoints(self, manage: Manage) -> None:
        shown = manage.call("POST", "/oauth-clients", KOMMO).content
        assert shown["install_page_url"] == f"https://{API_HOST}/live/install/kommo/acme/start"
        assert {shown[name] for name in ("grant", "authorize_url", "token_url", "token_auth")} == {None}

    def test_get_oauth_client_stored_without_endpoints_has_defaults(self, manage: Manage) -> None:
        pk, sk = oauth_client_key("kommo", "old")
        old = {"platform": "kommo", "name": "old", "client_id": "client-1", "redirect_uri": "https://a.example.com/x"}
        manage.cloud.table.put({"pk": pk, "sk": sk, **old, "scopes": ""})
        client = oauth_clients.get(manage.cloud.table, "kommo", "old")
        assert (client.authorize_url, client.token_url, client.grant) == ("", "", "authorization_code")


@pytest.mark.parametrize(
    ("redirect_uri", "token_url", "connection", "url"),
    [
        (
            "https://api.example.com/live/install/kommo/acme/",
            "",
            "x",
            "https://api.example.com/live/install/kommo/acme/start",
        ),
        (
            "https://api.example.com/live/install/kommo/acme",
            "https://login.example.com/token",
            "main",
            "https://api.example.com/live/admin/v1/connections/main/authorizations",
        ),
        ("https://hooks.example.com/elsewhere", "https://login.example.com/token", "main", ""),
        ("https://api.example.com/live/install/kommo/acme", "https://login.example.com/token", "", ""),
    ],
)
def test_reconnect_url_is_install_page_or_authorize_endpoint(
    redirect_uri: str, token_url: str, connection: str, url: str
) -> None:
    client = OAuthClient("kommo", "acme", "client-1", redirect_uri, token_url=token_url)
    assert oauth_clients.reconnect_url(client, connection) == url
