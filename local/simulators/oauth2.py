"""OAuth 2.0 providers as the RFCs describe them: consent, codes with PKCE, refresh tokens, client credentials.

Sources: RFC 6749 (4.1, 4.4, 5, 6), RFC 7636, RFC 6750, and RFC 9700 (4.14) for the reuse of a refresh token. Each provider is
a host, `{name}.oauth.example.net`. The domain is reserved for examples (RFC 2606), but its form is that of a registrable
domain, so it passes every rule that a real provider's host passes.
"""

from __future__ import annotations

import base64
import hashlib
import html
import secrets
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any
from urllib.parse import unquote_plus, urlencode, urlsplit

from aiohttp import web

from local.simulators.world import BadInstruction, Route, World

DOMAIN = "oauth.example.net"
CODE_LIFE_S = 600
# The provider's treatment of a refresh token that has been used:
# `strict`: it is invalid, and its reuse revokes the whole grant (RFC 9700, 4.14.2).
# `grace`: for `grace_s` seconds, reuse returns a new pair; after that, as `strict`.
# `replay`: until the refresh token of the new pair is used, reuse returns that same pair; after that, as `strict`.
# `kept`: refresh tokens are not rotated, and the answer contains none.
REFRESH_MODES = ("strict", "grace", "replay", "kept")
TOKEN_AUTHS = ("any", "basic", "post")
ANSWERS = ("json", "form", "errors_with_200")


@dataclass
class Provider:
    """One provider and its one client. The answers omit `expires_in` and `scopes` if these are None."""

    name: str
    client_id: str
    client_secret: str
    redirect_uri: str = ""
    refresh_mode: str = "strict"
    grace_s: float = 30.0
    expires_in: int | None = 3_600
    gives_refresh_token: bool = True
    scopes: str | None = None
    token_auth: str = "any"
    answers: str = "json"
    pkce: bool = True

    @property
    def host(self) -> str:
        return f"{self.name}.{DOMAIN}"


@dataclass
class Code:
    redirect_uri: str
    scope: str
    challenge: str
    issued_at: float
    grant: Grant | None = None


@dataclass
class Grant:
    """One person's consent: a chain of token pairs, all of which a revocation invalidates."""

    scope: str
    pairs: int = 0
    revoked: bool = False


@dataclass
class RefreshToken:
    grant: Grant
    used_at: float | None = None
    answer: dict[str, Any] = field(default_factory=dict)
    successor: RefreshToken | None = None


@dataclass
class Issued:
    """What a provider has issued. `calls` counts token requests by grant type and outcome: `refresh_token rotated`."""

    codes: dict[str, Code] = field(default_factory=dict)
    grants: list[Grant] = field(default_factory=list)
    refresh_tokens: dict[str, RefreshToken] = field(default_factory=dict)
    access_tokens: dict[str, tuple[Grant, float | None]] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)


class OAuth2:
    platform = "oauth2"
    hosts: tuple[str, ...] = (f"*.{DOMAIN}",)

    def __init__(self, world: World) -> None:
        self.world = world
        self.providers: dict[str, Provider] = {}
        self.issued: dict[str, Issued] = {}

    # ---------------------------------------------------------------------------------------------------------- control

    def add_provider(self, given: Mapping[str, Any]) -> Provider:
        """Add a provider, or replace the one of the same name. Raises `BadInstruction`."""
        provider = checked(Provider(**given))
        self.providers[provider.host] = provider
        self.issued[provider.host] = Issued()
        return provider

    def change_provider(self, given: Mapping[str, Any]) -> Provider:
        """Change settings of a provider. Issued codes and tokens stay. Raises `BadInstruction`."""
        old = self.provider(str(given.get("name")))
        settings = {each.name: getattr(old, each.name) for each in fields(Provider)}
        provider = checked(Provider(**{**settings, **given}))
        self.providers[provider.host] = provider
        return provider

    def provider(self, name: str) -> Provider:
        """Raises `BadInstruction` for an unknown provider."""
        found = self.providers.get(f"{name}.{DOMAIN}")
        if found is None:
            raise BadInstruction(f"no such provider {name!r}: POST /oauth2/providers first")
        return found

    def issue_grant(self, name: str, scope: str) -> dict[str, Any]:
        """Issue a grant without a browser. Returns the answer of the token endpoint after a consent."""
        provider = self.provider(name)
        return self.new_grant(provider, self.issued[provider.host], scope)

    def end_tokens(self, name: str) -> None:
        """Expire all access tokens. Refresh tokens stay valid."""
        issued = self.issued[self.provider(name).host]
        now = self.world.clock.now()
        issued.access_tokens = {token: (grant, now) for token, (grant, _) in issued.access_tokens.items()}

    def revoke(self, name: str) -> None:
        """Revoke all grants."""
        for grant in self.issued[self.provider(name).host].grants:
            grant.revoked = True

    def dump(self) -> list[dict[str, Any]]:
        """The state of each provider, without secrets."""
        return [
            {
                "name": provider.name,
                "host": host,
                "refresh_mode": provider.refresh_mode,
                "codes": len(self.issued[host].codes),
                "calls": dict(self.issued[host].calls),
                "grants": [
                    {"pairs": grant.pairs, "revoked": grant.revoked, "scope": grant.scope}
                    for grant in self.issued[host].grants
                ],
            }
            for host, provider in self.providers.items()
        ]

    # ------------------------------------------------------------------------------------------------ serving.Simulator

    def routes(self, host: str) -> list[Route]:
        if host not in self.providers:
            return []
        return [
            Route("GET", "/authorize", self.consent_page),
            Route("GET", "/authorize/decision", self.decide),
            Route("POST", "/token", self.token),
            Route("GET", "/api/me", self.show_me),
        ]

    def account(self, request: web.BaseRequest) -> str:
        return request.host.partition(".")[0]

    def refuse(self, request: web.BaseRequest) -> web.Response | None:
        return None

    def failure(self, status: int) -> web.Response:
        errors = {404: "not_found", 429: "slow_down", 503: "temporarily_unavailable"}
        return web.json_response({"error": errors.get(status, "server_error")}, status=status)

    # ---------------------------------------------------------------------------------------------------------- consent

    async def consent_page(self, request: web.BaseRequest, _: dict[str, str]) -> web.Response:
        """A page with links to allow and to deny. An invalid client or redirect URI gets an error page, not a redirect."""
        provider = self.providers[request.host]
        query = request.query
        if problem := consent_problem(provider, query):
            return web.Response(status=400, text=f"<h1>{html.escape(problem)}</h1>", content_type="text/html")
        links = "".join(
            f'<p><a href="/authorize/decision?{html.escape(urlencode({**query, "decision": decision}))}">{label}</a>'
            for decision, label in (("allow", "Allow"), ("deny", "Deny"))
        )
        page = f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(provider.host)} (simulator)</title>
<h1>Allow {html.escape(provider.client_id)}: {html.escape(query.get("scope", "everything"))}?</h1>{links}</html>"""
        return web.Response(text=page, content_type="text/html")

    async def decide(self, request: web.BaseRequest, _: dict[str, str]) -> web.Response:
        provider = self.providers[request.host]
        query = request.query
        if problem := consent_problem(provider, query):
            return web.Response(status=400, text=problem)
        state = {"state": query["state"]} if "state" in query else {}
        if query.get("decision") == "allow":
            code = f"canary-code-{secrets.token_urlsafe(30)}"
            self.issued[provider.host].codes[code] = Code(
                query.get("redirect_uri", provider.redirect_uri),
                query.get("scope", ""),
                query.get("code_challenge", ""),
                self.world.clock.now(),
            )
            answer = {"code": code, **state, "iss": f"https://{provider.host}"}
        else:
            answer = {"error": "access_denied", **state}
        separator = "&" if urlsplit(provider.redirect_uri).query else "?"
        return web.Response(status=303, headers={"Location": f"{provider.redirect_uri}{separator}{urlencode(answer)}"})

    # ----------------------------------------------------------------------------------------------------------- tokens

    async def token(self, request: web.BaseRequest, _: dict[str, str]) -> web.Response:
        provider = self.providers[request.host]
        issued = self.issued[provider.host]
        form = {name: str(value) for name, value in (await request.post()).items()}
        grant_type = form.get("grant_type", "none")
        if not is_authenticated(provider, request.headers.get("Authorization", ""), form):
            outcome, answer = "invalid_client", {"error": "invalid_client"}
        elif grant_type == "authorization_code":
            outcome, answer = self.exchange(provider, issued, form)
        elif grant_type == "refresh_token":
            outcome, answer = self.refresh(provider, issued, form.get("refresh_token", ""))
        elif grant_type == "client_credentials":
            outcome, answer = "issued", self.pair(provider, issued, Grant(form.get("scope", "")), refreshable=False)
        else:
            outcome, answer = "unsupported", {"error": "unsupported_grant_type"}
        issued.calls[f"{grant_type} {outcome}"] += 1
        return token_response(provider, answer)

    def exchange(self, provider: Provider, issued: Issued, form: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
        code = issued.codes.get(form.get("code", ""))
        if code is None:
            return "unknown", {"error": "invalid_grant"}
        if code.grant is not None:
            # RFC 6749, 4.1.2: the reuse of a code should revoke the tokens that were issued for it.
            code.grant.revoked = True
            return "reused", {"error": "invalid_grant"}
        if self.world.clock.now() >= code.issued_at + CODE_LIFE_S:
            return "expired", {"error": "invalid_grant"}
        if form.get("redirect_uri") != code.redirect_uri:
            return "wrong_redirect_uri", {"error": "invalid_grant"}
        if code.challenge and challenge_of(form.get("code_verifier", "")) != code.challenge:
            return "wrong_verifier", {"error": "invalid_grant"}
        answer = self.new_grant(provider, issued, code.scope)
        code.grant = issued.grants[-1]
        return "issued", answer

    def refresh(self, provider: Provider, issued: Issued, text: str) -> tuple[str, dict[str, Any]]:
        token = issued.refresh_tokens.get(text)
        if token is None:
            return "unknown", {"error": "invalid_grant"}
        if token.grant.revoked:
            return "revoked", {"error": "invalid_grant"}
        if provider.refresh_mode == "kept":
            return "kept", self.pair(provider, issued, token.grant, refreshable=False)
        now = self.world.clock.now()
        if token.used_at is None:
            token.used_at = now
            token.answer = self.pair(provider, issued, token.grant)
            token.successor = issued.refresh_tokens.get(token.answer.get("refresh_token", ""))
            return "rotated", token.answer
        if provider.refresh_mode == "grace" and now < token.used_at + provider.grace_s:
            return "in_grace", self.pair(provider, issued, token.grant)
        if provider.refresh_mode == "replay" and token.successor and token.successor.used_at is None:
            return "replayed", token.answer
        token.grant.revoked = True
        return "reused", {"error": "invalid_grant"}

    def new_grant(self, provider: Provider, issued: Issued, scope: str) -> dict[str, Any]:
        grant = Grant(scope)
        issued.grants.append(grant)
        return self.pair(provider, issued, grant)

    def pair(self, provider: Provider, issued: Issued, grant: Grant, *, refreshable: bool = True) -> dict[str, Any]:
        """Tokens under a grant, as the token endpoint answers them."""
        grant.pairs += 1
        ends_at = None if provider.expires_in is None else self.world.clock.now() + provider.expires_in
        access_token = f"canary-access-{secrets.token_urlsafe(24)}"
        issued.access_tokens[access_token] = (grant, ends_at)
        answer: dict[str, Any] = {"access_token": access_token, "token_type": "Bearer"}
        if provider.expires_in is not None:
            answer["expires_in"] = provider.expires_in
        if provider.scopes is not None:
            answer["scope"] = provider.scopes
        if refreshable and provider.gives_refresh_token:
            refresh_token = f"canary-refresh-{secrets.token_urlsafe(24)}"
            issued.refresh_tokens[refresh_token] = RefreshToken(grant)
            answer["refresh_token"] = refresh_token
        return answer

    # -------------------------------------------------------------------------------------------------------------- API

    async def show_me(self, request: web.BaseRequest, _: dict[str, str]) -> web.Response:
        """The caller of the provider's API: the owner of a token (RFC 6750), or the client itself.

        The client's secret is also its password, its API key and a bearer token that does not expire.
        """
        provider = self.providers[request.host]
        authorization = request.headers.get("Authorization", "")
        by_password = authorization.startswith("Basic ") and is_authenticated(provider, authorization, {})
        by_key = request.headers.get("X-Api-Key") == provider.client_secret
        if by_password or by_key or authorization == f"Bearer {provider.client_secret}":
            return web.json_response({"sub": provider.client_id})
        scheme, _space, token = authorization.partition(" ")
        grant, ends_at = self.issued[request.host].access_tokens.get(token, (None, None))
        expired = ends_at is not None and self.world.clock.now() >= ends_at
        if scheme != "Bearer" or grant is None or grant.revoked or expired:
            return web.json_response(
                {"error": "invalid_token"}, status=401, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'}
            )
        return web.json_response({"sub": "somebody", "scope": grant.scope, "pairs": grant.pairs})


def checked(provider: Provider) -> Provider:
    for name, allowed in (("refresh_mode", REFRESH_MODES), ("token_auth", TOKEN_AUTHS), ("answers", ANSWERS)):
        if getattr(provider, name) not in allowed:
            raise BadInstruction(f"{name} must be one of {', '.join(allowed)}")
    return provider


def consent_problem(provider: Provider, query: Mapping[str, str]) -> str:
    if query.get("client_id") != provider.client_id:
        return "no such client"
    if query.get("redirect_uri", provider.redirect_uri) != provider.redirect_uri or not provider.redirect_uri:
        return "this redirect URI is not registered"
    if query.get("response_type") != "code":
        return "response_type must be code"
    if provider.pkce and (query.get("code_challenge_method") != "S256" or len(query.get("code_challenge", "")) != 43):
        return "this provider requires PKCE with S256"
    return ""


def is_authenticated(provider: Provider, header: str, form: Mapping[str, str]) -> bool:
    """Whether the client authenticates with exactly one method (RFC 6749, 2.3.1)."""
    scheme, _, encoded = header.partition(" ")
    if scheme == "Basic":
        try:
            name, _, password = base64.b64decode(encoded).decode().partition(":")
        except ValueError:
            return False
        given, how = (unquote_plus(name), unquote_plus(password)), "basic"
        if "client_secret" in form:
            return False
    else:
        given, how = (form.get("client_id", ""), form.get("client_secret", "")), "post"
    return given == (provider.client_id, provider.client_secret) and provider.token_auth in ("any", how)


def challenge_of(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")


def token_response(provider: Provider, answer: Mapping[str, Any]) -> web.Response:
    """The answer in the provider's format and with its status codes."""
    headers = {"Cache-Control": "no-store"}
    if provider.answers == "form":
        return web.Response(text=urlencode(answer), content_type="application/x-www-form-urlencoded", headers=headers)
    status = 200
    if "error" in answer and provider.answers != "errors_with_200":
        status = 401 if answer["error"] == "invalid_client" else 400
    return web.json_response(answer, status=status, headers=headers)
