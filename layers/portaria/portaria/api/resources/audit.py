"""Reading the audit trail."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal

from portaria.access import audit
from portaria.api.operation import ApiRequest, Filters, Reply, page
from portaria.api.schemas import Output, Time
from portaria.api.validation import MOMENT, Matching, read_moment

FILTERS: Filters = {
    "operation": Matching(r"[a-z][a-z_]{0,63}", "an operation's id, such as rotate_connection"),
    "target": Matching(
        r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,255}",
        "an entry's target: 1 to 255 characters without control characters",
    ),
    "since": MOMENT,
}


class AuditEntry(Output):
    """`asked` is the request without secrets; for most operations it holds the names of its fields. With the `outcome` `begun`
    the end of the request was not recorded: the change may have been made."""

    id: str
    at: Time
    by: str
    by_name: str | None
    source: str
    operation: str
    target: str | None
    asked: dict[str, Any]
    request_id: str
    outcome: Literal["begun", "done", "refused", "failed"]
    reason: str | None


def list_page(asked: ApiRequest) -> Reply:
    """The newest first. Raises `Rejected` (`bad_since`, `bad_cursor`)."""
    filters = asked.filters
    found, next_cursor = audit.list_page(
        asked.context.table,
        asked.cursor,
        asked.limit,
        operation=filters.get("operation", ""),
        target=filters.get("target", ""),
        since=read_moment(filters["since"], "since") if "since" in filters else None,
    )
    return page([asdict(entry) for entry in found], next_cursor)
