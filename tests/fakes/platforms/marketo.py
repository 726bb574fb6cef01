"""Marketo's identity service and its persons endpoint, in process, at the edge of `requests`: with the limits it states."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import requests
import responses

from tests.fakes.platforms.kommo import Answer

MUNCHKIN = "123-ABC-456"
CLIENT_ID, CLIENT_SECRET = "client-id-7", "canary-marketo-secret"
TOKEN_URL = "https://123-abc-456.mktorest.com/identity/oauth/token"
PERSONS_URL = f"https://mkto-ingestion-api.adobe.io/subscriptions/{MUNCHKIN}/persons"

Rule = Callable[[dict[str, Any]], "Answer | Exception | None"]


class Marketo:
    """`accepted` are the documents answered with 202. `rule` may answer a request in its stead; `before` holds answers to
    give to the next requests, each once. `tokens` counts the tokens asked for; only the last one given is good."""

    def __init__(self, mock: responses.RequestsMock) -> None:
        self.accepted: list[dict[str, Any]] = []
        self.requests: list[requests.PreparedRequest] = []
        self.before: list[Answer | Exception] = []
        self.rule: Rule = lambda document: None
        self.tokens = 0
        self.good_from = 1
        mock.add_callback("POST", TOKEN_URL, self._token)
        mock.add_callback("POST", PERSONS_URL, self._persons)

    @property
    def persons(self) -> list[dict[str, Any]]:
        return [person for document in self.accepted for person in document["persons"]]

    @property
    def emails(self) -> list[str]:
        return [person["email"] for person in self.persons]

    def _token(self, request: requests.PreparedRequest) -> Answer:
        body = request.body.decode() if isinstance(request.body, bytes) else str(request.body)
        form = {name: values[0] for name, values in parse_qs(body).items()}
        assert form == {
            "grant_type": "client_credentials",
            "client_id": CLIENT_ID,
            "client_secret": CLIENT_SECRET,
        }
        self.tokens += 1
        token = {
            "access_token": f"canary-token-{self.tokens}:int",
            "token_type": "bearer",
            "expires_in": 3599,
            "scope": "api@example.com",
        }
        return 200, {"Content-Type": "application/json"}, json.dumps(token)

    def _persons(self, request: requests.PreparedRequest) -> Answer | Exception:
        self.requests.append(request)
        if self.before:
            return self.before.pop(0)
        token = request.headers.get("X-Mkto-User-Token", "")
        if not token:
            return error("403010")
        number = token.removeprefix("canary-token-").removesuffix(":int")
        if not number.isdigit() or int(number) < self.good_from:
            return error("401013")
        assert isinstance(request.body, bytes)
        document = json.loads(request.body)
        if len(request.body) > 1_000_000 or len(document["persons"]) > 1_000 or not document["persons"]:
            return error("4000801")
        if (answer := self.rule(document)) is not None:
            return answer
        self.accepted.append(document)
        return 202, {"X-Request-Id": f"request-{len(self.accepted)}"}, ""


def error(code: str, headers: dict[str, str] | None = None) -> Answer:
    body = json.dumps({"error_code": code, "message": "as documented"})
    return (
        int(code[:3]),
        {"Content-Type": "application/json", "X-Request-Id": f"refused-{code}", **(headers or {})},
        body,
    )


def refuse_persons(bad: set[str], code: str = "4000802") -> Rule:
    """Refuses each request that holds one of these e-mail addresses."""

    def rule(document: dict[str, Any]) -> Answer | None:
        return error(code) if any(person.get("email") in bad for person in document["persons"]) else None

    return rule
