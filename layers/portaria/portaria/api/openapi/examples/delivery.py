"""Examples of routes, records, receipts, destinations and dead letters."""

from __future__ import annotations

from typing import Any

Example = dict[str, Any]

REQUEST = "0b7f6a52-1d2f-4a1e-8a55-7f3f1c2a1090"
RECEIPT = "9f2c4e6a8b0d1f3e5c7a9b1d3f5e7c9a0b2d4f6e"
DEAD_LETTER = "01hf8z2k6m4n8p0q2r4s6t8v0w"

_ROUTE: Example = {
    "source": "connection:kommo-shop-30513412",
    "object": "contacts",
    "destination": "marketo-main",
    "mapping": {"email": "custom_fields_values[?field_code=='EMAIL'].values[].value | [0]", "firstName": "first_name"},
    "target": "persons",
    "dedupe_fields": ["email"],
    "priority": "normal",
    "options": {"partition": "Default"},
    "keep_newest": "events",
    "weight": 1,
}
_NAMED_ROUTE: Example = {"name": "shop-contacts", **_ROUTE}
_CONTACT: Example = {
    "id": 37054081,
    "first_name": "Maria",
    "custom_fields_values": [{"field_code": "EMAIL", "values": [{"value": "maria@example.com"}]}],
}
_INGESTION_REQUEST: Example = {
    "id": REQUEST,
    "caller": "private-integration:4fZ0aQ9xTb",
    "destination": "marketo-main",
    "object": "persons",
    "record_count": 2,
    "correlation_id": "nightly-import-2026-11-28",
    "request_source": "erp-export",
    "accepted_at": "2026-11-28T18:00:00.000Z",
}
_RECEIPT: Example = {
    "id": RECEIPT,
    "state": "applied",
    "destination": "marketo-main",
    "object": "persons",
    "routes": ["shop-contacts"],
    "record_count": 2,
    "byte_count": 412,
    "sent_at": "2026-11-28T18:00:01.000Z",
    "accepted_at": "2026-11-28T18:00:02.000Z",
    "deadline": "2026-11-28T20:00:01.000Z",
    "request_id": "e42b#14272d07d78",
    "correlation_id": None,
    "request_source": None,
    "code": None,
    "applied_count": 2,
    "failure_counts": {},
    "reported_at": "2026-11-28T18:04:30.000Z",
}
_DEAD_LETTER: Example = {
    "id": DEAD_LETTER,
    "state": "open",
    "reason": "refused_by_destination",
    "detail": "the destination refused the record: 1006, field email not found",
    "source": "kommo-shop-30513412",
    "connection": "kommo-shop-30513412",
    "route": "shop-contacts",
    "object": "contacts",
    "origin": "event",
    "destination": "marketo-main",
    "record_count": 1,
    "request": None,
    "set_aside_at": "2026-11-28T18:01:00.000Z",
    "redrive_count": 0,
    "redriven_at": None,
}
_PAUSE: Example = {
    "object": None,
    "reason": "quota",
    "code": "607",
    "since": "2026-11-28T17:00:00.000Z",
    "until": "2026-11-29T06:00:00.000Z",
}
_SELECTION: Example = {"reason": "refused_by_destination", "route": "shop-contacts", "limit": 100, "dry_run": True}

OBJECTS: dict[str, Example] = {
    "Route": _NAMED_ROUTE,
    "RouteWithWarnings": _NAMED_ROUTE | {"warnings": []},
    "RouteReplacement": _ROUTE,
    "RouteCreation": _NAMED_ROUTE,
    "RoutePreviewRequest": {"name": "shop-contacts", "record": _CONTACT},
    "RoutePreviewedRequest": {
        "method": "POST",
        "path": "/subscriptions/123-ABC-456/persons",
        "body": {"priority": "normal", "persons": [{"email": "maria@example.com", "firstName": "Maria"}]},
    },
    "RoutePreview": {
        "objects": [{"email": "maria@example.com", "firstName": "Maria"}],
        "warnings": [],
        "request": {
            "method": "POST",
            "path": "/subscriptions/123-ABC-456/persons",
            "body": {"priority": "normal", "persons": [{"email": "maria@example.com", "firstName": "Maria"}]},
        },
        "refused_reason": None,
        "refused_detail": None,
    },
    "SentRecord": {"key": "37054081", "updated_at": "2026-11-28T17:59:59Z", "data": _CONTACT},
    "RecordsSending": {
        "route": "shop-contacts",
        "records": [{"key": "37054081", "updated_at": "2026-11-28T17:59:59Z", "data": _CONTACT}],
    },
    "AcceptedRecords": {"id": REQUEST, "record_count": 1},
    "BackfillCreation": {"route": "shop-contacts"},
    "StartedBackfill": {"route": "shop-contacts", "state": "running"},
    "StartedBackfills": {"runs": [{"route": "shop-contacts", "state": "running"}]},
    "Backfill": {
        "route": "shop-contacts",
        "object": "contacts",
        "state": "done",
        "page_count": 12,
        "record_count": 2874,
        "started_at": "2026-11-28T18:00:03.000Z",
        "finished_at": "2026-11-28T18:02:41.000Z",
        "reason": None,
        "detail": None,
    },
    "Reconciliation": {
        "object": "contacts",
        "since": "2026-11-28T18:00:03.000Z",
        "due_at": "2026-11-28T19:00:03.000Z",
    },
    "RecordsRequest": _INGESTION_REQUEST,
    "Receipt": _RECEIPT,
    "ReceiptWithRequests": _RECEIPT | {"requests": [_INGESTION_REQUEST]},
    "DestinationPauseEntry": _PAUSE,
    "Destination": {
        "name": "marketo-main",
        "state": "paused",
        "connection": "connected",
        "reason": "quota",
        "since": "2026-11-28T17:00:00.000Z",
        "next_try_at": "2026-11-29T06:00:00.000Z",
        "waiting_record_count": 340,
        "oldest_since": "2026-11-28T17:00:04.000Z",
        "oldest_age_s": 3596,
        "pauses": [_PAUSE],
    },
    "ResumedDestination": {"name": "marketo-main", "ended": [_PAUSE], "waiting_record_count": 340},
    "DeadLetter": _DEAD_LETTER,
    "DeadRecord": {"key": "37054081", "updated_at": "2026-11-28T17:59:59.000Z", "data": _CONTACT, "excerpt": None},
    "DeadLetterWithRecords": _DEAD_LETTER
    | {
        "content": [
            {"key": "37054081", "updated_at": "2026-11-28T17:59:59.000Z", "data": _CONTACT, "excerpt": None},
        ]
    },
    "DeadLetterRedrive": _SELECTION,
    "DeadLetterDeletion": _SELECTION,
    "RedrivenDeadLetter": {"id": DEAD_LETTER, "record_count": 1, "outcome": "redriven", "reason": None},
    "RedriveOutcome": {
        "letters": [{"id": DEAD_LETTER, "record_count": 1, "outcome": "redriven", "reason": None}],
        "more": False,
        "next_cursor": None,
    },
    "UndeletedDeadLetter": {"id": DEAD_LETTER, "outcome": "in_progress"},
    "DeletionOutcome": {
        "dead_letter_count": 3,
        "record_count": 41,
        "not_deleted": [],
        "more": False,
        "next_cursor": None,
    },
}
OBJECTS["BackfillStatus"] = {"runs": [OBJECTS["Backfill"]], "reconciliations": [OBJECTS["Reconciliation"]]}

PROPERTIES: dict[str, Any] = {
    "RouteWithWarnings.warnings": ["dedupe_fields: nickname is not documented for deduplication"],
    "RoutePreviewRequest.route": _ROUTE,
    "RoutePreview.warnings": ["phone is not a text: it is sent as a number"],
    "RoutePreview.refused_reason": "mapping_failed",
    "RoutePreview.refused_detail": "the expression for email has no text as its result",
    "RecordsSending.connection": "kommo-shop-30513412",
    "Backfill.reason": "platform_refused",
    "Backfill.detail": "the platform refused to list contacts",
    "Receipt.correlation_id": "nightly-import-2026-11-28",
    "Receipt.request_source": "erp-export",
    "Receipt.code": "1006",
    "Receipt.failure_counts": {"1006": 1},
    "DestinationPauseEntry.object": "persons",
    "request": REQUEST,
    "redriven_at": "2026-11-28T19:00:00.000Z",
    "DeadRecord.excerpt": '{"id": 37054081, "first_name": "Ma',
    "ids": [DEAD_LETTER],
    "before": "2026-11-28T18:00:00Z",
    "DeadLetterRedrive.connection": "marketo-main",
    "DeadLetterDeletion.connection": "marketo-main",
    "RedrivenDeadLetter.reason": "unknown_route",
    "DeletionOutcome.not_deleted": [{"id": DEAD_LETTER, "outcome": "in_progress"}],
    "cursor": "eyJway7igJ0iOiJERUFEIn0",
    "next_cursor": "eyJway7igJ0iOiJERUFEIn0",
}
