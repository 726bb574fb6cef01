"""Kommo's account resource: who a grant is for. https://developers.kommo.com/reference/account-parameters"""

from __future__ import annotations

import json

from portaria.contract import Account, Rejected, Request, Response, Secret
from portaria.platforms.kommo.tokens import UNREADABLE, not_now


def account_request(account_host: str, access_token: Secret) -> Request:
    headers = {"Authorization": f"Bearer {access_token.reveal()}", "Accept": "application/json"}
    return Request("GET", f"https://{account_host}/api/v4/account", headers, read_timeout_s=8)


def read_account(response: Response, account_host: str) -> Account:
    """The account, checked to be the one that the host names.

    Raises `Rejected` (`account_mismatch`, `token_refused`) and `Retryable`.
    """
    if response.status == 401:
        raise Rejected("token_refused", "Kommo refused the token that it had just given")
    if response.status != 200:
        raise not_now(response)
    try:
        body = json.loads(response.body)
        account = Account(str(int(body["id"])), str(body.get("name", ""))[:200], account_host)
        subdomain = str(body["subdomain"])
    except UNREADABLE:
        raise not_now(response) from None
    if subdomain.lower() != account_host.partition(".")[0]:
        raise Rejected("account_mismatch", f"the code was for another account than {account_host}")
    return account
