"""The simulated Marketo: its instances, hosts, routes and rate limit."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from local.simulators.marketo import observability
from local.simulators.marketo.identity import answer_token_request
from local.simulators.marketo.ingestion import IngestionApi
from local.simulators.marketo.instance import Instance, StoredObject
from local.simulators.marketo.responses import error
from local.simulators.world import BadInstruction, Route, World, nginx_forbidden

INGESTION_HOST = "mkto-ingestion-api.adobe.io"


class Marketo:
    platform = "marketo"
    hosts: tuple[str, ...] = ("*.mktorest.com", INGESTION_HOST)

    def __init__(self, world: World) -> None:
        self.clock = world.clock
        self.instances: dict[str, Instance] = {}
        self.ingestion = IngestionApi(self.instances, self.clock)

    def add_instance(self, given: Mapping[str, Any]) -> Instance:
        definitions = given.get("custom_objects", {})
        settings = {name: value for name, value in given.items() if name != "custom_objects"}
        instance = Instance(**{**settings, "munchkin": str(given.get("munchkin", "")).lower()})
        instance.define(definitions)
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

    def persons(self, munchkin: str, emails: list[str]) -> list[StoredObject]:
        """All persons, or those with one of the e-mail addresses."""
        persons = self.instance(munchkin).persons.values()
        wanted = {email.lower() for email in emails}
        return [each for each in persons if not wanted or str(each.attributes.get("email")).lower() in wanted]

    def take_events(self, munchkin: str) -> list[dict[str, Any]]:
        """The events of the Observability Data Stream since the last call."""
        return observability.take_events(self.instance(munchkin), self.clock.now())

    # ------------------------------------------------------------------------------------------------ serving.Simulator

    def routes(self, host: str) -> list[Route]:
        if host == INGESTION_HOST:
            return self.ingestion.routes()
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

    async def token(self, request: web.BaseRequest, _: dict[str, str]) -> web.Response:
        return await answer_token_request(self.instances[request.host.partition(".")[0]], self.clock, request)
