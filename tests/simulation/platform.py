"""A platform like Kommo in memory, reached through `http_client.send`, which knows which tokens are alive.

In three modes, which say what a refresh token does that has been used:
- `strict`: nothing, it is dead, and the pair before it with it;
- `grace`: for `WINDOW_S` it gives another pair, and both pairs live;
- `replay`: for `WINDOW_S` it gives the same pair again.
A code works once in every mode. https://developers.kommo.com/docs/oauth-20
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from portaria.core import clock
from portaria.core.http.messages import Request, Response
from portaria.outbound import http_client

MODES = ("strict", "grace", "replay")
# The grace period. Another worker tries again sooner: after a lease and the next sweep, or after the visibility timeout of a
# visit that died. So one lost response never ends a grant in these modes.
WINDOW_S = 900.0
LIFE_S = 86_400
REFRESH_LIFE_S = 90 * 86_400
CODE_LIFE_S = 1_200

CLIENT_ID = "client-id-1"
CLIENT_SECRET = "canary-client-secret"
REDIRECT_URI = "https://api.example.com/live/install/kommo/acme"
STATIC_HOST = "services.leadconnectorhq.com"

Carry = Callable[[str, Callable[[], Response]], Response]


@dataclass(frozen=True)
class Pair:
    """Two tokens. `grant` numbers the authorisation, `parent` is the code or the refresh token that was exchanged for it."""

    access: str
    refresh: str
    host: str
    grant: int
    parent: str
    given_at: float
    ends_at: float


@dataclass
class RefreshToken:
    """`used_at` is the time of its first use."""

    pair: Pair
    used_at: float | None = None
    dead: bool = False


class Platform:
    """`given` notes every pair. `life_s` is how long an access token lives.

    `leaving` is told of a refresh token that is being sent, `presenting` of one that arrives, `using` of an access token.
    """

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.life_s = LIFE_S
        self.codes: dict[str, tuple[str, float]] = {}
        self.used_codes: set[str] = set()
        self.refreshes: dict[str, RefreshToken] = {}
        self.access: dict[str, Pair] = {}
        self.ended_early = False
        self.webhooks: dict[str, set[str]] = {}
        self.revoked_grants: set[int] = set()
        self.given: list[Pair] = []
        # Static tokens and their expiry in epoch seconds.
        self.static: dict[str, float] = {}
        self.carry: Carry = lambda name, call: call()
        self.leaving: Callable[[str, str], None] = lambda host, token: None
        self.presenting: Callable[[str, str], None] = lambda host, token: None
        self.using: Callable[[Pair], None] = lambda pair: None

    def copy(self) -> Platform:
        other = Platform(self.mode)
        other.life_s = self.life_s
        other.codes, other.used_codes = dict(self.codes), set(self.used_codes)
        other.refreshes = {token: replace(held) for token, held in self.refreshes.items()}
        other.access, other.ended_early = dict(self.access), self.ended_early
        other.webhooks = {host: set(hooks) for host, hooks in self.webhooks.items()}
        other.revoked_grants = set(self.revoked_grants)
        other.given = list(self.given)
        other.static = dict(self.static)
        return other

    # Actions and questions of the test.

    def issue_code(self, code: str, host: str) -> None:
        """The customer installs."""
        self.codes[code] = (host, clock.now().timestamp())

    def authorise(self, host: str) -> Pair:
        """The tokens of an account that installed some time ago."""
        return self._give(host, grant=len(self.given), parent="")

    def uninstall(self, host: str) -> None:
        """The customer revokes the authorisation: all tokens of the account end."""
        for pair in self.given:
            if pair.host == host:
                self.revoked_grants.add(pair.grant)
        self.webhooks.pop(host, None)

    def end_access_tokens(self) -> None:
        """The access tokens that were given so far end before their time. The authorisations stay."""
        self.ended_early = True
        self.access.clear()

    def access_alive(self, token: str) -> bool:
        pair = self.access.get(token)
        now = clock.now().timestamp()
        return bool(pair and pair.grant not in self.revoked_grants and pair.ends_at > now)

    def refresh_alive(self, token: str) -> bool:
        held = self.refreshes.get(token)
        if not held or held.dead or held.pair.grant in self.revoked_grants:
            return False
        now = clock.now().timestamp()
        if held.used_at is not None:
            return self.mode != "strict" and held.used_at + WINDOW_S > now
        return held.pair.given_at + REFRESH_LIFE_S > now

    def static_alive(self, token: str) -> bool:
        return self.static.get(token, 0.0) > clock.now().timestamp()

    # Calls of the product.

    def send(self, request: Request, *, allowed_domain: str, follow_redirects: int = 0, owner: str = "") -> Response:
        http_client.check(request, allowed_domain)
        parts = urlsplit(request.url)
        host = parts.hostname or ""
        if parts.path == "/oauth2/access_token":
            body = json.loads(request.body or b"{}")
            if body["grant_type"] == "refresh_token":
                token = body["refresh_token"]
                self.leaving(host, token)
                return self.carry(f"refresh {host}", lambda: self._refresh(host, body, token))
            return self.carry(f"exchange {host}", lambda: self._exchange(host, body))
        return self.carry(f"{request.method} {host}{parts.path}", lambda: self._api(host, parts.path, request))

    def _exchange(self, host: str, body: dict[str, Any]) -> Response:
        if body["client_secret"] != CLIENT_SECRET:
            return _problem(400, "Check the `client_id` parameter")
        code = body["code"]
        known, issued_at = self.codes.get(code, ("", 0.0))
        if known != host:
            return _problem(400, "Cannot decrypt the authorization code")
        if code in self.used_codes:
            return _problem(400, "Authorization code has been revoked")
        if issued_at + CODE_LIFE_S < clock.now().timestamp():
            return _problem(400, "Authorization code has expired")
        self.used_codes.add(code)
        return _pair_answer(self._give(host, grant=len(self.given), parent=code))

    def _refresh(self, host: str, body: dict[str, Any], token: str) -> Response:
        self.presenting(host, token)
        if body["client_secret"] != CLIENT_SECRET:
            return _problem(400, "Check the `client_id` parameter")
        held = self.refreshes.get(token)
        if not held or held.pair.host != host or not self.refresh_alive(token):
            return _problem(401, "Token has been revoked")
        if held.used_at is not None and self.mode == "replay":
            return _pair_answer(next(pair for pair in self.given if pair.parent == token))
        if held.used_at is None:
            held.used_at = clock.now().timestamp()
        if self.mode == "strict":
            held.dead = True
            self.access.pop(held.pair.access, None)
        return _pair_answer(self._give(host, held.pair.grant, parent=token))

    def _give(self, host: str, grant: int, parent: str) -> Pair:
        number = len(self.given) + 1
        now = clock.now().timestamp()
        access, refresh = f"canary-access-{number}", f"canary-refresh-{number}"
        pair = Pair(access, refresh, host, grant, parent, now, now + self.life_s)
        self.given.append(pair)
        self.access[pair.access] = pair
        self.refreshes[pair.refresh] = RefreshToken(pair)
        return pair

    def _api(self, host: str, path: str, request: Request) -> Response:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if host == STATIC_HOST:
            return (
                _json(200, {"location": {"id": "1"}})
                if self.static_alive(token)
                else _json(401, {"message": "Invalid JWT"})
            )
        pair = self.access.get(token)
        if not pair or pair.host != host or not self.access_alive(token):
            return _problem(401, "")
        self.using(pair)
        if path == "/api/v4/account":
            subdomain = host.partition(".")[0]
            return _json(200, {"id": account_id(host), "name": subdomain, "subdomain": subdomain})
        if path == "/api/v4/webhooks":
            hooks = self.webhooks.setdefault(host, set())
            destination = json.loads(request.body or b"{}").get("destination", "")
            if request.method == "POST":
                hooks.add(destination)
                return _json(201, {})
            hooks.discard(destination)
            return Response(204)
        return _json(404, {})


def account_id(host: str) -> int:
    return 30_000_000 + sum(host.encode())


def _pair_answer(pair: Pair) -> Response:
    left_s = int(pair.ends_at - clock.now().timestamp())
    return _json(
        200,
        {"access_token": pair.access, "refresh_token": pair.refresh, "expires_in": left_s, "token_type": "Bearer"},
    )


def _problem(status: int, hint: str) -> Response:
    body = json.dumps({"hint": hint, "title": "Некорректный запрос", "status": status}).encode()
    return Response(status, {"content-type": "application/problem+json"}, body)


def _json(status: int, body: dict[str, Any]) -> Response:
    return Response(status, {"content-type": "application/json"}, json.dumps(body).encode())
