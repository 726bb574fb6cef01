"""Installs of the last 24 hours and of the last 7 days: by state, by hour or day, and failed ones by reason.

A window begins at a full hour or at midnight UTC, so that a list with `since` shows exactly the installs that were counted.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from portaria.core import clock
from portaria.core.item_keys import INSTALL_STATES, install_list
from portaria.overview.stored_counts import Count, Reader

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
MAX_REASONS = 20


@dataclass
class Window:
    """`since` is the beginning of the first of `steps` hours or days; the last one is not over yet."""

    name: str
    since: datetime
    step: timedelta
    steps: int
    states: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    bars: defaultdict[int, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def add(self, received_at: datetime, state: str, reason: str) -> None:
        if received_at < self.since:
            return
        self.states[state] += 1
        self.bars[min((received_at - self.since) // self.step, self.steps - 1)][state] += 1
        if state == "failed":
            self.failures[reason] += 1

    def content(self) -> dict[str, Any]:
        return {
            "window": self.name,
            "since": clock.to_iso(self.since),
            "states": dict(self.states),
            "failures": dict(self.failures.most_common(MAX_REASONS)),
            "bars": [
                {"since": clock.to_iso(self.since + number * self.step), "states": dict(self.bars[number])}
                for number in range(self.steps)
            ],
        }


def windows(now: datetime) -> tuple[Window, Window]:
    hour = now.replace(minute=0, second=0, microsecond=0)
    midnight = hour.replace(hour=0)
    return Window("24h", hour - 23 * HOUR, HOUR, 24), Window("7d", midnight - 6 * DAY, DAY, 7)


def count(reader: Reader, now: datetime) -> Count:
    """Raises what AWS raises."""
    both = windows(now)
    since = clock.to_iso(min(window.since for window in both))
    for state in INSTALL_STATES:
        for item in reader.items(install_list(state), ("list_sk", "reason"), since):
            received_at = clock.from_iso(item["list_sk"].partition("#")[0])
            for window in both:
                window.add(received_at, state, item.get("reason", ""))
    return reader.count({"windows": [window.content() for window in both]})
