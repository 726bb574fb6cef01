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
from typing import Any

from portaria.aws.table import Conflict, Table
from portaria.connections import connection_store, request_budget
from portaria.connections.tokens import provider, refusal, static_credentials, usability
from portaria.connections.vault import Vault
from portaria.core import clock
from portaria.core.entities import NO_TRACE, Answer, Connection, Disposition, Target, Trace
from portaria.core.errors import PlatformUnavailable, RateLimited, Rejected, Retryable, Unreachable
from portaria.core.http.messages import Request, Response
from portaria.core.stored_reasons import ConnectionReason
from portaria.core.unexpected_errors import log_unexpected
from portaria.delivery.stages.batch_state import Answered, BatchDestination
from portaria.delivery.stages.host_gate import HostGate
from portaria.outbound import http_client
from portaria.outbound.request_slots import Priority
from portaria.records import receipts, record_index
from portaria.records.mapping.record_mapping import OutgoingRecord
from portaria.records.mapping.request_filling import encoded

logger = logging.getLogger(__name__)

# After a request's own timeouts there must be time to write its receipt and to return messages to the queue.
TIME_TO_FINISH_S = 10.0
# The time of a live batch in waits for a destination's rate limit. The destination's other records wait in the queue, and then
# for a drain, which has no other destination to serve.
MAX_RATE_WAIT_S = 0.5
_HEADER_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")


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
        # Of the current request: how long it waited for the platform, whether the destination answered, and whether it may
        # have received the records.
        self._spent_s = 0.0
        self._is_answered = False
        self.may_be_sent = False
        # How long the batch has waited for each destination's rate limit.
        self._rate_waits_s: dict[str, float] = defaultdict(float)
        # Without a sealing key: a destination's token comes from a log-in and is never renewed here.
        self._tokens = provider.TokenProvider(table, vault, "", time_left_s)

    def send(
        self, destination: BatchDestination, target: Target, frame: tuple[bytes, bytes], piece: list[OutgoingRecord]
    ) -> Answered | None:
        """Send one request; None if this very request was accepted before. Raises nothing.

        Call `HostGate.enter` before. Stops the destination if it did not answer, because the next request would most likely
        wait as well.
        """
        body = frame[0] + encoded(piece) + frame[1]
        name = destination.connection.name
        receipt = _receipt(name, target, piece, len(body))
        message_ids = {source.message.id for one in piece for source in one.sources}
        correlation_id = receipts.correlation_id(name, message_ids, body)
        facts: dict[str, Any] = {
            "connection": name,
            "object": target.object,
            "route": receipt["routes"],
            "correlation_id": correlation_id,
            "records": len(piece),
            "bytes": len(body),
        }
        if receipt["requests"]:
            facts["requests"] = receipt["requests"]
        self._spent_s, self._is_answered, self.may_be_sent, is_unavailable = 0.0, False, False, False
        try:
            answer = self._post(destination, target, body, correlation_id, receipt)
        except Conflict:
            # A worker that died, or one with the same delivery, has sent this request and it was accepted.
            logger.info("request_accepted_before", extra=facts)
            self._leave_host(destination, failed=False)
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
        silent_for_s = self._leave_host(destination, failed=is_unavailable or answer.meaning is Disposition.RETRY)
        return Answered(piece, answer, facts, silent_for_s)

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

    def _leave_host(self, destination: BatchDestination, *, failed: bool) -> float:
        return self._hosts.leave(destination, spent_s=self._spent_s, failed=failed, is_answered=self._is_answered)

    def _not_answered(self, correlation_id: str, later: Retryable) -> Answer:
        failed = later.answer_lost or isinstance(later, Unreachable)
        answer = Answer(Disposition.RETRY if failed else Disposition.BACK_OFF, later.reason, after_s=later.after_s)
        if not later.answer_lost:
            self._close_receipt(correlation_id, answer)
        return answer

    def _post(
        self, destination: BatchDestination, target: Target, body: bytes, correlation_id: str, receipt: dict[str, Any]
    ) -> Answer:
        """Raises `Conflict` if this very request was accepted before, and `Rejected` and `Retryable`."""
        connection = destination.connection
        with self._waiting_for_platform():
            token = self._tokens.token(connection)
        build, trace = destination.platform.request, _sendable(receipt["trace"], correlation_id)
        credentials = {**self._static_credentials(destination), **token.credentials}
        request = build(connection, credentials, target, body, trace)
        if self._time_left_s() < request.connect_timeout_s + request.read_timeout_s + TIME_TO_FINISH_S:
            raise Retryable("short_of_time", "there is too little time left to wait for the response", after_s=0)
        receipts.open_receipt(self._table, correlation_id, **receipt)
        response, answer = self._exchange(destination, request)
        if answer.meaning is Disposition.TOKEN_AGAIN and (newer := self._tokens.refresh_after_401(connection, token)):
            destination.static_credentials = None
            credentials = {**self._static_credentials(destination), **newer.credentials}
            request = build(connection, credentials, target, body, trace)
            self._claim_slot(destination)
            response, answer = self._exchange(destination, request)
        if answer.meaning is Disposition.TOKEN_AGAIN:
            self._end_if_dead(connection, response)
        self._close_receipt(correlation_id, answer)
        return answer

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

    def _exchange(self, destination: BatchDestination, request: Request) -> tuple[Response, Answer]:
        connection, before = destination.connection, self.may_be_sent
        self.may_be_sent = True
        try:
            with self._waiting_for_platform():
                response = http_client.send(request, allowed_domain=connection.allowed_domain, owner=connection.name)
        except Unreachable as later:
            self.may_be_sent = before or later.answer_lost
            raise
        self._is_answered = True
        return response, destination.platform.read_answer(response)

    @contextmanager
    def _waiting_for_platform(self) -> Iterator[None]:
        begin = clock.now()
        try:
            yield
        finally:
            self._spent_s += (clock.now() - begin).total_seconds()

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
