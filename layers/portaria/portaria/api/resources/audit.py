"""Reading the audit trail."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal

from portaria.access import audit
from portaria.api.router import ApiRequest, Reply, page
from portaria.api.schemas import Output


class Shown(Output):
    """`asked` is what was asked for, without secrets; of most operations, which fields. `outcome` `begun` says that nobody
    could write down what became of it: the change may have been made."""

    id: str
    at: str
    by: str
    by_name: str
    source: str
    operation: str
    target: str
    asked: dict[str, Any]
    request_id: str
    outcome: Literal["begun", "done", "refused", "failed"]
    reason: str


def list_page(asked: ApiRequest) -> Reply:
    """The newest first."""
    found, next_cursor = audit.list_page(asked.desk.table, asked.cursor, asked.limit)
    return page([asdict(entry) for entry in found], next_cursor)
