"""Engage's single sign-on: a user's identifier in another system is exchanged for a key that signs a browser on, once.

https://meajuda.engage.bz (API: autenticação e single sign-on, grant_type=custom_sso). The key is a credential, so the URLs that
contain it are `Secret`.
"""

from __future__ import annotations

import re
from urllib.parse import quote, urlencode

from portaria.core.callbacks import Secret
from portaria.core.entities import Connection
from portaria.core.errors import RateLimited, Retryable, TypedRejected
from portaria.core.http.messages import Request, Response
from portaria.platforms.engage import tokens


class UserRefused(TypedRejected):
    """Engage has no user with this identifier, or does not let the user sign on."""

    reason = "user_refused"
    status = 409


class SignOnRefused(TypedRejected):
    """Engage refused the client or the grant type."""

    reason = "sign_on_refused"
    status = 409


# Engage documents the shape of a failure and no codes. These are the codes of RFC 6749 and those of ASP.NET's servers. With
# this grant type, the user is the grant.
_REFUSALS: dict[str, tuple[type[TypedRejected], str]] = {
    "invalid_grant": (UserRefused, "Engage has no user with this identifier, or does not let the user sign on"),
    "invalid_client": (SignOnRefused, "Engage refused the client id or the client secret"),
    "invalid_clientid": (SignOnRefused, "Engage does not know the client id"),
    "unauthorized_client": (SignOnRefused, "Engage does not allow this client to sign users on"),
    "unsupported_grant_type": (SignOnRefused, "Engage does not offer single sign-on to this client"),
}
_REFUSING = (200, 400, 401, 403, 404, 409, 422)
MAX_KEY_LENGTH = 1_000


def sign_on_request(connection: Connection, credentials: dict[str, Secret], user_identifier: str) -> Request:
    """Raises `Rejected` (`no_credentials`) where the connection has no customer_token."""
    form = {
        "grant_type": "custom_sso",
        "customer_id": connection.fields["customer_id"],
        "customer_token": tokens.customer_token(connection, credentials),
        "client_id": credentials["client_id"].reveal(),
        "client_secret": credentials["client_secret"].reveal(),
        "user_identifier": user_identifier,
    }
    return Request(
        "POST",
        f"https://{tokens.token_domain(connection, None)}/api/v1/auth",
        {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"},
        urlencode(form).encode(),
        max_response_bytes=100_000,
    )


def read_key(response: Response) -> Secret:
    """Raises `Rejected` (`user_refused`, `sign_on_refused`) if Engage refuses, and `Retryable` otherwise.

    `error_description` is not repeated, because it can quote the request. The user's own token in the response is ignored.
    """
    body = tokens.object_of(response.body)
    if response.status in _REFUSING and isinstance(body.get("error"), str):
        unknown = (SignOnRefused, f"Engage refused the sign-on with {response.status} and a code not known here")
        refusal, detail = _REFUSALS.get(str(body["error"]).lower(), unknown)
        raise refusal(detail, field="user_identifier" if refusal is UserRefused else None)
    if response.status == 429:
        raise RateLimited("Engage's rate limit is reached (429)", after_s=tokens.retry_after_s(response))
    key = body.get("key")
    if response.status != 200 or not isinstance(key, str):
        raise Retryable("key_not_given", f"Engage's sign-on answered {response.status} without a key")
    if not re.fullmatch(rf"[\x21-\x7e]{{1,{MAX_KEY_LENGTH}}}", key):
        raise Retryable("key_not_given", "Engage's sign-on answered with a key that cannot be used")
    return Secret(key)


def addresses(connection: Connection, key: Secret) -> dict[str, Secret]:
    """Return the URLs that sign a browser on: `default` is Engage's front end, `customer` the customer's own.

    Engage documents no separate front end for homologation.
    """
    # The key is in the fragment, which a browser sends neither to a server nor in a Referer.
    path = f"/#/login?key={quote(key.reveal(), safe='')}"
    return {
        "default": Secret(f"https://one.engage.bz{path}"),
        "customer": Secret(f"https://{connection.fields['customer_id']}.engage.bz{path}"),
    }
