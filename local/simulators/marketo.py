"""Marketo, as Adobe describes it: the identity service and the Data Ingestion API for persons.

Followed pages: the REST API's authentication page, and the Data Ingestion API's (limits, error codes, headers).
"""

from __future__ import annotations

import json
import time
import uuid
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from aiohttp import web

from local.simulators.world import BadInstruction, Route, World, nginx_forbidden

MAX_BODY_BYTES = 1_000_000
MAX_OBJECTS = 1_000
INGESTION_HOST = "mkto-ingestion-api.adobe.io"
MESSAGES = {
    "401013": "Oauth token is not valid",
    "403010": "Oauth token is missing",
    "404040": "Resource not found",
    "429001": "Service usage limit reached",
    "4000801": "Bad request",
    "4000802": "Bad data",
    "4030801": "Not authorized",
    "4290801": "Daily quota reached",
    "5000801": "Internal server error",
}


@dataclass
class Person:
    """A person as upserts have left it. `writes` counts them; the last one wins attribute by attribute."""

    attributes: dict[str, Any]
    writes: int = 1
    partition: str = ""
    request_id: str = ""


@dataclass
class Instance:
    """A Marketo subscription with one API user.

    `zero_lives` answers of the identity service say `expires_in: 0`. `poison` rejects a request with a person whose
    attribute has that value (4000802). `failed` are persons of accepted requests that could not be looked up.
    """

    munchkin: str
    client_id: str
    client_secret: str
    token_life_s: int = 3600
    daily_quota: int = 10_000_000
    requests_per_s: int = 5_000
    token: str = ""
    token_expires_at: float = 0.0
    tokens_issued: int = 0
    zero_lives: int = 0
    poison: dict[str, Any] = field(default_factory=dict)
    persons: dict[tuple[Any, ...], Person] = field(default_factory=dict)
    failed: list[dict[str, Any]] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    quota_day: str = ""
    quota_used: int = 0
    recent: deque[float] = field(default_factory=deque)


class Marketo:
    platform = "marketo"
    hosts: tuple[str, ...] = ("*.mktorest.com", INGESTION_HOST)

    def __init__(self, world: World) -> None:
        self.world = world
        self.instances: dict[str, Instance] = {}

    # ------------------------------------------------------------------------------------------------ what control sets

    def add_instance(self, given: Mapping[str, Any]) -> Instance:
        instance = Instance(**{**given, "munchkin": str(given.get("munchkin", "")).lower()})
        self.instances[instance.munchkin] = instance
        return instance

    def instance(self, munchkin: str) -> Instance:
        try:
            return self.instances[munchkin.lower()]
        except KeyError:
            raise BadInstruction(f"no such instance {munchkin!r}: POST /marketo/instances first") from None

    def dump(self) -> list[dict[str, Any]]:
        return [
            {
                "munchkin": each.munchkin,
                "persons": len(each.persons),
                "failed": len(each.failed),
                "requests": len(each.requests),
                "accepted": sum(request["status"] == 202 for request in each.requests),
                "tokens_issued": each.tokens_issued,
                "quota_used": each.quota_used,
            }
            for each in self.instances.values()
        ]

    # ---------------------------------------------------------------------------------------------------------- serving

    def routes(self, host: str) -> list[Route]:
        if host == INGESTION_HOST:
            return [Route("POST", "/subscriptions/{munchkin}/persons", self.ingest)]
        if host.partition(".")[0] in self.instances:
            return [
                Route("GET", "/identity/oauth/token", self.token),
                Route("POST", "/identity/oauth/token", self.token),
            ]
        return []

    def account(self, request: web.BaseRequest) -> str:
        if request.host == INGESTION_HOST:
            parts = request.path.split("/")
            return parts[2].lower() if len(parts) > 2 else ""
        return request.host.partition(".")[0]

    def refuse(self, request: web.BaseRequest) -> web.Response | None:
        instance = self.instances.get(self.account(request))
        if instance is None or request.host != INGESTION_HOST:
            return None
        now = time.monotonic()
        while instance.recent and instance.recent[0] < now - 1:
            instance.recent.popleft()
        if len(instance.recent) >= instance.requests_per_s:
            return error("429001")
        instance.recent.append(now)
        return None

    def failure(self, status: int) -> web.Response:
        codes = {401: "401013", 404: "404040", 429: "429001", 500: "5000801", 400: "4000801"}
        if status == 403:
            return nginx_forbidden()
        return error(codes[status]) if status in codes else web.Response(status=status, text="upstream error")

    # --------------------------------------------------------------------------------------------------------- identity

    async def token(self, request: web.BaseRequest, _: dict[str, str]) -> web.Response:
        """One token for all who ask, with what is left of its life."""
        instance = self.instances[request.host.partition(".")[0]]
        given = {**request.query, **(await request.post())}
        if given.get("grant_type") != "client_credentials":
            return web.json_response(
                {"error": "unsupported_grant_type", "error_description": "Unsupported grant type"}, status=400
            )
        if (given.get("client_id"), given.get("client_secret")) != (instance.client_id, instance.client_secret):
            return web.json_response(
                {"error": "invalid_client", "error_description": "Client authentication failed"}, status=401
            )
        now = self.world.clock.now()
        if now >= instance.token_expires_at:
            instance.token = f"canary-{uuid.uuid4()}:int"
            instance.token_expires_at = now + instance.token_life_s
            instance.tokens_issued += 1
        left = int(instance.token_expires_at - now)
        if instance.zero_lives > 0:
            instance.zero_lives -= 1
            left = 0
        return web.json_response(
            {
                "access_token": instance.token,
                "token_type": "bearer",
                "expires_in": left,
                "scope": "api-user@marketo.example",
            }
        )

    # -------------------------------------------------------------------------------------------------------- ingestion

    async def ingest(self, request: web.BaseRequest, parts: dict[str, str]) -> web.Response:
        request_id = uuid.uuid4().hex
        instance = self.instances.get(parts["munchkin"].lower())
        content = await request.read()
        code, document = self.check(instance, request, content)
        if instance:
            instance.requests.append(
                {
                    "request_id": request_id,
                    "received_at": self.world.clock.now(),
                    "status": int(code[:3]) if code else 202,
                    "error_code": code,
                    "objects": len(document.get("persons", [])) if document else None,
                    "bytes": len(content),
                    "priority": document.get("priority", "normal") if document else None,
                    "correlation_id": request.headers.get("X-Correlation-Id", ""),
                    "request_source": request.headers.get("X-Request-Source", ""),
                }
            )
        if code or instance is None:
            response = error(code or "404040")
        else:
            self.upsert(instance, document, request_id)
            response = web.Response(status=202)
        response.headers["X-Request-Id"] = request_id
        return response

    def check(
        self, instance: Instance | None, request: web.BaseRequest, content: bytes
    ) -> tuple[str | None, dict[str, Any]]:
        """The error code of a bad request, or None and its document."""
        token = request.headers.get("X-Mkto-User-Token")
        if not token:
            return "403010", {}
        if instance is None:
            return "404040", {}
        if token != instance.token or self.world.clock.now() >= instance.token_expires_at:
            return "401013", {}
        if (
            len(content) > MAX_BODY_BYTES
            or request.content_type != "application/json"
            or len(request.headers.get("X-Correlation-Id", "")) > 255
            or len(request.headers.get("X-Request-Source", "")) > 50
        ):
            return "4000801", {}
        try:
            document = json.loads(content)
        except ValueError:
            return "4000801", {}
        if not well_formed(document):
            return "4000801", {}
        persons = document["persons"]
        if len(persons) > MAX_OBJECTS:
            return "4000801", document
        if any(person.get(name) == value for person in persons for name, value in instance.poison.items()):
            return "4000802", document
        if not self.spend(instance, len(persons)):
            return "4290801", document
        return None, document

    def spend(self, instance: Instance, objects: int) -> bool:
        """Take from the day's quota, which is renewed at midnight US Central; False if it does not suffice."""
        day = (
            datetime.fromtimestamp(self.world.clock.now(), UTC)
            .astimezone(ZoneInfo("America/Chicago"))
            .date()
            .isoformat()
        )
        if day != instance.quota_day:
            instance.quota_day, instance.quota_used = day, 0
        if instance.quota_used + objects > instance.daily_quota:
            return False
        instance.quota_used += objects
        return True

    def upsert(self, instance: Instance, document: dict[str, Any], request_id: str) -> None:
        names = list((document.get("dedupeFields") or {"field1": "email"}).values())
        for attributes in document["persons"]:
            key = tuple(attributes.get(name) for name in names)
            if any(value in (None, "") for value in key):
                instance.failed.append({"attributes": attributes, "request_id": request_id})
                continue
            key = (*names, *key)
            person = instance.persons.get(key)
            if person:
                person.attributes |= attributes
                person.writes += 1
                person.request_id = request_id
            else:
                partition = document.get("partitionName", "Default")
                instance.persons[key] = Person(dict(attributes), partition=partition, request_id=request_id)


def well_formed(document: Any) -> bool:
    """Whether a body has the shape of a persons request."""
    if not isinstance(document, dict) or document.get("priority", "normal") not in ("normal", "high"):
        return False
    if not document.keys() <= {"priority", "partitionName", "dedupeFields", "persons"}:
        return False
    dedupe = document.get("dedupeFields", {"field1": "email"})
    persons = document.get("persons")
    return (
        isinstance(dedupe, dict)
        and "field1" in dedupe
        and dedupe.keys() <= {"field1", "field2"}
        and all(isinstance(name, str) and name for name in dedupe.values())
        and isinstance(persons, list)
        and bool(persons)
        and all(isinstance(person, dict) for person in persons)
    )


def error(code: str) -> web.Response:
    """Adobe's error body. The first three digits of a code are the HTTP status."""
    return web.json_response(
        {"error_code": code, "message": MESSAGES[code]},
        status=int(code[:3]),
        headers={"X-Request-Id": uuid.uuid4().hex},
    )
