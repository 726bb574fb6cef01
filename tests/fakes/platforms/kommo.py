"""Kommo's token, account and webhook endpoints in process, at the edge of `requests`: what the facts say, and no more.

The local cloud's simulator is the full one; this one is for suites that run thousands of installs.
"""

from __future__ import annotations

import json
import re
import zlib
from collections import Counter
from typing import Any

import requests
import responses

Answer = tuple[int, dict[str, str], str]

PROBLEM = {"Content-Type": "application/problem+json"}
CLIENT_ID = "client-id-1"
CLIENT_SECRET = "canary-client-secret"
REDIRECT_URI = "https://api.example.com/live/install/kommo/acme"


class Kommo:
    """`codes` maps each code to its account's subdomain. `exchanges` counts the calls that a code came with, `grants` the
    pairs of tokens given for it, `refreshes` the calls that a refresh token came with: each works once. `before` holds
    answers to give instead, each once, to the next calls of a path; `revoked` the subdomains that took their consent back."""

    def __init__(self, mock: responses.RequestsMock) -> None:
        self.codes: dict[str, str] = {}
        self.exchanges: Counter[str] = Counter()
        self.grants: Counter[str] = Counter()
        self.refreshes: Counter[str] = Counter()
        self.revoked: set[str] = set()
        self.webhooks: set[str] = set()
        self.before: dict[str, list[Answer | Exception]] = {}
        self.calls: list[requests.PreparedRequest] = []
        self._tokens: dict[str, str] = {}
        self._refresh_tokens: dict[str, str] = {}
        host = r"https://[a-z0-9-]+\.(?:kommo\.com|amocrm\.com|amocrm\.ru)"
        for method, path, answer in (
            ("POST", "/oauth2/access_token", self._current_token),
            ("GET", "/api/v4/account", self._account),
            ("POST", "/api/v4/webhooks", self._subscribe),
            ("DELETE", "/api/v4/webhooks", self._unsubscribe),
        ):
            mock.add_callback(method, re.compile(host + re.escape(path)), self._answering(path, answer))

    def _answering(self, path: str, answer: Any) -> Any:
        def callback(request: requests.PreparedRequest) -> Answer | Exception:
            self.calls.append(request)
            if self.before.get(path):
                return self.before[path].pop(0)
            result: Answer = answer(request)
            return result

        return callback

    def _current_token(self, request: requests.PreparedRequest) -> Answer:
        """A test may replace `_token` after this was created."""
        return self._token(request)

    def _token(self, request: requests.PreparedRequest) -> Answer:
        body = json.loads(request.body or "{}")
        if (body["client_id"], body["client_secret"]) != (CLIENT_ID, CLIENT_SECRET):
            return _problem(400, "Check the `client_id` parameter")
        if body["redirect_uri"] != REDIRECT_URI:
            return _problem(400, "Redirect URI is not associated with client")
        if body["grant_type"] == "refresh_token":
            return self._refresh(body["refresh_token"])
        code = body["code"]
        self.exchanges[code] += 1
        if code not in self.codes:
            return _problem(400, "Cannot decrypt the authorization code")
        if self.grants[code]:
            return _problem(400, "Authorization code has been revoked")
        self.grants[code] += 1
        return self._give(code, self.codes[code])

    def _refresh(self, token: str) -> Answer:
        self.refreshes[token] += 1
        subdomain = self._refresh_tokens.pop(token, "")
        if not subdomain or subdomain in self.revoked:
            return _problem(401, "Token has been revoked")
        return self._give(f"{token.removeprefix('canary-refresh-')}+", subdomain)

    def connect(self, code: str, subdomain: str) -> dict[str, str]:
        """A pair of tokens as an exchange returns it."""
        pair: dict[str, str] = json.loads(self._give(code, subdomain)[2])
        return pair

    def _give(self, code: str, subdomain: str) -> Answer:
        """A pair named after the code, or after the previous pair with a plus sign."""
        pair: dict[str, Any] = {
            "access_token": f"canary-access-{code}",
            "refresh_token": f"canary-refresh-{code}",
            "expires_in": 86400,
            "token_type": "Bearer",
        }
        self._tokens[pair["access_token"]] = subdomain
        self._refresh_tokens[pair["refresh_token"]] = subdomain
        return 200, {"Content-Type": "application/json"}, json.dumps(pair)

    def _account(self, request: requests.PreparedRequest) -> Answer:
        subdomain = self._tokens.get(_bearer(request))
        if not subdomain or subdomain in self.revoked:
            return _problem(401, "")
        account = {"id": account_id(subdomain), "name": f"Account {subdomain}", "subdomain": subdomain}
        return 200, {"Content-Type": "application/hal+json"}, json.dumps(account)

    def _subscribe(self, request: requests.PreparedRequest) -> Answer:
        if _bearer(request) not in self._tokens:
            return _problem(401, "")
        self.webhooks.add(json.loads(request.body or "{}")["destination"])
        return 201, {}, "{}"

    def _unsubscribe(self, request: requests.PreparedRequest) -> Answer:
        self.webhooks.discard(json.loads(request.body or "{}")["destination"])
        return 204, {}, ""


def account_id(subdomain: str) -> int:
    return 30_000_000 + zlib.crc32(subdomain.encode()) % 1_000_000


def _bearer(request: requests.PreparedRequest) -> str:
    return str(request.headers.get("Authorization", "")).removeprefix("Bearer ")


def _problem(status: int, hint: str) -> Answer:
    return status, PROBLEM, json.dumps({"hint": hint, "title": "Некорректный запрос", "status": status, "detail": "…"})
