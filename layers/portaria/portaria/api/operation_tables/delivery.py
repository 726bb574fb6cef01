"""The operations of receipts and destinations."""

from __future__ import annotations

from portaria.api.operation import Operation
from portaria.api.resources.delivery import destinations, receipts

OPERATIONS = [
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
