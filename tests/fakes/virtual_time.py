"""A clock for tests: time passes when a test lets it, and when the code waits."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from portaria.core import clock

DAY_S = 86_400


class Time:
    """Virtual time that waiting moves on."""

    def __init__(self) -> None:
        self._start = clock.now()
        self.passed_s = 0.0
        self.slept_s: list[float] = []
        self.while_asleep: Callable[[], None] = lambda: None

    def now(self) -> Any:
        return self._start + timedelta(seconds=self.passed_s)

    def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self.passed_s += seconds
        self.while_asleep()
