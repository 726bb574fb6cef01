"""Engage's log-in: a user's name and password are exchanged for a token of 25 minutes. There is no refresh token.

https://meajuda.engage.bz (API: autenticação e single sign-on). Of the two environments, homologation is for development.
"""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from urllib.parse import urlencode

from portaria.core.callbacks import OAuthClient, Secret
from portaria.core.entities import Connection, Grant, Kind
from portaria.core.errors import NoCredentials, Rejected, Retryable
from portaria.core.http.messages import Request, Response

ENVIRONMENTS = {"homologation": "sandbox.engage.bz", "production": "my.engage.bz"}
KINDS = {
    "password": Kind(
        # The log-in needs all but the last, which single sign-on and the registration of identifiers need.
        credentials=("username", "password", "client_id", "client_secret", "customer_token"),
        # The customer's id is also a path segment and a host label.
        fields={
            "customer_id": re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?"),
            "environment": re.compile("|".join(ENVIRONMENTS)),
        },
        optional={"environment": "homologation"},
        allowed_domain=lambda fields: ENVIRONMENTS[fields["environment"]],
    )
}

DEFAULT_WAIT_S = 10.0
MAX_WAIT_S = 300.0

# Engage documents the shape of a failure and no codes. These are the codes of RFC 6749 and those of ASP.NET's servers.
_REFUSALS = {
    "invalid_grant": ("bad_credentials", "Engage refused the user name or the password"),
    "invalid_client": ("bad_credentials", "Engage refused the client id or the client secret"),
    "invalid_clientid": ("bad_credentials", "Engage does not know the client id"),
    "unauthorized_client": ("bad_credentials", "Engage does not allow this client to log users in"),
}


def token_domain(connection: Connection, client: OAuthClient | None) -> str:
    """The one host that the password is sent to."""
    return ENVIRONMENTS[connection.fields["environment"]]


def token_request(connection: Connection, credentials: dict[str, Secret], client: OAuthClient | None) -> Request:
    form = {
        "grant_type": "password",
        "username": credentials["username"].reveal(),
        "password": credentials["password"].reveal(),
        "client_id": credentials["client_id"].reveal(),
        "client_secret": credentials["client_secret"].reveal(),
        "customer_id": connection.fields["customer_id"],
    }
    return Request(
        "POST",
        f"https://{token_domain(connection, client)}/api/v1/auth",
        {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"},
        urlencode(form).encode(),
        max_response_bytes=100_000,
    )


def read_grant(response: Response, now: datetime) -> Grant:
    """Raises `Rejected` (`bad_credentials`, `log_in_refused`) if Engage refuses, and `Retryable` otherwise.

    `error_description` is not repeated, because it can quote the request.
    """
    body = object_of(response.body)
    if response.status in (400, 401, 403) and isinstance(body.get("error"), str):
        unknown = ("log_in_refused", f"Engage refused the log-in with {response.status} and a code not known here")
        reason, detail = _REFUSALS.get(str(body["error"]).lower(), unknown)
        raise Rejected(reason, detail, status=409)
    if response.status != 200:
        raise Retryable("token_not_given", f"Engage's log-in answered {response.status}")
    try:
        token, ends = body["access_token"], now + timedelta(seconds=int(str(body["expires_in"])))
        if not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]+", token):
            raise ValueError("access_token")
    except (ValueError, KeyError, OverflowError):
        raise Retryable("token_not_given", "Engage's log-in did not answer with a token") from None
    return Grant(Secret(token), ends)


def refuse_unknown_account(connection: Connection, response: Response) -> None:
    """Engage documents no response that distinguishes an unknown customer from refused credentials."""


def customer_token(connection: Connection, credentials: dict[str, Secret]) -> str:
    """Raises `NoCredentials` for a connection that is older than this credential."""
    if "customer_token" not in credentials:
        raise NoCredentials(
            f"the connection {connection.name} has no customer_token: replace all of its credentials, with customer_token"
        )
    return credentials["customer_token"].reveal()


def object_of(body: bytes) -> dict[str, object]:
    """Return the body's JSON object; empty for any other body."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def retry_after_s(response: Response) -> float:
    """Return a wait from one second to five minutes. Engage documents no limits."""
    return min(MAX_WAIT_S, max(1.0, response.retry_after_s() or DEFAULT_WAIT_S))
