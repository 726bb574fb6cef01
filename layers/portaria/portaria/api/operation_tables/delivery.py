"""The operations of routes and of the delivery of records."""

from __future__ import annotations

from http import HTTPStatus

from portaria.api import validation
from portaria.api.operation import Operation
from portaria.api.resources.delivery import (
    dead_letter_deletions,
    dead_letters,
    destinations,
    receipts,
    route_previews,
    routes,
    sent_records,
)
from portaria.api.rules import route_rules

CREATED, NO_CONTENT = HTTPStatus.CREATED, HTTPStatus.NO_CONTENT
CALL = "call_connection"

ROUTES = [
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
RECEIPTS = [
    Operation(
        "list_receipts", "GET", "/receipts", "receipts:list", "List receipts",
        receipts.list_page, receipts.ReceiptOutput, listing=True, filters=receipts.FILTERS,
        description="Newest first. Filter by one of `destination` (optionally with `record` or `email`), "
        "`request` and `correlation_id`; without one, the receipts of all connections are listed.",
    ),
    Operation(
        "show_receipt", "GET", "/receipts/{id}", "receipts:show", "Get a receipt",
        receipts.get, receipts.ReceiptWithRequests,
        description="Receipts are kept for 30 days.",
    ),
]  # fmt: skip
DESTINATIONS = [
    Operation(
        "list_destinations", "GET", "/destinations", "destinations:list",
        "List destinations", destinations.list_page, destinations.Destination, listing=True,
        description="Destinations that are paused or have waiting records.",
    ),
    Operation(
        "resume_destination", "POST", "/destinations/{name}/resume", "destinations:resume",
        "Resume a destination", destinations.resume, destinations.ResumedDestination, creates=True, changes=True,
        description="Its pauses end, and its waiting records are tried at once. If it still refuses, the next pause begins.",
    ),
]  # fmt: skip
DEAD_LETTERS = [
    Operation(
        "list_dead_letters", "GET", "/dead-letters", "dead-letters:list", "List dead letters",
        dead_letters.list_page, dead_letters.DeadLetter, listing=True, filters=dead_letters.FILTERS,
        description="Newest first.",
    ),
    Operation(
        "show_dead_letter", "GET", "/dead-letters/{id}", "dead-letters:show", "Get a dead letter with its records",
        dead_letters.get, dead_letters.DeadLetterWithRecords,
        description="Values that look like credentials are shown as `***`.",
    ),
    Operation(
        "redrive_dead_letters", "POST", "/dead-letters/redrive", "dead-letters:redrive", "Redrive dead letters",
        dead_letters.redrive, dead_letters.RedriveOutcome, input=dead_letters.DeadLetterRedrive, creates=True, changes=True,
        description="Sends the records again, at most twenty dead letters a second. The response has an outcome for each; "
        "`dry_run` returns the outcomes and sends nothing.",
    ),
    Operation(
        "delete_dead_letters", "POST", "/dead-letters/delete", "dead-letters:delete", "Delete several dead letters",
        dead_letter_deletions.delete, dead_letter_deletions.DeletionOutcome, input=dead_letter_deletions.DeadLetterDeletion,
        creates=True, changes=True,
        description="`dry_run` returns the counts and deletes nothing.",
    ),
    Operation(
        "delete_dead_letter", "DELETE", "/dead-letters/{id}", "dead-letters:delete",
        "Delete a dead letter", dead_letters.delete, None, status=NO_CONTENT, changes=True,
        description="Its records are deleted with it.",
    ),
]  # fmt: skip
