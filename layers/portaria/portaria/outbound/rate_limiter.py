"""A rate limiter that spaces one process's requests to a platform evenly."""

from __future__ import annotations

import threading
import time

from portaria.core import clock


class RateLimiter:
    """Each caller reserves the next free time and waits for it. Thread-safe."""

    def __init__(self, per_second: float) -> None:
        self.interval_s = 1 / per_second
        self._next_at = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        with self._lock:
            now = time.monotonic()
            begin = max(now, self._next_at)
            self._next_at = begin + self.interval_s
        if begin > now:
            clock.sleep(begin - now)
