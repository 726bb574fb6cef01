"""Subscribing to an account's event webhooks. https://developers.kommo.com/docs/webhooks-general"""

from __future__ import annotations

import json

from portaria.core.callbacks import Secret
from portaria.core.errors import Rejected
from portaria.core.http.messages import Request, Response
from portaria.platforms.kommo.tokens import not_now

EVENTS = tuple(f"{what}_{of}" for of in ("contact", "company") for what in ("add", "update", "delete", "restore"))


def subscribe_request(account_host: str, access_token: Secret, destination: str) -> Request:
    """Subscribing the same destination again changes nothing."""
    return _request(
        "POST", account_host, access_token, {"destination": destination, "settings": list(EVENTS), "sort": 10}
    )


def unsubscribe_request(account_host: str, access_token: Secret, destination: str) -> Request:
    return _request("DELETE", account_host, access_token, {"destination": destination})


def read_answer(response: Response) -> None:
    """Raises `Rejected` (`webhooks_refused`) if the account cannot have webhooks (they need a paid plan and an admin)."""
    if response.status in (200, 201, 204):
        return
    html = "html" in response.headers.get("content-type", "")
    if response.status in (400, 401, 402, 404) or (response.status == 403 and not html):
        raise Rejected(
            "webhooks_refused",
            f"Kommo refused the event webhooks with {response.status}: they need a paid plan and an administrator",
        )
    raise not_now(response)


def _request(method: str, account_host: str, access_token: Secret, body: dict[str, object]) -> Request:
    headers = {
        "Authorization": f"Bearer {access_token.reveal()}",
        "Content-Type": "application/json",
        "Accept": "application/json",
    }
    url = f"https://{account_host}/api/v4/webhooks"
    return Request(method, url, headers, json.dumps(body).encode(), read_timeout_s=8)
