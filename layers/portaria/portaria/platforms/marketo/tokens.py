"""Marketo's identity service: one shared access token by client credentials.

https://experienceleague.adobe.com/en/docs/marketo-developer/marketo/rest/authentication
"""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from urllib.parse import urlencode

from portaria.core.callbacks import OAuthClient, Secret
from portaria.core.entities import Connection, Grant, Kind, kept_scopes
from portaria.core.errors import Rejected, Retryable
from portaria.core.http.messages import Request, Response

KINDS = {
    "client_credentials": Kind(
        credentials=("client_id", "client_secret"),
        fields={"munchkin_id": re.compile(r"[0-9]{3}-[A-Z]{3}-[0-9]{3}")},
        allowed_domain=lambda fields: "mkto-ingestion-api.adobe.io",
    )
}
# The Data Ingestion API has its own header for the bare token.
TOKEN_HEADER = "X-Mkto-User-Token"  # noqa: S105 - a header's name


def call_headers(connection: Connection) -> dict[str, str]:
    """No further headers."""
    return {}


def account_id(fields: dict[str, str]) -> str:
    """Return the Munchkin id of the subscription."""
    return fields["munchkin_id"].upper()


def token_domain(connection: Connection, client: OAuthClient | None) -> str:
    """The one host that the client secret is sent to."""
    return f"{connection.fields['munchkin_id'].lower()}.mktorest.com"


def token_request(connection: Connection, credentials: dict[str, Secret], client: OAuthClient | None) -> Request:
    """The secret is in the body, because URLs are logged."""
    form = {
        "grant_type": "client_credentials",
        "client_id": credentials["client_id"].reveal(),
        "client_secret": credentials["client_secret"].reveal(),
    }
    return Request(
        "POST",
        f"https://{token_domain(connection, client)}/identity/oauth/token",
        {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"},
        urlencode(form).encode(),
    )


def refuse_unknown_account(connection: Connection, response: Response) -> None:
    """Raises `Rejected` (`unknown_account`) if the first log-in shows that the instance does not exist.

    Later, a 404 of a known instance is treated as a temporary failure.
    """
    if response.status == 404:
        host = token_domain(connection, None)
        raise Rejected(
            "unknown_account",
            f"there is no Marketo instance at {host}: check fields.munchkin_id (Admin > My Account > Support Information)",
            field="fields.munchkin_id",
        )


def read_grant(response: Response, now: datetime) -> Grant:
    """`expires_in` is the remaining life of a shared token: an early request returns the same token, and 0 occurs.

    Raises `Rejected` (`bad_credentials`) on 401 and `Retryable` on anything else that is not a token.
    """
    if response.status == 401:
        raise Rejected("bad_credentials", "Marketo refused the client id or the client secret", status=409)
    if response.status != 200:
        raise Retryable("token_not_given", f"Marketo's identity service answered {response.status}")
    try:
        body = json.loads(response.body)
        token, ends = body["access_token"], now + timedelta(seconds=int(body["expires_in"]))
        if not isinstance(token, str) or not token:
            raise ValueError("access_token")
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise Retryable("token_not_given", "Marketo's identity service did not answer with a token") from None
    return Grant(Secret(token), ends, scopes=kept_scopes(str(body.get("scope", ""))))
