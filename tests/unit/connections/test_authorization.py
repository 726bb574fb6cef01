"""How the credential of each kind of connection is added to a request."""

from __future__ import annotations

from base64 import b64decode

import pytest

from portaria.connections import request_auth
from portaria.connections.tokens.cache import Token
from portaria.core.callbacks import Secret
from portaria.core.entities import Connection
from portaria.core.errors import Rejected
from portaria.core.http.messages import Request
from portaria.outbound import http_client


def connection(platform: str, kind: str, **fields: str) -> Connection:
    return Connection("one", platform, kind, "api.example.com", "connected", 1, "secret", fields=fields)


def token(**credentials: str) -> Token:
    found = {name: Secret(value) for name, value in credentials.items()}
    return Token(found, 1, "version")


CASES = [
    (connection("http", "api_key", header_name="X-Api-Key"), token(key="canary-a b"), {"X-Api-Key": "canary-a b"}),
    (connection("http", "bearer"), token(token="canary-t"), {"Authorization": "Bearer canary-t"}),
    (connection("http", "basic"), token(username="u", password="p"), {"Authorization": "Basic dTpw"}),
    (connection("kommo", "oauth2"), token(access_token="canary-a"), {"Authorization": "Bearer canary-a"}),
    (connection("oauth2", "oauth2"), token(access_token="canary-a"), {"Authorization": "Bearer canary-a"}),
    (connection("oauth2", "client_credentials"), token(access_token="canary-a"), {"Authorization": "Bearer canary-a"}),
    (connection("engage", "password"), token(access_token="canary-a"), {"Authorization": "Bearer canary-a"}),
    (
        connection("marketo", "client_credentials"),
        token(access_token="canary:int"),
        {"X-Mkto-User-Token": "canary:int"},
    ),
    (
        connection("leadconnector", "bearer", location_id="l1"),
        token(token="pit-canary"),
        {"Authorization": "Bearer pit-canary", "Version": "2021-07-28"},
    ),
]


@pytest.mark.parametrize(("one", "its_token", "expected"), CASES, ids=lambda value: getattr(value, "platform", ""))
def test_request_auth_headers_each_kind_has_its_header(
    one: Connection, its_token: Token, expected: dict[str, str]
) -> None:
    headers = request_auth.headers(one, its_token)
    assert headers == expected
    http_client.check(Request("GET", "https://api.example.com/", headers), "api.example.com")


@pytest.mark.parametrize(
    ("username", "password"), [("u", ""), ("", "key"), ("usuário", "senhão com espaço"), ("u", "a:b:c"), ("u", "日本")]
)
def test_request_auth_headers_basic_is_utf_8_and_allows_empty_halves(username: str, password: str) -> None:
    """RFC 7617: everything after the first colon is the password."""
    headers = request_auth.headers(connection("http", "basic"), token(username=username, password=password))
    kind, _, pair = headers["Authorization"].partition(" ")
    assert (kind, b64decode(pair).decode()) == ("Basic", f"{username}:{password}")


@pytest.mark.parametrize("one", [case[0] for case in CASES], ids=lambda one: f"{one.platform}-{one.kind}")
def test_request_auth_headers_credentials_of_another_kind_are_refused(one: Connection) -> None:
    with pytest.raises(Rejected, match="no_credentials"):
        request_auth.headers(one, token(other="canary"))


def test_request_auth_credential_headers_excludes_other_headers() -> None:
    """A version header may follow a redirect to another host of the domain, a token must not."""
    one = connection("leadconnector", "bearer", location_id="l1")
    assert list(request_auth.credential_headers(one, token(token="canary").credentials)) == ["Authorization"]
    key = connection("http", "api_key", header_name="X-Api-Key")
    assert list(request_auth.credential_headers(key, token(key="canary").credentials)) == ["X-Api-Key"]
