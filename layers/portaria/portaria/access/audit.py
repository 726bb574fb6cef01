"""The audit trail: who requested which change through the API, from where, and with which outcome.

An entry is written before a change and completed after it, so that every change has one even if the process dies. An entry that
stays `begun` means that the change may have been made. Entries are kept for `KEPT_FOR`, and the product never changes or
deletes a completed one.
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from datetime import datetime, timedelta
from typing import Any

from portaria.aws import boto3_clients
from portaria.aws.table import Item, Table
from portaria.core import clock
from portaria.core.errors import StackUnavailable

logger = logging.getLogger(__name__)

LIST = "AUDIT"
KEPT_FOR = timedelta(days=400)


@dataclass(frozen=True)
class Entry:
    """One change. `by` is an AWS principal's ARN or `private-integration:{id}`, `by_name` that integration's name.

    `asked` is the request without secrets. `outcome` is `begun`, `done`, `refused` (nothing was changed; `reason` says why) or
    `failed` (the change may have been made).
    """

    id: str
    at: str
    by: str
    by_name: str
    source: str
    operation: str
    target: str
    asked: dict[str, Any]
    request_id: str
    outcome: str = "begun"
    reason: str = ""


FIELDS = tuple(field.name for field in dataclass_fields(Entry))


def begin(
    table: Table,
    *,
    by: str,
    by_name: str,
    source: str,
    operation: str,
    target: str,
    asked: dict[str, Any],
    request_id: str,
) -> Entry:
    """Write an entry before a change. Raises `Retryable` where it cannot be written: then the change must not be made."""
    now = clock.now()
    entry = Entry(
        f"{int(now.timestamp() * 1000):013d}{secrets.token_hex(6)}",
        clock.to_iso(now),
        by,
        by_name,
        source,
        operation,
        target,
        asked,
        request_id,
    )
    pk, sk = key(entry.id)
    item: Item = {field: getattr(entry, field) for field in FIELDS}
    item |= {"pk": pk, "sk": sk, "list_pk": LIST, "list_sk": entry.id}
    try:
        table.put(item | {"expires_at": int((now + KEPT_FOR).timestamp())})
    except boto3_clients.FAILURES as error:
        code = boto3_clients.error_code(error) or type(error).__name__
        raise StackUnavailable(
            "audit_unavailable", f"the audit entry could not be written, so nothing was done: {code}"
        ) from None
    return entry


def end(table: Table, entry: Entry, outcome: str, *, target: str = "", reason: str = "") -> None:
    """Complete an entry. If that fails, the entry stays `begun` and the failure is logged; the change is not undone."""
    try:
        table.update(
            *key(entry.id),
            "SET #outcome = :outcome, #reason = :reason, #target = :target",
            names={f"#{name}": name for name in ("outcome", "reason", "target")},
            values={":outcome": outcome, ":reason": reason, ":target": target or entry.target},
        )
    except boto3_clients.FAILURES as error:
        logger.error("audit_entry_not_completed", extra={"entry": entry.id, "code": boto3_clients.error_code(error)})


def list_page(
    table: Table, cursor: str | None, limit: int, *, since: datetime | None = None
) -> tuple[list[Entry], str | None]:
    """One page of entries, the newest first, from a moment on."""
    first = f"{int(since.timestamp() * 1000):013d}" if since else ""
    items, cursor = table.query(LIST, index="listing", newest_first=True, cursor=cursor, limit=limit, sk_from=first)
    return [read(item) for item in items], cursor


def key(entry_id: str) -> tuple[str, str]:
    return f"AUDIT#{entry_id}", "AUDIT"


def read(item: Item) -> Entry:
    return Entry(**{field: item[field] for field in FIELDS if field in item})
