"""How many records became dead letters in each minute, by route and reason: for the event `record.dead_lettered`.

Counts are added before the dead letters are written, and removed after their event was published. After a death in between, a
count is reported twice, never lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta

from portaria.aws import event_bus
from portaria.aws.table import Conflict, Table
from portaria.core import clock, event_catalogue

PARTITION = "DEAD_LETTER_COUNTS"
PUBLISHED_AT_ONCE = 100
# Longer than the bus can be unavailable.
KEPT_FOR = timedelta(days=14)


def add(table: Table, counts: Mapping[tuple[str, str], int]) -> None:
    """Add the number of records for each route and reason. Raises what AWS raises."""
    now = clock.now()
    minute = _minute(now)
    for (route, reason), count in counts.items():
        table.update(
            PARTITION,
            f"{minute}#{route}#{reason}",
            "SET route = :route, reason = :reason, #minute = :minute, expires_at = :expires_at ADD records :count",
            names={"#minute": "minute"},
            values={
                ":route": route,
                ":reason": reason,
                ":minute": minute,
                ":count": count,
                ":expires_at": int((now + KEPT_FOR).timestamp()),
            },
        )


def publish(table: Table, bus_name: str) -> int:
    """Publish the counts of the minutes that are over; how many events. Raises `Retryable` and what AWS raises."""
    items, _ = table.query(PARTITION, sk_until=_minute(clock.now()), limit=PUBLISHED_AT_ONCE)
    for item in items:
        detail = {
            "route": item["route"],
            "reason": item["reason"],
            "record_count": item["records"],
            "minute": item["minute"],
        }
        event_bus.put(bus_name, event_catalogue.RECORD_DEAD_LETTERED, detail)
        _remove(table, item["sk"], item["records"])
    return len(items)


def _remove(table: Table, sk: str, published: int) -> None:
    """Remove what was published. Where a slow worker has added to a minute that was over, the rest is published next time."""
    try:
        table.delete(PARTITION, sk, condition="records = :published", values={":published": published})
    except Conflict:
        with suppress(Conflict):
            table.update(
                PARTITION,
                sk,
                "SET records = records - :published",
                condition="records > :published",
                values={":published": published},
            )


def _minute(moment: datetime) -> str:
    return clock.to_iso(moment.replace(second=0, microsecond=0))
