"""The time that is left to answer a webhook."""

from __future__ import annotations

import time

HOOK_S = 2.7
WORK_S = 2.2


class TimeBudget:
    """The rest of a webhook's time limit, of which `spent_s` had passed when the handler started. The defaults are the install
    webhook's.

    It is at least a second, so that a late start does not make the queue's time-out too short.
    """

    def __init__(self, spent_s: float = 0.0, *, hook_s: float = HOOK_S, work_s: float = WORK_S) -> None:
        available_s = min(work_s, max(1.0, hook_s - spent_s))
        self._scale = available_s / work_s
        self._ends = time.monotonic() + available_s

    def part(self, most_s: float) -> float:
        return max(0.05, min(most_s * self._scale, self._ends - time.monotonic()))
