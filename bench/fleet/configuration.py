"""The limits that the product sets itself: event sources, throttles and memory from template.yaml, rates from the code."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from local import template_file
from portaria.aws import due_index
from portaria.connections.renewal_sweep import RENEWALS_PER_SECOND
from portaria.delivery import host_pauses, record_release, retry_schedule
from portaria.delivery.stages import destination_request, destination_turns
from portaria.installs.exchange_queues import EXCHANGES_PER_S
from portaria.outbound import request_slots
from portaria.platforms.kommo import request_limits
from portaria.platforms.kommo.pagination import PAGE_SIZE
from portaria.platforms.leadconnector import persons
from portaria.platforms.marketo import ingestion
from portaria.sources import reconciliation

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Quota:
    """A default quota of AWS."""

    name: str
    value: float
    unit: str
    adjustable: bool
    source: str
    read: str


@dataclass(frozen=True)
class EventSource:
    """How Lambda drains a queue. `concurrency` is the template's maximum, or Lambda's own."""

    queue: str
    function: str
    batch: int
    window_s: float
    concurrency: int


@dataclass(frozen=True)
class Throttle:
    """A token bucket of API Gateway: requests a second, and how many at once."""

    rate: float
    burst: float


@dataclass(frozen=True)
class ReadingRules:
    """How accounts are read: by how many workers, at how many requests a second of all and of each of them.

    The interval is a quarter of the time since the last change, between `least_s` and `most_s`. A sweep queues at most
    `sweep_limit` readings a minute (0: all that are due).
    """

    workers: int
    per_s: float
    per_worker_s: float
    least_s: float
    most_s: float
    sweep_limit: int

    def interval_s(self, idle_s: float) -> float:
        doublings = min(16, math.floor(math.log2(max(1.0, idle_s / (4 * self.least_s)))))
        return min(self.most_s, self.least_s * float(2**doublings))


@dataclass(frozen=True)
class Configuration:
    """A deployed stack. `memory_gb` and `reserved` are by function; 0 reserves nothing."""

    sources: dict[str, EventSource]
    memory_gb: dict[str, float]
    reserved: dict[str, int]
    events_throttle: Throttle
    install_throttle: Throttle
    readings: ReadingRules
    retry_waits_s: tuple[float, ...]
    renewal_sweep_s: float
    parameters: dict[str, str]
    queues: int


# What the code says, by the names that the model uses.
RENEWALS_A_WORKER = RENEWALS_PER_SECOND
EXCHANGES_A_WORKER = EXCHANGES_PER_S
CONTACTS_A_PAGE = PAGE_SIZE
DUE_PAGE = due_index.PAGE_SIZE
DRAIN_RUN_S = record_release.RUN_S
DRAIN_FIRST, DRAIN_GROWTH, DRAIN_LARGEST = (
    record_release.FIRST_BATCH,
    record_release.GROWTH,
    record_release.LARGEST_BATCH,
)
LONGEST_IN_QUEUE_S = retry_schedule.LONGEST_IN_QUEUE_S
# By platform: objects of one request, and requests a second of all workers to one destination (None: no limit of ours). Live
# and waiting records use ten of a cycle's twelve slots.
MAX_OBJECTS = {"marketo": ingestion.MAX_OBJECTS, "leadconnector": persons.MAX_OBJECTS}
SHARED_SLOTS = len(request_slots.SHARED.positions) / request_slots.CYCLE
REQUESTS_PER_SECOND = {
    platform: per_second and per_second * SHARED_SLOTS
    for platform, per_second in (
        ("marketo", ingestion.REQUESTS_PER_SECOND),
        ("leadconnector", persons.REQUESTS_PER_SECOND),
    )
}
# How far ahead a live request may claim a slot, and how long a batch waits for the slots of one destination.
AHEAD_S = request_slots.Priority.CALL.rules[0].ahead_s or 0.0
MAX_RATE_WAIT_S = destination_request.MAX_RATE_WAIT_S
MAX_DESTINATIONS = destination_turns.MAX_DESTINATIONS
SLOW_S = host_pauses.SLOW_S
PROBES_A_SWEEP = record_release.PROBES_A_SWEEP


@cache
def quotas() -> dict[str, Quota]:
    read: dict[str, dict[str, Any]] = tomllib.loads((HERE / "quotas.toml").read_text())
    return {name: Quota(name, **fields) for name, fields in read.items()}


def read_template(**changes: str) -> Configuration:
    """The stack with the template's default parameters and these changes. Raises `KeyError` for an unknown parameter."""
    template = template_file.read_template()
    parameters = {name: str(each["Default"]) for name, each in template["Parameters"].items()}
    for name, value in changes.items():
        if name not in parameters:
            raise KeyError(name)
        parameters[name] = value
    resources = template["Resources"]
    functions = {
        name: each["Properties"] for name, each in resources.items() if each["Type"] == "AWS::Serverless::Function"
    }

    def valued(given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        ((kind, inner),) = given.items()
        if kind == "Ref":
            return parameters.get(inner, inner)
        if kind == "Fn::FindInMap":
            name, first, second = (valued(each) for each in inner)
            return template["Mappings"][name][first][second]
        raise ValueError(f"{kind} has no value here")

    sources = {}
    for name, each in functions.items():
        for event in each.get("Events", {}).values():
            if event["Type"] == "SQS":
                given = event["Properties"]
                queue = given["Queue"]["Fn::GetAtt"][0].removesuffix("Queue")
                scaling = given.get("ScalingConfig", {}).get("MaximumConcurrency", quotas()["lambda_concurrency"].value)
                sources[queue] = EventSource(
                    queue,
                    name.removesuffix("Function"),
                    int(given["BatchSize"]),
                    float(given.get("MaximumBatchingWindowInSeconds", 0)),
                    int(valued(scaling)),
                )

    def throttle(name: str) -> Throttle:
        rate, burst = parameters[name].split(",")
        return Throttle(float(rate), float(burst))

    return Configuration(
        sources,
        {name.removesuffix("Function"): each["MemorySize"] / 1024 for name, each in functions.items()},
        {
            "AcceptInstall": int(parameters["AcceptReservedConcurrency"]),
            "ReceiveEvents": int(parameters["WebhookReservedConcurrency"]),
        },
        throttle("EventsThrottle"),
        throttle("InstallThrottle"),
        _reading_rules(sources["Backfills"].concurrency, parameters),
        tuple(60 * float(minutes) for minutes in parameters["RetryAfterMinutes"].split(",")),
        seconds_of(resources["RenewalsSchedule"]["Properties"]["ScheduleExpression"]),
        parameters,
        sum(event["Type"] == "SQS" for each in functions.values() for event in each.get("Events", {}).values()),
    )


def _reading_rules(workers: int, parameters: dict[str, str]) -> ReadingRules:
    """Of accounts of Kommo: one budget of all workers."""
    slots = request_limits.PER_ADDRESS - 1.0
    least_s, most_s = (60 * float(parameters[name]) for name in ("ReconcileEvery", "ReconcileIdleEvery"))
    return ReadingRules(workers, slots, slots, least_s, max(least_s, most_s), reconciliation.SWEEP_LIMIT)


def seconds_of(expression: str) -> float:
    """The interval of a schedule such as `rate(5 minutes)`."""
    count, unit = expression.removeprefix("rate(").removesuffix(")").split()
    return int(count) * {"minute": 60.0, "hour": 3_600.0, "day": 86_400.0}[unit.removesuffix("s")]
