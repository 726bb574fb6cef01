"""Pauses of destinations and hosts that do not answer, by the product's rules and with its numbers.

A batch is simulated at its begin, so it writes down what happens at later times. Each pause therefore knows its begin, and does
not exist before it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from bench.fleet.workload import Destination
from portaria.delivery import host_pauses
from portaria.delivery.host_pauses import LostTime
from portaria.delivery.stages import host_gate


@dataclass
class Pause:
    begins: float
    until: float
    for_s: float

    def closes(self, at: float) -> bool:
        return self.begins <= at < self.until


class Pauses:
    """One host for each platform, as Marketo and LeadConnector have. `probes` counts the requests that tried a host."""

    def __init__(self) -> None:
        self.of_hosts: dict[str, Pause] = {}
        self.of_destinations: dict[int, Pause] = {}
        self.probes = 0
        self._lost: dict[tuple[str, int], dict[str, float]] = defaultdict(dict)

    def close(self, destination: Destination, at: float) -> bool:
        """Whether nothing may be sent to a destination."""
        own, of_host = self.of_destinations.get(destination.number), self.of_hosts.get(destination.platform)
        return bool((own and own.closes(at)) or (of_host and of_host.closes(at)))

    def is_probed(self, platform: str, at: float) -> bool:
        """Whether the next request tries a host whose pause has passed."""
        pause = self.of_hosts.get(platform)
        return pause is not None and pause.until <= at

    def succeed(self, destination: Destination, at: float) -> None:
        """A request was answered: it ends the pauses that have passed."""
        if self.is_probed(destination.platform, at):
            self.probes += 1
            del self.of_hosts[destination.platform]
        own = self.of_destinations.get(destination.number)
        if own and own.until <= at:
            del self.of_destinations[destination.number]

    def fail(self, destination: Destination, at: float, lost_s: float) -> None:
        """A request from `at` on was not answered and lost so much time."""
        ends = at + lost_s
        of_host = self.of_hosts.get(destination.platform)
        least_s = 0.0
        if of_host and of_host.until <= at:
            self.probes += 1
            for_s = min(2 * of_host.for_s, host_pauses.LONGEST_PAUSE_S)
            # Closed for all others from the claim on.
            self.of_hosts[destination.platform] = Pause(at, ends + for_s, for_s)
            least_s = for_s + host_pauses.FIRST_DESTINATION_PAUSE_S
        lost = self._lost[destination.platform, int(ends) // 60]
        name = str(destination.number)
        lost[name] = lost.get(name, 0.0) + lost_s
        told = LostTime(lost)
        if told.pauses_host and destination.platform not in self.of_hosts:
            first_s = host_pauses.FIRST_PAUSE_S
            self.of_hosts[destination.platform] = Pause(ends, ends + first_s, first_s)
        before = self.of_destinations.get(destination.number)
        if before and before.until > at:
            before = None
        if least_s or before or told.pauses_destination(name):
            wanted_s = max(2 * before.for_s if before else 0.0, least_s, host_pauses.FIRST_DESTINATION_PAUSE_S)
            for_s = min(wanted_s, host_pauses.LONGEST_DESTINATION_PAUSE_S)
            self.of_destinations[destination.number] = Pause(ends, ends + for_s, for_s)


class BatchTime:
    """The time that one live batch has spent in slow requests, by platform and destination."""

    def __init__(self) -> None:
        self._slow_s: dict[str, dict[int, float]] = defaultdict(dict)

    def add(self, destination: Destination, request_s: float) -> None:
        if request_s >= host_pauses.SLOW_S:
            of_host = self._slow_s[destination.platform]
            of_host[destination.number] = of_host.get(destination.number, 0.0) + request_s

    def is_used_up(self, destination: Destination) -> bool:
        of_host = self._slow_s[destination.platform]
        if of_host.get(destination.number, 0.0) >= host_gate.BATCH_SLOW_S:
            return True
        return len(of_host) > 1 and sum(of_host.values()) >= host_gate.BATCH_HOST_SLOW_S
