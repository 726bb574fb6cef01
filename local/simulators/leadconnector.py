"""LeadConnector, as HighLevel describes it: private integration tokens, a location, contacts by id and by upsert, rate limits.

Source pages: private integrations, contacts (get-contact, upsert-contact), get-location, rate limits.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from local.simulators.world import BadInstruction, Route, World

HOST = "services.leadconnectorhq.com"
# The second one is sent by HighLevel's own SDK for Python, gohighlevel-api-client 3.0.0.
API_VERSIONS = ("2021-07-28", "v3")
# "Rotate and expire later": how long the old token stays valid.
OVERLAP_S = 7 * 24 * 3600.0
WINDOW_S = 10.0
SCOPES = ("contacts.readonly", "contacts.write", "locations.readonly")


@dataclass
class Location:
    id: str
    name: str = "Padaria Exemplo"
    requests_per_window: int = 100
    requests_per_day: int = 200_000
    refuses_duplicates: bool = False
    contacts: dict[str, dict[str, Any]] = field(default_factory=dict)
    recent: deque[float] = field(default_factory=deque)
    day: int = 0
    used_today: int = 0


@dataclass
class Token:
    """A private integration's token. It expires at `ends_at` (epoch seconds of the simulators' clock)."""

    location: str
    scopes: tuple[str, ...] = SCOPES
    ends_at: float | None = None
    calls: int = 0


class LeadConnector:
    platform = "leadconnector"
    hosts: tuple[str, ...] = (HOST,)

    def __init__(self, world: World) -> None:
        self.world = world
        self.locations: dict[str, Location] = {}
        self.tokens: dict[str, Token] = {}

    # ---------------------------------------------------------------------------------------------------------- control

    def add_location(self, given: Mapping[str, Any]) -> Location:
        location = Location(**given)
        self.locations[location.id] = location
        return location

    def add_token(self, token: str, location: str, scopes: list[str] | None = None) -> None:
        if location not in self.locations:
            raise BadInstruction(f"no such location {location!r}: POST /leadconnector/locations first")
        if unknown := set(scopes or ()) - set(SCOPES):
            raise BadInstruction(f"unknown scopes: {', '.join(sorted(unknown))}; known: {', '.join(SCOPES)}")
        self.tokens[token] = Token(location, SCOPES if scopes is None else tuple(scopes))

    def revoke_token(self, token: str, after_s: float = 0.0) -> None:
        """End a token after `after_s` seconds. 0 has the effect of deleting it, or of *rotate and expire now*."""
        if token not in self.tokens:
            raise BadInstruction("no such token")
        self.tokens[token].ends_at = self.world.clock.now() + after_s

    def rotate_token(self, token: str, new: str, expire_now: bool = False) -> None:
        """Rotate a token, as an administrator does in LeadConnector's settings."""
        if token not in self.tokens:
            raise BadInstruction("no such token")
        old = self.tokens[token]
        self.tokens[new] = Token(old.location, old.scopes)
        self.revoke_token(token, 0.0 if expire_now else OVERLAP_S)

    def dump(self) -> dict[str, Any]:
        now = self.world.clock.now()
        return {
            "locations": [
                {"id": each.id, "contacts": list(each.contacts.values()), "used_today": each.used_today}
                for each in self.locations.values()
            ],
            "tokens": {
                hashlib.sha256(token.encode()).hexdigest(): {
                    "location": each.location,
                    "calls": each.calls,
                    "works": each.ends_at is None or now < each.ends_at,
                }
                for token, each in self.tokens.items()
            },
        }

    # ------------------------------------------------------------------------------------------------ serving.Simulator

    def routes(self, host: str) -> list[Route]:
        return [
            Route("GET", "/locations/{location}", self.show_location),
            Route("POST", "/contacts/upsert", self.upsert),
            Route("GET", "/contacts/{contact}", self.show_contact),
        ]

    def account(self, request: web.BaseRequest) -> str:
        token = self.tokens.get(bearer(request))
        return token.location if token else ""

    def refuse(self, request: web.BaseRequest) -> web.Response | None:
        if request.headers.get("User-Agent", "").startswith(("python-requests", "Python-urllib")):
            return web.Response(status=403, text="error code: 1010", content_type="text/html")
        if request.headers.get("Version") not in API_VERSIONS:
            return error(401, "version header was not found.")
        token = self.tokens.get(bearer(request))
        if token is None or (token.ends_at is not None and self.world.clock.now() >= token.ends_at):
            return error(
                401, "Invalid Private Integration token" if bearer(request).startswith("pit-") else "Invalid JWT"
            )
        token.calls += 1
        return self.limit(self.locations[token.location])

    def limit(self, location: Location) -> web.Response | None:
        now = time.monotonic()
        while location.recent and location.recent[0] < now - WINDOW_S:
            location.recent.popleft()
        today = int(self.world.clock.now() // 86_400)
        if today != location.day:
            location.day, location.used_today = today, 0
        if len(location.recent) >= location.requests_per_window or location.used_today >= location.requests_per_day:
            return self.with_limits(location, error(429, "Too Many Requests"))
        location.recent.append(now)
        location.used_today += 1
        return None

    def with_limits(self, location: Location, response: web.Response) -> web.Response:
        limits = {
            "X-RateLimit-Limit-Daily": str(location.requests_per_day),
            "X-RateLimit-Daily-Remaining": str(location.requests_per_day - location.used_today),
            "X-RateLimit-Interval-Milliseconds": str(int(WINDOW_S * 1000)),
            "X-RateLimit-Max": str(location.requests_per_window),
            "X-RateLimit-Remaining": str(max(0, location.requests_per_window - len(location.recent))),
        }
        response.headers.update(limits)
        return response

    def failure(self, status: int) -> web.Response:
        messages = {401: "Command timed out", 429: "Too Many Requests", 404: "Cannot find this path"}
        return error(status, messages.get(status, "Internal server error"))

    async def show_location(self, request: web.BaseRequest, parts: dict[str, str]) -> web.Response:
        location, refusal = self.entered(request, "locations.readonly", parts["location"])
        if refusal:
            return refusal
        return self.with_limits(location, web.json_response({"location": {"id": location.id, "name": location.name}}))

    async def show_contact(self, request: web.BaseRequest, parts: dict[str, str]) -> web.Response:
        location, refusal = self.entered(request, "contacts.readonly")
        if refusal:
            return refusal
        contact = location.contacts.get(parts["contact"])
        answer = web.json_response({"contact": contact}) if contact else error(400, "Contact not found")
        return self.with_limits(location, answer)

    async def upsert(self, request: web.BaseRequest, _: dict[str, str]) -> web.Response:
        """Match by e-mail address, otherwise by phone. Every given field is overwritten, including tags.

        If the two match different contacts, the location can be set to refuse the request.
        """
        try:
            given = json.loads(await request.read())
        except ValueError:
            return error(400, "Unexpected token in JSON")
        if not isinstance(given, dict) or not isinstance(given.get("locationId"), str):
            return error(422, ["locationId should not be empty", "locationId must be a string"])
        location, refusal = self.entered(request, "contacts.write", given["locationId"])
        if refusal:
            return refusal
        if "@" not in str(given.get("email") or "@"):
            return self.with_limits(location, error(422, ["email must be an email"]))
        matching = [
            each
            for name in ("email", "phone")
            for each in location.contacts.values()
            if given.get(name) and each.get(name) == given[name]
        ]
        found = matching[0] if matching else None
        if location.refuses_duplicates and any(each is not found for each in matching):
            meta = {"contactId": matching[-1]["id"], "matchingField": "phone"}
            refusal = error(400, "This location does not allow duplicated contacts.", meta=meta)
            return self.with_limits(location, refusal)
        contact: dict[str, Any] = (
            found if found is not None else {"id": uuid.uuid4().hex[:20], "locationId": location.id}
        )
        contact |= {name: value for name, value in given.items() if name not in ("locationId", "customFields")}
        if "customFields" in given:
            contact["customFields"] = custom_fields(given["customFields"])
        location.contacts[contact["id"]] = contact
        answer = {"new": found is None, "contact": contact, "traceId": str(uuid.uuid4())}
        return self.with_limits(location, web.json_response(answer, status=201 if found is None else 200))

    def entered(
        self, request: web.BaseRequest, scope: str, location: str | None = None
    ) -> tuple[Location, web.Response | None]:
        """The location of the request's token, and the refusal if the token has no access to `location` with `scope`."""
        token = self.tokens[bearer(request)]
        own = self.locations[token.location]
        if scope not in token.scopes:
            return own, error(401, "The token is not authorized for this scope.")
        if location not in (None, own.id):
            return own, error(403, "The token does not have access to this location.")
        return own, None


def custom_fields(given: Any) -> list[dict[str, Any]]:
    """The format of reads, with `id` and `value`. A field written by its key is returned with the key in place of the id."""
    rows = [each for each in given if isinstance(each, dict)] if isinstance(given, list) else []
    return [{"id": each.get("id") or each.get("key"), "value": each.get("field_value")} for each in rows]


def bearer(request: web.BaseRequest) -> str:
    return request.headers.get("Authorization", "").removeprefix("Bearer ")


def error(status: int, message: str | list[str], **more: Any) -> web.Response:
    document = {"statusCode": status, "message": message, "traceId": str(uuid.uuid4()), **more}
    return web.json_response(document, status=status)
