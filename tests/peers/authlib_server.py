"""Authlib's authorization server on Flask: `python -m tests.peers.authlib_server`, its settings as JSON in PEER.

It follows Authlib's documentation; tokens are kept in memory. A refresh token that is shown again ends its grant.
https://docs.authlib.org/en/stable/oauth2/authorization-server/
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from dataclasses import dataclass
from typing import Any

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2.rfc6749 import grants
from authlib.oauth2.rfc6750 import BearerTokenGenerator
from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc7636 import CodeChallenge
from flask import Flask, Response, jsonify, request
from werkzeug.serving import WSGIRequestHandler, make_server

SETTINGS = json.loads(os.environ["PEER"])
control: dict[str, Any] = {"access_s": 3600, "refresh_s": 86400, "offset_s": 0, "scopes": None}
lock = threading.Lock()


def now() -> float:
    return time.time() + float(control["offset_s"])


class Client:
    """The part of Authlib's client model that does not need a database."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.client_id, self.client_secret = str(given["client_id"]), str(given["client_secret"])
        self.redirect_uri, self.scope = str(given.get("redirect_uri", "")), str(given["scopes"])
        self.token_endpoint_auth_method = f"client_secret_{given['token_auth']}"

    def get_client_id(self) -> str:
        return self.client_id

    def get_default_redirect_uri(self) -> str:
        return self.redirect_uri

    def get_allowed_scope(self, scope: str) -> str:
        allowed = (self.scope if control["scopes"] is None else control["scopes"]).split()
        return " ".join(each for each in (scope or self.scope).split() if each in allowed)

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return redirect_uri == self.redirect_uri

    def check_client_secret(self, client_secret: str) -> bool:
        return secrets.compare_digest(self.client_secret, client_secret)

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return endpoint != "token" or method == self.token_endpoint_auth_method

    def check_response_type(self, response_type: str) -> bool:
        return bool(self.redirect_uri) and response_type == "code"

    def check_grant_type(self, grant_type: str) -> bool:
        own = ("authorization_code", "refresh_token") if self.redirect_uri else ("client_credentials",)
        return grant_type in own


@dataclass
class Code:
    code: str
    client: Client
    redirect_uri: str
    scope: str
    code_challenge: str
    code_challenge_method: str

    def get_redirect_uri(self) -> str:
        return self.redirect_uri

    def get_scope(self) -> str:
        return self.scope


@dataclass
class Token:
    """All pairs of tokens of one consent share a `family`."""

    client: Client
    scope: str
    access_token: str
    refresh_token: str | None
    family: dict[str, bool]
    access_ends: float
    refresh_ends: float
    used: bool = False

    def check_client(self, client: Client) -> bool:
        return client.client_id == self.client.client_id

    def get_scope(self) -> str:
        return self.scope

    def get_expires_in(self) -> int:
        return int(self.access_ends - now())

    def is_expired(self) -> bool:
        return now() >= self.access_ends

    def is_revoked(self) -> bool:
        return bool(self.family["revoked"])


CLIENTS = {given["client_id"]: Client(given) for given in SETTINGS["clients"]}
codes: dict[str, Code] = {}
tokens: list[Token] = []


def save_token(token: dict[str, Any], asked: Any) -> None:
    family = getattr(asked, "family", None) or {"revoked": False}
    tokens.append(
        Token(
            asked.client, token.get("scope") or "", token["access_token"], token.get("refresh_token"), family,
            now() + token["expires_in"], now() + control["refresh_s"],
        )
    )  # fmt: skip


class AuthorizationCodeGrant(grants.AuthorizationCodeGrant):  # type: ignore[misc]
    TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_basic", "client_secret_post")

    def save_authorization_code(self, code: str, asked: Any) -> None:
        data = asked.payload.data
        codes[code] = Code(
            code, asked.client, asked.payload.redirect_uri, asked.client.get_allowed_scope(asked.payload.scope),
            data.get("code_challenge"), data.get("code_challenge_method"),
        )  # fmt: skip

    def query_authorization_code(self, code: str, client: Client) -> Code | None:
        found = codes.get(code)
        return found if found and found.client.client_id == client.client_id else None

    def delete_authorization_code(self, authorization_code: Code) -> None:
        del codes[authorization_code.code]

    def authenticate_user(self, authorization_code: Code) -> str:
        return "somebody"


class RefreshTokenGrant(grants.RefreshTokenGrant):  # type: ignore[misc]
    TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_basic", "client_secret_post")
    INCLUDE_NEW_REFRESH_TOKEN = True

    def authenticate_refresh_token(self, refresh_token: str) -> Token | None:
        found = next((each for each in tokens if each.refresh_token == refresh_token), None)
        if found and found.used:
            found.family["revoked"] = True
        if not found or found.is_revoked() or now() >= found.refresh_ends:
            return None
        self.request.family = found.family
        return found

    def authenticate_user(self, refresh_token: Token) -> str:
        return "somebody"

    def revoke_old_credential(self, refresh_token: Token) -> None:
        refresh_token.used = True


class ClientCredentialsGrant(grants.ClientCredentialsGrant):  # type: ignore[misc]
    TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_basic", "client_secret_post")


class Revocation(RevocationEndpoint):  # type: ignore[misc]
    def query_token(self, token_string: str, token_type_hint: str) -> Token | None:
        return next((each for each in tokens if token_string in (each.access_token, each.refresh_token)), None)

    def revoke_token(self, token: Token, asked: Any) -> None:
        token.family["revoked"] = True


app = Flask(__name__)
app.config["OAUTH2_REFRESH_TOKEN_GENERATOR"] = True
server = AuthorizationServer(app, query_client=CLIENTS.get, save_token=save_token)
server.register_token_generator(
    "default",
    BearerTokenGenerator(
        lambda **_: secrets.token_urlsafe(32),
        lambda **_: secrets.token_urlsafe(32),
        lambda *_: control["access_s"],
    ),
)
server.register_grant(AuthorizationCodeGrant, [CodeChallenge(required=True)])
server.register_grant(RefreshTokenGrant)
server.register_grant(ClientCredentialsGrant)
server.register_endpoint(Revocation)


@app.get("/authorize")
def authorize() -> Any:
    grant = server.get_consent_grant(end_user="somebody")
    return server.create_authorization_response(grant_user="somebody", grant=grant)


@app.post("/token")
def token() -> Any:
    with lock:
        return server.create_token_response()


@app.post("/revoke")
def revoke() -> Any:
    return server.create_endpoint_response("revocation")


@app.get("/me")
def me() -> Any:
    shown = request.headers.get("Authorization", "").removeprefix("Bearer ")
    found = next((each for each in tokens if each.access_token == shown), None)
    if not found or found.is_expired() or found.is_revoked():
        return Response(status=401, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})
    return jsonify(sub="somebody")


@app.post("/_control")
def change() -> Any:
    asked = request.get_json()
    ended = asked.pop("end_access_token", None)
    for each in tokens:
        if each.access_token == ended:
            each.access_ends = 0
    control.update(asked)
    return jsonify(control)


class Quiet(WSGIRequestHandler):
    def log(self, *_: Any, **__: Any) -> None:
        pass


def https(environ: dict[str, Any], start_response: Any) -> Any:
    """The proxy terminates TLS."""
    environ["wsgi.url_scheme"] = "https"
    return app.wsgi_app(environ, start_response)


if __name__ == "__main__":
    listening = make_server("127.0.0.1", 0, https, threaded=True, request_handler=Quiet)
    print(f"ready {listening.server_port}", flush=True)
    listening.serve_forever()
