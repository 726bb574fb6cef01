"""Kommo's account resource: the account of a grant. https://developers.kommo.com/reference/account-parameters"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode

from portaria.core.callbacks import Secret
from portaria.core.entities import Account
from portaria.core.errors import Rejected, TokenRefused
from portaria.core.http.messages import Request, Response
from portaria.platforms.kommo.install import check_account_host
from portaria.platforms.kommo.tokens import UNREADABLE, not_now

# The domain of the hosts that know an account's current subdomain.
LOCATION_DOMAIN = "*.kommo.com"
DEFAULT_API_DOMAIN = "api-c.kommo.com"


def account_request(account_host: str, access_token: Secret) -> Request:
    headers = {"Authorization": f"Bearer {access_token.reveal()}", "Accept": "application/json"}
    return Request("GET", f"https://{account_host}/api/v4/account", headers, read_timeout_s=8)


def read_account(response: Response, account_host: str) -> Account:
    """Return the account, after checking that it is the account at this host.

    Raises `Rejected` (`account_mismatch`, `token_refused`) and `Retryable`.
    """
    if response.status == 401:
        raise TokenRefused("Kommo refused the token that it has just issued")
    if response.status != 200:
        raise not_now(response)
    try:
        body = json.loads(response.body)
        account = Account(str(int(body["id"])), str(body.get("name", ""))[:200], account_host)
        subdomain = str(body["subdomain"])
    except UNREADABLE:
        raise not_now(response) from None
    if subdomain.lower() != account_host.partition(".")[0]:
        raise Rejected("account_mismatch", f"the code belongs to another account than {account_host}")
    return account


def locate_request(credentials: dict[str, Secret]) -> Request:
    """Ask for the current host of a refresh token's account. The request does not use the token up.

    The access token names the host to ask. The token's signature is not checked, so the host must be one of Kommo's.
    https://developers.kommo.com/docs/oauth-20
    """
    host = _api_domain(credentials["access_token"])
    headers = {"X-Refresh-Token": credentials["refresh_token"].reveal(), "Accept": "application/json"}
    return Request("GET", f"https://{host}/oauth2/account/current/subdomain", headers, read_timeout_s=8)


def read_location(response: Response) -> str:
    """Return the account's host. Raises `Rejected` (`account_gone`) if the account does not exist, and `Retryable`."""
    if response.status in (400, 401, 404):
        raise Rejected("account_gone", "Kommo has no account for this refresh token")
    if response.status != 200:
        raise not_now(response)
    try:
        body = json.loads(response.body)
        host = str(body.get("domain") or f"{body['subdomain']}.{body['top_level_domain']}").lower()
        check_account_host(host)
    except (*UNREADABLE, Rejected):
        raise not_now(response) from None
    return host


def _api_domain(access_token: Secret) -> str:
    try:
        payload = access_token.reveal().split(".")[1]
        host = str(json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["api_domain"])
    except (IndexError, *UNREADABLE):
        return DEFAULT_API_DOMAIN
    return host if host.endswith(".kommo.com") and host.count(".") == 2 else DEFAULT_API_DOMAIN
