"""The clock of tests: time passes when a test advances it, and when the code waits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from unittest.mock import patch

from portaria.core import clock

DAY_S = 86_400


class VirtualClock:
    """Replaces `portaria.core.clock`. Starts at the real time unless a start is given.

    `slept_s` are the waits of the code, in order. `while_asleep` is called at the end of each wait.
    """

    def __init__(self, start: datetime | None = None) -> None:
        self._start = start or clock.now()
        self.passed_s = 0.0
        self.slept_s: list[float] = []
        self.while_asleep: Callable[[], None] = lambda: None

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self.passed_s)

    def advance(self, seconds: float = 0.0, **span: float) -> None:
        """Let time pass: `advance(90)`, `advance(hours=25)`."""
        self.passed_s += timedelta(seconds=seconds, **span).total_seconds()

    def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self.passed_s += seconds
        self.while_asleep()

    @contextmanager
    def installed(self) -> Iterator[None]:
        """`clock.now` and `clock.sleep` are this clock's while the block runs."""
        with patch.object(clock, "now", self.now), patch.object(clock, "sleep", self.sleep):
            yield
