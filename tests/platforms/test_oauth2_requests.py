"""Requests to any OAuth 2.0 provider: the URL of its consent page, and the three requests to its token endpoint."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, parse_qsl, unquote_plus, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portaria.core.callbacks import OAuthClient, Secret
from portaria.core.entities import Connection
from portaria.core.errors import Rejected, Retryable
from portaria.core.http.messages import Request, Response
from portaria.outbound import http_client
from portaria.platforms.oauth2 import install, tokens

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
CLIENT = OAuthClient(
    "oauth2",
    "erp",
    "client-1",
    "https://api.example.com/install/oauth2/erp",
    "read write",
    authorize_url="https://login.example.com/authorize",
    token_url="https://login.example.com/oauth/token?tenant=a%20b",
)
SECRET = Secret("canary-client-secret")
printable = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=60)


def connection(scopes: str = "", kind: str = "oauth2") -> Connection:
    return Connection(
        "main", "oauth2", kind, "api.example.com", "connected", 1, "secret", client="erp", fields={"scopes": scopes}
    )


def exchange(client: OAuthClient = CLIENT, host: str = "login.example.com") -> Request:
    return tokens.exchange_request(client, SECRET, host, Secret("canary-code"), Secret("canary-verifier"))


def form(request: Request) -> dict[str, str]:
    pairs = parse_qsl((request.body or b"").decode(), keep_blank_values=True, strict_parsing=True)
    assert len(pairs) == len(dict(pairs)), "no parameter may come twice (RFC 6749, 3.2)"
    return dict(pairs)


def basic(request: Request) -> tuple[str, str]:
    scheme, _, encoded = request.headers["Authorization"].partition(" ")
    assert scheme == "Basic"
    name, _, password = base64.b64decode(encoded).decode().partition(":")
    return unquote_plus(name), unquote_plus(password)


class TestTokenEndpoint:
    def test_oauth2_exchange_request_posts_code_verifier_and_redirect_uri(self) -> None:
        request = exchange()
        assert (request.method, request.url) == ("POST", CLIENT.token_url)
        assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
        assert request.headers["Accept"] == "application/json"
        assert form(request) == {
            "grant_type": "authorization_code",
            "code": "canary-code",
            "redirect_uri": CLIENT.redirect_uri,
            "code_verifier": "canary-verifier",
        }
        assert basic(request) == ("client-1", "canary-client-secret")
        http_client.check(request, "login.example.com")

    def test_oauth2_exchange_request_with_post_authentication_has_no_header(self) -> None:
        request = exchange(CLIENT._replace(token_auth="post"))
        assert "Authorization" not in request.headers
        sent = form(request)
        assert (sent["client_id"], sent["client_secret"]) == ("client-1", "canary-client-secret")

    def test_oauth2_refresh_request_has_no_scope(self) -> None:
        request = tokens.refresh_request(connection("read"), CLIENT, SECRET, Secret("canary-refresh"))
        assert form(request) == {"grant_type": "refresh_token", "refresh_token": "canary-refresh"}
        assert basic(request) == ("client-1", "canary-client-secret")

    @pytest.mark.parametrize(
        ("own", "clients", "asked"),
        [("read", "read write", "read"), ("", "read write", "read write"), ("", "", None), ("a b", "", "a b")],
    )
    def test_oauth2_token_request_uses_scopes_of_connection_then_client(
        self, own: str, clients: str, asked: str | None
    ) -> None:
        client = CLIENT._replace(scopes=clients, grant="client_credentials")
        request = tokens.token_request(connection(own, "client_credentials"), {"client_secret": SECRET}, client)
        assert form(request).get("scope") == asked
        assert form(request)["grant_type"] == "client_credentials"
        assert basic(request) == ("client-1", "canary-client-secret")

    @pytest.mark.parametrize(("credentials", "client"), [({}, CLIENT), ({"client_secret": SECRET}, None)])
    def test_oauth2_token_request_without_secret_or_client_is_refused(
        self, credentials: dict[str, Secret], client: OAuthClient | None
    ) -> None:
        with pytest.raises(Rejected, match="no_credentials"):
            tokens.token_request(connection(), credentials, client)

    @pytest.mark.parametrize("host", ["evil.example", "", "login.example.com.evil.example", "api.example.com"])
    def test_oauth2_exchange_request_for_another_host_is_refused(self, host: str) -> None:
        with pytest.raises(Rejected, match="client_changed"):
            exchange(host=host)

    def test_oauth2_token_domain_is_host_of_token_url(self) -> None:
        assert tokens.token_domain(connection(), CLIENT) == "login.example.com"
        # The connection's own domain differs: it is for calls, not for the client's secret.
        with pytest.raises(Rejected, match="host_not_allowed"):
            http_client.check(exchange(), connection().allowed_domain)

    @given(client_id=printable, secret=printable)
    def test_oauth2_token_requests_encode_any_client_id_and_secret(self, client_id: str, secret: str) -> None:
        client = CLIENT._replace(client_id=client_id)
        request = tokens.refresh_request(connection(), client, Secret(secret), Secret("r"))
        assert basic(request) == (client_id, secret)
        posted = tokens.refresh_request(connection(), client._replace(token_auth="post"), Secret(secret), Secret("r"))
        assert (form(posted)["client_id"], form(posted)["client_secret"]) == (client_id, secret)
        for each in (request, posted):
            http_client.check(each, "login.example.com")
            assert secret not in each.url or secret in CLIENT.token_url

    def test_oauth2_basic_authentication_encodes_space_as_percent_20(self) -> None:
        """Authlib's server decodes percent-encoding and keeps a plus; every form decoder reads both."""
        request = tokens.refresh_request(connection(), CLIENT, Secret("canary a+b:c/d=%"), Secret("r"))
        encoded = request.headers["Authorization"].partition(" ")[2]
        assert base64.b64decode(encoded) == b"client-1:canary%20a%2Bb%3Ac%2Fd%3D%25"

    def test_oauth2_kinds_need_no_credentials_and_validate_scopes(self) -> None:
        assert set(tokens.KINDS) == set(tokens.CLIENT_GRANTS.values())
        for kind in tokens.KINDS.values():
            assert kind.credentials == ()
            assert set(kind.optional) == set(kind.fields)
            for text in ("", "read", "read write", "x" * 1000):
                assert kind.fields["scopes"].fullmatch(text)
            for text in (" ", "read ", " read", "a\nb", "ação", "x" * 1001):
                assert not kind.fields["scopes"].fullmatch(text)


class TestTokenResponse:
    @pytest.mark.parametrize("after", ["Wed, 21 Oct 2026 07:28:00 GMT", "", "soon"])
    def test_oauth2_read_grant_429_with_unreadable_retry_after_is_retryable(self, after: str) -> None:
        with pytest.raises(Retryable) as later:
            tokens.read_grant(Response(429, {"retry-after": after}), NOW)
        assert later.value.after_s is not None
        assert 0 < later.value.after_s <= 300

    @given(
        scope=st.lists(printable, max_size=40).map(" ".join)
        | st.lists(printable.map(lambda text: text.replace(",", ".")), max_size=40).map(",".join)
        | st.text(max_size=400)
    )
    def test_oauth2_granted_scopes_are_cut_at_whole_scopes(self, scope: str) -> None:
        granted = tokens._granted(scope)
        assert len(granted) <= 255
        assert granted.isascii()
        # Only whole scopes: the text after the cut begins with a separator.
        text = " ".join("".join(letter if "!" <= letter <= "~" else " " for letter in scope).split())
        assert text.startswith(granted)
        assert granted == text or not granted or text[len(granted)] in " ,"

    def test_oauth2_read_grant_without_expires_in_has_no_known_end(self) -> None:
        grant = tokens.read_grant(Response(200, {}, b'{"access_token": "canary", "refresh_token": "canary"}'), NOW)
        assert grant.expires_at == tokens.NO_KNOWN_END
        assert grant.expires_at > NOW


class TestAuthorizationUrl:
    def url(self, scopes: str = "read write", **client: Any) -> str:
        return install.authorization_url(CLIENT._replace(**client), Secret("state-1"), "challenge-1", scopes)

    def test_oauth2_authorization_url_has_parameters_of_the_rfcs(self) -> None:
        url = self.url()
        assert url.startswith("https://login.example.com/authorize?")
        assert parse_qs(urlsplit(url).query) == {
            "response_type": ["code"],
            "client_id": ["client-1"],
            "redirect_uri": [CLIENT.redirect_uri],
            "scope": ["read write"],
            "state": ["state-1"],
            "code_challenge": ["challenge-1"],
            "code_challenge_method": ["S256"],
        }
        # Some providers decode + as a plus.
        assert "read%20write" in url

    def test_oauth2_authorization_url_keeps_existing_query(self) -> None:
        url = self.url(authorize_url="https://login.example.com/authorize?prompt=consent&audience=a%2Fb")
        assert url.startswith("https://login.example.com/authorize?prompt=consent&audience=a%2Fb&response_type=code&")

    def test_oauth2_authorization_url_without_scopes_has_no_scope_parameter(self) -> None:
        assert "scope" not in parse_qs(urlsplit(self.url(scopes="")).query, keep_blank_values=True)

    @given(client_id=printable, scopes=st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=60))
    def test_oauth2_authorization_url_client_values_add_no_parameter(self, client_id: str, scopes: str) -> None:
        query = parse_qs(urlsplit(self.url(scopes, client_id=client_id)).query)
        assert set(query) <= set(install.OWN_PARAMETERS)
        assert query["client_id"] == [client_id]

    def test_oauth2_parse_arrival_without_state_is_refused(self) -> None:
        with pytest.raises(Rejected, match="missing_state"):
            install.parse_callback({"code": ["canary-code"]})

    @pytest.mark.parametrize(("length", "reason"), [(4_000, None), (4_001, "code_too_long")])
    def test_oauth2_parse_arrival_code_over_4000_characters_is_refused(self, length: int, reason: str | None) -> None:
        query = {"code": ["c" * length], "state": ["s"]}
        if reason:
            with pytest.raises(Rejected, match=reason):
                install.parse_callback(query)
        else:
            install.parse_callback(query)
