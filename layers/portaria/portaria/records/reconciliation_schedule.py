"""When an account is read next: often after a change, less the longer it has been idle.

An interval is at most a quarter of the time since the last known change, between a least and a most interval. It is the least
one times a power of two, so that it changes rarely. Within its interval each account has a phase that follows from its name:
accounts that were installed together are read at different times, evenly spread, and not just apart by a random jitter.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import floor, log2

# An interval is at most the idle time divided by this.
IDLE_PARTS = 4


@dataclass(frozen=True)
class Bounds:
    """The interval of an account with recent changes, and that of an account without any."""

    least: timedelta
    most: timedelta

    @classmethod
    def of_minutes(cls, least: str, most: str) -> Bounds:
        """`most` below `least` counts as `least`."""
        return cls(timedelta(minutes=int(least)), timedelta(minutes=max(int(least), int(most))))

    def interval(self, idle: timedelta) -> timedelta:
        """The interval of an account whose last known change was so long ago."""
        doublings = floor(log2(max(1.0, idle / (IDLE_PARTS * self.least))))
        # The exponent is bounded, because a timedelta is.
        return min(self.least * (1 << min(doublings, 16)), self.most)

    @property
    def recent(self) -> timedelta:
        """An account that was read or became due at a change needs no other notice of changes for this time.

        Its interval stays the least one until then.
        """
        return self.least * IDLE_PARTS


def due_at(now: datetime, every: timedelta, phase: float) -> datetime:
    """The last whole second with this phase (0 to 1) that is at most one interval from now. It is after `now`."""
    every_s = int(every.total_seconds())
    latest, offset = floor(now.timestamp()) + every_s, int(phase * every_s)
    return datetime.fromtimestamp(latest - (latest - offset) % every_s, UTC)
