"""Reconciliations: the changes in an account are read at intervals, so that lost events still reach the destination.

    schedule → {"reconcile": "due"} → a page of those that are due, a message each → the changes, page by page

An account is read often after a change and less the longer it is idle (`reconciliation_schedule`); `changed_at` is its newest
known change. Requests claim slots of the platform's budget (`request_budget`) with the lowest priority. A reconciliation that
gets none becomes due again: it waits in the index, not in a queue or in a worker. A sweep queues at most as many as the budget
can serve until the next sweep, the longest overdue first, so that each is read in the end.

There is one for each object of a connection that is the source of a route; its records follow all routes from there. In its
item, `since` is the time up to which all changes have been queued. During a reading, `cursor` is the position in the list and
`asked_at` the time when the reading began, which is the next `since`. A page's records are queued before the item is updated.
So a death can queue a page twice, which changes nothing at the destination, but never skips one.

Records that were deleted at the platform are no longer listed and so are not found.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from portaria import platforms
from portaria.aws import due_index, queues
from portaria.aws.table import Conflict, Item, Table
from portaria.connections import connection_store
from portaria.connections.request_budget import BudgetExhausted
from portaria.core import clock, record_messages
from portaria.core.callbacks import Secret
from portaria.core.entities import Changes, Connection
from portaria.core.errors import Rejected, Retryable
from portaria.core.settings import BackfillRecordsSettings
from portaria.outbound.request_slots import Priority
from portaria.platforms.record_protocols import ChangedObject
from portaria.records import reconciliation_schedule, reconciliation_wakeups, reread_requests, routes
from portaria.records.reconciliation_schedule import Bounds
from portaria.sources import page_reader, resubscription
from portaria.sources.page_reader import PageReader, ReadingOutcome

logger = logging.getLogger(__name__)

VERSION = 1
# How far before `since` each reading begins: the platform's clock may be behind, and a change may appear in its lists after the
# time of its date. The next worker drops duplicates, because it knows the newest version.
OVERLAP_S = 300
# The first reconciliation after a backfill was started.
FIRST_AFTER = timedelta(minutes=5)
# Sweeps skip a reconciliation for this time after its message was queued; then, if it is still due, they queue it again.
QUEUE_AGAIN = timedelta(minutes=30)
# How often a connection that must be connected again is checked; connecting it again makes it due.
DEAD_AGAIN = timedelta(days=1)
# How often an object without a route is checked, and how far back its first reading begins once there is a route again.
UNROUTED_AGAIN, UNROUTED_READ = timedelta(days=1), timedelta(days=2)
# The most reconciliations that one sweep queues. A sweep runs each minute, and the budget has five slots a second for them.
SWEEP_LIMIT = 300
# A sweep spreads its messages over the time until the next one, each a second after the other at most, so that they do not
# compete for the same slots.
SPREAD_S = 50


key = reconciliation_wakeups.key


def begin(table: Table, connection: Connection, object_name: str, *, since: int | None = None) -> None:
    """Reconcile an object from now on, if the platform can list changes. Idempotent.

    `since` (epoch seconds) is the oldest change that the first reading must find; None: now. Called before a backfill is
    queued, so that reconciliations find the changes from then on. An existing reconciliation keeps its position and becomes due
    soon, also if it was postponed.
    """
    if not platforms.load(connection.platform).changed_object(object_name):
        return
    now = clock.now()
    due_at = clock.to_iso(now + FIRST_AFTER * (1 + connection_store.spread(f"{connection.name}/{object_name}")))
    table.update(
        *key(connection.name, object_name),
        "SET #connection = :connection, #object = :object, since = if_not_exists(since, :since), "
        "#cursor = if_not_exists(#cursor, :none), settled_at = if_not_exists(settled_at, :none), "
        "changed_at = if_not_exists(changed_at, :begun), begun_at = :now, due_pk = :due, "
        "due_at = if_not_exists(due_at, :due_at)",
        names={name: name[1:] for name in ("#connection", "#object", "#cursor")},
        values={
            ":connection": connection.name,
            ":object": object_name,
            ":since": int(now.timestamp()) if since is None else since,
            ":none": "",
            ":begun": int(now.timestamp()),
            ":now": clock.to_iso(now),
            ":due": due_index.RECONCILIATIONS,
            ":due_at": due_at,
        },
    )
    with suppress(Conflict):
        table.update(
            *key(connection.name, object_name),
            "SET due_at = :due_at",
            condition="due_at > :due_at",
            values={":due_at": due_at},
        )


def of_connection(table: Table, name: str) -> list[Item]:
    """The reconciliations of a connection: items with `object`, `since` (epoch seconds) and `due_at`."""
    found = table.query_all(key(name, "")[0])
    return [item for item in found if item["sk"] != resubscription.SK and not reread_requests.is_request(item)]


class ReconciliationRequest(NamedTuple):
    """The content of a message: one reconciliation, or (where `connection` is empty) the page of due ones at `cursor`.

    `queued_at` is when the first message about the reconciliation was queued. `left` is how many more the sweep may queue.
    """

    connection: str = ""
    object: str = ""
    queued_at: str = ""
    cursor: str = ""
    left: int = SWEEP_LIMIT


def read(message: dict[str, Any]) -> ReconciliationRequest:
    """Raises `KeyError`, `TypeError` or `AttributeError` for any other message."""
    one = message["reconcile"]
    if one == "due":
        left = min(SWEEP_LIMIT, int(message.get("left", SWEEP_LIMIT)))
        return ReconciliationRequest(cursor=str(message.get("cursor") or ""), left=left)
    return ReconciliationRequest(str(one["connection"]), str(one["object"]), str(message["queued_at"]))


def handle_message(
    wanted: ReconciliationRequest, settings: BackfillRecordsSettings, time_left_s: Callable[[], float]
) -> ReadingOutcome:
    """Raises `Retryable` if the message should return to the queue."""
    if not wanted.connection:
        return _queue_due(wanted, settings)
    return _Reconciling(wanted, settings, time_left_s).run()


def message(connection: str, object_name: str, queued_at: str) -> str:
    """The body of the message about one reconciliation."""
    wanted = {"connection": connection, "object": object_name}
    return queues.encode({"version": VERSION, "reconcile": wanted, "queued_at": queued_at})


def _queue_due(wanted: ReconciliationRequest, settings: BackfillRecordsSettings) -> ReadingOutcome:
    """Queue a message for each reconciliation of one page of the due ones, and one for the next page if more may be queued.

    Each item's due time is moved by `QUEUE_AGAIN` before its message is queued, so that the next sweep skips it; a death
    between the two delays it by that time.
    """
    table, now = Table(settings.table_name), clock.now()
    page_size = min(due_index.PAGE_SIZE, wanted.left)
    due = due_index.claim_page(
        table, due_index.RECONCILIATIONS, wanted.cursor, again_after=QUEUE_AGAIN, limit=page_size
    )
    bodies = [message(item["connection"], item["object"], clock.to_iso(now)) for item in due.claimed]
    started, left = len(bodies), wanted.left - len(bodies)
    for number, body in enumerate(bodies):
        queues.send(settings.backfills_queue_url, [body], delay_s=min(number, SPREAD_S * number / started))
    if due.cursor and left > 0:
        body = queues.encode({"reconcile": "due", "cursor": due.cursor, "left": left})
        queues.send(settings.backfills_queue_url, [body])
    return ReadingOutcome("queued", started=started)


def _changed_at(item: Item) -> int:
    """The newest known change (epoch seconds). An item of an older version has none: its last reading counts as one."""
    return int(item["changed_at"] if "changed_at" in item else item["since"])


class _Reconciling:
    """One worker's turn at a reconciliation."""

    def __init__(
        self, wanted: ReconciliationRequest, settings: BackfillRecordsSettings, time_left_s: Callable[[], float]
    ) -> None:
        self.name = wanted.connection
        self.object_name = wanted.object
        self.queued_at = wanted.queued_at
        self.settings = settings
        self.time_left_s = time_left_s
        self.table = Table(settings.table_name)
        self.bounds = Bounds.of_minutes(settings.reconcile_every_minutes, settings.reconcile_idle_every_minutes)
        self.pages = 0
        self.records = 0

    @property
    def facts(self) -> dict[str, Any]:
        return {"connection": self.name, "object": self.object_name, "pages": self.pages, "records": self.records}

    def run(self) -> ReadingOutcome:
        item = self.table.get(*key(self.name, self.object_name))
        # Sweeps queue a due reconciliation again, however full the queue is: the first of its messages does the work.
        if (not item or item["settled_at"] >= self.queued_at) and not self._is_requested(item):
            return self._outcome("ignored")
        connection = connection_store.find(self.table, self.name)
        if not connection or connection.state == "removed":
            return self._end(item)
        if not self._has_route(connection):
            return self._leave_unrouted(item)
        item = item or self._begin(connection)
        if not item:
            return self._outcome("ignored")
        if connection.state != "connected":
            self._settle(item, DEAD_AGAIN)
            return self._outcome("put_off")
        try:
            return self._outcome("reconciled" if self._reconcile(item, connection) else "ignored")
        except Rejected as rejected:
            logger.error(
                "reconciliation_refused",
                extra={**self.facts, "reason": rejected.reason, "detail": rejected.detail},
            )
            now = clock.now()
            self._settle(item, self._due_at(now, _changed_at(item), now) - now)
            return self._outcome("put_off")
        except BudgetExhausted as exhausted:
            self._wait(exhausted)
            return self._outcome("waiting")
        except Retryable as later:
            if not self.pages:
                raise
            # A new message, because this one's receive count must count failed attempts only.
            delay_s = page_reader.PAUSE_S if later.after_s is None else later.after_s
            logger.info("reconciliation_postponed", extra={**self.facts, "reason": later.reason})
            body = message(self.name, self.object_name, self.queued_at)
            queues.send(self.settings.backfills_queue_url, [body], delay_s=delay_s)
            return self._outcome("reconciling")

    def _outcome(self, state: str) -> ReadingOutcome:
        return ReadingOutcome(state, self.pages, self.records)

    def _is_requested(self, item: Item | None) -> bool:
        """Whether an event since the last reading lacked a field that a mapping needs."""
        request = reread_requests.find(self.table, self.name, self.object_name)
        return request is not None and (not item or bool(request["requested_at"] >= item["since"]))

    def _begin(self, connection: Connection) -> Item | None:
        """Reconcile an account whose route is newer than its last backfill, from the first event that lacked a field."""
        request = reread_requests.find(self.table, self.name, self.object_name)
        if not request:
            return None
        begin(self.table, connection, self.object_name, since=int(request["changed_at"]))
        return self.table.get(*key(self.name, self.object_name))

    def _due_at(self, now: datetime, changed_at: int, read_at: datetime) -> datetime:
        """When the account is read next, by its newest known change (epoch seconds) at the time of a reading."""
        every = self.bounds.interval(timedelta(seconds=read_at.timestamp() - changed_at))
        return reconciliation_schedule.due_at(now, every, reconciliation_wakeups.phase(self.name, self.object_name))

    def _wait(self, exhausted: BudgetExhausted) -> None:
        """Make the reconciliation due again without this message. It continues where it is.

        If the worker dies before, the message returns to the queue; a later sweep queues it again in any case.
        """
        due_at = clock.to_iso(clock.now() + timedelta(seconds=exhausted.after_s or 0))
        with suppress(Conflict):
            self.table.update(
                *key(self.name, self.object_name),
                "SET due_at = :due_at",
                condition="due_at > :due_at AND settled_at < :queued_at",
                values={":due_at": due_at, ":queued_at": self.queued_at},
            )
        logger.info("reconciliation_waits_for_budget", extra={**self.facts, "after_s": exhausted.after_s})

    def _has_route(self, connection: Connection) -> bool:
        return any(route.object == self.object_name for route in routes.for_connection(self.table, connection))

    def _reconcile(self, item: Item, connection: Connection) -> bool:
        """Read the changes to their end. False: another worker has updated the item and continues the reading."""
        platform = platforms.load(connection.platform)
        source = platform.require(platform.changed_object(self.object_name))
        reader = PageReader(self.table, self.settings, connection, Priority.RECONCILIATION, self.time_left_s)
        idle = timedelta(seconds=clock.now().timestamp() - _changed_at(item))
        resubscription.subscribe(
            reader, is_idle=self.bounds.interval(idle) > self.bounds.least, endpoints=self.settings.event_endpoints
        )
        asked_at = item.get("asked_at") or max(int(clock.now().timestamp()), item["since"])
        since, cursor = item["since"] - OVERLAP_S, item["cursor"]
        known_at = item.get("changed_at")
        while cursor is not None:
            read_at = int(clock.now().timestamp() * 1000)
            changes = self._read(source, reader, since, cursor)
            bodies = record_messages.pack(
                page_reader.dated(changes.records, read_at),
                connection=self.name,
                object=self.object_name,
                origin=record_messages.RECONCILIATION,
                read_at=read_at,
            )
            queues.send(self.settings.bulk_records_queue_url, bodies, tenant=self.name)
            following = changes.cursor
            if changes.records and min(record.updated_at for record in changes.records) > asked_at:
                # Changes during this reading are left to the next one; otherwise reading a busy account would not end.
                following = None
            # A record dated in the future is found by each reading, which says nothing about when it changed.
            found = (each.updated_at for each in changes.records if each.updated_at <= asked_at)
            try:
                known_at = self._move_on(item, cursor, following, asked_at, known_at, max(found, default=0))
            except Conflict:
                logger.info("reconciliation_leased_elsewhere", extra=self.facts)
                return False
            cursor = following
            self.pages += 1
            self.records += len(changes.records)
        reread_requests.settle(self.table, self.name, self.object_name, asked_at)
        logger.info("reconciliation_completed", extra=self.facts)
        return True

    def _read(self, source: ChangedObject, reader: PageReader, since: int, cursor: str) -> Changes:
        def ask(send: page_reader.Send, account_host: str, access_token: Secret) -> Changes:
            return source.read_changes(send, account_host, access_token, since, cursor)

        return reader.read(ask)

    def _move_on(
        self, item: Item, cursor: str, following: str | None, asked_at: int, known_at: int | None, found_at: int
    ) -> int:
        """Record that a page's records are queued, and return the newest known change. `found_at` is the page's newest one.

        Raises `Conflict` if another worker has moved on. An event that arrived during the reading (`known_at` has changed) is
        considered for the next interval.
        """
        while True:
            changed_at = max(item["since"] if known_at is None else known_at, found_at)
            values: Item = {
                ":since": item["since"],
                ":cursor": cursor,
                ":asked_at": asked_at,
                ":changed_at": changed_at,
            }
            if following is None:
                expression = (
                    "SET since = :asked_at, #cursor = :start, settled_at = :now, due_at = :due_at, "
                    "changed_at = :changed_at REMOVE asked_at"
                )
                now = clock.now()
                due_at = self._due_at(now, changed_at, datetime.fromtimestamp(asked_at, UTC))
                values |= {":start": "", ":now": clock.to_iso(now), ":due_at": clock.to_iso(due_at)}
            else:
                expression = "SET #cursor = :following, asked_at = :asked_at, changed_at = :changed_at"
                values |= {":following": following}
            if known_at is None:
                known = "attribute_not_exists(changed_at)"
            else:
                known, values[":known_at"] = "changed_at = :known_at", known_at
            try:
                self.table.update(
                    *key(self.name, self.object_name),
                    expression,
                    condition=f"since = :since AND #cursor = :cursor AND {known}",
                    names={"#cursor": "cursor"},
                    values=values,
                )
            except Conflict as conflict:
                stored = conflict.item or {}
                if (stored.get("since"), stored.get("cursor")) != (item["since"], cursor):
                    raise
                known_at = stored.get("changed_at")
                continue
            return changed_at

    def _leave_unrouted(self, item: Item | None) -> ReadingOutcome:
        """Postpone the reconciliation of an object without a route: a route that is replaced is missing for a moment only."""
        if not item:
            return self._end(None)
        since = max(item["since"], int((clock.now() - UNROUTED_READ).timestamp()))
        self._settle(item, UNROUTED_AGAIN, since=since)
        return self._outcome("ignored")

    def _settle(self, item: Item, wait: timedelta, *, since: int | None = None) -> None:
        """End this message's work: nothing can be read for `wait`, then a reading begins at `since`, or where the last one did.

        A reconciliation that `begin` has made due meanwhile stays due.
        """
        now = clock.now()
        reread_requests.settle(self.table, self.name, self.object_name, int(now.timestamp()))
        with suppress(Conflict):
            self.table.update(
                *key(self.name, self.object_name),
                "SET #cursor = :start, since = :since, settled_at = :now, due_at = :due_at REMOVE asked_at",
                condition="settled_at = :settled_at AND begun_at = :begun_at",
                names={"#cursor": "cursor"},
                values={
                    ":start": "",
                    ":since": item["since"] if since is None else since,
                    ":now": clock.to_iso(now),
                    ":due_at": clock.to_iso(now + wait),
                    ":settled_at": item["settled_at"],
                    ":begun_at": item["begun_at"],
                },
            )

    def _end(self, item: Item | None) -> ReadingOutcome:
        """End the reconciliation: the account is gone. A backfill begins it again."""
        reread_requests.settle(self.table, self.name, self.object_name, int(clock.now().timestamp()))
        if item:
            with suppress(Conflict):
                self.table.delete(
                    *key(self.name, self.object_name),
                    condition="begun_at = :begun_at",
                    values={":begun_at": item["begun_at"]},
                )
        logger.info("reconciliation_ended", extra=self.facts)
        return self._outcome("ended")
