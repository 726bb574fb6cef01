"""The time that a webhook has left."""

from __future__ import annotations

import time

HOOK_S = 2.7
WORK_S = 2.2


class TimeBudget:
    """What is left of a hook's seconds, `spent_s` of which were gone when the handler started; the install hook's by default.

    At least a second is planned with, so that one late start does not make the queue's time-out too short to be met.
    """

    def __init__(self, spent_s: float = 0.0, *, hook_s: float = HOOK_S, work_s: float = WORK_S) -> None:
        available_s = min(work_s, max(1.0, hook_s - spent_s))
        self._scale = available_s / work_s
        self._ends = time.monotonic() + available_s

    def part(self, most_s: float) -> float:
        return max(0.05, min(most_s * self._scale, self._ends - time.monotonic()))
