"""Evenly spaced calls of one process to a platform that counts them."""

from __future__ import annotations

import time

from portaria.core import clock


class Pace:
    """A worker makes one call at a time, so the time of the last one is all there is to know."""

    def __init__(self, per_second: float) -> None:
        self.interval_s = 1 / per_second
        self._next_at = 0.0

    def wait(self) -> None:
        now = time.monotonic()
        if self._next_at > now:
            clock.sleep(self._next_at - now)
        self._next_at = max(now, self._next_at) + self.interval_s
