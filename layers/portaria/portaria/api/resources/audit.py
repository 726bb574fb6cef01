"""Reading the audit trail."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal

from portaria.access import audit
from portaria.api.operation import ApiRequest, Reply, page
from portaria.api.schemas import Output, Time
from portaria.api.validation import read_moment


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
    since = read_moment(asked.filters["since"], "since") if "since" in asked.filters else None
    found, next_cursor = audit.list_page(asked.context.table, asked.cursor, asked.limit, since=since)
    return page([asdict(entry) for entry in found], next_cursor)
