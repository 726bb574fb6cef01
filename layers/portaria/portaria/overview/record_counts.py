"""Receipts of the last 24 hours by state, open dead letters by reason, and the use of daily quotas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

from portaria.aws.table import Item
from portaria.core import clock
from portaria.delivery import quotas
from portaria.overview.stored_counts import Count, Reader
from portaria.records import dead_letters, receipts, routes

WINDOW = timedelta(hours=24)
MAX_REASONS = 20
READ_AT_ONCE = 1_000
_RECEIPT = (
    "correlation_id", "destination", "routes", "count", "bytes", "state", "sent_at", "deadline", "request_id",
)  # fmt: skip


def count_receipts(reader: Reader, receivers: Iterable[str], now: datetime) -> Count:
    """Of the destinations of routes, and of the connections that take records from programs. Raises what AWS raises."""
    destinations = set(receivers)
    destinations |= {item["destination"] for item in Reader(reader.table).items(routes.LIST, ("destination",))}
    since = now - WINDOW
    states: Counter[str] = Counter()
    for destination in sorted(destinations):
        items = reader.items(f"{receipts.LIST}#{destination}", _RECEIPT, clock.to_iso(since))
        for chunk in _chunks(items):
            states.update(receipt.state for receipt in receipts.read_all(reader.table, chunk, now))
    return reader.count({"since": clock.to_iso(since), "states": dict(states)})


def count_dead_letters(reader: Reader) -> Count:
    """Those that were not redriven. Raises what AWS raises."""
    reasons: Counter[str] = Counter()
    for item in reader.items(dead_letters.LIST, ("reason", "state")):
        if item["state"] != dead_letters.REDRIVEN:
            reasons[item["reason"]] += 1
    return reader.count({"total": reasons.total(), "reasons": dict(reasons.most_common(MAX_REASONS))})


def count_quotas(
    reader: Reader, subscriptions: Mapping[str, Mapping[str, Any]], zone: ZoneInfo, now: datetime
) -> Count:
    """What each subscription has used today. Raises what AWS raises."""
    day = quotas.day_of(zone, now)
    used = [
        {
            "subscription": subscription,
            "connection": about["connection"],
            "used_count": quotas.used_count(reader.table, subscription, day.name),
            "quota_count": about["quota"],
        }
        for subscription, about in sorted(subscriptions.items())
    ]
    return reader.count({"day": day.name, "resets_at": clock.epoch_to_iso(day.ends), "used": used})


def _chunks(items: Iterator[Item]) -> Iterator[list[Item]]:
    while chunk := list(islice(items, READ_AT_ONCE)):
        yield chunk
