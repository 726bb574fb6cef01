"""Identifiers of Engage's users in another system, by which they sign on.

https://meajuda.engage.bz (API: autenticação e single sign-on, users/identifiers). Neither the response nor the maximum of
users is documented: a 2xx means that all users are registered, and a refusal does not say which user caused it.
"""

from __future__ import annotations

import json
from urllib.parse import quote, urlencode

from portaria.core.callbacks import Secret
from portaria.core.entities import Connection
from portaria.core.errors import RateLimited, Rejected, Retryable
from portaria.core.http.messages import Request, Response
from portaria.platforms.engage import tokens
from portaria.platforms.values import RefusedUsers

MAX_USERS = 100

# Refusals that one of the users can cause, by status. Whether an unknown login is a 404 or a 400 is not documented.
_REFUSALS = {
    400: ("user_refused", "Engage refused this user (400): there may be no such login"),
    404: ("user_refused", "Engage refused this user (404): there may be no such login"),
    409: ("identifier_taken", "Engage has this identifier already (409), for this user or for another one"),
    422: ("user_refused", "Engage refused this user (422): there may be no such login"),
}


def register_request(
    connection: Connection, credentials: dict[str, Secret], access_token: Secret, users: list[dict[str, str]]
) -> Request:
    """Each of `users` has a `user_login` and an `identifier`. Raises `NoCredentials` without a customer_token.

    Engage requires the token in the URL, so the URL must not be logged.
    """
    query = urlencode({"customerToken": tokens.customer_token(connection, credentials)})
    customer_id = quote(connection.fields["customer_id"], safe="")
    client_id = credentials["client_id"].reveal()
    body = [
        {
            "user_login": user["user_login"],
            "client_application_id": client_id,
            "identifier": user["identifier"],
        }
        for user in users
    ]
    return Request(
        "POST",
        f"https://{tokens.token_domain(connection, None)}/api/v1/{customer_id}/users/identifiers?{query}",
        {
            "Authorization": f"Bearer {access_token.reveal()}",
            "Content-Type": "application/json",
            "Accept": "application/json",
        },
        json.dumps(body).encode(),
        max_response_bytes=1_000_000,
    )


def read_answer(response: Response) -> RefusedUsers | None:
    """Return None if all users of the request are registered.

    Raises `Rejected` (`not_permitted`, `unknown_customer`) if no user can be registered, and `Retryable` if nothing was done;
    with `answer_lost`, the users may have been registered.
    """
    body = tokens.object_of(response.body)
    if 200 <= response.status < 300:
        # No response is documented: an empty body and any JSON mean success, except the documented shape of a failure.
        if isinstance(body.get("error"), str) and body["error"]:
            return RefusedUsers("user_refused", "Engage answered with an error: there may be no such login")
        if not _is_json(response.body):
            raise Retryable("no_verdict", f"Engage answered {response.status}, but not with JSON", answer_lost=True)
        return None
    if response.status in (401, 403):
        # An expired token was renewed before this. Engage does not say which of the two it refuses.
        raise Rejected(
            "not_permitted",
            f"Engage answered {response.status}: the connection's user needs the permission UserManagement, and customer_token "
            "must be the customer's",
            status=409,
        )
    if response.status == 429:
        raise RateLimited("Engage's rate limit is reached (429)", after_s=tokens.retry_after_s(response))
    if response.status in _REFUSALS and (response.status != 404 or body):
        return RefusedUsers(*_REFUSALS[response.status])
    if response.status == 404:
        raise Rejected(
            "unknown_customer", "Engage does not know this customer: check the connection's customer_id", status=409
        )
    raise Retryable("no_verdict", f"Engage answered {response.status}", answer_lost=response.status >= 500)


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body or b"null")
    except (ValueError, RecursionError):
        return False
    return True
