"""The overview: what happened, what is about to end, and what is stuck."""

from __future__ import annotations

from typing import Any

from portaria.web.console import pages
from portaria.web.console.api_calls import Problem
from portaria.web.console.visit import Outcome, Visit

NEWEST = 10


def show(visit: Visit) -> Outcome:
    """Each part is one page of a listing; a part that the session may not see is left out."""
    parts = {
        "failed_installs": _rows(visit, "list_installs", state="failed"),
        "newest_installs": _rows(visit, "list_installs"),
        "destinations": _rows(visit, "list_destinations"),
        "dead_letters": _rows(visit, "list_dead_letters"),
        "receipts": _rows(visit, "list_receipts"),
    }
    return Outcome(pages.render("overview.html", visit.frame, parts_=parts))


def _rows(visit: Visit, operation: str, **filters: str) -> list[dict[str, Any]] | None:
    if not visit.api.allows(operation):
        return None
    try:
        rows: list[dict[str, Any]] = visit.api.call(operation, query={**filters, "limit": str(NEWEST)}).content["items"]
    except Problem:
        return None
    return rows
