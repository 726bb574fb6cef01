"""What one batch of live events asks of AWS, counted on the product's own code with AWS in memory.

Nothing about partition keys is written down here: two batches of different size show which keys a batch uses and how the use
grows with its sources. So a change of the code changes the simulation.
"""

from __future__ import annotations

import math
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from unittest.mock import patch

from portaria.aws import table
from portaria.connections import connection_store
from portaria.connections.tokens import cache as token_cache
from portaria.connections.vault import Vault
from portaria.core.callbacks import Secret
from portaria.core.entities import Connection, Route
from portaria.delivery import destination_pause, pipeline
from portaria.delivery.destination_pause import PauseReason
from portaria.delivery.pipeline import QueuedMessage
from portaria.records import routes
from tests.fakes import outgoing
from tests.fakes.records.ingesting import MUNCHKIN, Harness, body
from tests.fakes.virtual_time import VirtualClock
from tests.simulation.aws.cloud import PREFIX, Cloud, installed

FEW, MANY = 10, 40
# The bytes that one write unit and one read unit cover.
WRITE_UNIT, READ_UNIT = 1_024, 4_096
_NUMBER = re.compile(r"\d[\d-]*|[0-9a-f]{32,}")
READS = {"get_item", "query", "batch_get_item"}


@dataclass(frozen=True)
class Line:
    """What a batch uses: `fixed`, and for each of its sources (with one record each) `each`."""

    fixed: float
    each: float

    def of(self, sources: float) -> float:
        return max(0.0, self.fixed + self.each * sources)


@dataclass(frozen=True)
class BatchCalls:
    """One batch for one destination. `reads` and `writes` are units by partition key with its numbers replaced by `*`.

    `sequential` counts the calls that the batch waits for one after the other.
    """

    reads: dict[str, Line]
    writes: dict[str, Line]
    sequential: Line

    def writes_of(self, prefix: str, sources: float) -> float:
        return sum(line.of(sources) for key, line in self.writes.items() if key.startswith(prefix))


@dataclass
class _Counts:
    reads: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    writes: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    calls: int = 0
    concurrent: int = 0


class _Recorder:
    """A client of the table that counts the units of each call: by partition key, and for an index by the index's key."""

    def __init__(self, cloud: Cloud, counts: _Counts) -> None:
        self._cloud = cloud
        self._inner = cloud.clients["dynamodb"]
        self._counts = counts

    def __getattr__(self, operation: str) -> Any:
        inner = getattr(self._inner, operation)

        def call(**given: Any) -> Any:
            before = self._index_keys(given.get("Key") or given.get("Item"))
            answer = inner(**given)
            self._counts.calls += 1
            if operation == "get_item":
                self._read(given["Key"]["pk"]["S"], 1)
            elif operation == "batch_get_item":
                for asked in given["RequestItems"].values():
                    for key in asked["Keys"]:
                        self._read(key["pk"]["S"], 1)
            elif operation == "query":
                key = next(iter(given["ExpressionAttributeValues"].values()))["S"]
                index = given.get("IndexName", "")
                self._read(f"{index}:{key}" if index else key, 1 if given.get("ConsistentRead") else 0.5)
            elif operation in ("put_item", "update_item", "delete_item"):
                self._write(given.get("Key") or given["Item"], before)
            elif operation == "batch_write_item":
                for asked in given["RequestItems"].values():
                    for one in asked:
                        self._write(one["PutRequest"]["Item"], {})
            return answer

        return call

    def _read(self, key: str, units: float) -> None:
        self._counts.reads[_NUMBER.sub("*", key)] += units

    def _write(self, item: dict[str, Any], before: dict[str, str]) -> None:
        pk = item["pk"]["S"]
        stored = self._cloud.items.get((pk, item["sk"]["S"]))
        units = math.ceil(max(1, _size(dict(stored) if stored else item)) / WRITE_UNIT)
        self._counts.writes[_NUMBER.sub("*", pk)] += units
        after = self._index_keys(item)
        for index, key in after.items():
            # An index item whose key changes is deleted and put.
            moved = 2 if before.get(index, key) != key else 1
            self._counts.writes[f"{index}:{_NUMBER.sub('*', key.partition('|')[0])}"] += units * moved

    def _index_keys(self, key: dict[str, Any] | None) -> dict[str, str]:
        stored = self._cloud.items.get((key["pk"]["S"], key["sk"]["S"])) if key else None
        if not stored:
            return {}
        found = {}
        for index, (partition, place) in {
            "listing": ("list_pk", "list_sk"), "by_source": ("source", "pk"), "by_due": ("due_pk", "due_at")
        }.items():  # fmt: skip
            if partition in stored and place in stored:
                found[index] = f"{stored[partition]['S']}|{stored[place]['S']}"
        return found


def _size(item: dict[str, Any]) -> int:
    return sum(len(name) + sum(len(str(value)) for value in typed.values()) for name, typed in item.items())


@cache
def count_batches(*, parked: bool = False) -> BatchCalls:
    """The calls of a batch whose token is cached and whose destination is open, or paused (`parked`)."""
    few, many = _count(FEW, parked=parked), _count(MANY, parked=parked)

    def lines(first: dict[str, float], second: dict[str, float]) -> dict[str, Line]:
        return {key: _line(first[key], second[key]) for key in {**first, **second}}

    return BatchCalls(
        lines(few.reads, many.reads),
        lines(few.writes, many.writes),
        _line(few.calls - few.concurrent, many.calls - many.concurrent),
    )


@cache
def connection_units() -> int:
    """The write units of a connection's item, with the fields of an installed account of Kommo."""
    moment = "2026-01-01T00:00:00.000Z"
    connection = Connection(
        "kommo-fleet-31234567", "kommo", "oauth2", "fleet.kommo.com", "connected", 1, "portaria/grants/" + "0" * 32,
        "0" * 40, client="fleet", account_id="31234567", label="Fleet", scopes="crm files notifications",
        created_at=moment, updated_at=moment, granted_at=moment, token_ends_at=moment, tags={"tenant": "31234567"},
    )  # fmt: skip
    size = sum(len(name) + len(str(value)) for name, value in connection_store.to_item(connection).items())
    return math.ceil(size / WRITE_UNIT)


def _line(few: float, many: float) -> Line:
    each = (many - few) / (MANY - FEW)
    return Line(few - each * FEW, each)


def _count(sources: int, *, parked: bool) -> _Counts:
    counts = _Counts()
    # On a slow machine, marks would be read again before a late request.
    with VirtualClock().installed(), _harness(counts) as harness:
        names = [f"kommo-{number}" for number in range(sources)]
        for name in names:
            connection = Connection(name, "kommo", "oauth2", f"{name}.kommo.com", "connected", 1, "", client="fleet")
            connection_store.create(harness.table, connection)
        routes.put(harness.table, Route("fleet", "client:kommo/fleet", "contacts", "marketo-9"), new=True)
        if parked:
            destination_pause.begin(
                harness.table, "marketo-9", "", reason=PauseReason.STOPPED, code="stopped", for_s=86_400
            )
        numbers = iter(range(1, 1_000))
        for is_counted in (False, True):
            counts.reads.clear()
            counts.writes.clear()
            counts.calls = counts.concurrent = 0
            outcome = harness.ingest(*(_message(name, next(numbers)) for name in names))
            if outcome.waiting or (
                is_counted and outcome.counts["RecordsHeld" if parked else "RecordsSent"] != sources
            ):
                raise RuntimeError(f"the counted batch did not go through: {outcome}")
    return counts


def _message(connection: str, number: int) -> QueuedMessage:
    email = [{"field_code": "EMAIL", "values": [{"value": f"person{number}@example.com"}]}]
    contact = {
        "id": number, "updated_at": 1_700_000_000 + number, "first_name": "Ana", "last_name": "Souza", "name": "Ana Souza",
        "custom_fields_values": email, "_embedded": {"companies": []},
    }  # fmt: skip
    return QueuedMessage(f"m{number}", body([contact], connection=connection))


@contextmanager
def _harness(counts: _Counts) -> Iterator[Harness]:
    cloud = Cloud()
    cloud.clients["dynamodb"] = _Recorder(cloud, counts)  # type: ignore[assignment]
    token_cache.PROCESS_CACHE.clear()
    pipeline._ledger.cache_clear()
    concurrently = table.run_concurrently

    def counted(work: Any, items: Any) -> Any:
        before = counts.calls
        found = concurrently(work, items)
        made = counts.calls - before
        # Calls in parallel take the time of as many rounds.
        counts.concurrent += made - math.ceil(made / max(1, min(table.MAX_CONCURRENT, len(items))))
        return found

    patches = [
        patch.object(module, "run_concurrently", counted) for module in _modules_with("run_concurrently", concurrently)
    ]
    with installed(lambda: cloud):
        harness = Harness(cloud)
        vault = Vault(PREFIX)
        secret_id = vault.grant_id("marketo-9")
        vault.create(secret_id, {"client_id": Secret("id"), "client_secret": Secret("canary-secret")})
        harness.connect("marketo-9", "marketo", secret_id, {"munchkin_id": MUNCHKIN})
        with outgoing.answering(harness.answer):
            for each in patches:
                each.start()
            try:
                yield harness
            finally:
                for each in patches:
                    each.stop()
                pipeline._ledger.cache_clear()
                token_cache.PROCESS_CACHE.clear()


def _modules_with(name: str, value: object) -> list[Any]:
    return [
        module
        for module_name, module in list(sys.modules.items())
        if module_name.startswith("portaria.") and getattr(module, name, None) is value
    ]
