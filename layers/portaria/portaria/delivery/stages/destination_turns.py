"""The destinations of a batch take turns: while one has a request in progress, requests are sent to others.

One thread sends and reads everything. A destination's own targets follow one another, in the order in which they are given: its
requests have the same order of writes as without other destinations (see `send`), and a target that stops it has done so before
the next one begins. If sending fails, the messages of that target return to the queue, and its requests in progress keep their
open receipts, as after a death.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import closing

from portaria.core.entities import Target
from portaria.core.unexpected_errors import log_unexpected
from portaria.delivery.stages.batch_state import BatchDestinations, BatchOutcome, by_message
from portaria.delivery.stages.destination_request import DestinationRequests
from portaria.delivery.stages.record_outcomes import OutcomeRecorder
from portaria.delivery.stages.send import Sender
from portaria.records.mapping.record_mapping import OutgoingRecord

# More would help little: connecting and everything beside the wait for responses takes the thread's time.
MAX_DESTINATIONS = 5

Targets = list[tuple[Target, list[OutgoingRecord]]]


class DestinationTurns:
    """The records of a batch are sent by `sender`, and `recorder` handles each result before the next step of its target."""

    def __init__(
        self,
        destinations: BatchDestinations,
        sender: Sender,
        requests: DestinationRequests,
        recorder: OutcomeRecorder,
        outcome: BatchOutcome,
    ) -> None:
        self._destinations = destinations
        self._sender = sender
        self._requests = requests
        self._recorder = recorder
        self._outcome = outcome

    def send(self, targets: Targets) -> None:
        """Send all records. Destinations begin in the order of their first targets. Raises nothing."""
        by_destination: dict[str, Targets] = {}
        for target, outgoing in targets:
            by_destination.setdefault(target.destination, []).append((target, outgoing))
        waiting = deque(by_destination.values())
        active: deque[Iterator[bool]] = deque()
        while waiting or active:
            begins = (
                waiting and len(active) < MAX_DESTINATIONS and (not active or self._requests.has_time_for_another())
            )
            turns = self._send_to_one(waiting.popleft()) if begins else active.popleft()
            if next(turns, False):
                active.append(turns)

    def _send_to_one(self, targets: Targets) -> Iterator[bool]:
        """Send the records of one destination's targets; yields True where it would wait for a response."""
        for target, outgoing in targets:
            try:
                destination = self._destinations.get(target)
                with closing(self._sender.send(destination, target, outgoing)) as results:
                    for result in results:
                        if result is None:
                            yield True
                        else:
                            self._recorder.record(destination, target, result)
            except Exception as error:  # noqa: BLE001 - these messages return to the queue and the other targets go on
                log_unexpected("records_not_sent", error, connection=target.destination)
                for message_id in by_message(outgoing):
                    self._outcome.hold(message_id)
