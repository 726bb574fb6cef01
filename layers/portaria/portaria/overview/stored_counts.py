"""The overview's counts: one item for each part, written by `count_states` and read by the overview.

    pk OVERVIEW   sk {part}

A count is made anew from the items themselves each time, so an error of an earlier count, or a death between two writes, has
no effect on the next one. No write of a connection, install, receipt or dead letter has to maintain a counter.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from portaria.aws.table import Item, Table
from portaria.core import clock

PARTITION = "OVERVIEW"
CONNECTIONS, INSTALLS, RECEIPTS, DEAD_LETTERS, QUOTAS = "connections", "installs", "receipts", "dead_letters", "quotas"
# How often `count_states` runs. A part of more than `ITEMS_A_RUN` items is counted in every second or third run, and so on up
# to `MAX_RUNS`, so that the read units of a month are bounded.
EVERY = timedelta(minutes=5)
ITEMS_A_RUN = 5_000
MAX_RUNS = 6
# What one count of a part reads at most.
MAX_ITEMS = 100_000


@dataclass(frozen=True)
class Count:
    """A part's count. `read` is how many items were read; if `is_complete` is false, there are more."""

    counted_at: str
    read: int
    is_complete: bool
    content: dict[str, Any] = field(default_factory=dict)

    @property
    def next_at(self) -> datetime:
        """When the part is counted again."""
        runs = min(MAX_RUNS, max(1, math.ceil(self.read / ITEMS_A_RUN)))
        return clock.from_iso(self.counted_at) + EVERY * runs

    def is_due(self, now: datetime) -> bool:
        """Whether the part should be counted again. Half a run earlier, because schedules are not exact."""
        return now >= self.next_at - EVERY / 2


@dataclass
class Reader:
    """Reads items of the index `listing`, at most about `limit` of them."""

    table: Table
    limit: int = MAX_ITEMS
    read: int = 0
    is_complete: bool = True

    def items(self, partition: str, attributes: Sequence[str], since: str = "") -> Iterator[Item]:
        """The items of a partition, the newest first. Raises what AWS raises."""
        cursor = None
        while True:
            items, cursor = self.table.query(
                partition, index="listing", sk_from=since, newest_first=True, cursor=cursor, attributes=attributes
            )
            self.read += len(items)
            yield from items
            if not cursor:
                return
            if self.read >= self.limit:
                self.is_complete = False
                return

    def count(self, content: dict[str, Any]) -> Count:
        return Count(clock.to_iso(clock.now()), self.read, self.is_complete, content)


def put(table: Table, part: str, count: Count) -> None:
    item: Item = {"pk": PARTITION, "sk": part, "counted_at": count.counted_at, "read": count.read}
    table.put(item | {"is_complete": count.is_complete, "content": count.content})


def load(table: Table) -> dict[str, Count]:
    """The counts by part; those that were made so far. One strongly consistent query."""
    return {
        item["sk"]: Count(item["counted_at"], item["read"], item["is_complete"], item["content"])
        for item in table.query_all(PARTITION)
    }
