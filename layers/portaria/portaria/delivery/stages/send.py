"""Stage 3, send: cut a target's records into full requests, send them, and report each result to the next stage.

`Sender.send` is a generator. `record_outcomes` handles each result before anything else is sent to the destination, so a pause
that an answer causes is in the table by then, and the destination is stopped.

Order for each request:

1. Waiting records and pauses are read, of the destination and of its host. Records that must wait are never sent in front of
   earlier ones.
2. If the destination has a rate limit, a slot of it is claimed. After a death from here on, the slot passes unused.
3. Marks are read again if they are old.
4. Quota is reserved. Objects of records that are not sent after all are given back, unless the request may have left. After a
   death from here on, the reserved objects stay counted, although they were not sent.
5. If the host's pause has passed, the request claims to be the one that tries it (`host_gate`).
6. The request is sent with its receipt (`destination_request`).

A platform that queues what it accepts may allow several requests in progress (`REQUESTS_IN_PROGRESS`). The first request for
an object is sent alone, and so is the one after any answer but a success, and the one that tries a host: a destination that
refuses requests gets one. Otherwise the next request is sent while the response to the last one is on its way. Responses are
handled in the order of their requests, by the same thread. After a death, each request in progress has an open receipt.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from portaria import platforms
from portaria.aws.table import Table
from portaria.core import clock
from portaria.core.entities import Answer, Disposition, Target
from portaria.core.unexpected_errors import log_unexpected
from portaria.delivery import backlogs, quotas, waiting_lists
from portaria.delivery.stages.batch_state import (
    BatchDestination,
    BatchOutcome,
    Refused,
    SendResult,
    Unsent,
    Waits,
)
from portaria.delivery.stages.deduplicate import Deduplicator
from portaria.delivery.stages.destination_request import DestinationRequests, RequestInProgress
from portaria.delivery.stages.host_gate import HostEntry, HostGate
from portaria.records.mapping import record_mapping, request_filling
from portaria.records.mapping.record_mapping import OutgoingRecord, RejectedRecord
from portaria.records.mapping.request_filling import Chunk

# The most requests that search for the invalid records of one full request: enough to find about twenty scattered ones. If
# more are invalid, the route is wrong, and the rest becomes dead letters together.
MAX_BISECT_REQUESTS = 250

REFUSED_BY_DESTINATION = "refused_by_destination"


@dataclass(frozen=True)
class Reservation:
    """The result of reserving quota: the records that may be sent today, and the records that must wait for their share.

    `give_back` returns reserved objects to the ledger, by tenant. None if nothing was reserved.
    """

    granted: list[OutgoingRecord]
    waits: list[Waits] = field(default_factory=list)
    give_back: Callable[[Counter[str]], None] | None = None

    def keep_for(self, sent: list[OutgoingRecord]) -> None:
        """Give back what was reserved, but for the records that may have been sent. Raises nothing."""
        if self.give_back and len(sent) < len(self.granted):
            self.give_back(_shares(self.granted) - _shares(sent))


class QuotaReserver:
    """Reserves a destination's daily quota for the tenants of a request. `weights` are those of their routes."""

    def __init__(self, ledger: quotas.Ledger, weights: dict[str, int], outcome: BatchOutcome, *, bulk: bool) -> None:
        self._ledger = ledger
        self._weights = weights
        self._outcome = outcome
        self._bulk = bulk

    def reserve(self, destination: BatchDestination, piece: list[OutgoingRecord]) -> Reservation:
        """Stops the destination on a failure."""
        quota = platforms.load(destination.connection.platform).daily_quota
        if quota is None:
            return Reservation(piece)
        shares = _shares(piece)
        subscription = quota.subscription(destination.connection)
        try:
            reservation = self._ledger.reserve(
                subscription,
                quota.DAILY_QUOTA,
                shares,
                bulk=self._bulk,
                weights={tenant: self._weights.get(tenant, 1) for tenant in shares},
            )
        except Exception as error:  # noqa: BLE001 - records that cannot be counted are not sent
            log_unexpected("quota_not_reserved", error, connection=destination.connection.name)
            destination.stop("quota_unknown", None)
            return Reservation(piece)
        give_back = partial(self._ledger.give_back, subscription, reservation.day)
        self._outcome.quota_left[subscription] = reservation.left * 100 // quota.DAILY_QUOTA
        if all(reservation.granted.get(tenant) == count for tenant, count in shares.items()):
            return Reservation(piece, give_back=give_back)
        by_tenant: dict[str, list[OutgoingRecord]] = defaultdict(list)
        for one in piece:
            by_tenant[one.sources[-1].message.connection].append(one)
        granted: list[OutgoingRecord] = []
        waits: list[Waits] = []
        for tenant, ones in by_tenant.items():
            count = reservation.granted.get(tenant, 0)
            granted += ones[:count]
            if ones[count:]:
                self._outcome.counts["RecordsOverShare"] += len(ones) - count
                until = clock.now().timestamp() + (reservation.after_s or 0)
                waits.append(Waits(ones[count:], until, is_share=True))
        return Reservation(granted, waits, give_back)


@dataclass
class _Search:
    """Of one full request: how many more requests may search for its invalid records."""

    requests_left: int


class _Piece(NamedTuple):
    """Records of one request, which is a full one or a part of one."""

    outgoing: list[OutgoingRecord]
    search: _Search


class _Sent(NamedTuple):
    """A request in progress, and the quota that is reserved for it."""

    piece: _Piece
    request: RequestInProgress
    reservation: Reservation


class Sender:
    """Sends the records of one target after the other. In a drain (`is_drain`), the records come from their waiting lists."""

    def __init__(
        self,
        table: Table,
        deduplicator: Deduplicator,
        quota: QuotaReserver,
        requests: DestinationRequests,
        hosts: HostGate,
        outcome: BatchOutcome,
        *,
        bulk: bool,
        is_drain: bool,
    ) -> None:
        self._table = table
        self._deduplicator = deduplicator
        self._quota = quota
        self._requests = requests
        self._hosts = hosts
        self._outcome = outcome
        self._bulk = bulk
        self._is_drain = is_drain

    def send(
        self, destination: BatchDestination, target: Target, outgoing: list[OutgoingRecord]
    ) -> Generator[SendResult | None, None, None]:
        """The result for each record, and None before each wait for a response, when the caller may send to other destinations.

        The caller handles each result before it asks for the next. Raises what AWS raises.
        """
        status = backlogs.status(self._table, target.destination)
        destination.pauses = status.pauses_of(target.object)
        now = clock.now().timestamp()
        closed_until = max(status.closed_until(target.object), self._hosts.closed_until(destination))
        if self._hosts.is_silent(destination):
            # The next request would most likely wait as long as the one for another object.
            destination.stop("destination_busy", None)
        # If records wait, the drain tries whether a pause has ended.
        if closed_until > now or (destination.pauses and status.backlog and not self._is_drain):
            self._outcome.counts["RecordsParked"] += len(outgoing)
            yield Waits(outgoing, max(closed_until, now))
            outgoing = []
        elif status.backlog and not self._is_drain:
            outgoing, waits = self._not_waiting(target, outgoing, now)
            yield from waits
        merged = record_mapping.merged(outgoing)
        self._outcome.counts["RecordsCoalesced"] += len(outgoing) - len(merged)
        frame = destination.platform.frame(target)
        filled = request_filling.fill(
            merged,
            frame_bytes=len(frame[0]) + len(frame[1]),
            max_objects=destination.platform.MAX_OBJECTS,
            max_bytes=destination.platform.MAX_BODY_BYTES,
        )
        yield from self._send_pieces(destination, target, frame, filled)

    def _not_waiting(
        self, target: Target, outgoing: list[OutgoingRecord], now: float
    ) -> tuple[list[OutgoingRecord], list[Waits]]:
        """The records that no earlier record of their source waits in front of, and those that join a waiting list."""
        of = {
            source.message.connection: waiting_lists.list_of(target, source.message.connection, bulk=self._bulk)
            for one in outgoing
            for source in one.sources
        }
        lists = waiting_lists.existing(self._table, of.values())
        free: list[OutgoingRecord] = []
        waits: list[Waits] = []
        for one in outgoing:
            waiting = of[one.sources[-1].message.connection]
            if waiting in lists:
                waits.append(Waits([one], max(now, lists[waiting]), is_listed=True))
            else:
                free.append(one)
        return free, waits

    def _send_pieces(
        self,
        destination: BatchDestination,
        target: Target,
        frame: tuple[bytes, bytes],
        filled: Iterator[Chunk | RejectedRecord],
    ) -> Iterator[SendResult | None]:
        """Send requests. If the destination finds invalid data in one, halve it until each invalid record stands alone.

        The next request is taken from `filled`, which encodes it, while the last one is in progress.
        """
        pieces: deque[_Piece] = deque()
        sent: deque[_Sent] = deque()
        try:
            while True:
                if not pieces:
                    yield from _take_one(filled, pieces)
                if pieces and (not sent or self._may_send_beside(destination, sent)):
                    yield from self._begin(destination, target, frame, pieces.popleft(), sent)
                elif sent:
                    yield None
                    yield from self._finish(destination, sent.popleft(), pieces)
                else:
                    return
        finally:
            # The caller failed: as after a death, these requests have an open receipt.
            for each in sent:
                self._requests.give_up(each.request)

    def _may_send_beside(self, destination: BatchDestination, sent: deque[_Sent]) -> bool:
        return (
            destination.is_accepting
            and len(sent) < destination.platform.REQUESTS_IN_PROGRESS
            and not any(each.request.failure for each in sent)
            and self._requests.has_time_for_another()
        )

    def _begin(
        self,
        destination: BatchDestination,
        target: Target,
        frame: tuple[bytes, bytes],
        piece: _Piece,
        sent: deque[_Sent],
    ) -> Iterator[SendResult]:
        """Send one request and add it to `sent`, or return the records that must not be sent."""
        if not destination.is_stopped and (until := self._hosts.closed_until(destination)):
            yield self._parked(piece.outgoing, until)
            return
        if not destination.is_stopped:
            self._requests.wait_for_rate(destination)
        if destination.is_stopped:
            yield Unsent(piece.outgoing)
            return
        reservation = self._quota.reserve(destination, piece.outgoing)
        yield from reservation.waits
        outgoing, entry = reservation.granted, HostEntry()
        # Last, so that little time is left in which a newer version can be sent.
        if outgoing and not destination.is_stopped:
            outgoing = self._not_overtaken(destination, outgoing)
        if outgoing and not destination.is_stopped:
            entry = self._hosts.enter(destination)
        if destination.is_stopped or entry.closed_until or not outgoing:
            reservation.keep_for([])
            if destination.is_stopped:
                yield Unsent(outgoing)
            elif outgoing:
                yield self._parked(outgoing, entry.closed_until)
            return
        if entry.probe:
            destination.is_accepting = False
        request = self._requests.begin(destination, target, frame, outgoing, entry.probe)
        sent.append(_Sent(_Piece(outgoing, piece.search), request, reservation))

    def _finish(self, destination: BatchDestination, sent: _Sent, pieces: deque[_Piece]) -> Iterator[SendResult]:
        """Return the result of a request. `pieces` gets the halves of one that the destination finds invalid data in."""
        outgoing, search = sent.piece
        answered = self._requests.finish(sent.request)
        sent.reservation.keep_for(outgoing if sent.request.may_be_sent else [])
        search.requests_left -= 1
        if answered is None:
            return
        destination.is_accepting = answered.answer.meaning in (Disposition.ACCEPTED, Disposition.APPLIED)
        yield answered
        if answered.answer.meaning is not Disposition.BAD_DATA:
            return
        if len(outgoing) > 1 and search.requests_left > 0:
            half = len(outgoing) // 2
            pieces.extendleft((_Piece(outgoing[half:], search), _Piece(outgoing[:half], search)))
        else:
            yield from _refused(outgoing, answered.answer)

    def _parked(self, piece: list[OutgoingRecord], until: float) -> Waits:
        self._outcome.counts["RecordsParked"] += len(piece)
        return Waits(piece, until)

    def _not_overtaken(self, destination: BatchDestination, piece: list[OutgoingRecord]) -> list[OutgoingRecord]:
        """Stops the destination if the marks cannot be read: a record that may be outdated is not sent."""
        try:
            return self._deduplicator.not_overtaken(piece)
        except Exception as error:  # noqa: BLE001 - these records wait and the other destinations go on
            log_unexpected("marks_not_read", error, connection=destination.connection.name)
            destination.stop("marks_unknown", None)
            return piece


def _take_one(filled: Iterator[Chunk | RejectedRecord], pieces: deque[_Piece]) -> Iterator[Refused]:
    """Add the next full request to `pieces`. Returns the records before it that fit into none."""
    for each in filled:
        if isinstance(each, Chunk):
            pieces.append(_Piece(each, _Search(MAX_BISECT_REQUESTS)))
            return
        yield Refused(each)


def _shares(piece: list[OutgoingRecord]) -> Counter[str]:
    """How many records of a request each tenant has."""
    return Counter([one.sources[-1].message.connection for one in piece])


def _refused(piece: list[OutgoingRecord], answer: Answer) -> Iterator[Refused]:
    if len(piece) == 1:
        detail = answer.detail or f"the destination refused this record with {answer.code}"
    else:
        detail = (
            f"the destination refused a request that contained this record with {answer.code}; too many "
            "were refused to try each record alone"
        )
    for one in piece:
        yield Refused(RejectedRecord(one.sources, one.route, REFUSED_BY_DESTINATION, detail))
