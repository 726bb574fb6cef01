"""The Data Ingestion API: checks a request as Adobe does, and applies an accepted one."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from local.simulators.marketo import bodies, upserts
from local.simulators.marketo.instance import Instance, Report
from local.simulators.marketo.responses import error
from local.simulators.world import Clock, Route

MAX_BODY_BYTES = 1_000_000
MAX_OBJECTS = 1_000


@dataclass(frozen=True)
class Endpoint:
    """`object` is the name of its objects in events, `read` the reader of its bodies, `apply` the effect of a request."""

    object: str
    read: bodies.Reader
    apply: Callable[[Instance, dict[str, Any], Report, dict[str, str]], None]


ENDPOINTS = {
    "persons": Endpoint("person", bodies.read_persons, upserts.upsert_persons),
    "customobjects/{name}": Endpoint("customObject", bodies.read_custom_objects, upserts.upsert_custom_objects),
    "companies": Endpoint("company", bodies.read_companies, upserts.upsert_companies),
    "programmembers": Endpoint("programMember", bodies.program_members(status_needed=True), upserts.add_members),
    "programmembers/delete": Endpoint(
        "programMember", bodies.program_members(status_needed=False), upserts.remove_members
    ),
    "lists": Endpoint("listMember", bodies.read_list_members, upserts.add_to_list),
    "lists/remove": Endpoint("listMember", bodies.read_list_members, upserts.remove_from_list),
}


class IngestionApi:
    def __init__(self, instances: dict[str, Instance], clock: Clock) -> None:
        self.instances = instances
        self.clock = clock

    def routes(self) -> list[Route]:
        return [Route("POST", f"/subscriptions/{{munchkin}}/{path}", self.ingest) for path in ENDPOINTS]

    async def ingest(self, request: web.BaseRequest, parts: dict[str, str]) -> web.Response:
        request_id = uuid.uuid4().hex
        instance = self.instances.get(parts["munchkin"].lower())
        path = request.path.split("/", 3)[3]
        endpoint = ENDPOINTS.get(path) or ENDPOINTS["customobjects/{name}"]
        content = await request.read()
        code, document, count = self.check(instance, request, content, endpoint, parts)
        if instance:
            instance.requests.append(
                {
                    "request_id": request_id,
                    "received_at": self.clock.now(),
                    "status": int(code[:3]) if code else 202,
                    "error_code": code,
                    "object": path,
                    "objects": count if document else None,
                    "bytes": len(content),
                    "priority": document.get("priority", "normal") if document else None,
                    "correlation_id": request.headers.get("X-Correlation-Id", ""),
                    "request_source": request.headers.get("X-Request-Source", ""),
                }
            )
        if code or instance is None:
            response = error(code or "404040")
        else:
            report = Report(
                request_id,
                endpoint.object,
                document.get("priority", "normal"),
                request.headers.get("X-Correlation-Id", ""),
                request.headers.get("X-Request-Source", ""),
                self.clock.now(),
                count,
            )
            endpoint.apply(instance, document, report, parts)
            instance.reports[request_id] = report
            response = web.Response(status=202)
        response.headers["X-Request-Id"] = request_id
        return response

    def check(
        self,
        instance: Instance | None,
        request: web.BaseRequest,
        content: bytes,
        endpoint: Endpoint,
        parts: dict[str, str],
    ) -> tuple[str | None, dict[str, Any], int]:
        """The error code of a bad request or None, the parsed body, and the number of its objects."""
        token = request.headers.get("X-Mkto-User-Token")
        if not token:
            return "403010", {}, 0
        if instance is None or ("name" in parts and parts["name"] not in instance.custom_objects):
            return "404040", {}, 0
        if token != instance.token or self.clock.now() >= instance.token_expires_at:
            return "401013", {}, 0
        if (
            len(content) > MAX_BODY_BYTES
            or request.content_type != "application/json"
            or len(request.headers.get("X-Correlation-Id", "")) > 255
            or len(request.headers.get("X-Request-Source", "")) > 50
        ):
            return "4000801", {}, 0
        try:
            document = json.loads(content)
        except ValueError:
            return "4000801", {}, 0
        objects = endpoint.read(document)
        if objects is None:
            return "4000801", {}, 0
        if not 0 < len(objects) <= MAX_OBJECTS:
            return "4000801", document, len(objects)
        if any(each.get(name) == value for each in objects for name, value in instance.poison.items()):
            return "4000802", document, len(objects)
        if not instance.spend_quota(len(objects), self.clock.now()):
            return "4290801", document, len(objects)
        return None, document, len(objects)
