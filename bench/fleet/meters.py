"""What a simulated day used: peaks of a second, by quota, and the ages of events."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Peak:
    """The highest value, and the time of it in seconds from midnight."""

    value: float = 0.0
    at: float = 0.0


class Meters:
    """Adds up what is used in each second. A use that lasts is spread evenly over its seconds."""

    def __init__(self) -> None:
        self._seconds: dict[int, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        self._next = 0
        self.peaks: dict[str, Peak] = {}
        self.totals: dict[str, float] = defaultdict(float)

    def add(self, name: str, at: float, amount: float, lasts_s: float = 0.0) -> None:
        if not amount:
            return
        self.totals[name] += amount
        first = int(at)
        last = int(at + lasts_s - 1e-9) if lasts_s else first
        if first == last:
            self._seconds[first][name] += amount
            return
        part = amount / (last - first + 1)
        for second in range(first, last + 1):
            self._seconds[second][name] += part

    def settle(self, until: float) -> None:
        """Compare all seconds before `until` with the peaks, and forget them."""
        for second in sorted(each for each in self._seconds if each < int(until)):
            for name, used in self._seconds.pop(second).items():
                self.note(name, used, second)

    def note(self, name: str, value: float, at: float) -> None:
        """Keep a value that is no sum of a second, if it is the highest."""
        known = self.peaks.get(name)
        if known is None or value > known.value:
            self.peaks[name] = Peak(value, at)

    def end(self) -> None:
        self.settle(math.inf if not self._seconds else max(self._seconds) + 1)


@dataclass
class BusyShare:
    """How much of its concurrency an event source uses, as the highest mean of a window."""

    concurrency: int
    window_s: float = 300.0
    _busy_s: dict[int, float] = field(default_factory=lambda: defaultdict(float))

    def add(self, begin: float, lasts_s: float) -> None:
        at, end = begin, begin + lasts_s
        while at < end:
            window = int(at // self.window_s)
            until = min(end, (window + 1) * self.window_s)
            self._busy_s[window] += until - at
            at = until

    @property
    def percent(self) -> float:
        most = max(self._busy_s.values(), default=0.0)
        return 100.0 * most / (self.concurrency * self.window_s)


class Ages:
    """A histogram of ages in tenths of a second, exact enough for percentiles of millions."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def add(self, age_s: float, count: int = 1) -> None:
        # Milliseconds below ten seconds, then tenths.
        self._counts[round(age_s * 1_000) if age_s < 10 else round(age_s * 10) * 100] += count

    def __len__(self) -> int:
        return self._counts.total()

    def percentile(self, part: float) -> float:
        """In seconds; 0 without any ages."""
        left = part * len(self)
        for age, count in sorted(self._counts.items()):
            left -= count
            if left <= 0:
                return age / 1_000
        return 0.0

    @property
    def largest(self) -> float:
        return max(self._counts, default=0) / 1_000
