"""Stage 4, record: what each result of sending means for its records and for its destination.

Immediately, before the next request to the destination is sent: its pauses end after a success, and begin after a response that
requires one; a failure of a message is counted (`retry_schedule`). After a death behind these writes, the redelivered records
meet the pause, or have used one of their tries.

At the end of the batch (`write`), before its messages are deleted: dead letters, then waiting records. After a death before or
between these writes, the messages are delivered again, and the same letters and entries are written once more under the same
keys. A message of which something could not be written returns to the queue.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable

from portaria.aws import event_bus
from portaria.aws.table import Table
from portaria.core import clock, event_catalogue
from portaria.core.entities import Answer, Disposition, Target
from portaria.core.unexpected_errors import log_unexpected
from portaria.delivery import destination_pause, retry_schedule
from portaria.delivery.destination_pause import PauseReason
from portaria.delivery.host_pauses import LONGEST_DESTINATION_PAUSE_S
from portaria.delivery.retry_schedule import LONGEST_IN_QUEUE_S, LONGEST_WAIT_S
from portaria.delivery.stages.batch_state import (
    Answered,
    BatchDestination,
    BatchOutcome,
    Refused,
    SendResult,
    Unsent,
    Waits,
    by_message,
)
from portaria.delivery.stages.undelivered import Undelivered
from portaria.records import dead_letters
from portaria.records.mapping.record_mapping import OutgoingRecord, RejectedRecord

logger = logging.getLogger(__name__)

# How often a destination that refuses everything until a person acts is tried.
STOPPED_WAIT_S = 1_800.0


class OutcomeRecorder:
    """`receives` counts each message's deliveries. `until_reset_s` gives the seconds until the daily quota's reset."""

    def __init__(
        self,
        table: Table,
        bus_name: str,
        retries: retry_schedule.Schedule,
        undelivered: Undelivered,
        outcome: BatchOutcome,
        *,
        receives: dict[str, int],
        until_reset_s: Callable[[], float],
        is_drain: bool,
    ) -> None:
        self._table = table
        self._bus_name = bus_name
        self._retries = retries
        self._undelivered = undelivered
        self._outcome = outcome
        self._receives = receives
        self._until_reset_s = until_reset_s
        self._is_drain = is_drain
        # By destination object, the wait of each message that has failed in this batch; None if it has no tries left.
        self._failed: dict[tuple[str, str], dict[str, float | None]] = defaultdict(dict)

    def record(self, destination: BatchDestination, target: Target, result: SendResult) -> None:
        """Handle one result. Raises what AWS raises."""
        match result:
            case Waits(outgoing, until, is_share, is_listed):
                host = destination.connection.allowed_domain
                self._undelivered.wait(target, outgoing, until, host=host, is_share=is_share, is_listed=is_listed)
            case Refused(rejected):
                self._undelivered.refuse(rejected)
            case Unsent(piece):
                self._hold(destination, target, piece)
            case Answered():
                self._record_answer(destination, target, result)

    def write(self) -> None:
        """Store the records that the batch did not deliver. Raises nothing: messages that fail here return to the queue."""
        for message_id in self._undelivered.write():
            self._outcome.hold(message_id)
        self._outcome.held = self._undelivered.waiting
        self._outcome.counts += self._undelivered.counts

    # ------------------------------------------------------------------------------------------- what an answer means

    def _record_answer(self, destination: BatchDestination, target: Target, answered: Answered) -> None:
        """The table of dispositions, in code."""
        piece, answer, facts = answered.piece, answered.answer, answered.facts
        if answer.meaning in (Disposition.ACCEPTED, Disposition.APPLIED):
            self._record_success(destination, answered)
            return
        self._outcome.counts["RequestsRefused"] += 1
        match answer.meaning:
            case Disposition.BAD_DATA:
                # The sender looks for the invalid records.
                logger.warning("request_refused", extra=facts)
            case Disposition.RETRY:
                logger.warning("request_refused", extra=facts)
                self._pause_if_silent(destination, answered)
                self._try_later(destination, target, piece, answer)
            case Disposition.BACK_OFF:
                # The next request would get the same answer.
                destination.stop("destination_busy", answer.after_s)
                self._pause_if_silent(destination, answered)
                logger.warning("request_postponed", extra=facts)
                self._hold(destination, target, piece)
            case Disposition.QUOTA:
                self._pause(destination, "", PauseReason.QUOTA, answer, answer.after_s or self._until_reset_s())
                logger.warning("daily_quota_exhausted", extra=facts)
                self._hold(destination, target, piece)
            case Disposition.STOP | Disposition.TOKEN_AGAIN:
                # A refused token concerns all objects of the destination.
                object_name = "" if answer.meaning is Disposition.TOKEN_AGAIN else target.object
                self._pause(destination, object_name, PauseReason.STOPPED, answer, STOPPED_WAIT_S)
                self._outcome.counts["DestinationsStopped"] += 1
                logger.error("destination_stopped", extra=facts)
                self._hold(destination, target, piece)

    def _record_success(self, destination: BatchDestination, answered: Answered) -> None:
        logger.info("request_accepted", extra=answered.facts)
        self._outcome.counts["RequestsAccepted"] += 1
        self._outcome.counts["RecordsSent"] += len(answered.piece)
        self._end_pauses(destination)
        if answered.answer.pause_s is not None:
            destination.stop("rate_limited", answered.answer.pause_s)

    def _end_pauses(self, destination: BatchDestination) -> None:
        """The records were accepted, so a pause that cannot be ended changes nothing for them."""
        try:
            for pause in destination.pauses:
                destination_pause.end(self._table, pause)
                detail = {
                    "connection": pause.destination,
                    "object": pause.object,
                    "reason": pause.reason.value,
                    "paused_since": pause.since,
                    "tags": destination.connection.tags,
                }
                event_bus.put(self._bus_name, event_catalogue.DESTINATION_RESUMED, detail)
        except Exception as error:  # noqa: BLE001 - the next success ends it
            log_unexpected("pause_not_ended", error, connection=destination.connection.name)
        destination.pauses = []

    def _pause_if_silent(self, destination: BatchDestination, answered: Answered) -> None:
        """Pause all objects of a destination that does not answer, twice as long as before."""
        if not answered.silent_for_s:
            return
        before_s = max(
            (2 * each.for_s for each in destination.pauses if each.reason is PauseReason.NO_ANSWER), default=0
        )
        for_s = min(max(before_s, answered.silent_for_s), LONGEST_DESTINATION_PAUSE_S)
        self._pause(destination, "", PauseReason.NO_ANSWER, answered.answer, for_s)
        logger.error("destination_not_answering", extra=answered.facts)

    def _pause(
        self, destination: BatchDestination, object_name: str, reason: PauseReason, answer: Answer, for_s: float
    ) -> None:
        """Stop the destination in this batch and pause it in the table. An event reports once that it has stopped."""
        destination.stop(reason.value, for_s, is_paused=True)
        name = destination.connection.name
        try:
            is_new = destination_pause.begin(
                self._table, name, object_name, reason=reason, code=answer.code, for_s=for_s
            )
            if is_new and reason is PauseReason.STOPPED:
                detail = {
                    "connection": name,
                    "object": object_name,
                    "code": answer.code,
                    "detail": answer.detail,
                    "tags": destination.connection.tags,
                }
                event_bus.put(self._bus_name, event_catalogue.DESTINATION_STOPPED, detail)
            if is_new:
                until = clock.epoch_to_iso(clock.now().timestamp() + for_s)
                detail = {
                    "connection": name,
                    "object": object_name,
                    "reason": reason.value,
                    "code": answer.code,
                    "until": until,
                    "tags": destination.connection.tags,
                }
                event_bus.put(self._bus_name, event_catalogue.DESTINATION_PAUSED, detail)
        except Exception as error:  # noqa: BLE001 - the next batch gets the same answer and pauses it
            log_unexpected("pause_not_written", error, connection=name)

    # --------------------------------------------------------------------------------------- when records are sent again

    def _try_later(
        self, destination: BatchDestination, target: Target, piece: list[OutgoingRecord], answer: Answer
    ) -> None:
        """Send records again after the waits of the schedule; after the last wait they become dead letters.

        A message whose records go to a destination object in several requests has failed there once, however many of these
        have failed.
        """
        messages = by_message(piece)
        failed = self._failed[target.destination, target.object]
        failed |= self._retries.next(target, messages.keys() - failed.keys())
        detail = f"the destination did not accept it in {self._retries.tries} attempts; the last one ended with {answer.code}"
        for message_id, ones in messages.items():
            wait_s = failed[message_id]
            if wait_s is None:
                for one in ones:
                    rejected = RejectedRecord(one.sources, one.route, dead_letters.GAVE_UP, detail)
                    self._undelivered.refuse(rejected, message_id)
                continue
            wait_s = max(wait_s, answer.after_s or 0)
            if wait_s <= LONGEST_IN_QUEUE_S and not self._is_drain:
                self._outcome.hold(message_id, wait_s)
            else:
                until = clock.now().timestamp() + wait_s
                host = destination.connection.allowed_domain
                self._undelivered.wait(target, ones, until, host=host, message_id=message_id, is_retry=True)

    def _hold(self, destination: BatchDestination, target: Target, piece: list[OutgoingRecord]) -> None:
        """Keep the records of a stopped destination: for a short wait in their queue, otherwise in the table."""
        in_table: dict[str, list[OutgoingRecord]] = {}
        longest_s = destination.after_s or 0.0
        for message_id, ones in by_message(piece).items():
            needed_s = retry_schedule.wait_s(destination.after_s, self._receives[message_id])
            if not self._is_drain and not destination.is_paused and needed_s <= LONGEST_IN_QUEUE_S:
                self._outcome.hold(message_id, destination.after_s)
            else:
                in_table[message_id] = ones
                longest_s = max(longest_s, needed_s)
        if not in_table:
            return
        if not destination.is_paused and (destination.is_busy or self._is_drain):
            self._pause_busy(destination, target, longest_s)
        until = clock.now().timestamp() + (destination.after_s or 0)
        for message_id, ones in in_table.items():
            host = destination.connection.allowed_domain
            self._undelivered.wait(target, ones, until, host=host, message_id=message_id)

    def _pause_busy(self, destination: BatchDestination, target: Target, longest_s: float) -> None:
        """Pause a busy destination, twice as long as before; a drain only waits if the wait is short."""
        after_s = destination.after_s
        if self._is_drain and after_s is not None and after_s <= LONGEST_IN_QUEUE_S:
            self._outcome.pause_s = max(self._outcome.pause_s, after_s)
            return
        before_s = max((2 * pause.for_s for pause in destination.pauses if pause.reason is PauseReason.BUSY), default=0)
        for_s = max(longest_s, min(before_s, LONGEST_WAIT_S), LONGEST_IN_QUEUE_S)
        answer = Answer(Disposition.BACK_OFF, destination.code)
        self._pause(destination, target.object, PauseReason.BUSY, answer, for_s)
