"""Records that wait in the table, and their release by the schedule and its queue."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import ModuleType
from typing import Any
from unittest.mock import patch

from portaria.aws.table import Table
from portaria.core import clock
from portaria.core.settings import ReleaseRecordsSettings
from portaria.delivery import backlogs, record_release, waiting_entries, waiting_lists
from tests.fakes.aws import functions, moto_cloud
from tests.simulation.aws.cloud import Cloud

EVERYTHING = 1_000_000


@contextmanager
def later(**by: float) -> Iterator[None]:
    """Advance the time by the arguments of a timedelta."""
    now = clock.now
    with patch.object(clock, "now", lambda: now() + timedelta(**by)):
        yield


def entries(table: Table) -> list[waiting_entries.Entry]:
    """All entries of all lists of the destinations' backlogs, list by list in their order."""
    return [
        entry
        for backlog in backlogs.list_all(table)
        for head in waiting_lists.heads(table, backlog.destination)
        for entry in waiting_entries.read(table, head.waiting, limit=EVERYTHING)[0]
    ]


def waits(table: Table) -> dict[str, float]:
    """The seconds before each waiting message is tried again, by the message's id."""
    now, found = clock.now().timestamp(), {}
    for backlog in backlogs.list_all(table):
        status = backlogs.status(table, backlog.destination)
        for head in waiting_lists.heads(table, backlog.destination):
            closed_until = max(head.not_before, status.closed_until(head.waiting.object))
            for entry in waiting_entries.read(table, head.waiting, limit=EVERYTHING)[0]:
                due = entry.order / 1_000 if head.waiting.is_retry else 0.0
                found[entry.message_id] = max(0.0, closed_until - now, due - now)
    return found


def keys(table: Table) -> list[str]:
    """The keys of the waiting records, in the order of their lists."""
    return [record["key"] for entry in entries(table) for record in json.loads(entry.body)["records"]]


def release(cloud: Cloud, *, time_left_s: float = 120.0) -> list[str]:
    """One sweep and its drains. Returns the outcome of each message."""
    settings: Any = cloud.settings(ReleaseRecordsSettings)
    outcomes = [record_release.handle_message('{"sweep": ""}', settings, lambda: time_left_s).state]
    while queue := cloud.queues.get("waiting_records"):
        outcomes.append(record_release.handle_message(queue.pop(0).body, settings, lambda: time_left_s).state)
    return outcomes


def release_by(function: ModuleType, stack: moto_cloud.Cloud) -> None:
    """The same through the handler of `release_records`, which must not report a failure."""
    bodies = ['{"sweep": ""}']
    while bodies:
        for body in bodies:
            event = functions.sqs_event({"released": body}, "waiting_records")
            assert function.handler(event, functions.Context()) == {"batchItemFailures": []}
        bodies = stack.receive("waiting_records")
