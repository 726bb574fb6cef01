"""Reading the audit trail."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal

from pydantic import Field

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
    """One change that was requested through the API, and its outcome. Kept for 400 days."""

    id: str = Field(description="The entry's id.")
    at: Time = Field(description="When the request arrived.")
    by: str = Field(
        description="Who requested the change: the ARN of an AWS principal, or `private-integration:` and the private "
        "integration's id.",
    )
    by_name: str | None = Field(description="The private integration's name, or null for an AWS principal.")
    source: str = Field(description="The IP address that the request came from.")
    operation: str = Field(description="The operation's id in this document.")
    target: str | None = Field(
        description="What the change was about, as in the operation's path: `erp`, `kommo/acme`. Null if there is none."
    )
    asked: dict[str, Any] = Field(
        description="The request without secrets. For most operations it has the names of the fields that were sent."
    )
    request_id: str = Field(description="The `X-Request-Id` of the request.")
    outcome: Literal["begun", "done", "refused", "failed"] = Field(
        description="`done`, `refused` (nothing was changed), `failed` (the change may have been made), or `begun` (the end "
        "of the request was not recorded, so the change may have been made).",
    )
    reason: str | None = Field(description="The last part of the problem's `type`, for `refused` and `failed`.")


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
