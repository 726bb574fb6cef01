"""Stage 1, resolve: read each message, find the routes of its records, and map them (`map_records`).

Writes, in this order for each message, before the next message is read:

- An unreadable message becomes a dead letter. After a death the message is delivered again, and its letter has the same id.
- A message with too many records for a slow destination is sent to its queue again in parts. After a death before the original
  is deleted, both exist and the records are delivered twice, which destinations tolerate.
- If a partial record lacks a value that a mapping needs, its account's changes are read again (`reread_requests`). The request
  is written before the record is marked and sent: a crash in between costs one unneeded reading.

Nothing has been sent or marked when this stage ends.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import orjson

from portaria.aws import queues
from portaria.aws.table import Table
from portaria.connections import connection_store
from portaria.core import record_messages
from portaria.core.entities import Connection, Route, Target
from portaria.core.errors import Rejected
from portaria.core.unexpected_errors import log_unexpected
from portaria.delivery.stages.batch_state import (
    BatchDestinations,
    BatchOutcome,
    QueuedMessage,
    ResolvedBatch,
    ResolvedMessage,
    ResolvedRoute,
)
from portaria.delivery.stages.map_records import map_records
from portaria.delivery.stages.undelivered import Undelivered
from portaria.delivery.version_guard import VersionScope
from portaria.records import dead_letters, reconciliation_wakeups, reread_requests, routes
from portaria.records.mapping import record_mapping
from portaria.records.mapping.record_mapping import Message, RejectedRecord, Source
from portaria.records.reconciliation_schedule import Bounds

logger = logging.getLogger(__name__)

# The sending time of one message's records if its destination has a rate limit, with so many requests a second one after the
# other. A batch of forty such messages then fits into one invocation. A larger message is split, because all of it would return
# to the queue for each part that was sent.
SECONDS_A_MESSAGE, REQUESTS_IN_TURN_A_SECOND = 2.0, 2.0


class MessageResolver:
    """`split_url` is the queue for the parts of split messages; without it, no message is split.

    `wakes` are the intervals by which live events make their accounts' reconciliations due; None for records that have waited.
    """

    def __init__(
        self,
        table: Table,
        destinations: BatchDestinations,
        undelivered: Undelivered,
        outcome: BatchOutcome,
        *,
        split_url: str,
        wakes: Bounds | None,
    ) -> None:
        self._table = table
        self._destinations = destinations
        self._undelivered = undelivered
        self._outcome = outcome
        self._split_url = split_url
        self._wakes = wakes
        self._routes: dict[tuple[str, str, str], list[ResolvedRoute] | Rejected] = {}
        # What the sources of a batch share is read once: an OAuth client's routes and the destinations' connections.
        self._by_client: dict[str, list[Route]] = {}
        self._connections: dict[str, Connection] = {}
        self._weights: dict[str, int] = {}
        self._route_destinations: dict[str, str] = {}
        # Of each source object, whether its platform can list changes, and the oldest change that was requested in this batch.
        self._can_reread: dict[tuple[str, str], bool] = {}
        self._reread: dict[tuple[str, str], int] = {}

    def resolve(self, queued: Iterable[QueuedMessage]) -> ResolvedBatch:
        """The readable messages with their routes. A message that fails unexpectedly returns to the queue. Raises nothing."""
        found: list[ResolvedMessage] = []
        for each in queued:
            try:
                if resolved := self._resolve_one(each):
                    found.append(resolved)
            except Exception as error:  # noqa: BLE001 - this message returns to the queue and the others go on
                log_unexpected("message_not_resolved", error, message_id=each.id)
                self._outcome.hold(each.id)
        return ResolvedBatch(found, self._weights, self._route_destinations)

    def _resolve_one(self, queued: QueuedMessage) -> ResolvedMessage | None:
        try:
            message = record_mapping.read_message(queued.id, queued.body)
        except Rejected as unreadable:
            facts = {"message_id": queued.id, "reason": unreadable.reason, "detail": unreadable.detail}
            logger.error("records_message_unreadable", extra=facts)
            dead_letters.put(self._table, dead_letters.of_message(queued.id, queued.body))
            self._outcome.counts["DeadLetters"] += 1
            return None
        found = self._routes_of(message)
        if isinstance(found, Rejected):
            unsent = tuple(Source(message, number, _key_of(record)) for number, record in enumerate(message.records))
            self._undelivered.refuse(RejectedRecord(unsent, message.route, found.reason, found.detail))
            return None
        if not found:
            self._outcome.counts["RecordsWithoutRoute"] += len(message.records)
            return None
        if self._split_url and len(message.records) > (most := self._most_records(found)):
            self._split(queued, message, most)
            return None
        if self._wakes and message.origin == record_messages.EVENT:
            name = (message.connection, message.object)
            if self._can_reread.get(name):
                reconciliation_wakeups.wake(self._table, *name, self._wakes)
        sources, data_of = self._read_records(message, found)
        mapped = [(route, map_records(route, sources, data_of, self._destinations)) for route in found]
        message.content.release()
        return ResolvedMessage(message, sources, mapped)

    def _read_records(self, message: Message, found: list[ResolvedRoute]) -> tuple[list[Source], list[dict[str, Any]]]:
        """The readable records of a message, and the data of each."""
        sources: list[Source] = []
        data_of: list[dict[str, Any]] = []
        for number, record in enumerate(message.records):
            try:
                source = record_mapping.read_record(message, number, record)
            except Rejected as rejected:
                source = Source(message, number, _key_of(record))
                self._undelivered.refuse(RejectedRecord((source,), message.route, rejected.reason, rejected.detail))
                continue
            sources.append(self._completed(source, record["data"], found) if source.is_partial else source)
            data_of.append(record["data"])
        return sources, data_of

    def _completed(self, source: Source, data: dict[str, Any], found: list[ResolvedRoute]) -> Source:
        """Request a complete reading of a record that lacks a value that a mapping needs, if its platform can list changes.

        Raises what AWS raises.
        """
        name = (source.message.connection, source.message.object)
        if not self._can_reread.get(name) or not any(route.lacks(data) for route in found):
            return source
        changed_at = source.version[0]
        if name not in self._reread or changed_at < self._reread[name]:
            reread_requests.request(self._table, *name, changed_at=changed_at)
            self._reread[name] = changed_at
        self._outcome.counts["RecordsIncomplete"] += 1
        return replace(source, is_incomplete=True)

    def _routes_of(self, message: Message) -> list[ResolvedRoute] | Rejected:
        """Every route of a message's records, or why there is none: the route or the source is deleted or wrong."""
        if message.target:
            return [ResolvedRoute("", message.target)]
        name = (message.connection, message.object, message.route)
        if name not in self._routes:
            try:
                self._routes[name] = self._find_routes(message)
            except Rejected as rejected:
                self._routes[name] = rejected
        return self._routes[name]

    def _find_routes(self, message: Message) -> list[ResolvedRoute]:
        source = connection_store.get(self._table, message.connection)
        self._can_reread[source.name, message.object] = reread_requests.is_possible(source.platform, message.object)
        if message.route:
            found = [routes.get(self._table, message.route)]
        else:
            found = [route for route in self._routes_from(source) if route.object == message.object]
        self._weights[message.connection] = max((route.weight for route in found), default=1)
        return [self._resolve_route(source, route) for route in found]

    def _routes_from(self, source: Connection) -> list[Route]:
        own, *of_client = routes.sources_of(source)
        found = routes.for_source(self._table, own)
        for client in of_client:
            if client not in self._by_client:
                self._by_client[client] = routes.for_source(self._table, client)
            found += self._by_client[client]
        return found

    def _destination(self, name: str) -> Connection:
        if name not in self._connections:
            self._connections[name] = connection_store.get(self._table, name)
        return self._connections[name]

    def _resolve_route(self, source: Connection, route: Route) -> ResolvedRoute:
        self._route_destinations[route.name] = route.destination
        try:
            destination = self._destination(route.destination)
            return ResolvedRoute(
                route.name,
                routes.target(route, destination),
                record_mapping.mapping_of(routes.mapping(route, source, destination)),
                VersionScope(route.keep_newest),
            )
        except Rejected as rejected:
            return ResolvedRoute(route.name, Target(route.destination, route.target), refused=rejected)

    def _most_records(self, found: list[ResolvedRoute]) -> int:
        """How many records of one message the slowest of its destinations accepts in `SECONDS_A_MESSAGE`."""
        most = sys.maxsize
        for route in found:
            if not route.refused:
                with suppress(Rejected):
                    platform = self._destinations.get(route.target).platform
                    if platform.REQUESTS_PER_SECOND:
                        per_second = min(platform.REQUESTS_PER_SECOND, REQUESTS_IN_TURN_A_SECOND)
                        most = min(most, max(1, int(platform.MAX_OBJECTS * per_second * SECONDS_A_MESSAGE)))
        return most

    def _split(self, queued: QueuedMessage, message: Message, most: int) -> None:
        fields = orjson.loads(queued.body)
        parts = [message.records[start : start + most] for start in range(0, len(message.records), most)]
        bodies = [record_messages.encode({**fields, "records": part}) for part in parts]
        queues.send(self._split_url, bodies, tenant=message.connection)
        logger.info("message_split", extra={"message_id": message.id, "messages": len(bodies)})


def _key_of(record: Any) -> str:
    return str(record.get("key", "")) if isinstance(record, dict) else ""
