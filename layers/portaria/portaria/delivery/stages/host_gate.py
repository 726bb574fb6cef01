"""Which hosts a batch may send to, and what its requests cost.

Before a request, `enter` refuses a host that is paused (`host_pauses`), or claims the only request that tries a host whose
pause has passed. After it, `leave` adds lost time to the host's count and begins, prolongs or ends the host's pause. A death
between the two leaves a pause that passes by itself.

A batch also has limits of its own for slow requests, successful or not: after `BATCH_SLOW_S` with one destination, and after
`BATCH_HOST_SLOW_S` with several ones of a host, their other records of the batch wait in the table. So no batch takes long for
one host, and its records move to the drains.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

from portaria.aws.table import Table
from portaria.core import clock
from portaria.core.unexpected_errors import log_unexpected
from portaria.delivery import host_pauses
from portaria.delivery.destination_pause import PauseReason
from portaria.delivery.host_pauses import FIRST_DESTINATION_PAUSE_S, SLOW_S, HostPause
from portaria.delivery.stages.batch_state import BatchDestination, BatchOutcome

logger = logging.getLogger(__name__)

# How long a pause, or that there is none, is remembered within a batch.
REMEMBERED_S = 2.0
# The time of a live batch in slow requests to one destination, and to several destinations of one host.
BATCH_SLOW_S, BATCH_HOST_SLOW_S = 20.0, 30.0
# When records above these limits are tried next.
NEXT_TRY_S = 15.0


@dataclass
class _Host:
    """`slow_s` has the time of slow requests in this batch, by destination."""

    pause: HostPause | None = None
    read_at: float | None = None
    slow_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def is_used_up(self, destination: str) -> bool:
        """Whether this batch has spent enough time with the destination, or with several of the host's."""
        if self.slow_s.get(destination, 0.0) >= BATCH_SLOW_S:
            return True
        return len(self.slow_s) > 1 and sum(self.slow_s.values()) >= BATCH_HOST_SLOW_S


class HostEntry(NamedTuple):
    """`closed_until` is 0 if a request may be sent; `probe` is then its claim to be the one that tries a paused host."""

    closed_until: float = 0.0
    probe: HostPause | None = None


class HostGate:
    """The hosts of one batch. A drain (`is_drain`) serves one destination, so its time is not limited."""

    def __init__(self, table: Table, outcome: BatchOutcome, *, is_drain: bool) -> None:
        self._table = table
        self._outcome = outcome
        self._is_drain = is_drain
        self._hosts: dict[str, _Host] = {}
        # Destinations that did not answer in this batch.
        self._silent: set[str] = set()

    def is_silent(self, destination: BatchDestination) -> bool:
        """Whether a request to the destination got no answer in this batch, for whichever object."""
        return destination.connection.name in self._silent

    def closed_until(self, destination: BatchDestination) -> float:
        """When the destination's host is tried next (epoch seconds), or 0 if it can be tried now. Raises nothing."""
        name = destination.connection.allowed_domain
        host, now = self._hosts.setdefault(name, _Host()), clock.now().timestamp()
        if not self._is_drain and host.is_used_up(destination.connection.name):
            return now + NEXT_TRY_S
        if host.read_at is None or now - host.read_at >= REMEMBERED_S:
            host.read_at = now
            try:
                host.pause = host_pauses.read(self._table, name)
            except Exception as error:  # noqa: BLE001 - without the state of hosts, records are sent as without pauses
                log_unexpected("host_pause_not_read", error, connection=destination.connection.name)
        return host.pause.until if host.pause and host.pause.until > now else 0.0

    def enter(self, destination: BatchDestination) -> HostEntry:
        """Call this before each request, and `leave` after it if it may be sent. Raises nothing."""
        if until := self.closed_until(destination):
            return HostEntry(until)
        name = destination.connection.allowed_domain
        host = self._hosts[name]
        if host.pause is None:
            return HostEntry()
        try:
            if probe := host_pauses.claim_probe(self._table, host.pause):
                return HostEntry(probe=probe)
        except Exception as error:  # noqa: BLE001 - these records wait for another probe
            log_unexpected("host_probe_not_claimed", error, connection=destination.connection.name)
        host.read_at = None
        # The pause may have ended since it was read. If it has passed again, the next batch tries the host.
        until = self.closed_until(destination)
        return HostEntry(until or (clock.now().timestamp() + NEXT_TRY_S if host.pause else 0.0))

    def leave(
        self, destination: BatchDestination, probe: HostPause | None, *, spent_s: float, failed: bool, is_answered: bool
    ) -> float:
        """Count a request; how long its destination must be paused because it does not answer, or 0. Raises nothing.

        `probe` is what `enter` returned, `spent_s` the time that the batch waited for the platform; `failed`: for nothing, so
        that the request must be repeated.
        """
        connection = destination.connection
        host = self._hosts[connection.allowed_domain]
        is_slow = spent_s >= SLOW_S
        if is_slow:
            host.slow_s[connection.name] += spent_s
        try:
            if failed and is_slow:
                self._silent.add(connection.name)
                return self._count_failure(destination, host, probe, spent_s)
            if probe and is_answered:
                host_pauses.end(self._table, probe)
                host.pause = None
                logger.info("host_resumed", extra={"host": connection.allowed_domain, "paused_since": probe.since})
            elif probe:
                host_pauses.give_back_probe(self._table, probe)
                host.read_at = None
        except Exception as error:  # noqa: BLE001 - the answer counts, and a pause passes by itself
            log_unexpected("host_pause_not_written", error, connection=connection.name)
        return 0.0

    def _count_failure(
        self, destination: BatchDestination, host: _Host, probe: HostPause | None, spent_s: float
    ) -> float:
        connection = destination.connection
        name, host.read_at = connection.allowed_domain, None
        again = host_pauses.fail_probe(self._table, probe) if probe else None
        lost = host_pauses.add_lost(self._table, name, connection.name, spent_s)
        if lost.pauses_host and host_pauses.begin(self._table, name):
            self._outcome.counts["HostsPaused"] += 1
            seconds = {destination: round(lost_s) for destination, lost_s in lost.by_destination.items()}
            logger.error("host_paused", extra={"host": name, "lost_seconds": seconds})
        was_paused = any(pause.reason is PauseReason.NO_ANSWER for pause in destination.pauses)
        if again:
            # The host is tried by another destination next, if there is one.
            return again.for_s + FIRST_DESTINATION_PAUSE_S
        return FIRST_DESTINATION_PAUSE_S if was_paused or lost.pauses_destination(connection.name) else 0.0
