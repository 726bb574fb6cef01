"""One batch of Records messages on its way to their destinations.

Every record ends in one of five ways: the destination has taken it (or a newer version of it), a newer version is on its way,
it is among the dead letters with its reason, it waits in the table (`waiting_records`), or its message goes back to the queue
(one that is too much for a slow destination as several). So a message goes back exactly when at least one of its records has
not been dealt with. `record_release` sends what waits in the table through the same code.
"""

from __future__ import annotations

import gc
import logging
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import orjson

from portaria import platforms
from portaria.aws import event_bus, queues
from portaria.aws.table import Conflict, Table
from portaria.connections import connection_store
from portaria.connections.tokens import provider, refusal, static_credentials, usability
from portaria.connections.vault import Vault
from portaria.core import clock, record_messages
from portaria.core.entities import (
    NO_TRACE,
    Answer,
    Connection,
    Disposition,
    Rejected,
    Request,
    Response,
    Retryable,
    Route,
    Target,
    Trace,
)
from portaria.core.settings import IngestRecordsSettings, ReleaseRecordsSettings
from portaria.core.unexpected_errors import log_unexpected as _log_unexpected
from portaria.delivery import destination_pause, quotas, retry_schedule, version_guard, waiting_records
from portaria.delivery.undelivered import Undelivered
from portaria.delivery.version_guard import VersionScope
from portaria.delivery.waiting_records import LONGEST_IN_QUEUE_S, Place
from portaria.outbound import http_client
from portaria.outbound.rate_limiter import Pace
from portaria.platforms.record_protocols import RecordDestination
from portaria.records import dead_letters, receipts, record_mapping, reread_requests, routes
from portaria.records.record_mapping import EncodedRecord, Message, OutgoingRecord, RejectedRecord, Source

logger = logging.getLogger(__name__)

# After a request's own time-outs there must be time to write its receipt and to give messages back.
TIME_TO_FINISH_S = 10.0
# How many requests looking for bad records in one full request may take: about twenty scattered ones are found with
# these. Where more are bad it is the route that is wrong, and what is left is set aside together.
MAX_BISECT_REQUESTS = 250
# Between two tries where a destination does not say how long: doubled each time, so that one that takes records again is
# noticed within ten minutes. Waits above `LONGEST_IN_QUEUE_S` are pauses of the destination.
FIRST_WAIT_S = 5.0
LONGEST_WAIT_S = 600.0
# How much faster than one worker of many a drain sends: it is the only one at its destination, but for sources without waiting
# records.
DRAIN_PACE = 4
# How often a destination is tried that takes nothing until a person acts.
STOPPED_WAIT_S = 1_800.0

# How long the records of one message may take at a destination's pace, so that a batch of forty such messages is done in the
# time of one invocation. What has more is sent again as several: all of it would come back for each part that was done.
SECONDS_A_MESSAGE = 2.0

# How long marks are taken to hold. Whoever sends later looks again, or it might undo what has overtaken it.
MARKS_HOLD_S = 2.0

REFUSED_BY_DESTINATION = "refused_by_destination"
_HEADER_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")


class QueuedMessage(NamedTuple):
    """A message as SQS hands it over. `receives` counts this one too."""

    id: str
    body: str
    receives: int = 1


class ResolvedRoute(NamedTuple):
    """Where records go, and how. Those that are in the destination's own shape already have no mapping.

    A way that leads nowhere, since its destination is gone or its mapping is wrong, says why in `refused`.
    """

    route: str
    target: Target
    mapping: record_mapping.Mapping | None = None
    keeping: VersionScope = VersionScope.NONE
    refused: Rejected | None = None

    def lacks(self, source: Source) -> bool:
        """Whether the mapping needs what a partial record does not have."""
        if not self.mapping:
            return False
        try:
            return self.mapping.apply_partial(source.record["data"])[1]
        except Rejected:
            return False


class ResolvedMessage(NamedTuple):
    """A message that could be read, the ways that its records go, and those that are records."""

    message: Message
    ways: list[ResolvedRoute]
    sources: list[Source]


@dataclass
class BatchDestination:
    """One object of one destination during a batch. Once it is stopped, what is left for it waits for `after_s`.

    `is_paused` says that the table has a pause for this wait.
    """

    connection: Connection
    platform: RecordDestination
    pauses: list[destination_pause.DestinationPause] = field(default_factory=list)
    stopped: bool = False
    after_s: float | None = None
    reason: str = ""
    is_paused: bool = False
    typed_in: dict[str, Any] | None = None

    def stop(self, reason: str, after_s: float | None, *, is_paused: bool = False) -> None:
        self.stopped, self.after_s, self.reason, self.is_paused = True, after_s, reason, is_paused


@dataclass
class BatchOutcome:
    """`waiting` holds the messages that go back, each with its wait in seconds: 0 for at once, None for the back-off.

    `held` holds the entries in which records wait in the table. `pause_s` is how long a drain has to wait before it goes on.
    """

    held: set[Place] = field(default_factory=set)
    pause_s: float = 0.0
    waiting: dict[str, float | None] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    quota_left: dict[str, int] = field(default_factory=dict)

    def hold(self, message_id: str, after_s: float | None = None) -> None:
        known = self.waiting.get(message_id, 0)
        default = None if known is None or after_s is None else 0
        self.waiting[message_id] = max(known or 0, after_s or 0) or default


def ingest(
    deliveries: Iterable[QueuedMessage],
    settings: IngestRecordsSettings,
    time_left_s: Callable[[], float],
    *,
    bulk: bool = False,
) -> BatchOutcome:
    """Deal with messages of one queue; `bulk` says that it is the one of backfills. Raises nothing: what fails is told."""
    split_url = settings.bulk_records_queue_url if bulk else settings.records_queue_url
    return _run(_Batch(settings, time_left_s, bulk=bulk, split_url=split_url), deliveries)


def ingest_waiting(
    deliveries: Iterable[QueuedMessage],
    settings: ReleaseRecordsSettings,
    time_left_s: Callable[[], float],
    *,
    bulk: bool,
    stored: Mapping[Place, int],
) -> BatchOutcome:
    """Deal with what has waited in the table: `stored` has its entries, and how many records each has. Raises nothing.

    What must wait longer is in `Outcome.held` and keeps its place; `Outcome.waiting` has messages that failed unexpectedly.
    """
    return _run(_Batch(settings, time_left_s, bulk=bulk, stored=stored), deliveries)


def _run(batch: _Batch, deliveries: Iterable[QueuedMessage]) -> BatchOutcome:
    # A batch's objects live until its end: looking for cycles among them again and again finds none.
    gc.disable()
    try:
        return batch.run(deliveries)
    finally:
        gc.enable()


def wait_s(asked_s: float | None, receives: int) -> float:
    """How long a message stays away: at once for 0, else as long as asked and at least by the number of its receives."""
    if asked_s == 0:
        return 0
    return max(asked_s or 0, min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(receives - 1, 20)))


@cache
def _pace(destination: str, per_second: float) -> Pace:
    """One a process, so that the next invocation of a warm worker keeps the distance too."""
    return Pace(per_second)


@cache
def _ledger(table_name: str, time_zone: str) -> quotas.Ledger:
    """One a process: it remembers for half a minute what the others have used."""
    return quotas.Ledger(Table(table_name), time_zone)


class _Batch:
    """`split_url` is the queue for the parts of messages that are too much for a slow destination; in a drain none is split."""

    def __init__(
        self,
        settings: IngestRecordsSettings | ReleaseRecordsSettings,
        time_left_s: Callable[[], float],
        *,
        bulk: bool,
        split_url: str = "",
        stored: Mapping[Place, int] | None = None,
    ) -> None:
        self.settings = settings
        self.time_left_s = time_left_s
        self.bulk = bulk
        self.split_url = split_url
        self.is_drain = stored is not None
        self.table = Table(settings.table_name)
        self.vault = Vault(settings.secrets_prefix)
        # Without a sealing key: a destination's token is logged in for, never renewed here.
        self.supply = provider.TokenProvider(self.table, self.vault, "", time_left_s)
        self.ledger = _ledger(settings.table_name, settings.quota_time_zone)
        self.retries = retry_schedule.Schedule(self.table, settings.retry_after_minutes)
        self.outcome = BatchOutcome()
        self.undelivered = Undelivered(self.table, bulk=bulk, stored=stored or {})
        self.receives: dict[str, int] = {}
        self.failed: dict[str, float | None] = {}
        self.ways: dict[tuple[str, str, str], list[ResolvedRoute] | Rejected] = {}
        self.weights: dict[str, int] = {}
        self.can_reread: dict[tuple[str, str], bool] = {}
        self.reread: set[tuple[str, str]] = set()
        self.marked_at = clock.now()
        self.lanes: dict[tuple[str, str], BatchDestination] = {}

    def run(self, deliveries: Iterable[QueuedMessage]) -> BatchOutcome:
        by_target: dict[Target, list[OutgoingRecord]] = defaultdict(list)
        for parts in self._newest(self._read(deliveries)):
            for way, sources in parts:
                self._map(by_target, way, sources)
        for target in sorted(by_target, key=self._turn):
            try:
                self._deliver(target, by_target[target])
            except Exception as error:  # noqa: BLE001 - whatever it was, these go back and the other targets go on
                _log_unexpected("records could not be sent", error, connection=target.destination)
                for message_id in _by_message(by_target[target]):
                    self.outcome.hold(message_id)
        for message_id in self.undelivered.write():
            self.outcome.hold(message_id)
        self.outcome.held = self.undelivered.waiting
        self.outcome.counts += self.undelivered.counts
        return self.outcome

    # ------------------------------------------------------------------------------------------------ what there is to do

    def _read(self, deliveries: Iterable[QueuedMessage]) -> list[ResolvedMessage]:
        found: list[ResolvedMessage] = []
        for delivery in deliveries:
            self.receives[delivery.id] = delivery.receives
            try:
                if read := self._read_one(delivery):
                    found.append(read)
            except Exception as error:  # noqa: BLE001 - whatever it was, this message goes back and the others go on
                _log_unexpected("a message could not be read", error, message_id=delivery.id)
                self.outcome.hold(delivery.id)
        return found

    def _read_one(self, delivery: QueuedMessage) -> ResolvedMessage | None:
        try:
            message = record_mapping.read_message(delivery.id, delivery.body)
        except Rejected as unreadable:
            logger.error(unreadable.detail, extra={"message_id": delivery.id, "reason": unreadable.reason})
            dead_letters.put(self.table, dead_letters.of_message(delivery.id, delivery.body))
            self.outcome.counts["DeadLetters"] += 1
            return None
        ways = self._ways(message)
        if isinstance(ways, Rejected):
            sources = tuple(Source(message, record, _key_of(record), (0, 0)) for record in message.records)
            self.undelivered.refuse(RejectedRecord(sources, message.route, ways.reason, ways.detail))
            return None
        if not ways:
            self.outcome.counts["RecordsWithoutRoute"] += len(message.records)
            return None
        if self.split_url and len(message.records) > (most := self._most_records(ways)):
            self._split(delivery, message, most)
            return None
        found: list[Source] = []
        for record in message.records:
            try:
                source = record_mapping.read_record(message, record)
            except Rejected as rejected:
                source = Source(message, record, _key_of(record), (0, 0))
                self.undelivered.refuse(RejectedRecord((source,), message.route, rejected.reason, rejected.detail))
                continue
            found.append(self._completed(source, ways) if source.is_partial else source)
        return ResolvedMessage(message, ways, found)

    def _completed(self, source: Source, ways: list[ResolvedRoute]) -> Source:
        """Have a record that lacks what a mapping needs read again, where its platform can be read. Raises what AWS raises."""
        name = (source.message.connection, source.message.object)
        if not self.can_reread.get(name) or not any(way.lacks(source) for way in ways):
            return source
        if name not in self.reread:
            reread_requests.request(self.table, *name, changed_at=source.version[0])
            self.reread.add(name)
        self.outcome.counts["RecordsIncomplete"] += 1
        return source._replace(is_incomplete=True)

    def _ways(self, message: Message) -> list[ResolvedRoute] | Rejected:
        """Every way that a message's records go, or why they lead nowhere: the route or the source is gone, or wrong."""
        if message.target:
            return [ResolvedRoute("", message.target)]
        name = (message.connection, message.object, message.route)
        if name not in self.ways:
            try:
                self.ways[name] = self._find_ways(message)
            except Rejected as rejected:
                self.ways[name] = rejected
        return self.ways[name]

    def _find_ways(self, message: Message) -> list[ResolvedRoute]:
        source = connection_store.get(self.table, message.connection)
        self.can_reread[source.name, message.object] = reread_requests.is_possible(source.platform, message.object)
        if message.route:
            found = [routes.get(self.table, message.route)]
        else:
            found = [route for route in routes.for_connection(self.table, source) if route.object == message.object]
        self.weights[message.connection] = max((route.weight for route in found), default=1)
        return [self._way(source, route) for route in found]

    def _way(self, source: Connection, route: Route) -> ResolvedRoute:
        self.undelivered.destinations[route.name] = route.destination
        try:
            destination = connection_store.get(self.table, route.destination)
            return ResolvedRoute(
                route.name,
                routes.target(route, destination),
                record_mapping.mapping_of(routes.mapping(route, source, destination)),
                VersionScope(route.keep_newest),
            )
        except Rejected as rejected:
            return ResolvedRoute(route.name, Target(route.destination, route.target), refused=rejected)

    def _most_records(self, ways: list[ResolvedRoute]) -> int:
        """How many records of one message the slowest of its ways takes in its share of a batch's time."""
        most = sys.maxsize
        for way in ways:
            if not way.refused:
                with suppress(Rejected):
                    platform = self._lane(way.target).platform
                    if per_second := platform.REQUESTS_PER_SECOND:
                        most = min(most, max(1, int(platform.MAX_OBJECTS * per_second * SECONDS_A_MESSAGE)))
        return most

    def _split(self, delivery: QueuedMessage, message: Message, most: int) -> None:
        """Whoever dies before the whole is taken off its queue leaves both, and the records go twice."""
        fields = orjson.loads(delivery.body)
        parts = [message.records[start : start + most] for start in range(0, len(message.records), most)]
        bodies = [record_messages.encode({**fields, "records": part}) for part in parts]
        queues.send(self.split_url, bodies, tenant=message.connection)
        logger.info("a message was split", extra={"message_id": message.id, "messages": len(bodies)})

    def _newest(self, reads: list[ResolvedMessage]) -> Iterator[list[tuple[ResolvedRoute, list[Source]]]]:
        """What goes each way, without what is older than what has been on its way, here or in any batch before."""
        together: dict[tuple[str, str], list[ResolvedMessage]] = defaultdict(list)
        for read in reads:
            if read.message.target:
                yield [(read.ways[0], read.sources)]
            else:
                together[read.message.object, read.message.route].append(read)
        self.marked_at = clock.now()
        for group in together.values():
            newest, older = record_mapping.newest(source for read in group for source in read.sources)
            self.outcome.counts["RecordsCoalesced"] += older
            keeping = {read.message.id: _strictest(read.ways) for read in group}
            try:
                superseded = version_guard.superseded(self.table, newest, keeping)
                ways = {way for read in group for way in read.ways if not read.message.route}
                alone = {
                    way.route: version_guard.superseded_on(self.table, newest, way.route)
                    for way in ways
                    if way.keeping is VersionScope.ALL
                }
            except Exception as error:  # noqa: BLE001 - whatever it was, these go back and the others go on
                _log_unexpected("marks could not be kept", error)
                for read in group:
                    self.outcome.hold(read.message.id)
                continue
            self.outcome.counts["RecordsSuperseded"] += len(superseded)
            by_message: dict[str, list[int]] = defaultdict(list)
            for number, source in enumerate(newest):
                by_message[source.message.id].append(number)
            none: set[int] = set()
            older_on = {route: superseded | numbers for route, numbers in alone.items()}
            for read in group:
                numbers = by_message[read.message.id]
                for way in read.ways:
                    left_out = none if way.keeping is VersionScope.NONE else older_on.get(way.route, superseded)
                    yield [(way, [newest[number] for number in numbers if number not in left_out])]

    def _map(self, by_target: dict[Target, list[OutgoingRecord]], way: ResolvedRoute, sources: list[Source]) -> None:
        refused = way.refused
        if not refused:
            try:
                platform = self._lane(way.target).platform
            except Rejected as rejected:
                refused = rejected
            except Exception as error:  # noqa: BLE001 - whatever it was, these go back and the other ways go on
                _log_unexpected("a destination could not be read", error, connection=way.target.destination)
                for source in sources:
                    self.outcome.hold(source.message.id)
                return
        if refused:
            for source in sources:
                self.undelivered.refuse(RejectedRecord((source,), way.route, refused.reason, refused.detail))
            return
        target, route, check, identity = way.target, way.route, platform.check, platform.identity
        mapping = way.mapping
        apply = mapping.apply if mapping else _unmapped
        add = by_target[target].append
        for source in sources:
            data = source.record["data"]
            try:
                mapped = mapping.apply_partial(data)[0] if mapping and source.is_partial else apply(data)
                attributes = check(mapped, target)
                add(OutgoingRecord(identity(attributes, target), attributes, (source,), route))
            except Rejected as rejected:
                # What an incomplete record lacks may be what it is refused for: the whole record decides.
                if not source.is_incomplete:
                    self.undelivered.refuse(RejectedRecord((source,), route, rejected.reason, rejected.detail))
            except Exception as error:  # noqa: BLE001 - whatever it was, this message goes back and the others go on
                _log_unexpected("a record could not be mapped", error, route=route)
                self.outcome.hold(source.message.id)

    def _turn(self, target: Target) -> tuple[bool, int]:
        """High priority first, and what others link to before what links to it."""
        return target.priority != "high", self._lane(target).platform.RANK

    def _lane(self, target: Target) -> BatchDestination:
        """Raises `Rejected` where there is no such destination, or it does not take such an object."""
        name = (target.destination, target.object)
        if name not in self.lanes:
            connection = connection_store.get(self.table, target.destination)
            if connection.state == "removed":
                raise Rejected("connection_removed", f"the destination {connection.name} has been removed")
            platform = platforms.load(connection.platform)
            destination = platform.require(platform.destination_object(target.part))
            self.lanes[name] = BatchDestination(connection, destination)
        return self.lanes[name]

    # ------------------------------------------------------------------------------------------------------------ sending

    def _deliver(self, target: Target, outgoing: list[OutgoingRecord]) -> None:
        lane = self._lane(target)
        outgoing = self._not_waiting(lane, target, outgoing)
        merged = record_mapping.merged(outgoing)
        self.outcome.counts["RecordsCoalesced"] += len(outgoing) - len(merged)
        frame = lane.platform.frame(target)
        cut = record_mapping.fill(
            merged,
            frame_bytes=len(frame[0]) + len(frame[1]),
            max_objects=lane.platform.MAX_OBJECTS,
            max_bytes=lane.platform.MAX_BODY_BYTES,
        )
        for refused in cut.refused:
            self.undelivered.refuse(refused)
        for chunk in cut.chunks:
            self._deliver_chunk(lane, target, frame, chunk)

    def _not_waiting(
        self, lane: BatchDestination, target: Target, outgoing: list[OutgoingRecord]
    ) -> list[OutgoingRecord]:
        """What may be sent now. The rest waits: for the end of a pause, or behind earlier records of its source."""
        status = waiting_records.status(self.table, target.destination)
        lane.pauses = status.pauses_of(target.object)
        now, closed_until = clock.now().timestamp(), status.closed_until(target.object)
        # Where something waits, the drain tries whether a pause is over.
        if closed_until > now or (lane.pauses and status.backlog and not self.is_drain):
            self.outcome.counts["RecordsParked"] += len(outgoing)
            self.undelivered.wait(target, outgoing, max(closed_until, now))
            return []
        if not status.backlog or self.is_drain:
            return outgoing
        of = {
            source.message.connection: waiting_records.list_of(target, source.message.connection, bulk=self.bulk)
            for one in outgoing
            for source in one.sources
        }
        lists = waiting_records.existing(self.table, of.values())
        self.undelivered.lists |= lists.keys()
        free = []
        for one in outgoing:
            waiting = of[one.sources[-1].message.connection]
            if waiting in lists:
                self.undelivered.wait(target, [one], max(now, lists[waiting]))
            else:
                free.append(one)
        return free

    def _deliver_chunk(
        self, lane: BatchDestination, target: Target, frame: tuple[bytes, bytes], chunk: list[EncodedRecord]
    ) -> None:
        """Send a request; where the destination finds bad data in it, halve it until the bad records stand alone."""
        pieces = [chunk]
        requests_left = MAX_BISECT_REQUESTS
        while pieces:
            piece = pieces.pop()
            if not lane.stopped:
                piece = self._not_overtaken(lane, piece)
            if piece and not lane.stopped:
                piece = self._reserve(lane, target, piece)
            if lane.stopped:
                self._hold(lane, target, piece)
                continue
            if not piece:
                continue
            answer = self._send(lane, target, frame, piece)
            requests_left -= 1
            if answer.meaning in (Disposition.ACCEPTED, Disposition.APPLIED):
                continue
            if answer.meaning is Disposition.RETRY:
                self._try_later(target, piece, answer)
            elif answer.meaning is not Disposition.BAD_DATA:
                self._hold(lane, target, piece)
            elif len(piece) == 1:
                detail = answer.detail or f"the destination refused this record with {answer.code}"
                self.undelivered.refuse(_set_aside(piece[0], REFUSED_BY_DESTINATION, detail))
            elif requests_left <= 0:
                detail = (
                    f"the destination refused a request that contained this record with {answer.code}; too many "
                    "were refused to try each record alone"
                )
                for one in piece:
                    self.undelivered.refuse(_set_aside(one, REFUSED_BY_DESTINATION, detail))
            else:
                half = len(piece) // 2
                pieces += [piece[half:], piece[:half]]

    def _not_overtaken(self, lane: BatchDestination, piece: list[EncodedRecord]) -> list[EncodedRecord]:
        """What of a request no newer version has overtaken since the marks were kept. What is left out is dealt with."""
        if (clock.now() - self.marked_at).total_seconds() < MARKS_HOLD_S:
            return piece
        sources = [(source, one.outgoing.route) for one in piece for source in one.outgoing.sources]
        known = [way for ways in self.ways.values() if not isinstance(ways, Rejected) for way in ways]
        # What goes by no route is in the destination's own shape and has no mark.
        keeping = {"": VersionScope.NONE} | {way.route: way.keeping for way in known}
        try:
            older = {id(sources[number][0]) for number in version_guard.overtaken(self.table, sources, keeping)}
        except Exception as error:  # noqa: BLE001 - what may be too old is not sent
            _log_unexpected("marks could not be looked at again", error, connection=lane.connection.name)
            lane.stop("marks_unknown", None)
            return piece
        left = [one for one in piece if not all(id(source) in older for source in one.outgoing.sources)]
        self.outcome.counts["RecordsSuperseded"] += len(piece) - len(left)
        return left

    def _reserve(self, lane: BatchDestination, target: Target, piece: list[EncodedRecord]) -> list[EncodedRecord]:
        """What of a request the destination's day has room for; the rest waits. Nothing is reserved where there is no quota."""
        quota = platforms.load(lane.connection.platform).daily_quota
        if quota is None:
            return piece
        by_tenant: dict[str, list[EncodedRecord]] = defaultdict(list)
        for one in piece:
            by_tenant[one.outgoing.sources[-1].message.connection].append(one)
        subscription = quota.subscription(lane.connection)
        try:
            reservation = self.ledger.reserve(
                subscription,
                quota.DAILY_QUOTA,
                {tenant: len(ones) for tenant, ones in by_tenant.items()},
                bulk=self.bulk,
                weights={tenant: self.weights.get(tenant, 1) for tenant in by_tenant},
            )
        except Exception as error:  # noqa: BLE001 - what cannot be counted is not sent
            _log_unexpected("no quota could be reserved", error, connection=lane.connection.name)
            lane.stop("quota_unknown", None)
            return piece
        self.outcome.quota_left[subscription] = reservation.left * 100 // quota.DAILY_QUOTA
        granted: list[EncodedRecord] = []
        for tenant, ones in by_tenant.items():
            count = reservation.granted.get(tenant, 0)
            granted += ones[:count]
            if ones[count:]:
                self.outcome.counts["RecordsOverShare"] += len(ones) - count
                until = clock.now().timestamp() + (reservation.after_s or 0)
                self.undelivered.wait(target, [one.outgoing for one in ones[count:]], until, is_share=True)
        return granted

    def _send(
        self, lane: BatchDestination, target: Target, frame: tuple[bytes, bytes], piece: list[EncodedRecord]
    ) -> Answer:
        """Send one request and keep its receipt. Stops the lane where sending more to it now cannot help."""
        body = frame[0] + b",".join([one.text for one in piece]) + frame[1]
        name = lane.connection.name
        sources = [source for one in piece for source in one.outgoing.sources]
        correlation_id = receipts.correlation_id(name, {source.message.id for source in sources}, body)
        calls = {source.message.request for source in sources}
        request_ids = sorted(calls - {""})
        # What was merged of several calls has no caller's name of its own; its receipt lists the calls.
        trace = sources[0].message.trace if len(calls) == 1 else NO_TRACE
        receipt: dict[str, Any] = {
            "destination": name,
            "object": target.object,
            "routes": sorted({one.outgoing.route for one in piece}),
            "count": len(piece),
            "size": len(body),
            "keys": [f"{source.message.connection}/{source.key}" for source in sources],
            "requests": request_ids,
            "trace": trace,
        }
        facts: dict[str, Any] = {
            "connection": name,
            "object": target.object,
            "route": receipt["routes"],
            "correlation_id": correlation_id,
            "records": len(piece),
            "bytes": len(body),
        }
        if request_ids:
            facts["requests"] = request_ids
        try:
            answer = self._post(lane, target, body, correlation_id, receipt)
        except Conflict:
            # A worker that died, or one with the same delivery, has sent just this and it was accepted.
            logger.info("a request had been accepted before", extra=facts)
            return Answer(Disposition.ACCEPTED, "accepted_before")
        except Rejected as rejected:
            answer = Answer(Disposition.STOP, rejected.reason, detail=rejected.detail)
            self._close_receipt(correlation_id, answer)
        except Retryable as later:
            answer = self._put_off(correlation_id, later)
            # Waiting for no answer takes long, and the next request would most likely wait as well.
            lane.stop("destination_busy", later.after_s)
        except Exception as error:  # noqa: BLE001 - whatever it was, these go back and other destinations go on
            _log_unexpected("a request could not be sent", error, connection=name, correlation_id=correlation_id)
            answer = Answer(Disposition.BACK_OFF, "unexpected")
        facts |= {"request_id": answer.request_id, "code": answer.code, "meaning": answer.meaning.value}
        if answer.meaning in (Disposition.ACCEPTED, Disposition.APPLIED):
            logger.info("a request was accepted", extra=facts)
            self.outcome.counts["RequestsAccepted"] += 1
            self.outcome.counts["RecordsSent"] += len(piece)
            self._end_pauses(lane)
            if answer.pause_s is not None:
                lane.stop("rate_limited", answer.pause_s)
            return answer
        self.outcome.counts["RequestsRefused"] += 1
        self._stop(lane, target, answer, facts)
        return answer

    def _stop(self, lane: BatchDestination, target: Target, answer: Answer, facts: dict[str, Any]) -> None:
        """What an answer that is no success means for whatever else goes the same way. The table of meanings, in code."""
        match answer.meaning:
            case Disposition.BAD_DATA | Disposition.RETRY:
                logger.warning("a request was refused", extra=facts)
            case Disposition.BACK_OFF:
                # What one request met, the next one would meet as well.
                lane.stop("destination_busy", answer.after_s)
                logger.warning("a request was put off", extra=facts)
            case Disposition.QUOTA:
                after_s = answer.after_s or self.ledger.until_reset_s()
                self._park(lane, "", destination_pause.QUOTA, answer, after_s)
                logger.warning("the destination's day is over", extra=facts)
            case Disposition.STOP | Disposition.TOKEN_AGAIN:
                whole = answer.meaning is Disposition.TOKEN_AGAIN
                self._park(lane, "" if whole else target.object, destination_pause.STOPPED, answer, STOPPED_WAIT_S)
                self.outcome.counts["DestinationsStopped"] += 1
                logger.error("a destination refuses everything until somebody acts", extra=facts)

    def _end_pauses(self, lane: BatchDestination) -> None:
        """The destination takes records again, so a pause that cannot be ended changes nothing for those that it took."""
        try:
            for pause in lane.pauses:
                destination_pause.end(self.table, pause)
        except Exception as error:  # noqa: BLE001 - the next success ends it
            _log_unexpected("pause_not_ended", error, connection=lane.connection.name)
        lane.pauses = []

    def _park(self, lane: BatchDestination, object_name: str, reason: str, answer: Answer, for_s: float) -> None:
        lane.stop(reason, for_s, is_paused=True)
        destination = lane.connection.name
        try:
            is_new = destination_pause.park(
                self.table, destination, object_name, reason=reason, code=answer.code, for_s=for_s
            )
            if is_new and reason == destination_pause.STOPPED:
                detail = {
                    "connection": destination,
                    "object": object_name,
                    "code": answer.code,
                    "detail": answer.detail,
                }
                event_bus.put(self.settings.bus_name, event_bus.DESTINATION_STOPPED, detail)
        except Exception as error:  # noqa: BLE001 - the next batch meets the same answer and parks it
            _log_unexpected("a destination could not be parked", error, connection=destination)

    def _put_off(self, correlation_id: str, later: Retryable) -> Answer:
        """Whoever gave no answer may have taken the records: that receipt stays open, for the redelivery or as unknown."""
        failed = later.answer_lost or later.reason == http_client.UNREACHABLE
        answer = Answer(Disposition.RETRY if failed else Disposition.BACK_OFF, later.reason, after_s=later.after_s)
        if not later.answer_lost:
            self._close_receipt(correlation_id, answer)
        return answer

    def _post(
        self, lane: BatchDestination, target: Target, body: bytes, correlation_id: str, receipt: dict[str, Any]
    ) -> Answer:
        """Raises `Conflict` where this very request has been accepted before, and `Rejected` and `Retryable`."""
        connection = lane.connection
        token = self.supply.token(connection)
        build, trace = lane.platform.request, _sendable(receipt["trace"], correlation_id)
        credentials = {**self._typed_in(lane), **token.credentials}
        request: Request = build(connection, credentials, target, body, trace)
        if self.time_left_s() < request.connect_timeout_s + request.read_timeout_s + TIME_TO_FINISH_S:
            raise Retryable("short_of_time", "there is too little time left to wait for the response", after_s=0)
        receipts.open_receipt(self.table, correlation_id, **receipt)
        response, answer = self._exchange(lane, request)
        if answer.meaning is Disposition.TOKEN_AGAIN and (newer := self.supply.refresh_after_401(connection, token)):
            lane.typed_in = None
            credentials = {**self._typed_in(lane), **newer.credentials}
            request = build(connection, credentials, target, body, trace)
            response, answer = self._exchange(lane, request)
        if answer.meaning is Disposition.TOKEN_AGAIN:
            self._end_if_dead(connection, response)
        self._close_receipt(correlation_id, answer)
        return answer

    def _end_if_dead(self, connection: Connection, response: Response) -> None:
        """A typed-in credential that the platform calls dead, with none in its place, ends the connection."""
        if connection.kind in connection_store.STATIC_KINDS and refusal.token_is_dead(connection, response):
            with suppress(Conflict):
                usability.end(self.table, connection, "token_refused")

    def _typed_in(self, lane: BatchDestination) -> dict[str, Any]:
        """What was typed in, where a request needs more than a token. Read once a batch."""
        if not lane.platform.NEEDS_STATIC_CREDENTIALS:
            return {}
        if lane.typed_in is None:
            lane.connection, credentials = static_credentials.static_credentials(
                self.table, self.vault, lane.connection
            )
            lane.typed_in = dict(credentials)
        return lane.typed_in

    def _exchange(self, lane: BatchDestination, request: Request) -> tuple[Response, Answer]:
        if per_second := lane.platform.REQUESTS_PER_SECOND:
            _pace(lane.connection.name, per_second * (DRAIN_PACE if self.is_drain else 1)).wait()
        response = http_client.send(request, allowed_domain=lane.connection.allowed_domain, owner=lane.connection.name)
        answer: Answer = lane.platform.read_answer(response)
        return response, answer

    def _close_receipt(self, correlation_id: str, answer: Answer) -> None:
        """The destination has answered, so a receipt that cannot be written changes nothing for the records."""
        try:
            if answer.meaning in (Disposition.ACCEPTED, Disposition.APPLIED):
                applied = answer.meaning is Disposition.APPLIED
                receipts.accept(self.table, correlation_id, answer.request_id, applied=applied)
            else:
                receipts.fail(self.table, correlation_id, answer.code, answer.request_id)
        except Exception as error:  # noqa: BLE001 - sending accepted records again would be worse than an open receipt
            _log_unexpected("a receipt stays open", error, correlation_id=correlation_id, request_id=answer.request_id)

    # ------------------------------------------------------------------------------------------- what has not arrived

    def _try_later(self, target: Target, piece: list[EncodedRecord], answer: Answer) -> None:
        """After the waits of the schedule; what has been through them all is a dead letter.

        A message whose records go in several requests has failed once, however many of those have.
        """
        by_message = _by_message(one.outgoing for one in piece)
        self.failed |= self.retries.next(by_message.keys() - self.failed.keys())
        detail = (
            f"the destination did not accept it in {self.retries.tries} attempts; the last one ended with {answer.code}"
        )
        for message_id, ones in by_message.items():
            wait_s = self.failed[message_id]
            if wait_s is None:
                for one in ones:
                    self.undelivered.refuse(
                        RejectedRecord(one.sources, one.route, dead_letters.GAVE_UP, detail), message_id
                    )
                continue
            wait_s = max(wait_s, answer.after_s or 0)
            if wait_s <= LONGEST_IN_QUEUE_S and not self.is_drain:
                self.outcome.hold(message_id, wait_s)
            else:
                until = clock.now().timestamp() + wait_s
                self.undelivered.wait(target, ones, until, message_id=message_id, is_retry=True)

    def _hold(self, lane: BatchDestination, target: Target, piece: list[EncodedRecord]) -> None:
        """Have records wait that a stopped lane takes no more of: briefly in their queue, otherwise in the table."""
        in_table: dict[str, list[OutgoingRecord]] = {}
        longest_s = lane.after_s or 0.0
        for message_id, ones in _by_message(one.outgoing for one in piece).items():
            needed_s = wait_s(lane.after_s, self.receives[message_id])
            if not self.is_drain and not lane.is_paused and needed_s <= LONGEST_IN_QUEUE_S:
                self.outcome.hold(message_id, lane.after_s)
            else:
                in_table[message_id] = ones
                longest_s = max(longest_s, needed_s)
        if not in_table:
            return
        if self.is_drain and not lane.is_paused and lane.after_s is not None and lane.after_s <= LONGEST_IN_QUEUE_S:
            self.outcome.pause_s = max(self.outcome.pause_s, lane.after_s)
        elif not lane.is_paused:
            before_s = max(
                (2 * pause.for_s for pause in lane.pauses if pause.reason == destination_pause.BUSY), default=0
            )
            for_s = max(longest_s, min(before_s, LONGEST_WAIT_S), LONGEST_IN_QUEUE_S)
            self._park(lane, target.object, destination_pause.BUSY, Answer(Disposition.BACK_OFF, lane.reason), for_s)
        until = clock.now().timestamp() + (lane.after_s or 0)
        for message_id, ones in in_table.items():
            self.undelivered.wait(target, ones, until, message_id=message_id)


def _sendable(trace: Trace, receipt_id: str) -> Trace:
    """The caller's trace as a destination gets it, with the receipt's id where the caller gave no correlation id.

    Anything but printable ASCII stays here: nobody says how a destination reads it, and `http_client` would refuse the request.
    """
    correlation_id, request_source = (
        value if _HEADER_VALUE.fullmatch(value) else "" for value in (trace.correlation_id, trace.request_source)
    )
    return Trace(correlation_id or receipt_id, request_source)


def _by_message(outgoing: Iterable[OutgoingRecord]) -> dict[str, list[OutgoingRecord]]:
    by_message: dict[str, list[OutgoingRecord]] = defaultdict(list)
    for one in outgoing:
        for message_id in {source.message.id for source in one.sources}:
            by_message[message_id].append(one)
    return by_message


def _unmapped(data: dict[str, Any]) -> dict[str, Any]:
    return data


def _strictest(ways: list[ResolvedRoute]) -> VersionScope:
    """How a message's records are marked where its ways differ."""
    kept = {way.keeping for way in ways}
    return next(keeping for keeping in (VersionScope.ALL, VersionScope.EVENTS, VersionScope.NONE) if keeping in kept)


def _set_aside(one: EncodedRecord, reason: str, detail: str) -> RejectedRecord:
    return RejectedRecord(one.outgoing.sources, one.outgoing.route, reason, detail)


def _key_of(record: Any) -> str:
    return str(record.get("key", "")) if isinstance(record, dict) else ""
