"""Live events make an idle account's reconciliation due soon, with a few writes a day instead of one for each event.

An account that was connected before its first route has no reconciliation: its first event requests one (`reread_requests`).

An account whose last reading found no change may be read again after hours. An event shows that it is active again, so another
event may be lost meanwhile. The reconciliation becomes due within the least interval; its reading finds the change and keeps
the interval short by itself. So one process needs to write once in `Bounds.recent` for each account and object, and an account
without events causes no write.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime

from portaria.aws.table import Conflict, Table
from portaria.connections import connection_store
from portaria.core import clock
from portaria.records import reconciliation_schedule, reread_requests
from portaria.records.reconciliation_schedule import Bounds

# Accounts that a process remembers.
MAX_REMEMBERED = 10_000

_quiet_until: dict[tuple[str, str, str], datetime] = {}


def key(connection: str, object_name: str) -> tuple[str, str]:
    """The key of a reconciliation."""
    return f"RECONCILIATION#{connection}", object_name


def phase(connection: str, object_name: str) -> float:
    return connection_store.spread(f"{connection}/{object_name}")


def wake(table: Table, connection: str, object_name: str, bounds: Bounds) -> None:
    """Make a reconciliation due within the least interval, or request one if there is none. Raises what AWS raises."""
    now = clock.now()
    place = (table.name, connection, object_name)
    if (until := _quiet_until.get(place)) and until > now:
        return
    due_at = clock.to_iso(reconciliation_schedule.due_at(now, bounds.least, phase(connection, object_name)))
    changed_at = int(now.timestamp())
    try:
        table.update(
            *key(connection, object_name),
            "SET due_at = :due_at, changed_at = :changed_at",
            condition="due_at > :due_at",
            values={":due_at": due_at, ":changed_at": changed_at},
        )
    except Conflict as conflict:
        if not conflict.item:
            # The account was connected before its route was created.
            reread_requests.request(table, connection, object_name, changed_at)
        elif int(conflict.item.get("changed_at", 0)) < (now - bounds.recent).timestamp():
            # It is due sooner. A reading that has begun before this event must not take the account for an idle one.
            _note(table, connection, object_name, changed_at)
    if len(_quiet_until) >= MAX_REMEMBERED:
        _quiet_until.clear()
    _quiet_until[place] = now + bounds.recent


def _note(table: Table, connection: str, object_name: str, changed_at: int) -> None:
    with suppress(Conflict):
        table.update(
            *key(connection, object_name),
            "SET changed_at = :changed_at",
            condition="attribute_exists(due_at)",
            values={":changed_at": changed_at},
        )


def forget() -> None:
    """Forget which accounts this process has woken."""
    _quiet_until.clear()
