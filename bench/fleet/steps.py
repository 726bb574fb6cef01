"""How long a step takes and what it asks of AWS: counted calls times a service time."""

from __future__ import annotations

import math
import random
import tomllib
from dataclasses import dataclass
from typing import Any

from bench.fleet.call_counts import BatchCalls, Line, count_batches
from bench.fleet.configuration import HERE, Configuration
from bench.fleet.meters import Meters
from bench.fleet.workload import Destination

# The calls of AWS for each request to a destination: reserve the quota or claim a slot of the rate limit, store the receipt,
# index it, store its outcome.
CALLS_A_REQUEST = 6
# Of a slot of a LeadConnector location. The counted requests are Marketo's, whose quota is counted by the number of tenants.
SLOT_UNITS = 1
MARKS_TOGETHER = 10


@dataclass(frozen=True)
class ServiceTime:
    """`kind` is `measured`, `documented` or `assumed`."""

    seconds: float
    kind: str
    source: str


def read_service_times() -> dict[str, ServiceTime]:
    read: dict[str, dict[str, Any]] = tomllib.loads((HERE / "service_times.toml").read_text())
    return {name: ServiceTime(**fields) for name, fields in read.items()}


class Steps:
    """`times` are seconds by step. With a `spread`, a batch takes that (log-normal) part longer or shorter than the mean."""

    def __init__(
        self, meters: Meters, configured: Configuration, times: dict[str, float], spread: float, chance: random.Random
    ) -> None:
        self.meters, self.configured, self._times = meters, configured, times
        self._spread, self._chance, self._factor = spread, chance, 1.0
        self.calls: BatchCalls = count_batches()
        self.parked_calls: BatchCalls = count_batches(parked=True)
        self.busy_gb_s = 0.0
        written = {key: line for key, line in self.calls.writes.items() if not key.startswith(("MARK#", "QUOTA#"))}
        self._request_writes = _sum(written)
        # Only subscriptions of Marketo have so many requests that a key may become hot.
        self._shared_writes = [(f"writes {key} ", line) for key, line in written.items() if "marketo-*" in key]
        self._shared_reads = [
            (f"reads {key} ", self.calls.reads[key]) for key in ("CONNECTION#marketo-*", "PARKED#marketo-*")
        ]
        held = {key: line for key, line in self.parked_calls.writes.items() if not key.startswith("MARK#")}
        self._wait_writes = _sum(held)
        self._wait_keys = [(f"writes {key}", line) for key, line in held.items() if "#live#" not in key]
        self._batch_reads = _sum({key: line for key, line in self.calls.reads.items() if line.each})
        self._client_reads = [
            (f"reads {key}", line) for key, line in self.calls.reads.items() if key.startswith("by_source:client:")
        ]

    def seconds(self, name: str) -> float:
        return self._times[name]

    # ----------------------------------------------------------------------------------------------------------- durations

    @property
    def request_calls_s(self) -> float:
        return CALLS_A_REQUEST * self.seconds("dynamodb_call")

    def request_s(self, platform: str) -> float:
        return self.answer_s(platform) + self.request_calls_s * self._factor

    def answer_s(self, platform: str) -> float:
        """The part of a request in which the batch waits for the platform."""
        return self.seconds(f"{platform}_request") * self._factor

    def begin_batch(self) -> None:
        """Draw how much longer or shorter than the mean the steps of the next batch take."""
        if self._spread:
            self._factor = self._chance.lognormvariate(-(self._spread**2) / 2, self._spread)

    def batch_s(self, sources: int, records: int, destinations: int) -> float:
        """A batch before its first request: its routes are read, and its marks are written."""
        calls = self.calls.sequential.of(sources) - CALLS_A_REQUEST + 2 * (destinations - 1)
        # Each of these sources has one record; further records are further marks.
        calls += max(0, records - sources) / MARKS_TOGETHER
        mean_s = (
            self.seconds("batch_overhead")
            + max(0.0, calls) * self.seconds("dynamodb_call")
            + records * self.seconds("record_cpu")
        )
        if not self._spread:
            return mean_s
        return mean_s * self._chance.lognormvariate(-(self._spread**2) / 2, self._spread)

    def drain_s(self, sources: int, records: int, together: int) -> float:
        """The same for waiting records: their entries are read before, and deleted afterwards."""
        deletions = math.ceil(records / together) * self.seconds("dynamodb_call")
        reads = math.ceil(sources / together) * self.seconds("dynamodb_call")
        return self.batch_s(sources, records, 1) + deletions + reads

    def park(self, destination: Destination, sources: int, records: int, at: float) -> float:
        """Records of a paused destination are put into the table."""
        lasts_s = math.ceil(records / MARKS_TOGETHER) * self.seconds("dynamodb_call") * 3
        self.wait(destination, sources, records, at, lasts_s)
        return lasts_s

    # --------------------------------------------------------------------------------------------------- what AWS is asked

    def receive(self, events: int, at: float) -> None:
        seconds = self.seconds("receive_events")
        self.bill("ReceiveEvents", events * seconds, events)
        self.meters.add("sqs_requests", at, events)
        # Each address is read once a minute in each environment.
        self.meters.add("dynamodb_table_reads", at, 0.1 * events)

    def account_batch(self, function: str, begin: float, lasts_s: float, sources: list[int], records: int) -> None:
        """A batch's reads and marks, by partition key. `sources` has the number of sources of each destination."""
        total = sum(sources)
        # Beside each source's reads: the status of each destination.
        self.meters.add("dynamodb_table_reads", begin, self._batch_reads.of(total) + len(sources), lasts_s)
        # The pause of each host, which all its destinations share.
        self.meters.add("reads PARKED#host", begin, 1, lasts_s)
        for key, line in self._client_reads:
            # All accounts of one integration share its routes.
            self.meters.add(key, begin, line.of(total), lasts_s)
        self.meters.add("dynamodb_table_writes", begin, self.calls.writes_of("MARK#", records), lasts_s)
        self.meters.add("sqs_requests", begin, 2 * math.ceil(records / 10))
        self.meters.add("lambda_requests", begin, 1)
        self.bill(function, lasts_s, 1)

    def requests(
        self, destination: Destination, requests: int, sources: int, at: float, lasts_s: float, quota_units: float = 0.0
    ) -> None:
        """Requests with their receipts: the keys that a destination's requests share."""
        each = sources / requests
        self.meters.add(
            "dynamodb_table_writes", at, requests * self._request_writes.of(each) + 10 * quota_units, lasts_s
        )
        if destination.platform == "leadconnector":
            self.meters.add("dynamodb_table_writes", at, requests * SLOT_UNITS, lasts_s)
        if destination.platform == "marketo":
            number = destination.number
            for key, line in self._shared_writes:
                self.meters.add(f"{key}{number}", at, requests * line.of(each), lasts_s)
            for key, line in self._shared_reads:
                self.meters.add(f"{key}{number}", at, line.of(sources), lasts_s)
            self.meters.add(f"writes QUOTA#* {number}", at, quota_units, lasts_s)
        self.meters.add("requests", at, requests)

    def wait(self, destination: Destination, sources: int, records: int, at: float, lasts_s: float = 0.0) -> None:
        """Records that are put into the table for a destination. Each record's entry is its own write."""
        # Each record's entry is put, and deleted when it has been delivered.
        self.meters.add("dynamodb_table_writes", at, self._wait_writes.of(sources) + 2 * records, lasts_s)
        for key, line in self._wait_keys:
            # One partition of the index `listing` has the backlogs of all destinations.
            name = key if key.startswith("writes listing:") else f"{key} {destination.number}"
            self.meters.add(name, at, line.of(sources), lasts_s)

    def bill(self, function: str, seconds: float, invocations: float) -> None:
        self.busy_gb_s += seconds * self.configured.memory_gb[function]
        self.meters.totals["invocations"] += invocations


def _sum(lines: dict[str, Line]) -> Line:
    return Line(sum(line.fixed for line in lines.values()), sum(line.each for line in lines.values()))
