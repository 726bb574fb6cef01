"""Backfills: all records of one object of a connection, read page by page into the Records queue.

    running → done, or failed with a reason

A backfill's item says which page comes next. A page's records are queued before the item moves on, so a worker that dies
anywhere leaves at worst one page to be read and queued again, which changes nothing at the destination.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

from portaria import clock, connections, egress, events, queues, records, routes, tokens
from portaria.contract import Connection, Page, Rejected, Request, Response, Retryable, Route
from portaria.pace import Pace
from portaria.platforms import part
from portaria.settings import BackfillRecordsSettings
from portaria.table import Conflict, Item, Table
from portaria.tokens import Token
from portaria.vault import Vault

logger = logging.getLogger(__name__)

VERSION = 1
ORIGIN = "backfill"
# After a request's own time-outs there must be time to queue its records and to move the item on.
TIME_TO_STORE_S = 5.0
# Between two turns of one backfill, where the platform asks for no pause of its own.
PAUSE_S = 5.0
# Another worker has just moved this backfill on: it is left alone for a while.
LEAVE_TO_OTHER_S = 120.0


@dataclass(frozen=True)
class Outcome:
    """What one message came to: `state` is started, running, done, failed or ignored."""

    state: str
    pages: int = 0
    records: int = 0
    started: int = 0


def key(connection: str, route: str, generation: int) -> tuple[str, str]:
    return f"BACKFILL#{connection}", f"{route}#{generation}"


def take(body: str, settings: BackfillRecordsSettings, time_left_s: Callable[[], float]) -> Outcome:
    """Deal with one message of the Backfills queue: `connection.ready` from the bus, or a backfill's own.

    Raises `Retryable` where the message should come back; a backfill that has failed for good says so in its item.
    """
    try:
        message = json.loads(body)
        if message.get("detail-type") == events.CONNECTION_READY:
            name, generation = str(message["detail"]["connection"]), int(message["detail"]["generation"])
            return _start(name, generation, settings)
        backfill = (str(message["connection"]), str(message["route"]), int(message["generation"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        logger.error("a message of the Backfills queue is neither of the two that it may be")
        return Outcome("ignored")
    return _Reading(*backfill, settings, time_left_s).run()


def _start(name: str, generation: int, settings: BackfillRecordsSettings) -> Outcome:
    """Start a backfill for each route that begins at the connection. Started twice is started once."""
    table = Table(settings.table_name)
    connection = connections.find(table, name)
    if not connection:
        logger.warning("a connection that became ready is gone", extra={"connection": name})
        return Outcome("ignored")
    bodies: list[str] = []
    for route in routes.for_connection(table, connection):
        if _listing(connection.platform, route.object) and _create(table, connection, route, generation):
            bodies.append(_message(name, route.name, generation))
    queues.send(settings.backfills_queue_url, bodies)
    logger.info(
        "backfills were started", extra={"connection": name, "generation": generation, "backfills": len(bodies)}
    )
    return Outcome("started", started=len(bodies))


def _create(table: Table, connection: Connection, route: Route, generation: int) -> bool:
    """Whether the backfill is to be queued. One that runs already is queued again: its first message may have been lost."""
    try:
        table.update(
            *key(connection.name, route.name, generation),
            "SET #connection = :connection, #route = :route, #generation = :generation, #object = :object, "
            "#state = :running, next_page = :first, pages = :none, #records = :none, started_at = :now",
            condition="attribute_not_exists(pk)",
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
            },
        )
    except Conflict as conflict:
        return conflict.item is not None and conflict.item["state"] == "running"
    return True


def _listing(platform: str, object_name: str) -> ModuleType | None:
    """The platform's part for an object, where it can list it."""
    try:
        module = part(platform, object_name)
    except Rejected:
        return None
    return module if hasattr(module, "read_page") else None


def _message(connection: str, route: str, generation: int) -> str:
    return queues.encode({"version": VERSION, "connection": connection, "route": route, "generation": generation})


@cache
def _pace(platform: str, per_second: float) -> Pace:
    """One a process, so that the next invocation of a warm worker keeps the distance too."""
    return Pace(per_second)


class _Reading:
    """One worker's turn at a backfill."""

    def __init__(
        self,
        name: str,
        route: str,
        generation: int,
        settings: BackfillRecordsSettings,
        time_left_s: Callable[[], float],
    ) -> None:
        self.name = name
        self.route_name = route
        self.generation = generation
        self.settings = settings
        self.time_left_s = time_left_s
        self.table = Table(settings.table_name)
        self.supply = tokens.Supply(self.table, Vault(settings.secrets_prefix), settings.sealing_key_id, time_left_s)
        self.pages = 0
        self.records = 0

    @property
    def facts(self) -> dict[str, Any]:
        return {"connection": self.name, "route": self.route_name, "generation": self.generation, "pages": self.pages}

    def run(self) -> Outcome:
        item = self.table.get(*key(self.name, self.route_name, self.generation))
        if not item or item["state"] != "running":
            logger.info("there is nothing to read any more", extra=self.facts)
            return Outcome("ignored")
        try:
            self._read(item)
        except Rejected as rejected:
            self._fail(rejected)
            return self._outcome("failed")
        except Retryable as later:
            if not self.pages:
                raise
            # A new message, since this one's receives count how often it came in vain.
            delay_s = PAUSE_S if later.after_s is None else later.after_s
            logger.info("a backfill goes on later", extra={**self.facts, "reason": later.reason, "after_s": delay_s})
            body = _message(self.name, self.route_name, self.generation)
            queues.send(self.settings.backfills_queue_url, [body], delay_s=delay_s)
            return self._outcome("running")
        logger.info("a backfill is done", extra={**self.facts, "records": self.records})
        return self._outcome("done")

    def _outcome(self, state: str) -> Outcome:
        return Outcome(state, self.pages, self.records)

    def _read(self, item: Item) -> None:
        route = routes.get(self.table, self.route_name)
        connection = connections.get(self.table, self.name)
        listing = part(connection.platform, route.object)
        while item["state"] == "running":
            try:
                page = self._read_page(listing, connection, item["next_page"])
            except Rejected:
                newer = connections.get(self.table, self.name)
                if newer.generation <= connection.generation:
                    raise
                connection = newer
                continue
            queues.send(self.settings.records_queue_url, records.pack(self.name, route, ORIGIN, page.records))
            item = self._check_off(item["next_page"], page)
            self.pages += 1
            self.records += len(page.records)

    def _read_page(self, listing: ModuleType, connection: Connection, number: int) -> Page:
        pace = _pace(connection.platform, listing.REQUESTS_PER_SECOND)

        def send(request: Request) -> Response:
            if self.time_left_s() < request.connect_timeout_s + request.read_timeout_s + TIME_TO_STORE_S:
                raise Retryable("short_of_time", "too little time is left to wait for the answer", after_s=0)
            pace.wait()
            return egress.send(request, allowed_domain=connection.allowed_domain)

        def read(token: Token) -> Page:
            page: Page = listing.read_page(send, connection.allowed_domain, token.credentials["access_token"], number)
            return page

        token = self.supply.token(connection)
        try:
            return read(token)
        except Rejected as rejected:
            newer = self.supply.newer(connection, token) if rejected.reason == "token_refused" else None
            if newer is None:
                raise
            return read(newer)

    def _check_off(self, number: int, page: Page) -> Item:
        """Move the item past a page whose records are queued: once, however many workers have queued them.

        Raises `Retryable` where another worker has done so.
        """
        common = "pages = pages + :one, #records = #records + :records"
        values: Item = {":one": 1, ":records": len(page.records), ":number": number, ":running": "running"}
        if page.next_page is None:
            expression = f"SET {common}, #state = :done, finished_at = :now REMOVE next_page"
            values |= {":done": "done", ":now": clock.to_iso(clock.now())}
        else:
            expression = f"SET {common}, next_page = :next"
            values |= {":next": page.next_page}
        try:
            return self.table.update(
                *key(self.name, self.route_name, self.generation),
                expression,
                condition="next_page = :number AND #state = :running",
                names={"#state": "state", "#records": "records"},
                values=values,
            )
        except Conflict:
            raise Retryable("in_progress", "another worker reads this backfill", after_s=LEAVE_TO_OTHER_S) from None

    def _fail(self, rejected: Rejected) -> None:
        facts = {**self.facts, "reason": rejected.reason, "detail": rejected.detail}
        logger.error("a backfill has failed", extra=facts)
        try:
            self.table.update(
                *key(self.name, self.route_name, self.generation),
                "SET #state = :failed, reason = :reason, detail = :detail, finished_at = :now",
                condition="#state = :running",
                names={"#state": "state"},
                values={
                    ":running": "running",
                    ":failed": "failed",
                    ":reason": rejected.reason,
                    ":detail": rejected.detail,
                    ":now": clock.to_iso(clock.now()),
                },
            )
        except Conflict:
            return
