"""Backfills: all records of one object of a connection, read page by page into the Records queue.

    running → done, or failed with a reason

A backfill's item has what `read_page` needs for the next page, and the key of the last record before it. A page's records are
queued before the item is updated, so if a worker dies, at most one page is read and queued again, which changes nothing at the
destination.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

from portaria import platforms
from portaria.aws import queues
from portaria.aws.table import Conflict, Item, Table
from portaria.connections import connection_store
from portaria.connections.request_budget import BudgetExhausted
from portaria.core import clock, event_catalogue, record_messages
from portaria.core.callbacks import Secret
from portaria.core.entities import Connection, Page, Route
from portaria.core.errors import Rejected, Retryable
from portaria.core.settings import BackfillRecordsSettings
from portaria.delivery import backlogs
from portaria.outbound.request_slots import Priority
from portaria.platforms.record_protocols import PagedObject
from portaria.records import routes
from portaria.sources import page_reader, reconciliation
from portaria.sources.page_reader import PageReader, ReadingOutcome

logger = logging.getLogger(__name__)

VERSION = 1
# The wait after another worker has read a page of this backfill.
LEAVE_TO_OTHER_S = 120.0
# The attribute with the place of the next page. Earlier versions stored the number of a page of 250 records under the other
# name; as a place, it is an earlier one. A worker of such a version cannot read an item with a place, and its message returns.
_PLACE, _OLD_PLACE = "next_place", "next_page"


def key(connection: str, route: str, generation: int) -> tuple[str, str]:
    return f"BACKFILL#{connection}", f"{route}#{generation}"


def handle_message(body: str, settings: BackfillRecordsSettings, time_left_s: Callable[[], float]) -> ReadingOutcome:
    """Handle one message of the Backfills queue: `connection.ready` from the bus, or a message of a backfill or a
    reconciliation.

    Raises `Retryable` if the message should return to the queue. A backfill's final failure is recorded in its item.
    """
    try:
        work = _read(body)
    except (ValueError, KeyError, TypeError, AttributeError):
        logger.error("backfill_message_unreadable")
        return ReadingOutcome("ignored")
    if isinstance(work, reconciliation.ReconciliationRequest):
        return reconciliation.handle_message(work, settings, time_left_s)
    if isinstance(work, _ConnectionReady):
        return _begin(*work, settings)
    return _BackfillReading(work, settings, time_left_s).run()


class _ConnectionReady(NamedTuple):
    connection: str
    generation: int


class _BackfillRequest(NamedTuple):
    connection: str
    route: str
    generation: int


def _read(body: str) -> _ConnectionReady | _BackfillRequest | reconciliation.ReconciliationRequest:
    message = json.loads(body)
    if message.get("detail-type") == event_catalogue.CONNECTION_READY:
        return _ConnectionReady(str(message["detail"]["connection"]), int(message["detail"]["generation"]))
    if "reconcile" in message:
        return reconciliation.read(message)
    return _BackfillRequest(str(message["connection"]), str(message["route"]), int(message["generation"]))


def start(table: Table, queue_url: str, connection: Connection, route_name: str | None = None) -> dict[str, str]:
    """Start a backfill for every route from a connection, or for one of them. Returns the routes and their states.

    A backfill that is running continues, and its message is queued again in case it was lost. Raises `Rejected` (404
    `unknown_route`, 409 `not_connected`, `nothing_to_read`) and `Retryable`, after which the call can be repeated.
    """
    if connection.state != "connected":
        raise Rejected("not_connected", f"the connection {connection.name} is {connection.state}", status=409)
    found = routes.for_connection(table, connection)
    if route_name is not None:
        found = [route for route in found if route.name == route_name]
        if not found:
            detail = f"the connection {connection.name} is not the source of a route {route_name}"
            raise Rejected("unknown_route", detail, field="route", status=404)
    found = [route for route in found if platforms.load(connection.platform).paged_object(route.object)]
    if not found:
        detail = (
            f"there is nothing to read: {connection.name} is not the source of a route with an object that "
            f"{connection.platform} can list"
        )
        raise Rejected("nothing_to_read", detail, status=409)
    newest = latest(table, connection.name)
    bodies = []
    for route in found:
        item = newest.get(route.name)
        generation = connection.generation
        if item and item["state"] == "running":
            generation = item["generation"]
        else:
            reconciliation.begin(table, connection, route.object)
            _create(table, connection, route, generation, again=True)
        bodies.append(_message(connection.name, route.name, generation))
    queues.send(queue_url, bodies)
    return dict.fromkeys(sorted(route.name for route in found), "running")


def latest(table: Table, connection: str) -> dict[str, Item]:
    """The latest backfill of each route, including routes that have been deleted."""
    found: dict[str, Item] = {}
    for item in table.query_all(key(connection, "", 0)[0]):
        known = found.get(item["route"])
        if not known or known["started_at"] < item["started_at"]:
            found[item["route"]] = item
    return found


def _begin(name: str, generation: int, settings: BackfillRecordsSettings) -> ReadingOutcome:
    """Start a backfill for each route from the connection. Idempotent."""
    table = Table(settings.table_name)
    connection = connection_store.find(table, name)
    if not connection:
        logger.warning("ready_connection_missing", extra={"connection": name})
        return ReadingOutcome("ignored")
    # The connection may be a destination that refused every record until it was connected again.
    backlogs.try_now(table, name)
    bodies: list[str] = []
    for route in routes.for_connection(table, connection):
        if platforms.load(connection.platform).paged_object(route.object):
            reconciliation.begin(table, connection, route.object)
            if _create(table, connection, route, generation):
                bodies.append(_message(name, route.name, generation))
    queues.send(settings.backfills_queue_url, bodies)
    logger.info("backfills_started", extra={"connection": name, "generation": generation, "backfills": len(bodies)})
    return ReadingOutcome("started", started=len(bodies))


def _create(table: Table, connection: Connection, route: Route, generation: int, *, again: bool = False) -> bool:
    """Whether the backfill must be queued. A running one is queued again, because its first message may have been lost.

    A backfill that has ended starts again only with `again`.
    """
    try:
        table.update(
            *key(connection.name, route.name, generation),
            "SET #connection = :connection, #route = :route, #generation = :generation, #object = :object, "
            "#state = :running, next_place = :first, pages = :none, #records = :none, started_at = :now "
            "REMOVE finished_at, reason, detail, last_key, next_page",
            condition="attribute_not_exists(pk) OR (:again = :yes AND #state <> :running)",
            names={
                name: name[1:] for name in ("#connection", "#route", "#generation", "#object", "#state", "#records")
            },
            values={
                ":connection": connection.name,
                ":route": route.name,
                ":generation": generation,
                ":object": route.object,
                ":running": "running",
                ":first": 1,
                ":none": 0,
                ":now": clock.to_iso(clock.now()),
                ":again": again,
                ":yes": True,
            },
        )
    except Conflict as conflict:
        return conflict.item is not None and conflict.item["state"] == "running"
    return True


def _message(connection: str, route: str, generation: int) -> str:
    return queues.encode({"version": VERSION, "connection": connection, "route": route, "generation": generation})


def _place(item: Item) -> int:
    return int(item[_PLACE if _PLACE in item else _OLD_PLACE])


class _BackfillReading:
    """One worker's turn at a backfill."""

    def __init__(
        self, wanted: _BackfillRequest, settings: BackfillRecordsSettings, time_left_s: Callable[[], float]
    ) -> None:
        self.name, self.route_name, self.generation = wanted
        self.settings = settings
        self.time_left_s = time_left_s
        self.table = Table(settings.table_name)
        self.pages = 0
        self.records = 0

    @property
    def facts(self) -> dict[str, Any]:
        return {"connection": self.name, "route": self.route_name, "generation": self.generation, "pages": self.pages}

    def run(self) -> ReadingOutcome:
        item = self.table.get(*key(self.name, self.route_name, self.generation))
        if not item or item["state"] != "running":
            logger.info("backfill_ignored", extra=self.facts)
            return ReadingOutcome("ignored")
        try:
            self._read(item)
        except Rejected as rejected:
            self._fail(item, rejected)
            return self._outcome("failed")
        except Retryable as later:
            if not self.pages and not isinstance(later, BudgetExhausted):
                raise
            # A new message, because this one's receive count must count failed attempts only.
            delay_s = page_reader.PAUSE_S if later.after_s is None else later.after_s
            logger.info("backfill_postponed", extra={**self.facts, "reason": later.reason, "after_s": delay_s})
            body = _message(self.name, self.route_name, self.generation)
            queues.send(self.settings.backfills_queue_url, [body], delay_s=delay_s)
            return self._outcome("running")
        logger.info("backfill_completed", extra={**self.facts, "records": self.records})
        return self._outcome("done")

    def _outcome(self, state: str) -> ReadingOutcome:
        return ReadingOutcome(state, self.pages, self.records)

    def _read(self, item: Item) -> None:
        route = routes.get(self.table, self.route_name)
        connection = connection_store.get(self.table, self.name)
        platform = platforms.load(connection.platform)
        source = platform.require(platform.paged_object(route.object))
        reader = PageReader(self.table, self.settings, connection, Priority.BACKFILL, self.time_left_s)
        while item["state"] == "running":
            read_at = int(clock.now().timestamp() * 1000)
            page = self._read_page(source, reader, item)
            bodies = record_messages.pack(
                page_reader.dated(page.records, read_at),
                connection=self.name,
                object=route.object,
                origin=record_messages.BACKFILL,
                read_at=read_at,
                route=route.name,
            )
            queues.send(self.settings.bulk_records_queue_url, bodies, tenant=self.name)
            item = self._check_off(item, page)
            self.pages += 1
            self.records += len(page.records)

    @staticmethod
    def _read_page(source: PagedObject, reader: PageReader, item: Item) -> Page:
        def ask(send: page_reader.Send, account_host: str, access_token: Secret) -> Page:
            return source.read_page(send, account_host, access_token, _place(item), item.get("last_key", ""))

        return reader.read(ask)

    def _check_off(self, item: Item, page: Page) -> Item:
        """Record that a page's records are queued: once, however many workers have queued them.

        Raises `Retryable` if another worker has recorded it or has started the backfill again.
        """
        common = "pages = pages + :one, #records = #records + :records"
        values: Item = {":one": 1, ":records": len(page.records), ":running": "running"}
        values |= {":place": _place(item), ":started_at": item["started_at"]}
        if page.next_page is None:
            expression = f"SET {common}, #state = :done, finished_at = :now REMOVE next_place, last_key, next_page"
            values |= {":done": "done", ":now": clock.to_iso(clock.now())}
        else:
            expression = f"SET {common}, next_place = :next"
            values |= {":next": page.next_page}
            if page.records and page.next_page > _place(item):
                expression += ", last_key = :last_key"
                values |= {":last_key": page.records[-1].key}
            expression += " REMOVE next_page"
        stored = _PLACE if _PLACE in item else _OLD_PLACE
        try:
            return self.table.update(
                *key(self.name, self.route_name, self.generation),
                expression,
                condition=f"{stored} = :place AND started_at = :started_at AND #state = :running",
                names={"#state": "state", "#records": "records"},
                values=values,
            )
        except Conflict:
            raise Retryable("in_progress", "another worker reads this backfill", after_s=LEAVE_TO_OTHER_S) from None

    def _fail(self, item: Item, rejected: Rejected) -> None:
        facts = {**self.facts, "reason": rejected.reason, "detail": rejected.detail}
        logger.error("backfill_failed", extra=facts)
        try:
            self.table.update(
                *key(self.name, self.route_name, self.generation),
                "SET #state = :failed, reason = :reason, detail = :detail, finished_at = :now",
                condition="started_at = :started_at AND #state = :running",
                names={"#state": "state"},
                values={
                    ":started_at": item["started_at"],
                    ":running": "running",
                    ":failed": "failed",
                    ":reason": rejected.reason,
                    ":detail": rejected.detail,
                    ":now": clock.to_iso(clock.now()),
                },
            )
        except Conflict:
            return
