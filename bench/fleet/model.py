"""One simulated day of a fleet, and what it used of each limit."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import simpy

from bench.fleet import configuration
from bench.fleet.background import Installs, Readings, Renewals
from bench.fleet.configuration import Configuration
from bench.fleet.live_path import LivePath
from bench.fleet.meters import Meters
from bench.fleet.steps import Steps, read_service_times
from bench.fleet.workload import DAY, Accounts, Arrivals, Fleet

# Four schedules run every minute and one every five minutes, all in the same second at worst.
SCHEDULES = 6


@dataclass(frozen=True)
class Usage:
    """The peak use of a limit. `can_wait`: workers at full speed on work that has time, after a failure or an install."""

    name: str
    percent: float
    used: float
    limit: float
    at: float = 0.0
    can_wait: bool = False


class Day:
    """`run` simulates the fleet. The same seed gives the same day."""

    def __init__(
        self,
        fleet: Fleet,
        configured: Configuration,
        *,
        seed: int = 1,
        times: dict[str, float] | None = None,
        spread: float = 0.0,
    ) -> None:
        self.fleet, self.configured = fleet, configured
        self.env = simpy.Environment(initial_time=fleet.begin)
        self.meters = Meters()
        known = {name: time.seconds for name, time in read_service_times().items()}
        self.steps = Steps(self.meters, configured, known | (times or {}), spread, random.Random(seed + 5))
        self.accounts = Accounts(fleet, random.Random(seed))
        self.arrivals = Arrivals(fleet, self.accounts, random.Random(seed + 1))
        self.live = LivePath(self.env, fleet, self.accounts, configured, self.steps, self.meters)
        self.readings = Readings(
            self.env, fleet, self.accounts, configured, self.steps, self.meters, random.Random(seed + 2)
        )
        self.live.wake = self.readings.wake
        self.renewals = Renewals(self.env, fleet, configured, self.steps, self.meters, random.Random(seed + 3))
        self.installs = Installs(
            self.env, fleet, configured, self.steps, self.meters, self.readings, random.Random(seed + 4)
        )
        self.arrived = 0

    def run(self, progress: Callable[[float], None] = lambda part: None) -> Day:
        for process in (self._tick(progress), self.live.sweep(), self.renewals.sweep(), self.readings.sweep()):
            self.env.process(process)
        for _ in range(self.renewals.source.concurrency):
            self.env.process(self.renewals.work())
        for _ in range(self.readings.rules.workers):
            self.env.process(self.readings.work())
        if self.fleet.installs:
            self.env.process(self.installs.arrive())
        self.env.run(until=self.fleet.end)
        self.meters.end()
        return self

    def _tick(self, progress: Callable[[float], None]) -> Generator[Any, Any, None]:
        fleet = self.fleet
        for number, at in enumerate(self.arrivals.ticks()):
            arrived = self.arrivals.at(at)
            self.arrived += len(arrived)
            self.live.receive(arrived)
            self.live.scale_pollers()
            self._note_concurrency(len(arrived) / fleet.tick_s)
            if number % 60 == 0:
                self.meters.settle(self.env.now - 1)
                self.meters.add("scheduler_invocations", self.env.now, SCHEDULES)
            if number % 3_600 == 0:
                progress((at - fleet.begin) / (fleet.end - fleet.begin))
            yield self.env.timeout(fleet.tick_s)

    def _note_concurrency(self, events_per_s: float) -> None:
        executing = (
            events_per_s * self.steps.seconds("receive_events")
            + self.live.running
            + self.live.draining
            + self.installs.running / 10
            + self.renewals.running
            + self.readings.running
        )
        self.meters.note("lambda_concurrency", executing, self.env.now)

    # ------------------------------------------------------------------------------------------------------ what was used

    def usages(self) -> list[Usage]:
        """All limits, the most used first."""
        found = [*self._aws(), *self._own()]
        return sorted(found, key=lambda usage: -usage.percent)

    def _aws(self) -> list[Usage]:
        quotas, peaks = configuration.quotas(), self.meters.peaks
        found = [
            Usage(name, 100 * peaks[name].value / quota.value, peaks[name].value, quota.value, peaks[name].at)
            for name, quota in quotas.items()
            if name in peaks
        ]
        for kind, quota_name in (("writes", "dynamodb_key_writes"), ("reads", "dynamodb_key_reads")):
            limit = quotas[quota_name].value
            hottest: dict[str, Usage] = {}
            for name, peak in peaks.items():
                if not name.startswith(f"{kind} "):
                    continue
                # The busiest of all keys of one kind: `writes WAITING#marketo-* 3`.
                key = name.removeprefix(f"{kind} ").partition(" ")[0]
                if key not in hottest or peak.value > hottest[key].used:
                    hottest[key] = Usage(f"{quota_name} {key}", 100 * peak.value / limit, peak.value, limit, peak.at)
            found += hottest.values()
        return found

    def _own(self) -> list[Usage]:
        """The limits of the template: throttles, and the workers of each queue."""
        peak = self.meters.peaks.get("api_gateway_requests")
        rate = self.configured.events_throttle.rate
        found = [Usage("EventsThrottle", 100 * peak.value / rate, peak.value, rate, peak.at)] if peak else []
        if reserved := self.meters.peaks.get("reserved_receive_events"):
            limit = self.configured.reserved["ReceiveEvents"]
            found.append(
                Usage("WebhookReservedConcurrency", reserved.value, reserved.value * limit / 100, limit, reserved.at)
            )
        for name, busy in (
            ("Records", self.live.busy),
            ("Exchanges", self.installs.busy),
            ("Renewals", self.renewals.busy),
            ("Backfills", self.readings.busy),
            ("WaitingRecords", self.live.release_busy),
        ):
            used = busy.concurrency * busy.percent / 100
            found.append(
                Usage(
                    f"workers of {name}",
                    busy.percent,
                    used,
                    busy.concurrency,
                    can_wait=name in ("WaitingRecords", "Backfills"),
                )
            )
        limit = self.readings.rules.sweep_limit
        swept = self.readings.swept.percent
        found.append(Usage("sweep of reconciliations", swept, swept * limit / 100, limit))
        slack = self.renewals.slack_used
        found.append(Usage("time before tokens end", 100 * slack, slack, 1))
        return found

    @property
    def is_conserved(self) -> bool:
        """Every event was refused, delivered, became a dead letter, or still waits."""
        live = self.live
        return self.arrived == live.refused + live.delivered + live.dead + live.undelivered

    @property
    def oldest_s(self) -> dict[str, float]:
        """The largest age of each queue."""
        return {
            **self.live.oldest_s,
            "Exchanges": self.installs.longest_wait_s,
            "Renewals": self.renewals.oldest_s,
            "Backfills": self.readings.oldest_s,
        }

    @property
    def days(self) -> float:
        return (self.fleet.end - self.fleet.begin) / DAY
