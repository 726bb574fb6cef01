"""Previews of routes: what a sample record becomes. Nothing is sent or stored."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from portaria.api.operation import ApiRequest, Reply
from portaria.api.rules import route_rules
from portaria.api.rules.route_rules import RouteReplacement
from portaria.api.rules.stored_resources import Stored
from portaria.api.schemas import Output
from portaria.api.validation import Input, ResourceName
from portaria.delivery import route_preview
from portaria.records import routes

# A name for a route that does not exist yet.
UNNAMED = "preview"


class RoutePreviewRequest(Input):
    """A sample record and the route that maps it. Give `name` or `route`."""

    name: ResourceName | None = Field(default=None, description="The name of an existing route.")
    route: RouteReplacement | None = Field(default=None, description="A route that need not exist.")
    record: dict[str, Any] = Field(description="A record in the source's shape.")

    @model_validator(mode="after")
    def _one_route(self) -> Self:
        if (self.name is None) == (self.route is None):
            raise PydanticCustomError("rule", "must hold either name or route, and not both")
        return self


class RoutePreviewedRequest(Output):
    """The request to the destination, without headers and credentials."""

    method: str = Field(description="The HTTP method.")
    path: str = Field(description="The path at the destination.")
    body: Any = Field(description="The body. A credential in it is shown as `***`.")


class RoutePreview(Output):
    """What the record becomes. Nothing was sent."""

    objects: list[dict[str, Any]] = Field(
        description="The mapped object of the destination. Empty if the record could not be mapped."
    )
    warnings: list[str] = Field(description="Sentences about what may be a mistake.")
    request: RoutePreviewedRequest | None = Field(
        description="What would be sent. Null if the record would become a dead letter."
    )
    refused_reason: str | None = Field(description="Why the record would become a dead letter.")
    refused_detail: str | None = Field(description="A sentence about the reason, for people.")


def preview(asked: ApiRequest) -> Reply:
    """Raises `Rejected`: 404 `unknown_route`, `unknown_connection`, and everything that is wrong with a `route`."""
    sent: RoutePreviewRequest = asked.sent
    known = Stored(asked.context.table)
    warnings: list[str] = []
    if sent.route:
        route, warnings = route_rules.check(UNNAMED, sent.route, known)
    else:
        route = routes.get(asked.context.table, str(sent.name))
    platform = route_rules.source_platform(known, route.source)
    found = route_preview.preview(route, platform, known.connection(route.destination), sent.record)
    request = found.request
    return Reply(
        {
            "objects": [found.attributes] if found.attributes else [],
            "warnings": [*warnings, *found.warnings],
            "request": {"method": request.method, "path": request.path, "body": request.body} if request else None,
            "refused_reason": found.refused.reason if found.refused else None,
            "refused_detail": found.refused.detail if found.refused else None,
        }
    )
