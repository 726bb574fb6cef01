"""The token endpoint of any OAuth 2.0 provider, for codes, refresh tokens and client credentials.

https://www.rfc-editor.org/rfc/rfc6749#section-5 (responses), sections 4.1.3, 4.4 and 6 (requests), 2.3.1 (authentication);
https://www.rfc-editor.org/rfc/rfc7636 (PKCE). `answers` reads responses, also those that differ from the RFCs.
"""

from __future__ import annotations

import re
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from math import isfinite
from urllib.parse import quote, urlencode, urljoin, urlsplit

from portaria.core.callbacks import OAuthClient, Secret
from portaria.core.entities import Connection, Grant, Kind, kept_scopes
from portaria.core.errors import (
    AnswerUnreadable,
    BadScopes,
    CodeRefused,
    GrantRevoked,
    NoCredentials,
    PlatformFailed,
    PlatformRefused,
    RateLimited,
    Rejected,
    Retryable,
    TypedRejected,
    WrongClient,
    WrongRedirectUri,
)
from portaria.core.http.messages import Request, Response
from portaria.platforms.oauth2 import answers
from portaria.platforms.oauth2.answers import UNREADABLE

KIND = "oauth2"
# A connection is created without credentials: the OAuth client has them, or a person gives consent. `scopes` replaces the
# client's scopes.
_SCOPES = re.compile(r"[\x21-\x7e]([\x20-\x7e]{0,998}[\x21-\x7e])?|")
KINDS = {
    "oauth2": Kind(credentials=(), fields={"scopes": _SCOPES}, optional={"scopes": ""}),
    "client_credentials": Kind(credentials=(), fields={"scopes": _SCOPES}, optional={"scopes": ""}),
}
# The grants that a client can use → the kind of connection that each makes.
CLIENT_GRANTS = {"authorization_code": "oauth2", "client_credentials": "client_credentials"}
# Long, because the response to an exchange or a refresh comes once: a timeout loses the grant.
TOKEN_TIMEOUT_S = 15.0
# RFC 6749, 4.1.2 recommends at most ten minutes.
CODE_LIFE = timedelta(minutes=10)
# Providers differ in the life of an unused refresh token.
REFRESH_LIFE: timedelta | None = None
# The end of an access token without a stated life: it is used until the provider refuses it.
NO_KNOWN_END = datetime(9999, 1, 1, tzinfo=UTC)
MAX_TOKEN_LENGTH = 16_000
MAX_ANSWER_BYTES = 1_000_000

_TOKEN = re.compile(rf"[\x21-\x7e]{{1,{MAX_TOKEN_LENGTH}}}")
_CLIENT_REFUSED = (
    "the provider refused the client id or the client secret: check both, and token_auth. Some providers take only one of "
    "basic and post, and some do not decode the special characters of an id or a secret that basic encodes (RFC 6749, "
    "2.3.1): post works with those"
)
_REDIRECT_URI = (
    "the redirect URI differs from the one registered with the provider: make both equal, trailing slash included"
)
_REFUSALS: dict[str, tuple[type[TypedRejected], str]] = {
    "invalid_client": (WrongClient, _CLIENT_REFUSED),
    "incorrect_client_credentials": (WrongClient, _CLIENT_REFUSED),
    "bad_client_secret": (WrongClient, _CLIENT_REFUSED),
    "bad_client_id": (WrongClient, _CLIENT_REFUSED),
    "unauthorized_client": (WrongClient, ("the provider does not allow this client to use this grant: check the "
        "OAuth client's settings there")),
    "invalid_client_id": (WrongClient, "the provider does not know this client_id: check the OAuth client"),
    "redirect_uri_mismatch": (WrongRedirectUri, _REDIRECT_URI),
    "bad_redirect_uri": (WrongRedirectUri, _REDIRECT_URI),
    "invalid_scope": (BadScopes, ("the provider does not grant these scopes: check the scopes of the OAuth client "
        "and the connection")),
    "unsupported_grant_type": (PlatformRefused, "the provider does not offer this grant at its token URL"),
    "invalid_request": (PlatformRefused, "the provider found the request malformed: check token_url and token_auth"),
}  # fmt: skip
# Some servers respond with invalid_request to a different redirect URI (django-oauth-toolkit, node-oauth2-server).
_MALFORMED_EXCHANGE = (
    "the provider found the request malformed: where a code was exchanged, check first that the redirect URI equals the one "
    "registered with the provider, trailing slash included; then check token_url and token_auth"
)
_CODE_OVER = (
    "the provider does not take the code: used before, too old, or the redirect URI differs from the registered one"
)
_REFRESH_OVER = "the provider does not take the refresh token any more"
_PERMANENT_REDIRECTS = (301, 308)
# A path that can be shown, because it cannot contain a credential or markup.
_SHOWABLE_PATH = re.compile(r"/[A-Za-z0-9._~/-]{0,100}")


def refuse_unknown_account(connection: Connection, response: Response) -> None:
    """OAuth 2.0 defines no error for an unknown account."""


def requested_scopes(connection: Connection, client: OAuthClient) -> str:
    """Return the connection's scopes, otherwise the client's."""
    return connection.fields.get("scopes", "") or client.scopes


def granted_as_requested(connection: Connection, client: OAuthClient) -> str:
    """Return the requested scopes: a response without scopes grants all of them (RFC 6749, 5.1)."""
    return _granted(requested_scopes(connection, client))


def token_domain(connection: Connection, client: OAuthClient | None) -> str:
    """Return the token URL's host. Without a client it is empty, and no request can be sent."""
    return token_host(client) if client else ""


def token_host(client: OAuthClient) -> str:
    return urlsplit(client.token_url).hostname or ""


def exchange_request(
    client: OAuthClient, client_secret: Secret, account_host: str, code: Secret, code_verifier: Secret | None = None
) -> Request:
    """Raises `Rejected` (`client_changed`) if the client's token endpoint has changed since the authorization began.

    `account_host` was the token endpoint's host then.
    """
    if account_host != token_host(client):
        raise Rejected(
            "client_changed", "the OAuth client's token_url has changed since the authorization began: start again"
        )
    values = {"grant_type": "authorization_code", "code": code.reveal(), "redirect_uri": client.redirect_uri}
    if code_verifier:
        values["code_verifier"] = code_verifier.reveal()
    return _request(client, client_secret, values)


def refresh_request(
    connection: Connection, client: OAuthClient, client_secret: Secret, refresh_token: Secret
) -> Request:
    """The request has no `scope`, so that the new token has the scopes of the old one (RFC 6749, 6)."""
    return _request(client, client_secret, {"grant_type": "refresh_token", "refresh_token": refresh_token.reveal()})


def token_request(connection: Connection, credentials: dict[str, Secret], client: OAuthClient | None) -> Request:
    """Client credentials (RFC 6749, 4.4). `credentials` holds the client's `client_secret`. Raises `NoCredentials`."""
    if client is None or "client_secret" not in credentials:
        raise NoCredentials("this connection needs an OAuth client and its secret")
    scopes = requested_scopes(connection, client)
    values = {"grant_type": "client_credentials"} | ({"scope": scopes} if scopes else {})
    return _request(client, credentials["client_secret"], values)


def read_grant(response: Response, now: datetime) -> Grant:
    """Return the tokens for a code or for client credentials. Empty `scopes` means that the requested scopes are granted.

    Raises the type of each final refusal, and `Retryable` while the same request may still work.
    """
    return _read(response, now)


def read_refreshed(response: Response, now: datetime, refresh_token: Secret) -> Grant:
    """Return the new tokens. The refresh token stays if the response has no other; empty `scopes` means the same scopes.

    Raises `GrantRevoked` if the refresh token has ended, another `Rejected` if the grant is not the cause, and `Retryable`.
    """
    grant = _read(response, now, refreshing=True)
    if grant.refresh_token:
        return grant
    return Grant(grant.access_token, grant.expires_at, refresh_token, grant.token_type, grant.scopes)


def _request(client: OAuthClient, client_secret: Secret, values: dict[str, str]) -> Request:
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
    if client.token_auth == "post":  # noqa: S105
        values |= {"client_id": client.client_id, "client_secret": client_secret.reveal()}
    else:
        # Both are form-encoded before they are joined (RFC 6749, 2.3.1). A space becomes %20, which every form decoder reads.
        # Servers that only decode percent-encoding (Authlib) do not read +.
        pair = f"{quote(client.client_id, safe='')}:{quote(client_secret.reveal(), safe='')}"
        headers["Authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
    return Request(
        "POST",
        client.token_url,
        headers,
        urlencode(values).encode(),
        read_timeout_s=TOKEN_TIMEOUT_S,
        max_response_bytes=MAX_ANSWER_BYTES,
    )


def _read(response: Response, now: datetime, *, refreshing: bool = False) -> Grant:
    if response.status == 429:
        raise RateLimited("the provider's rate limit is reached (429)", after_s=_retry_after(response))
    if response.status >= 500:
        # The body does not matter: a provider that fails has not judged the grant.
        raise PlatformFailed(f"the provider answered {response.status}", after_s=_retry_after(response))
    body = answers.members(response)
    succeeded = response.status in (200, 201)
    if succeeded and body.get(answers.TOKEN):
        return _grant(body, now)
    if code := answers.error_code(body):
        raise _refusal(response, body, code, refreshing=refreshing)
    if succeeded:
        return _grant(body, now)
    if response.status in (404, 405, 410):
        raise Rejected(
            "wrong_token_url", f"the token URL answered {response.status}: check the OAuth client's token_url"
        )
    if response.status in _PERMANENT_REDIRECTS:
        raise Rejected("wrong_token_url", _moved(response))
    # Not the provider's response: a gateway's, or a page for people.
    raise PlatformFailed(f"the provider answered {response.status}", after_s=_retry_after(response))


def _refusal(response: Response, body: dict[str, object], code: str, *, refreshing: bool) -> Rejected | Retryable:
    if code in answers.NOT_NOW:
        return PlatformFailed("the provider is temporarily unavailable", after_s=_retry_after(response))
    if answers.grant_is_over(response, body, code, refreshing=refreshing):
        return GrantRevoked(_REFRESH_OVER) if refreshing else CodeRefused(_CODE_OVER)
    if code == "invalid_request" and not refreshing:
        return PlatformRefused(_MALFORMED_EXCHANGE)
    unknown = f"the provider refused with {response.status} and an unknown error"
    refusal, detail = _REFUSALS.get(code, (PlatformRefused, unknown))
    return refusal(detail)


def _moved(response: Response) -> str:
    """Return a sentence about the new place of a token URL. It has the path only if that can be shown."""
    advice = "check the OAuth client's token_url, its trailing slash included"
    try:
        location = urlsplit(urljoin("https://token.invalid/", response.headers.get("location", "")))
        if location.hostname == "token.invalid" and not location.query and _SHOWABLE_PATH.fullmatch(location.path):
            advice = f"its path is now {location.path}: correct the OAuth client's token_url"
    except ValueError:
        pass
    return f"the token URL has moved ({response.status}): {advice}"


def _grant(body: dict[str, object], now: datetime) -> Grant:
    try:
        access_token = body["access_token"]
        if not isinstance(access_token, str) or not _TOKEN.fullmatch(access_token):
            raise ValueError
        refresh_token = body.get("refresh_token") or ""
        if not isinstance(refresh_token, str) or not (_TOKEN.fullmatch(refresh_token) or not refresh_token):
            raise ValueError
    except UNREADABLE:
        raise AnswerUnreadable("the provider answered 200 without a usable token", answer_lost=True) from None
    token_type = body.get("token_type")
    return Grant(
        access_token=Secret(access_token),
        expires_at=_ends_at(body.get("expires_in"), now),
        refresh_token=Secret(refresh_token) if refresh_token else None,
        token_type=token_type.lower()[:32] if isinstance(token_type, str) and token_type.isascii() else "bearer",
        scopes=_granted(body.get("scope")),
    )


def _ends_at(expires_in: object, now: datetime) -> datetime:
    """Return the end from seconds as a number or as text. A missing, empty, zero or unreadable value means no known end."""
    try:
        seconds = float(expires_in) if isinstance(expires_in, int | float | str) else 0.0
    except UNREADABLE:
        return NO_KNOWN_END
    if isinstance(expires_in, bool) or not isfinite(seconds) or seconds <= 0:
        return NO_KNOWN_END
    return now + timedelta(seconds=seconds) if seconds < (NO_KNOWN_END - now).total_seconds() else NO_KNOWN_END


def _granted(scope: object) -> str:
    """Return the scopes of a response. Some providers send a list, or commas."""
    text = " ".join(str(each) for each in scope) if isinstance(scope, list) else scope
    return kept_scopes(" ".join(re.findall(r"[\x21-\x7e]+", text))) if isinstance(text, str) else ""


def _retry_after(response: Response) -> float | None:
    wait_s = response.retry_after_s()
    if wait_s is None:
        return 2.0 if response.status == 429 else None
    return min(300.0, max(1.0, wait_s))
