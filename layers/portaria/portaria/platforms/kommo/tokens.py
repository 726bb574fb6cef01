"""Kommo's token endpoint.

https://developers.kommo.com/docs/oauth-20 and https://developers.kommo.com/docs/get-token
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta

from portaria.core.callbacks import OAuthClient, Secret
from portaria.core.entities import Connection, Grant, Kind, kept_scopes
from portaria.core.errors import (
    AccountMoved,
    AnswerUnreadable,
    BadCode,
    CodeExpired,
    CodeUsed,
    GrantRevoked,
    InvalidAccount,
    PlatformFailed,
    PlatformRefused,
    RateBlocked,
    RateLimited,
    Retryable,
    TypedRejected,
    WrongClient,
    WrongRedirectUri,
)
from portaria.core.http.messages import Request, Response
from portaria.platforms.kommo.install import check_account_host, check_client_host

KIND = "oauth2"
# Connections are created by installs only.
KINDS: dict[str, Kind] = {}
# Long, because the response to an exchange comes once: a timeout loses the grant.
EXCHANGE_TIMEOUT_S = 15.0
# The lives of a code and of an unused refresh token.
CODE_LIFE = timedelta(minutes=20)
REFRESH_LIFE: timedelta | None = timedelta(days=90)
# What reading an undocumented response can raise, among them infinite numbers and unlimited nesting.
UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
# The wait after a rate block. Kommo blocks repeat offenders for all requests.
BLOCKED_WAIT_S = 30.0

# Each is compared with the start of Kommo's `hint` in lower case. `title` and `detail` can be in Russian.
_FINAL_HINTS: dict[str, tuple[type[TypedRejected], str]] = {
    "authorization code has been revoked": (CodeUsed, "the code had been used before"),
    "authorization code has expired": (CodeExpired, "the code reached Kommo after its 20 minutes"),
    "cannot decrypt the authorization code": (BadCode, "Kommo does not know this code"),
    "check the `client_id` parameter": (WrongClient, "Kommo does not know this client_id: check the OAuth client"),
    "redirect uri is not associated with client": (
        WrongRedirectUri,
        "the redirect URI differs from the one registered with Kommo: make both equal, trailing slash included",
    ),
    "invalid account": (InvalidAccount, "Kommo does not know the account at this host"),
    "token has been revoked": (CodeUsed, "the code had been used or revoked before"),
}

# Kommo's hints for a refresh token that is used, revoked, expired, or issued to another client: those of league/oauth2-server's
# RefreshTokenGrant.
_DEAD_GRANT_HINTS = (
    "token has been revoked", "token has expired", "cannot decrypt the refresh token", "token is not linked to client",
)  # fmt: skip
# The documented life of an access token, used if the response states no readable one.
ACCESS_LIFE = timedelta(days=1)
MAX_ACCESS_LIFE = timedelta(days=3_650)


def exchange_request(
    client: OAuthClient,
    client_secret: Secret,
    account_host: str,
    code: Secret,
    code_verifier: Secret | None = None,
) -> Request:
    """Build the exchange of a code. Kommo does not support PKCE, so `code_verifier` is not sent.

    The client secret is sent to `account_host`, so the host is checked again. Raises `Rejected`.
    """
    check_account_host(account_host)
    check_client_host(client, account_host)
    return _token_request(account_host, client, client_secret, "authorization_code", "code", code)


def refresh_request(
    connection: Connection, client: OAuthClient, client_secret: Secret, refresh_token: Secret
) -> Request:
    """The refresh token works once, so the caller must store the response before anything else."""
    return _token_request(
        connection.allowed_domain, client, client_secret, "refresh_token", "refresh_token", refresh_token
    )


def token_domain(connection: Connection, client: OAuthClient | None) -> str:
    """Each account has its own token endpoint."""
    return connection.allowed_domain


def read_refreshed(response: Response, now: datetime, refresh_token: Secret) -> Grant:
    """Raises `Rejected` (`grant_refused`) where the refresh token is dead, and otherwise as `read_grant` does.

    Kommo responds with 401 or 404 if the account has moved to another subdomain: `account_moved`.
    """
    if response.status in (400, 401):
        hint = str(_problem(response).get("hint", "")).strip().lower()
        if hint.startswith(_DEAD_GRANT_HINTS):
            raise GrantRevoked("Kommo says that the refresh token is used, revoked or expired")
    try:
        return read_grant(response, now)
    except (InvalidAccount, WrongClient) as rejected:
        if isinstance(rejected, InvalidAccount) or response.status == 401:
            raise AccountMoved(f"{rejected.detail}, or the account has moved") from None
        raise


def _token_request(
    account_host: str, client: OAuthClient, client_secret: Secret, grant_type: str, field: str, secret: Secret
) -> Request:
    check_account_host(account_host)
    body = {
        "client_id": client.client_id,
        "client_secret": client_secret.reveal(),
        "grant_type": grant_type,
        field: secret.reveal(),
        "redirect_uri": client.redirect_uri,
    }
    return Request(
        "POST",
        f"https://{account_host}/oauth2/access_token",
        {"Content-Type": "application/json", "Accept": "application/json"},
        json.dumps(body).encode(),
        read_timeout_s=EXCHANGE_TIMEOUT_S,
    )


def read_grant(response: Response, now: datetime) -> Grant:
    """Raises `Rejected` with a reason for each final refusal, and `Retryable` while the code may still be valid."""
    if response.status == 200:
        try:
            body = json.loads(_text_of(response))
            return Grant(
                access_token=Secret(_text(body, "access_token")),
                refresh_token=Secret(_text(body, "refresh_token")),
                expires_at=now + _life(body.get("expires_in")),
                token_type=str(body.get("token_type", "bearer")).lower(),
                scopes=kept_scopes(str(body.get("scope", ""))),
            )
        except UNREADABLE:
            raise AnswerUnreadable("Kommo answered 200 without a pair of tokens", answer_lost=True) from None
    problem = _problem(response)
    hint = str(problem.get("hint", "")).strip().lower()
    for start, (refusal, detail) in _FINAL_HINTS.items():
        if hint.startswith(start):
            raise refusal(detail)
    if response.status == 401 and problem:
        # Kommo's response to a wrong client id or secret has no hint.
        raise WrongClient("Kommo refused the client id or the client secret: check the OAuth client")
    if response.status == 400 and problem:
        raise PlatformRefused("Kommo refused the exchange with 400 and an unknown reason")
    if response.status == 404:
        raise InvalidAccount("there is no account at this host")
    raise not_now(response)


def not_now(response: Response) -> Retryable:
    """Return the error for a response that is neither a success nor a refusal. 429 and the 403 of a rate block need a pause."""
    if response.status == 429:
        return RateLimited("Kommo's rate limit is reached (429)", after_s=_retry_after(response))
    if response.status == 403:
        return RateBlocked("Kommo blocks this address because of its request rate (403)", after_s=BLOCKED_WAIT_S)
    return PlatformFailed(f"Kommo answered {response.status}")


def _life(expires_in: object) -> timedelta:
    """Return the life from seconds as a number or as text. An unreadable value does not cost the grant."""
    try:
        life = timedelta(seconds=float(str(expires_in)))
    except UNREADABLE:
        return ACCESS_LIFE
    return life if timedelta(0) < life <= MAX_ACCESS_LIFE else ACCESS_LIFE


def _text_of(response: Response) -> str:
    """Return the body as text. Tokens are ASCII, so wrongly encoded characters elsewhere do not matter."""
    try:
        return response.text()
    except UnicodeError:
        return response.body.decode("utf-8", "replace")


def _problem(response: Response) -> dict[str, object]:
    """Return Kommo's JSON error; empty for HTML and other bodies."""
    try:
        body = json.loads(_text_of(response))
    except UNREADABLE:
        return {}
    return body if isinstance(body, dict) else {}


def _retry_after(response: Response) -> float:
    asked_s = response.retry_after_s()
    if asked_s is None:
        try:
            asked_s = float(str(_problem(response).get("retry_after")))
        except ValueError:
            return 2.0
    return min(300.0, max(1.0, asked_s))


def _text(body: dict[str, object], name: str) -> str:
    value = body[name]
    if not isinstance(value, str) or not value:
        raise ValueError(name)
    return value
