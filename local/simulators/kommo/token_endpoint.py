"""Kommo's token endpoint, and the lookup of an account's present subdomain by its refresh token."""

from __future__ import annotations

import base64
import json
import secrets
import uuid
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from local.simulators.kommo.responses import oauth_error, read_body, unauthorized
from local.simulators.kommo.state import (
    ACCESS_TOKEN_LIFETIME_S,
    CODE_LIFETIME_S,
    REFRESH_TOKEN_LIFETIME_S,
    Account,
    Client,
    Code,
    Grant,
    State,
    Token,
    opaque_token,
)


class TokenEndpoint:
    def __init__(self, state: State) -> None:
        self.state = state

    async def answer(self, request: web.BaseRequest, _: dict[str, str]) -> web.Response:
        given = await read_body(request)
        code = self.state.codes.get(str(given.get("code")))
        if code:
            code.calls += 1
            code.calls_after_issue += code.issued > 0
        client = self.state.clients.get(str(given.get("client_id")))
        if not given.get("client_id"):
            return oauth_error("Check the `client_id` parameter")
        if client is None or client.client_secret != given.get("client_secret"):
            return oauth_error(None, 401, "Некорректный клиент", "Авторизация клиента не прошла")
        if given.get("redirect_uri") != client.redirect_uri:
            return oauth_error("Redirect URI is not associated with client")
        match given.get("grant_type"):
            case "authorization_code":
                return self.exchange(client, code, request.host)
            case "refresh_token":
                return self.refresh(client, str(given.get("refresh_token")), request.host)
        return oauth_error("Check the `grant_type` parameter")

    def exchange(self, client: Client, code: Code | None, host: str) -> web.Response:
        if code is None or code.client_id != client.client_id:
            return oauth_error("Cannot decrypt the authorization code")
        if code.issued and self.state.limits.codes_single_use:
            return oauth_error("Authorization code has been revoked")
        if self.state.clock.now() >= code.issued_at + CODE_LIFETIME_S:
            return oauth_error("Authorization code has expired")
        if code.host != host:
            return oauth_error("Invalid account")
        code.issued += 1
        grant = Grant(client.client_id, host)
        self.state.grants.append(grant)
        return self.issue(grant)

    def refresh(self, client: Client, refresh_token: str, host: str) -> web.Response:
        token = self.state.refresh_tokens.get(refresh_token)
        if token is None or token.grant.client_id != client.client_id or token.grant.host != host:
            return oauth_error("Token has been revoked", 401)
        if token.used:
            token.grant.revoked = True
        if token.grant.revoked:
            return oauth_error("Token has been revoked", 401)
        if self.state.clock.now() >= token.expires_at:
            return oauth_error("Token has expired", 401)
        token.used = True
        return self.issue(token.grant)

    async def current_subdomain(self, request: web.BaseRequest, _: dict[str, str]) -> web.Response:
        """The present subdomain of the account that a refresh token belongs to."""
        token = self.state.refresh_tokens.get(request.headers.get("X-Refresh-Token", ""))
        if token is None or token.grant.revoked:
            return unauthorized()
        account = self.state.accounts[token.grant.host]
        return web.json_response(
            {
                "id": account.id,
                "subdomain": account.subdomain,
                "domain": account.host,
                "top_level_domain": account.domain,
            }
        )

    def issue(self, grant: Grant) -> web.Response:
        grant.pairs += 1
        now = self.state.clock.now()
        access_token = json_web_token(grant, self.state.accounts[grant.host], now)
        refresh_token = opaque_token(968)
        self.state.access_tokens[access_token] = Token(grant, now + self.state.limits.access_life_s)
        self.state.refresh_tokens[refresh_token] = Token(grant, now + REFRESH_TOKEN_LIFETIME_S)
        return web.json_response(
            {
                "token_type": "Bearer",
                "expires_in": self.state.limits.access_life_s,
                "server_time": int(now),
                "access_token": access_token,
                "refresh_token": refresh_token,
            }
        )


def json_web_token(grant: Grant, account: Account, now: float) -> str:
    """An access token with the claims and size of Kommo's. Each part contains the `canary` mark; the signature is random."""

    def part(document: Mapping[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")

    identifier = f"canary-{secrets.token_hex(40)}"[:80]
    claims = {
        "aud": grant.client_id,
        "jti": identifier,
        "iat": int(now),
        "nbf": int(now),
        "exp": int(now + ACCESS_TOKEN_LIFETIME_S),
        "sub": str(account.id + 1),
        "grant_type": "",
        "account_id": account.id,
        "base_domain": account.domain,
        "version": 2,
        "scopes": ["crm", "files", "files_delete", "notifications", "push_notifications"],
        "hash_uuid": str(uuid.uuid4()),
        "api_domain": f"api-c.{account.domain}",
    }
    signature = f"canary-{base64.urlsafe_b64encode(secrets.token_bytes(256)).decode()}"[:342]
    return ".".join([part({"typ": "JWT", "alg": "RS256", "jti": identifier}), part(claims), signature])
