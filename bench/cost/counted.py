"""What the code does for one event, one batch, one renewal and one reconciliation: counted, not assumed.

The product's own code runs on AWS in memory (tests/simulation/aws/cloud.py). Calls are counted by operation, and the writes of
DynamoDB in units of 1 kB, those of its indexes included.

https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/capacity-unit-calculations.html
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple
from unittest.mock import patch

from bench.tokens.renewal_sweep import Sweep
from portaria.aws import light_client, table
from portaria.core.http.request import HttpRequest
from portaria.core.settings import ReceiveEventsSettings
from portaria.delivery.pipeline import QueuedMessage
from portaria.webhooks import event_receiver
from portaria.webhooks.time_budget import TimeBudget
from tests.fakes.aws.functions import sample
from tests.fakes.records import ingesting
from tests.fakes.records.contacts import contact
from tests.simulation.aws import limits
from tests.simulation.schedule import simulating

# The projection of `by_filter` is its keys; the other indexes hold whole items.
KEYS_ONLY = "by_filter"
READS = {"get_item", "batch_get_item", "query"}
RENEWALS = 50

Item = dict[str, Any]


class Counted(NamedTuple):
    """`calls` by service and operation, `write_units` and `read_units` of DynamoDB."""

    calls: dict[str, float]
    write_units: float
    read_units: float

    def of(self, service: str) -> float:
        return sum(count for name, count in self.calls.items() if name.partition(".")[0] == service)


class Meter:
    """Counts what goes through a `Cloud`, by its hooks `carry` and `item_written`, which threads call."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.write_units: list[int] = []
        self.read_units: list[int] = []

    def carry(self, name: str, call: Callable[[], Any]) -> Any:
        self.names.append(name)
        answer = call()
        if name.startswith("dynamodb.") and name.partition(".")[2] in READS:
            self.read_units.append(read_units(name.partition(".")[2], answer))
        return answer

    def written(self, old: Item, new: Item) -> None:
        self.write_units.append(write_units(old, new))

    def result(self, runs: int = 1) -> Counted:
        """Averages of `runs`."""
        calls = {name: count / runs for name, count in Counter(self.names).items()}
        return Counted(calls, sum(self.write_units) / runs, sum(self.read_units) / runs)


def write_units(old: Item, new: Item) -> int:
    """Of one write, by the larger of the two items; an index takes its own units, and two writes if a key changes."""
    units = _kilobytes(max(limits.item_size(old), limits.item_size(new)))
    for index, keys in table.INDEXES.items():
        if not index:
            continue
        before, after = _projected(index, keys, old), _projected(index, keys, new)
        if before == after:
            continue
        moved = before and after and any(before[key] != after[key] for key in keys)
        sizes = [limits.item_size(each) for each in (before, after) if each]
        units += sum(map(_kilobytes, sizes)) if moved else _kilobytes(max(sizes))
    return units


def read_units(operation: str, answer: Any) -> int:
    """Of a read, in units of 4 kB, as if it were consistent; reads that are not cost half of it."""
    if operation == "get_item":
        return max(1, math.ceil(limits.item_size(answer.get("Item", {})) / 4_096))
    if operation == "batch_get_item":
        (found,) = answer["Responses"].values()
        return max(1, sum(math.ceil(limits.item_size(item) / 4_096) for item in found))
    return max(1, math.ceil(limits.items_size(answer.get("Items", [])) / 4_096))


def _projected(index: str, keys: tuple[str, str], item: Item) -> Item:
    if not all(key in item for key in keys):
        return {}
    return {name: item[name] for name in ("pk", "sk", *keys)} if index == KEYS_ONLY else item


def _kilobytes(size: int) -> int:
    return max(1, math.ceil(size / 1_024))


def count_batch(records: int, *, warm_batches: int = 2) -> Counted:
    """One batch of live messages of one record each in `ingest_records`, in a process that has handled others before."""
    with ingesting.harness() as harness:
        harness.route("people")
        meter = Meter()
        for batch in range(warm_batches + 1):
            if batch == warm_batches:
                harness.cloud.carry, harness.cloud.item_written = meter.carry, meter.written
            first = batch * records + 1
            messages = [
                QueuedMessage(f"m{number}", ingesting.body([contact(number)]))
                for number in range(first, first + records)
            ]
            outcome = harness.ingest(*messages)
            if outcome.waiting or outcome.counts["DeadLetters"]:
                raise RuntimeError(f"not every record was sent: {outcome}")
    return meter.result()


class Received(NamedTuple):
    """Calls of AWS for one delivery, and the bytes of its log lines."""

    calls: Counter[str]
    log_bytes: int


def count_event(success_logs: str) -> Received:
    """One delivery of Kommo in a process that remembers its address and has just written its summary."""
    calls: Counter[str] = Counter()
    event = sample("receive_events", "kommo_contact_updated")
    path = event["pathParameters"]
    key = event_receiver.Key(event_receiver.digest(path["key"])).text()
    address = {"platform": {"S": "kommo"}, "account_id": {"S": "32427762"}, "keys": {"L": [{"S": key}]}}

    def call(self: light_client.AwsClient, operation: str, payload: Item, *, timeout_s: float) -> Item:
        calls[operation] += 1
        return {"Item": address} if operation == "GetItem" else {}

    settings = ReceiveEventsSettings(table_name="table", records_queue_url="queue", success_logs=success_logs)
    log = io.StringIO()
    with (
        patch.object(light_client.AwsClient, "__init__", lambda self, *_: None),
        patch.object(light_client.AwsClient, "call", call),
        patch.dict("os.environ", POWERTOOLS_SERVICE_NAME="portaria"),
        contextlib.redirect_stdout(log),
    ):
        receiver = event_receiver.EventReceiver(settings)
        for turn in range(2):
            if turn:
                calls.clear()
                log.truncate(0)
                log.seek(0)
            event["requestContext"]["requestTimeEpoch"] = int(time.time() * 1_000)
            request = HttpRequest.from_event(json.loads(json.dumps(event)))
            receiver.receive(request, TimeBudget(0.0, hook_s=event_receiver.HOOK_S, work_s=event_receiver.WORK_S))
    return Received(calls, len(log.getvalue().encode()))


class _MeteredSweep(Sweep):
    """`meter` counts from the sweep on, without the setting up."""

    def _run(self) -> float:
        self.meter = Meter()
        self.cloud.item_written = self.meter.written
        counting = self.cloud.carry
        self.cloud.carry = lambda name, call: self.meter.carry(name, lambda: counting(name, call))
        return super()._run()


def count_renewal() -> Counted:
    """One renewal of a token, as the average of a sweep of `RENEWALS`."""
    with simulating():
        sweep = _MeteredSweep(RENEWALS)
    if sweep.not_renewed:
        raise RuntimeError(f"{sweep.not_renewed} tokens were not renewed")
    return sweep.meter.result(RENEWALS)
