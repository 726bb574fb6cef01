"""One request to a destination, with its receipt.

Order of writes, and the state after a crash between two of them:

1. The receipt is opened. After a death before it, nothing was sent. After a death behind it, the receipt stays open: the
   redelivered message makes the same request, finds the receipt, and sends it again.
2. The request is sent. A destination that did not respond may have accepted the records: the receipt stays open, for the
   redelivery or as `unknown`.
3. The receipt is closed with the answer. After a death before it, the redelivery sends the request twice, which
   destinations tolerate (upserts). After a death behind it, the redelivery finds an accepted receipt and sends nothing.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from portaria.aws.table import Conflict, Table
from portaria.connections import connection_store, request_budget
from portaria.connections.tokens import cache, provider, refusal, static_credentials, usability
from portaria.connections.vault import Vault
from portaria.core import clock
from portaria.core.entities import NO_TRACE, Answer, Connection, Disposition, Target, Trace
from portaria.core.errors import PlatformUnavailable, RateLimited, Rejected, Retryable, Unreachable
from portaria.core.http.messages import Request, Response
from portaria.core.stored_reasons import ConnectionReason
from portaria.core.unexpected_errors import log_unexpected
from portaria.delivery.host_pauses import HostPause
from portaria.delivery.stages.batch_state import Answered, BatchDestination
from portaria.delivery.stages.host_gate import HostGate
from portaria.outbound import http_client
from portaria.outbound.request_slots import Priority
from portaria.records import receipts, record_index
from portaria.records.mapping.record_mapping import OutgoingRecord
from portaria.records.mapping.request_filling import encoded

if TYPE_CHECKING:
    from portaria.outbound import http_exchange

logger = logging.getLogger(__name__)

# After a request's own timeouts there must be time to write its receipt and to return messages to the queue.
TIME_TO_FINISH_S = 10.0
# If the wait for another response has used a request's time, a response that has come meanwhile is read within this time.
LATE_READ_S = 1.0
# The time of a live batch in waits for a destination's rate limit. The destination's other records wait in the queue, and then
# for a drain, which has no other destination to serve.
MAX_RATE_WAIT_S = 0.5
_HEADER_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")


@dataclass(eq=False)
class RequestInProgress:
    """A request that is being sent, or whose response has not been handled.

    `spent_s` is the time that the batch has waited for the platform, and `timeout_s` the request's time limit. `is_answered`
    says that the destination answered, and `may_be_sent` that it may have received the records. `failure` is an error that
    occurred before the wait for the response.
    """

    destination: BatchDestination
    target: Target
    piece: list[OutgoingRecord]
    body: bytes
    receipt: dict[str, Any]
    probe: HostPause | None
    correlation_id: str = ""
    spent_s: float = 0.0
    timeout_s: float = 0.0
    is_answered: bool = False
    may_be_sent: bool = False
    token: cache.Token | None = None
    exchange: http_exchange.Exchange | None = None
    failure: Exception | None = None

    @contextmanager
    def waiting_for_platform(self) -> Iterator[None]:
        begin = clock.now()
        try:
            yield
        finally:
            self.spent_s += (clock.now() - begin).total_seconds()


class DestinationRequests:
    """`time_left_s` is the invocation's remaining time in seconds."""

    def __init__(
        self,
        table: Table,
        vault: Vault,
        time_left_s: Callable[[], float],
        hosts: HostGate,
        *,
        bulk: bool,
        is_drain: bool,
    ) -> None:
        self._table = table
        self._vault = vault
        self._time_left_s = time_left_s
        self._hosts = hosts
        self._bulk = bulk
        self._is_drain = is_drain
        # The requests in progress, to all destinations.
        self._in_progress: list[RequestInProgress] = []
        # How long the batch has waited for each destination's rate limit.
        self._rate_waits_s: dict[str, float] = defaultdict(float)
        # Without a sealing key: a destination's token comes from a log-in and is never renewed here.
        self._tokens = provider.TokenProvider(table, vault, "", time_left_s)

    def begin(
        self,
        destination: BatchDestination,
        target: Target,
        frame: tuple[bytes, bytes],
        piece: list[OutgoingRecord],
        probe: HostPause | None,
    ) -> RequestInProgress:
        """Send one request, without waiting for its response. Call `HostGate.enter` before; `finish` or `give_up` must follow.

        Raises nothing: `finish` handles what went wrong.
        """
        body = frame[0] + encoded(piece) + frame[1]
        receipt = _receipt(destination.connection.name, target, piece, len(body))
        request = RequestInProgress(destination, target, piece, body, receipt, probe)
        try:
            self._begin(request)
        except Exception as error:  # noqa: BLE001 - `finish` raises it again and handles it
            request.failure = error
        self._in_progress.append(request)
        return request

    def give_up(self, request: RequestInProgress) -> None:
        """Do not wait for the response. The receipt stays open."""
        self._in_progress.remove(request)
        if request.exchange:
            request.exchange.close()

    def finish(self, request: RequestInProgress) -> Answered | None:
        """Wait for the response; None if this very request was accepted before. Raises nothing.

        Stops the destination if it did not answer, because the next request would most likely wait as well.
        """
        self._in_progress.remove(request)
        destination, correlation_id = request.destination, request.correlation_id
        name, is_unavailable = destination.connection.name, False
        facts: dict[str, Any] = {
            "connection": name,
            "object": request.target.object,
            "route": request.receipt["routes"],
            "correlation_id": correlation_id,
            "records": len(request.piece),
            "bytes": len(request.body),
        }
        if request.receipt["requests"]:
            facts["requests"] = request.receipt["requests"]
        try:
            answer = self._finish(request)
        except Conflict:
            # A worker that died, or one with the same delivery, has sent this request and it was accepted.
            logger.info("request_accepted_before", extra=facts)
            self._leave_host(request, failed=False)
            return None
        except Rejected as rejected:
            answer = Answer(Disposition.STOP, rejected.reason, detail=rejected.detail)
            self._close_receipt(correlation_id, answer)
        except Retryable as later:
            is_unavailable = isinstance(later, PlatformUnavailable) and not isinstance(later, RateLimited)
            answer = self._not_answered(correlation_id, later)
            destination.stop("destination_busy", later.after_s)
        except Exception as error:  # noqa: BLE001 - these records wait and the other destinations go on
            log_unexpected("request_not_sent", error, connection=name, correlation_id=correlation_id)
            answer = Answer(Disposition.BACK_OFF, "unexpected")
        facts |= {"request_id": answer.request_id, "code": answer.code, "meaning": answer.meaning.value}
        silent_for_s = self._leave_host(request, failed=is_unavailable or answer.meaning is Disposition.RETRY)
        return Answered(request.piece, answer, facts, silent_for_s)

    def has_time_for_another(self) -> bool:
        """Whether there is time for one more request with the time limit of those in progress, and to finish them all."""
        return self._time_left_s() >= self._needed_s(0.0) + TIME_TO_FINISH_S

    def _needed_s(self, timeout_s: float) -> float:
        """How long the responses of the requests in progress, and of one more with this time limit, may take."""
        return max([timeout_s, *(each.timeout_s for each in self._in_progress)]) + len(self._in_progress) * LATE_READ_S

    def wait_for_rate(self, destination: BatchDestination) -> None:
        """Wait until the destination's rate limit, which all workers share, admits a request. Raises nothing.

        Stops the destination if other records use its rate limit for now. Call this before `send`.
        """
        try:
            self._claim_slot(destination)
        except RateLimited as limited:
            destination.stop("rate_limit_used", limited.after_s, is_busy=False)
        except Exception as error:  # noqa: BLE001 - requests that cannot be counted are not sent
            log_unexpected("request_slot_not_claimed", error, connection=destination.connection.name)
            destination.stop("rate_limit_unknown", None)

    def _leave_host(self, request: RequestInProgress, *, failed: bool) -> float:
        return self._hosts.leave(
            request.destination,
            request.probe,
            spent_s=request.spent_s,
            failed=failed,
            is_answered=request.is_answered,
        )

    def _not_answered(self, correlation_id: str, later: Retryable) -> Answer:
        failed = later.answer_lost or isinstance(later, Unreachable)
        answer = Answer(Disposition.RETRY if failed else Disposition.BACK_OFF, later.reason, after_s=later.after_s)
        if not later.answer_lost:
            self._close_receipt(correlation_id, answer)
        return answer

    def _begin(self, request: RequestInProgress) -> None:
        """Raises `Conflict` if this very request was accepted before, and `Rejected` and `Retryable`."""
        message_ids = {source.message.id for one in request.piece for source in one.sources}
        name = request.destination.connection.name
        request.correlation_id = receipts.correlation_id(name, message_ids, request.body)
        with request.waiting_for_platform():
            request.token = self._tokens.token(request.destination.connection)
        built = self._built(request, request.token)
        request.timeout_s = built.time_limit_s
        if self._time_left_s() < self._needed_s(request.timeout_s) + TIME_TO_FINISH_S:
            raise Retryable("short_of_time", "there is too little time left to wait for the response", after_s=0)
        receipts.open_receipt(self._table, request.correlation_id, **request.receipt)
        self._send(request, built)

    def _finish(self, request: RequestInProgress) -> Answer:
        """Raises what `_begin` raised, `Rejected` and `Retryable`."""
        if request.failure:
            raise request.failure
        connection, token = request.destination.connection, request.token
        response, answer = self._response(request)
        is_token_refused = answer.meaning is Disposition.TOKEN_AGAIN
        if token and is_token_refused and (newer := self._tokens.refresh_after_401(connection, token)):
            request.destination.static_credentials = None
            built = self._built(request, newer)
            self._claim_slot(request.destination)
            self._send(request, built)
            response, answer = self._response(request)
        if answer.meaning is Disposition.TOKEN_AGAIN:
            self._end_if_dead(connection, response)
        self._close_receipt(request.correlation_id, answer)
        return answer

    def _built(self, request: RequestInProgress, token: cache.Token) -> Request:
        destination = request.destination
        credentials = {**self._static_credentials(destination), **token.credentials}
        trace = _sendable(request.receipt["trace"], request.correlation_id)
        return destination.platform.request(destination.connection, credentials, request.target, request.body, trace)

    def _end_if_dead(self, connection: Connection, response: Response) -> None:
        """End the connection if the platform calls its static credential invalid and no other has replaced it."""
        if connection.kind in connection_store.STATIC_KINDS and refusal.token_is_dead(connection, response):
            with suppress(Conflict):
                usability.end(self._table, connection, ConnectionReason.TOKEN_REFUSED)

    def _static_credentials(self, destination: BatchDestination) -> dict[str, Any]:
        """The credentials that a person entered, if a request needs more than a token. Read once a batch."""
        if not destination.platform.NEEDS_STATIC_CREDENTIALS:
            return {}
        if destination.static_credentials is None:
            destination.connection, credentials = static_credentials.static_credentials(
                self._table, self._vault, destination.connection
            )
            destination.static_credentials = dict(credentials)
        return destination.static_credentials

    def _send(self, request: RequestInProgress, built: Request) -> None:
        connection, before = request.destination.connection, request.may_be_sent
        request.may_be_sent = True
        try:
            with request.waiting_for_platform():
                request.exchange = http_client.begin(
                    built, allowed_domain=connection.allowed_domain, owner=connection.name
                )
        except Unreachable as later:
            request.may_be_sent = before or later.answer_lost
            raise

    def _response(self, request: RequestInProgress) -> tuple[Response, Answer]:
        if request.exchange is None:
            raise RuntimeError("the request was not sent")
        with request.waiting_for_platform():
            response = request.exchange.response(least_s=LATE_READ_S)
        request.is_answered = True
        return response, request.destination.platform.read_answer(response)

    def _claim_slot(self, destination: BatchDestination) -> None:
        """Wait for the destination's next free slot. Raises `RateLimited`, and what AWS raises; then nothing may be sent."""
        if not (per_second := destination.platform.REQUESTS_PER_SECOND):
            return
        name, begin = destination.connection.name, clock.now()
        if self._rate_waits_s[name] >= MAX_RATE_WAIT_S and not self._is_drain:
            raise RateLimited("other records use the destination's rate limit")
        priority = Priority.BACKFILL if self._bulk else Priority.CALL
        request_budget.wait_for_destination(self._table, destination.connection, per_second, priority)
        self._rate_waits_s[name] += (clock.now() - begin).total_seconds()

    def _close_receipt(self, correlation_id: str, answer: Answer) -> None:
        """The destination has answered, so a receipt that cannot be written changes nothing for the records."""
        try:
            if answer.meaning in (Disposition.ACCEPTED, Disposition.APPLIED):
                applied = answer.meaning is Disposition.APPLIED
                receipts.accept(self._table, correlation_id, answer.request_id, applied=applied)
            else:
                receipts.fail(self._table, correlation_id, answer.code, answer.request_id)
        except Exception as error:  # noqa: BLE001 - sending accepted records again would be worse than an open receipt
            log_unexpected("receipt_not_closed", error, correlation_id=correlation_id, request_id=answer.request_id)


def _receipt(destination: str, target: Target, piece: list[OutgoingRecord], size: int) -> dict[str, Any]:
    """What `receipts.open_receipt` stores of a request; `size` is its body's, in bytes."""
    sources = [source for one in piece for source in one.sources]
    calls = {source.message.request for source in sources}
    return {
        "destination": destination,
        "object": target.object,
        "routes": sorted({one.route for one in piece}),
        "count": len(piece),
        "size": size,
        "keys": [
            *[f"{source.message.connection}/{source.key}" for source in sources],
            *[email for one in piece for email in record_index.emails(one.attributes)],
        ],
        "requests": sorted(calls - {""}),
        # A request with records of several calls has no caller's trace; its receipt lists the calls.
        "trace": sources[0].message.trace if len(calls) == 1 else NO_TRACE,
    }


def _sendable(trace: Trace, receipt_id: str) -> Trace:
    """The caller's trace as it is sent to a destination, with the receipt's id if the caller gave no correlation id.

    Values with other characters than printable ASCII are left out: no destination documents how it reads them, and
    `http_client` would refuse the request.
    """
    correlation_id, request_source = (
        value if _HEADER_VALUE.fullmatch(value) else "" for value in (trace.correlation_id, trace.request_source)
    )
    return Trace(correlation_id or receipt_id, request_source)
