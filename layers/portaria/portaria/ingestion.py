"""One batch of Records messages on its way to their destinations.

Every record ends in one of three ways: the destination has accepted it (or a newer version of it), it has been set aside
set aside with its reason, or its message goes back to the queue. So a message goes back exactly when at least
one of its records has not been dealt with.
"""

from __future__ import annotations

import hashlib
import logging
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from portaria import clock, connections, egress, queues, receipts, records, routes, tokens
from portaria.contract import Answer, Connection, Meaning, Rejected, Retryable, Route
from portaria.platforms import part
from portaria.records import Mapping, Message, Outgoing, SetAside, Target
from portaria.settings import IngestRecordsSettings
from portaria.table import Conflict, Table
from portaria.vault import Vault

logger = logging.getLogger(__name__)

# After a request's own time-outs there must be time to write its receipt and to give messages back.
TIME_TO_FINISH_S = 10.0
# How many requests looking for bad records in one full request may take: about twenty scattered ones are found with
# these. Where more are bad it is the route that is wrong, and what is left is set aside together.
MAX_BISECT_REQUESTS = 250
# Between a failure and the next try, where the destination asks for no longer pause: 5, 15, 45 s … to half an hour, so the
# ten receives of a message span about two and a half hours.
FIRST_WAIT_S = 5.0
LONGEST_WAIT_S = 1_800.0
# What one request met, the next one to the same destination would meet as well.
STOPS_LANE = (Meaning.STOP, Meaning.QUOTA, Meaning.BACK_OFF, Meaning.TOKEN_AGAIN)


class Way(NamedTuple):
    """Where the records of one message go, and how they are mapped."""

    route: Route
    target: Target
    mapping: Mapping


@dataclass
class Lane:
    """A destination during one batch. Once it is stopped, what is left for it waits for `after_s` or the queue's back-off."""

    connection: Connection
    stopped: bool = False
    after_s: float | None = None

    def stop(self, after_s: float | None) -> None:
        self.stopped, self.after_s = True, after_s


@dataclass
class Outcome:
    """`waiting` holds the messages that go back, each with its wait in seconds: 0 for at once, None for the back-off."""

    waiting: dict[str, float | None] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def hold(self, message_ids: Iterable[str], after_s: float | None = None) -> None:
        for message_id in message_ids:
            known = self.waiting.get(message_id, 0)
            default = None if known is None or after_s is None else 0
            self.waiting[message_id] = max(known or 0, after_s or 0) or default


def ingest(
    bodies: Iterable[tuple[str, str]], settings: IngestRecordsSettings, time_left_s: Callable[[], float]
) -> Outcome:
    """Deal with messages, given as (message id, body). Raises nothing: what fails is in the outcome."""
    return _Batch(settings, time_left_s).run(bodies)


def wait_s(asked_s: float | None, receives: int) -> float:
    """How long a message stays away: at once for 0, else as long as asked and at least by the number of its receives."""
    if asked_s == 0:
        return 0
    return max(asked_s or 0, min(LONGEST_WAIT_S, FIRST_WAIT_S * 3.0 ** min(receives - 1, 10)))


class _Batch:
    def __init__(self, settings: IngestRecordsSettings, time_left_s: Callable[[], float]) -> None:
        self.settings = settings
        self.time_left_s = time_left_s
        self.table = Table(settings.table_name)
        # Without a sealing key: a destination's token is logged in for, never renewed here.
        self.supply = tokens.Supply(self.table, Vault(settings.secrets_prefix), "", time_left_s)
        self.outcome = Outcome()
        self.set_aside: dict[tuple[str, str, str], SetAside] = {}
        self.ways: dict[tuple[str, str], Way] = {}
        self.lanes: dict[str, Lane] = {}

    def run(self, bodies: Iterable[tuple[str, str]]) -> Outcome:
        by_target: dict[Target, list[Outgoing]] = defaultdict(list)
        for message_id, body in bodies:
            try:
                for target, one in self._read(message_id, body):
                    by_target[target].append(one)
            except Exception as error:  # noqa: BLE001 - whatever it was, this message goes back and the others go on
                _log_unexpected("a message could not be read", error, message_id=message_id)
                self.outcome.hold([message_id])
        for target in sorted(by_target, key=lambda target: target.priority != "high"):
            outgoing = records.coalesce(by_target[target])
            self.outcome.counts["RecordsCoalesced"] += len(by_target[target]) - len(outgoing)
            try:
                self._deliver(target, outgoing)
            except Exception as error:  # noqa: BLE001 - whatever it was, these go back and the other targets go on
                _log_unexpected("records could not be sent", error, connection=target.destination)
                self._hold(outgoing, None)
        self._write_set_aside()
        return self.outcome

    def _read(self, message_id: str, body: str) -> list[tuple[Target, Outgoing]]:
        try:
            message = records.read_message(message_id, body)
        except Rejected as unreadable:
            # It comes back at once, so that the queue itself moves it to the dead letters after its receives.
            logger.error(unreadable.detail, extra={"message_id": message_id, "reason": unreadable.reason})
            self.outcome.hold([message_id], 0)
            return []
        try:
            way = self._way(message)
        except Rejected as rejected:
            self._set_aside(message, message.records, rejected.reason, rejected.detail)
            return []
        mapped: list[tuple[Target, Outgoing]] = []
        for source in message.records:
            try:
                outgoing = records.map_record(message, source, way.mapping, way.route.dedupe_fields)
            except Rejected as rejected:
                self._set_aside(message, [source], rejected.reason, rejected.detail)
            else:
                mapped.append((way.target, outgoing))
        return mapped

    def _way(self, message: Message) -> Way:
        """Raises `Rejected` where the message's route leads nowhere: it or its source is gone, or its mapping is wrong."""
        name = (message.connection, message.route)
        if name not in self.ways:
            route = routes.get(self.table, message.route)
            source = part(connections.get(self.table, message.connection).platform, message.object)
            target = Target(
                route.destination, source.DESTINATION_OBJECT, route.dedupe_fields, route.partition, route.priority
            )
            self.ways[name] = Way(route, target, records.mapping_of(route.mapping or source.DEFAULT_MAPPING))
        return self.ways[name]

    def _deliver(self, target: Target, outgoing: list[Outgoing]) -> None:
        try:
            lane = self._lane(target.destination)
            platform = part(lane.connection.platform, target.object)
        except Rejected as rejected:
            logger.error(rejected.detail, extra={"connection": target.destination, "reason": rejected.reason})
            self.outcome.counts["DestinationsStopped"] += 1
            self._hold(outgoing, None)
            return
        before, after = platform.frame(target.dedupe_fields, target.partition, target.priority)
        chunks, too_large = records.fill(
            outgoing,
            frame_bytes=len(before) + len(after),
            max_objects=platform.MAX_OBJECTS,
            max_bytes=platform.MAX_BODY_BYTES,
        )
        for one in too_large:
            self._set_aside(*one)
        for chunk in chunks:
            self._deliver_chunk(lane, platform, (before, after), chunk)

    def _lane(self, destination: str) -> Lane:
        if destination not in self.lanes:
            self.lanes[destination] = Lane(connections.get(self.table, destination))
        return self.lanes[destination]

    def _deliver_chunk(self, lane: Lane, platform: Any, frame: tuple[bytes, bytes], chunk: list[Outgoing]) -> None:
        """Send a request; where the destination finds bad data in it, halve it until the bad records stand alone."""
        pieces = [chunk]
        requests_left = MAX_BISECT_REQUESTS
        while pieces:
            piece = pieces.pop()
            if lane.stopped:
                self._hold(piece, lane.after_s)
                continue
            answer = self._send(lane, platform, frame, piece)
            requests_left -= 1
            if answer.meaning is Meaning.ACCEPTED:
                continue
            if answer.meaning is not Meaning.BAD_DATA:
                self._hold(piece, answer.after_s)
            elif len(piece) == 1:
                detail = f"the destination refused this record with {answer.code}"
                self._set_aside(piece[0].message, [piece[0].source], "refused_by_destination", detail)
            elif requests_left <= 0:
                detail = f"the destination refused a request with this record with {answer.code}; too many were refused"
                for one in piece:
                    self._set_aside(one.message, [one.source], "refused_by_destination", detail)
            else:
                half = len(piece) // 2
                pieces += [piece[half:], piece[:half]]

    def _send(self, lane: Lane, platform: Any, frame: tuple[bytes, bytes], piece: list[Outgoing]) -> Answer:
        """Send one request and keep its receipt. Stops the lane where sending more to it now cannot help."""
        body = frame[0] + b",".join(one.encoded for one in piece) + frame[1]
        name = lane.connection.name
        correlation_id = receipts.correlation_id(name, (one.message.id for one in piece), body)
        of_routes = sorted({one.message.route for one in piece})
        facts = {
            "connection": name,
            "route": of_routes,
            "correlation_id": correlation_id,
            "records": len(piece),
            "bytes": len(body),
        }
        try:
            answer = self._post(lane.connection, platform, body, correlation_id, of_routes, len(piece))
        except Conflict:
            # A worker that died, or one with the same delivery, has sent just this and it was accepted.
            logger.info("a request had been accepted before", extra=facts)
            return Answer(Meaning.ACCEPTED, "accepted_before")
        except Rejected as rejected:
            answer = Answer(Meaning.STOP, rejected.reason)
            self._close_receipt(correlation_id, answer)
        except Retryable as later:
            answer = Answer(Meaning.RETRY, later.reason, after_s=later.after_s)
            lane.stop(later.after_s)
            # Whoever gave no answer may have taken the records: that receipt stays open, for the redelivery or as unknown.
            if not later.answer_lost:
                self._close_receipt(correlation_id, answer)
        except Exception as error:  # noqa: BLE001 - whatever it was, these go back and other destinations go on
            _log_unexpected("a request could not be sent", error, connection=name, correlation_id=correlation_id)
            answer = Answer(Meaning.RETRY, "unexpected")
            lane.stop(None)
        facts |= {"request_id": answer.request_id, "code": answer.code, "meaning": answer.meaning.value}
        if answer.meaning is Meaning.ACCEPTED:
            logger.info("a request was accepted", extra=facts)
            self.outcome.counts["RequestsAccepted"] += 1
            self.outcome.counts["RecordsSent"] += len(piece)
            return answer
        self.outcome.counts["RequestsRefused"] += 1
        if answer.meaning in STOPS_LANE:
            lane.stop(answer.after_s)
        if answer.meaning in (Meaning.STOP, Meaning.TOKEN_AGAIN):
            self.outcome.counts["DestinationsStopped"] += 1
            logger.error("a destination refuses everything until somebody acts", extra=facts)
        else:
            logger.warning("a request was refused", extra=facts)
        return answer

    def _post(
        self,
        connection: Connection,
        platform: Any,
        body: bytes,
        correlation_id: str,
        of_routes: list[str],
        count: int,
    ) -> Answer:
        """Raises `Conflict` where this very request has been accepted before, and `Rejected` and `Retryable`."""
        token = self.supply.token(connection)
        request = platform.request(connection, token.credentials["access_token"], body, correlation_id)
        if self.time_left_s() < request.connect_timeout_s + request.read_timeout_s + TIME_TO_FINISH_S:
            raise Retryable("short_of_time", "too little time is left to wait for the answer")
        receipts.open_receipt(self.table, correlation_id, connection.name, of_routes, count, len(body))
        answer = self._read_answer(connection, platform, request)
        if answer.meaning is Meaning.TOKEN_AGAIN and (newer := self.supply.newer(connection, token)):
            request = platform.request(connection, newer.credentials["access_token"], body, correlation_id)
            answer = self._read_answer(connection, platform, request)
        self._close_receipt(correlation_id, answer)
        return answer

    def _read_answer(self, connection: Connection, platform: Any, request: Any) -> Answer:
        answer: Answer = platform.read_answer(egress.send(request, allowed_domain=connection.allowed_domain))
        return answer

    def _close_receipt(self, correlation_id: str, answer: Answer) -> None:
        """The destination has answered, so a receipt that cannot be written changes nothing for the records."""
        try:
            if answer.meaning is Meaning.ACCEPTED:
                receipts.accept(self.table, correlation_id, answer.request_id)
            else:
                receipts.fail(self.table, correlation_id, answer.code, answer.request_id)
        except Exception as error:  # noqa: BLE001 - sending accepted records again would be worse than an open receipt
            _log_unexpected("a receipt stays open", error, correlation_id=correlation_id, request_id=answer.request_id)

    def _hold(self, piece: Iterable[Outgoing], after_s: float | None) -> None:
        self.outcome.hold({one.message.id for one in piece}, after_s)

    def _set_aside(self, message: Message, sources: list[Any], reason: str, detail: str) -> None:
        """What one message has of one reason becomes one dead letter."""
        known = self.set_aside.setdefault((message.id, reason, detail), SetAside(message, [], reason, detail))
        known.records.extend(sources)

    def _write_set_aside(self) -> None:
        bodies: list[str] = []
        written: list[SetAside] = []
        for one in self.set_aside.values():
            try:
                bodies.append(_dead_letter(one))
                written.append(one)
            except (ValueError, RecursionError) as error:
                _log_unexpected("a dead letter could not be written", error, route=one.message.route)
                self.outcome.hold([one.message.id])
        try:
            queues.send(self.settings.records_set_aside_url, bodies)
        except Exception as error:  # noqa: BLE001 - whatever it was, these records have not been dealt with
            _log_unexpected("records could not be set aside", error)
            self.outcome.hold({one.message.id for one in written})
            return
        counts: Counter[tuple[str, str]] = Counter()
        for one in written:
            counts[one.message.route, one.reason] += len(one.records)
        for (route, reason), count in counts.items():
            logger.warning("records were set aside", extra={"route": route, "reason": reason, "records": count})
        self.outcome.counts["RecordsSetAside"] += counts.total()


def _dead_letter(one: SetAside) -> str:
    """A Records message again, so that moving it back to the queue sends it anew, with its reason beside the record.

    `id` is the same where a redelivery sets the same records aside twice.
    """
    message = one.message
    keys = [str(source.get("key", "")) if isinstance(source, dict) else "" for source in one.records]
    return queues.encode(
        {
            "version": records.VERSION,
            "id": hashlib.sha256("\n".join([message.id, one.reason, *keys]).encode()).hexdigest()[:32],
            "reason": one.reason,
            "detail": one.detail,
            "set_aside_at": clock.to_iso(clock.now()),
            "connection": message.connection,
            "route": message.route,
            "object": message.object,
            "origin": message.origin,
            "records": one.records,
        }
    )


def _log_unexpected(what: str, error: Exception, **facts: str) -> None:
    """An exception's text may quote a record or a token, so only its kind and place are told."""
    extra = {**facts, "error": type(error).__name__, "at": traceback.format_tb(error.__traceback__)}
    logger.error(what, extra=extra)
