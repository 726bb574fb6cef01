"""The operations of routes, and of sending records through one."""

from __future__ import annotations

from http import HTTPStatus

from portaria.api import validation
from portaria.api.operation import Operation
from portaria.api.resources.delivery import route_previews, routes, sent_records
from portaria.api.rules import route_rules

CREATED, NO_CONTENT = HTTPStatus.CREATED, HTTPStatus.NO_CONTENT

OPERATIONS = [
    Operation(
        "list_routes", "GET", "/routes", "routes:list", "List routes", routes.list_page, routes.RouteOutput, listing=True,
        filters={"source": route_rules.SOURCE, "destination": validation.Matching(validation.NAME, "a connection's name")},
        description="By name; with `destination`, by source and name.",
    ),
    Operation(
        "create_route", "POST", "/routes", "routes:create", "Create a route", routes.create, routes.RouteWithWarnings,
        input=route_rules.RouteCreation, status=CREATED, creates=True, changes=True,
        description="The mapping is checked. The response has warnings about what may be a mistake.",
    ),
    Operation(
        "preview_route", "POST", "/routes/preview", "routes:preview", "Get what a record becomes",
        route_previews.preview, route_previews.RoutePreview, input=route_previews.RoutePreviewRequest,
        description="Maps a sample record by a route that exists or that is given, and returns the objects and the request "
        "that the destination would get. Nothing is sent or stored.",
    ),
    Operation(
        "show_route", "GET", "/routes/{name}", "routes:show", "Get a route", routes.get, routes.RouteOutput,
        description="The mapping is returned as it was given.",
    ),
    Operation(
        "replace_route", "PUT", "/routes/{name}", "routes:replace", "Replace a route", routes.replace, routes.RouteWithWarnings,
        input=route_rules.RouteReplacement, edits=True, changes=True,
        description="Replaces all values. The response has warnings about what may be a mistake.",
    ),
    Operation(
        "delete_route", "DELETE", "/routes/{name}", "routes:delete", "Delete a route", routes.delete, None,
        status=NO_CONTENT, changes=True,
        description="Its connections stay.",
    ),
    Operation(
        "send_records", "POST", "/records", sent_records.SCOPE, "Send records through a route",
        sent_records.send, sent_records.AcceptedRecords, input=sent_records.RecordsSending,
        max_bytes=sent_records.MAX_BODY_BYTES, status=HTTPStatus.ACCEPTED, creates=True, changes=True,
        checks_scope=True,
        description="The records are in the source's shape; the route maps and delivers them. `id` finds their receipts. "
        "A record that cannot be delivered becomes a dead letter.",
    ),
]  # fmt: skip
