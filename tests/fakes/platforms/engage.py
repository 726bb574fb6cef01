"""Engage in process, at the edge of `requests`: logging in, signing users on, registering their identifiers."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import requests
import responses

from tests.fakes.platforms.kommo import Answer

LOG_IN = {
    "username": "integração",
    "password": "canary senhã & co",
    "client_id": "engage-client",
    "client_secret": "canary-engage-secret",
    "customer_token": "canary-customer/token+&",
}
CUSTOMER = "acme"
JSON = {"Content-Type": "application/json"}


class Engage:
    """`hosts` counts the log-ins at each host; the last token given is good.

    `people` are the logins that exist, `registered` the identifiers by login. `before` holds answers to give to the next
    requests for identifiers, each once, None for the true one; `sso` the same for sign-ons.
    """

    def __init__(self, mock: responses.RequestsMock) -> None:
        self.hosts: list[str] = []
        self.people: set[str] = {"maria", "joão"}
        self.registered: dict[str, str] = {"u-1": "maria"}
        self.before: list[Answer | Exception | None] = []
        self.sso: list[Answer | Exception | None] = []
        self.keys: list[str] = []
        self.requests: list[requests.PreparedRequest] = []
        for host in ("sandbox.engage.bz", "my.engage.bz"):
            mock.add_callback("POST", f"https://{host}/api/v1/auth", self._authenticate)
            mock.add_callback("POST", f"https://{host}/api/v1/{CUSTOMER}/users/identifiers", self._register)

    @property
    def token(self) -> str:
        return f"canary-engage-token-{len(self.hosts)}"

    def _authenticate(self, request: requests.PreparedRequest) -> Answer | Exception:
        body = request.body.decode() if isinstance(request.body, bytes) else str(request.body)
        form = {name: values[0] for name, values in parse_qs(body).items()}
        if form.get("grant_type") == "custom_sso":
            return self._sign_on(form)
        self.hosts.append(str(request.url).split("/")[2])
        log_in = {name: value for name, value in LOG_IN.items() if name != "customer_token"}
        if form != {"grant_type": "password", "customer_id": CUSTOMER, **log_in}:
            return refusal(400, "invalid_grant", f"wrong: {form.get('password')}")
        return 200, JSON, json.dumps(self._granted(form))

    def _sign_on(self, form: dict[str, str]) -> Answer | Exception:
        if self.sso and (answer := self.sso.pop(0)):
            return answer
        user = form.pop("user_identifier", "")
        proof = {name: LOG_IN[name] for name in ("customer_token", "client_id", "client_secret")}
        if form != {"grant_type": "custom_sso", "customer_id": CUSTOMER, **proof}:
            return refusal(400, "invalid_client", f"wrong: {form.get('customer_token')}")
        if user not in self.registered:
            return refusal(400, "invalid_grant", f"unknown: {user}")
        self.keys.append(f"canary-key-{len(self.keys) + 1}/+&")
        return 200, JSON, json.dumps(self._granted(form) | {"key": self.keys[-1]})

    def _granted(self, form: dict[str, str]) -> dict[str, Any]:
        return {
            "access_token": self.token,
            "token_type": "bearer",
            "expires_in": 1499,
            "client_id": form["client_id"],
            "customer_id": CUSTOMER,
            "user_id": "1",
        }

    def _register(self, request: requests.PreparedRequest) -> Answer | Exception:
        self.requests.append(request)
        if self.before and (answer := self.before.pop(0)):
            return answer
        if request.headers["Authorization"] != f"Bearer {self.token}":
            return refusal(401, "invalid_token", "expired")
        if parse_qs(urlsplit(str(request.url)).query) != {"customerToken": [LOG_IN["customer_token"]]}:
            return refusal(403, "access_denied", "wrong customer")
        users = json.loads(request.body or b"")
        for user in users:
            assert user.keys() == {"user_login", "client_application_id", "identifier"}
            assert user["client_application_id"] == LOG_IN["client_id"]
            if user["user_login"] not in self.people:
                return refusal(400, "user_not_found", user["user_login"])
            if self.registered.get(user["identifier"], user["user_login"]) != user["user_login"]:
                return refusal(409, "identifier_in_use", user["identifier"])
        self.registered |= {user["identifier"]: user["user_login"] for user in users}
        return 200, JSON, ""


def refusal(status: int, code: str, description: str = "This is an error.") -> Answer:
    return status, JSON, json.dumps({"error": code, "error_description": description})
