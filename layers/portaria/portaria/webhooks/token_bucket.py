"""A token bucket in the memory of one process."""

from __future__ import annotations

import time


class TokenBucket:
    """Holds at most `burst` tokens and gains `per_s` tokens a second."""

    def __init__(self, burst: int, per_s: float) -> None:
        self._burst = float(burst)
        self._per_s = per_s
        self._tokens = float(burst)
        self._at = time.monotonic()

    def has_token(self) -> bool:
        now = time.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_s)
        self._at = now
        return self._tokens >= 1

    def take(self) -> None:
        self._tokens -= 1
