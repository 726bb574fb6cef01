"""Kommo's token endpoint: the request, and that only a documented refusal ends an install."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from portaria.core.callbacks import OAuthClient, Secret
from portaria.core.errors import Rejected, Retryable
from portaria.core.http.messages import Response
from portaria.platforms.kommo import tokens

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
CLIENT = OAuthClient("kommo", "acme", "client-1", "https://api.example.com/live/install/kommo/acme/")
HINTS = {
    "Authorization code has been revoked": "code_used",
    "Authorization code has expired": "code_expired",
    "Cannot decrypt the authorization code": "bad_code",
    "Check the `client_id` parameter": "wrong_client",
    "Redirect URI is not associated with client": "wrong_redirect_uri",
    "Invalid account": "invalid_account",
    "Token has been revoked": "code_used",
}


def test_kommo_exchange_request_posts_code_and_exact_redirect_uri() -> None:
    request = tokens.exchange_request(CLIENT, Secret("canary-secret-1"), "acme.kommo.com", Secret("canary-code-1"))
    assert (request.method, request.url) == ("POST", "https://acme.kommo.com/oauth2/access_token")
    assert request.body is not None
    assert json.loads(request.body) == {
        "client_id": "client-1",
        "client_secret": "canary-secret-1",
        "grant_type": "authorization_code",
        "code": "canary-code-1",
        # Exactly as registered, including the slash.
        "redirect_uri": "https://api.example.com/live/install/kommo/acme/",
    }
    assert request.headers["Content-Type"] == "application/json"
    # Giving up on the response would lose the grant.
    assert request.read_timeout_s >= 15


@pytest.mark.parametrize("hint", HINTS)
@pytest.mark.parametrize("title", ["Некорректный запрос", "Bad Request", "", None])
@pytest.mark.parametrize("status", [400, 401])
def test_kommo_read_grant_hint_decides_reason(hint: str, title: str | None, status: int) -> None:
    body = {"hint": hint, "title": title, "type": "https://example.com", "status": status, "detail": "Подробности"}
    with pytest.raises(Rejected) as refused:
        tokens.read_grant(Response(status, {}, json.dumps(body).encode()), NOW)
    assert refused.value.reason == HINTS[hint]
    assert refused.value.detail.isascii()


def test_kommo_read_grant_each_reason_has_its_own_advice() -> None:
    details = [detail for _, detail in tokens._FINAL_HINTS.values()]
    assert len(set(details)) == len(details)
    assert {refusal.reason for refusal, _ in tokens._FINAL_HINTS.values()} == set(HINTS.values())


FIELDS = st.dictionaries(st.sampled_from(["title", "status", "detail"]) | st.text(max_size=6), st.text(max_size=6))


@given(
    status=st.integers(100, 599).filter(lambda status: status not in (200, 400, 401, 404)),
    body=st.binary(max_size=60) | FIELDS.map(lambda fields: json.dumps(fields).encode()),
)
@example(status=403, body=b'{"hint":"","status":403}')
@example(status=422, body=b'{"title":"Unprocessable","status":422}')
def test_kommo_read_grant_other_status_is_retryable(status: int, body: bytes) -> None:
    """The code may still be valid."""
    with pytest.raises(Retryable) as later:
        tokens.read_grant(Response(status, {}, body), NOW)
    assert later.value.answer_lost is False


@pytest.mark.parametrize("status", [400, 401])
@pytest.mark.parametrize(
    "body", [b"", b"<html>nginx</html>", b"[]", b"null", b"\xff", b'"Authorization code has expired"']
)
def test_kommo_read_grant_body_not_from_kommo_is_retryable(status: int, body: bytes) -> None:
    with pytest.raises(Retryable):
        tokens.read_grant(Response(status, {}, body), NOW)


@pytest.mark.parametrize(
    ("header", "body", "after_s"),
    [
        ("3", {"retry_after": 9}, 3),
        ("soon", {"retry_after": 9}, 9),
        (None, {"retry_after": "9"}, 9),
        (None, {"retry_after": None}, 2),
        (None, {"retry_after": [1]}, 2),
        ("nan", {}, 2),
        ("inf", {}, 2),
        ("0", {}, 1),
        (None, [], 2),
        (None, "<html>", 2),
    ],
)
def test_kommo_not_now_wait_is_read_and_limited(header: str | None, body: object, after_s: float) -> None:
    headers = {"retry-after": header} if header else {}
    assert tokens.not_now(Response(429, headers, json.dumps(body).encode())).after_s == after_s


def test_kommo_grant_repr_holds_no_secret() -> None:
    body = {"access_token": "canary-1", "refresh_token": "canary-2", "expires_in": 86400}
    assert "canary" not in repr(tokens.read_grant(Response(200, {}, json.dumps(body).encode()), NOW))
