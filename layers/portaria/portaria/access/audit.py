"""The audit trail: who requested which change through the API, from where, and with which outcome.

An entry is written before a change and completed after it, so that every change has one even if the process dies. An entry that
stays `begun` means that the change may have been made. Entries are kept for `KEPT_FOR`, and the product never changes or
deletes a completed one.

The index `listing` holds all entries, the index `by_filter` those of each operation. An entry with a target has a second item,
its pointer, which is written and moved in the same transaction. The partition `AUDIT#TARGET#{target}` of the table holds the
pointers of a target, the index `by_filter` those of an operation and a target. All are ordered by the entry's id, which begins
with its time.
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from datetime import datetime, timedelta
from typing import Any

from portaria.aws import filter_index, service_clients
from portaria.aws.table import Conflict, Item, Table, delete_of, put_of, update_of
from portaria.core import clock
from portaria.core.errors import StackUnavailable

logger = logging.getLogger(__name__)

LIST = "AUDIT"
KEPT_FOR = timedelta(days=400)
POINTERS = "AUDIT#TARGET#"
# The attribute of the caller's address. `source` is the key of the index `by_source`, to which entries do not belong.
ADDRESS = "address"


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
    """Write an entry before a change. Raises `Retryable` if it cannot be written: then the change must not be made."""
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
    item: Item = {ADDRESS if field == "source" else field: getattr(entry, field) for field in FIELDS}
    item |= {"pk": pk, "sk": sk, "list_pk": LIST, "list_sk": entry.id, "expires_at": _expires_at(entry)}
    item |= filter_index.keys(_partition(operation), entry.id)
    try:
        table.write_all([put_of(item), *_pointer(entry, target)])
    except (Conflict, *service_clients.FAILURES) as error:
        code = service_clients.error_code(error) or type(error).__name__
        raise StackUnavailable(
            "audit_unavailable", f"the audit entry could not be written, so nothing was done: {code}"
        ) from None
    return entry


def end(table: Table, entry: Entry, outcome: str, *, target: str = "", reason: str = "") -> None:
    """Complete an entry. If that fails, the entry stays `begun` and the failure is logged; the change is not undone."""
    target = target or entry.target
    expression = "SET #outcome = :outcome, #reason = :reason, #target = :target"
    names = {f"#{name}": name for name in ("outcome", "reason", "target")}
    values = {":outcome": outcome, ":reason": reason, ":target": target}
    try:
        if target == entry.target:
            table.update(*key(entry.id), expression, names=names, values=values)
        else:
            moved = [delete_of(*_pointer_key(entry, entry.target))] if entry.target else []
            update = update_of(*key(entry.id), expression, names=names, values=values)
            table.write_all([update, *moved, *_pointer(entry, target)])
    except (Conflict, *service_clients.FAILURES) as error:
        logger.error("audit_entry_not_completed", extra={"entry": entry.id, "code": service_clients.error_code(error)})


def list_page(
    table: Table,
    cursor: str | None,
    limit: int,
    *,
    operation: str = "",
    target: str = "",
    since: datetime | None = None,
) -> tuple[list[Entry], str | None]:
    """One page of entries, the newest first: of an operation, of a target, from a moment on.

    Raises `Rejected` (`bad_cursor`).
    """
    first = f"{int(since.timestamp() * 1000):013d}" if since else ""
    partition, index = LIST, "listing"
    if operation:
        partition, index = _partition(operation, target), filter_index.INDEX
    elif target:
        partition, index = _pointer_partition(target), ""
    items, cursor = table.query(partition, index=index, newest_first=True, cursor=cursor, limit=limit, sk_from=first)
    if index == "listing":
        return [read(item) for item in items], cursor
    keys = [key(item["sk"] if item["pk"].startswith(POINTERS) else item["pk"].partition("#")[2]) for item in items]
    found = table.get_many(keys)
    entries = [read(found[each]) for each in keys if each in found]
    return [entry for entry in entries if target in ("", entry.target)], cursor


def _partition(operation: str, target: str = "") -> str:
    """The value of `filter_pk`: of the entries of an operation, or of the pointers of an operation and a target."""
    return f"AUDIT#{operation}#{target}" if target else f"AUDIT#{operation}"


def _pointer(entry: Entry, target: str) -> list[Item]:
    """The write of an entry's pointer; none without a target."""
    if not target:
        return []
    pk, sk = _pointer_key(entry, target)
    item = {"pk": pk, "sk": sk, "expires_at": _expires_at(entry)}
    return [put_of(item | filter_index.keys(_partition(entry.operation, target), entry.id))]


def _pointer_key(entry: Entry, target: str) -> tuple[str, str]:
    return _pointer_partition(target), entry.id


def _pointer_partition(target: str) -> str:
    return f"{POINTERS}{target}"


def _expires_at(entry: Entry) -> int:
    return int((clock.from_iso(entry.at) + KEPT_FOR).timestamp())


def key(entry_id: str) -> tuple[str, str]:
    return f"AUDIT#{entry_id}", "AUDIT"


def read(item: Item) -> Entry:
    return Entry(**{field: item[ADDRESS if field == "source" else field] for field in FIELDS})
