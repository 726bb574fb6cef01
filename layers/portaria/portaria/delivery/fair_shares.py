"""Max-min fairness between tenants, with forecasts of what each will need until the end of the day.

https://en.wikipedia.org/wiki/Max-min_fairness
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate

# A tenant's rate is not computed from a smaller part of the day than this.
LEAST_DAY_PART = 1 / 24
# Levels are computed again after this time, and after this time for each tenant: 20 s for 20,000 tenants.
LEVELS_S = 5.0
LEVELS_S_A_TENANT = 0.001


@dataclass(frozen=True)
class Counts:
    """The known counts of a day. `hungry` has the tenants that were refused a part, each with its end (epoch seconds).

    They would use more than their rate so far says.
    """

    today: Mapping[str, int]
    yesterday: Mapping[str, int]
    weights: Mapping[str, int]
    hungry: Mapping[str, float]


class Levels:
    """The count that each tenant reaches if a quota is shared fairly.

    As the level rises, a tenant's count begins to rise with it at what it has (divided by its weight), and stops at what it is
    expected to need: the larger of yesterday's count and its rate so far, for the rest of the day. Making one takes time that
    grows with the tenants; `of` takes the logarithm of that.
    """

    def __init__(
        self, counts: Counts, asking: Iterable[str], weights: Mapping[str, int], at: float, gone: float
    ) -> None:
        """`gone` is the fraction of the day that has passed, from 0 to 1."""
        names = counts.today.keys() | counts.yesterday.keys() | counts.hungry.keys() | set(asking)
        self.made_at = at
        self.weights = {name: max(1, weights.get(name, counts.weights.get(name, 1))) for name in names}
        self.total_weight = max(1, sum(self.weights.values()))
        self._stops: dict[str, float] = {}
        changes: list[tuple[float, int]] = [(0.0, 0)]
        for name, weight in self.weights.items():
            has = counts.today.get(name, 0)
            changes.append((has / weight, weight))
            if counts.hungry.get(name, 0.0) <= at:
                expected = max(counts.yesterday.get(name, 0), has / max(gone, LEAST_DAY_PART))
                self._stops[name] = (has + expected * (1 - gone)) / weight
                changes.append((self._stops[name], -weight))
        changes.sort()
        self._points = [point for point, _ in changes]
        self._slopes = list(accumulate(change for _, change in changes))
        # How much is shared in total when the level is at each of the points.
        steps = zip(self._points, self._points[1:], self._slopes, strict=False)
        total = float(sum(counts.today.values()))
        self._totals = list(accumulate(((end - begin) * slope for begin, end, slope in steps), initial=total))
        self._lasts_s = max(LEVELS_S, len(names) * LEVELS_S_A_TENANT)

    def hold(self, asking: Iterable[str], weights: Mapping[str, int], at: float) -> bool:
        """Whether these are new enough, with the weights of the tenants that ask. Adds tenants that were not known."""
        if at - self.made_at > self._lasts_s:
            return False
        for name in asking:
            known = self.weights.get(name)
            given = max(1, weights.get(name, known or 1))
            if known is None:
                self.weights[name] = given
                self.total_weight += given
                # It has nothing yet, so that its count rises with the level from 0 on.
                self._stops[name] = 0.0
            elif known != given:
                return False
        return True

    def of(self, tenant: str, most: float) -> float:
        """The count per unit of weight that a tenant reaches if it takes all that it can and `most` is shared in total."""
        weight, stop = self.weights[tenant], self._stops.get(tenant)

        def total(position: int) -> float:
            """The total that is shared at a point if this tenant does not stop."""
            more = max(0.0, self._points[position] - stop) * weight if stop is not None else 0.0
            return self._totals[position] + more

        position = bisect_left(range(len(self._points)), most, key=total) - 1
        if position < 0:
            return 0.0
        begins = self._points[position]
        slope = self._slopes[position] + (weight if stop is not None and begins >= stop else 0)
        return begins + (most - total(position)) / slope if slope else begins
