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
    pairs of tokens given for it. `before` holds answers to give instead, each once, to the next calls of a path."""

    def __init__(self, mock: responses.RequestsMock) -> None:
        self.codes: dict[str, str] = {}
        self.exchanges: Counter[str] = Counter()
        self.grants: Counter[str] = Counter()
        self.webhooks: set[str] = set()
        self.before: dict[str, list[Answer | Exception]] = {}
        self.calls: list[requests.PreparedRequest] = []
        self._tokens: dict[str, str] = {}
        host = r"https://[a-z0-9-]+\.(?:kommo\.com|amocrm\.com|amocrm\.ru)"
        for method, path, answer in (
            ("POST", "/oauth2/access_token", self._token),
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

    def _token(self, request: requests.PreparedRequest) -> Answer:
        body = json.loads(request.body or "{}")
        if (body["client_id"], body["client_secret"]) != (CLIENT_ID, CLIENT_SECRET):
            return _problem(400, "Check the `client_id` parameter")
        if body["redirect_uri"] != REDIRECT_URI:
            return _problem(400, "Redirect URI is not associated with client")
        code = body["code"]
        self.exchanges[code] += 1
        if code not in self.codes:
            return _problem(400, "Cannot decrypt the authorization code")
        if self.grants[code]:
            return _problem(400, "Authorization code has been revoked")
        self.grants[code] += 1
        token = f"canary-access-{code}"
        self._tokens[token] = self.codes[code]
        pair = {
            "access_token": token,
            "refresh_token": f"canary-refresh-{code}",
            "expires_in": 86400,
            "token_type": "Bearer",
        }
        return 200, {"Content-Type": "application/json"}, json.dumps(pair)

    def _account(self, request: requests.PreparedRequest) -> Answer:
        subdomain = self._tokens.get(_bearer(request))
        if not subdomain:
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
