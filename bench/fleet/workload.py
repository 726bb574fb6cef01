"""Who sends what, and when: the accounts of a fleet, their destinations, and one day of events, installs and failures.

Everything is drawn from one seed. Times are seconds from midnight.
"""

from __future__ import annotations

import math
import random
from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate

from bench.cost.fleets import OBJECTS

HOUR, DAY = 3_600.0, 86_400.0
DAYS_A_MONTH = 30.4
# Weekdays have nine tenths of a month's events, and a month has 22 of them.
WEEKDAYS, WEEKDAY_PART = 22, 0.9
# How a weekday's events spread over its hours, beginning at midnight: a morning peak, lunch, a smaller peak.
HOURS = (
    0.2, 0.15, 0.1, 0.1, 0.15, 0.3, 0.6, 1.2, 2.2, 2.8, 2.7, 2.2,
    1.3, 1.6, 2.1, 2.1, 1.8, 1.4, 0.9, 0.6, 0.5, 0.4, 0.35, 0.25,
)  # fmt: skip


@dataclass(frozen=True)
class Outage:
    """A platform that gives no good answer between two times. Each answer takes `answer_s`: an error, or a timeout."""

    platform: str
    begin: float
    end: float
    answer_s: float


@dataclass(frozen=True)
class Fleet:
    """What is simulated. `burst_events` of one account come within `burst_s`, `bursts` times between 8 and 11 o'clock."""

    accounts: int = 10_000
    busy: int = 200
    events_a_month: float = 100e6
    # The part of all events that busy accounts send, and of the accounts whose destination is LeadConnector.
    busy_part: float = 0.995
    leadconnector_part: float = 0.25
    marketo_subscriptions: int = 10
    bursts: int = 10
    burst_events: int = 5_000
    burst_s: float = 300.0
    installs: int = 300
    installs_at: float = 9.5 * HOUR
    installs_within: float = 600.0
    backfill_contacts: int = 2_000
    objects: int = OBJECTS
    # All tokens were issued together, so that all renewals become due in the same tenth of a token's life.
    renewals_at: float = 8 * HOUR
    token_life_s: float = DAY
    outage: Outage | None = Outage("leadconnector", 10 * HOUR, 12 * HOUR, 0.3)
    parked_subscription: int | None = 0
    parked_until: float = DAY
    begin: float = 0.0
    end: float = DAY + 2 * HOUR
    # How often arrivals are put into the queue.
    tick_s: float = 1.0
    # Events at an even pace, without any daily pattern (0: the daily pattern).
    even_per_s: float = 0.0

    @property
    def events_a_day(self) -> float:
        """The events of one weekday."""
        return self.events_a_month * WEEKDAY_PART / WEEKDAYS

    def at_peak(self) -> Fleet:
        """The busiest hours, without failures: what a load is tried with."""
        return replace(
            self,
            begin=8.5 * HOUR,
            end=11 * HOUR,
            outage=None,
            parked_subscription=None,
            renewals_at=8.6 * HOUR,
        )

    def grown(self, factor: float) -> Fleet:
        """The same fleet with so many times the accounts and events."""
        return replace(
            self,
            accounts=round(self.accounts * factor),
            busy=round(self.busy * factor),
            events_a_month=self.events_a_month * factor,
            installs=round(self.installs * factor),
            bursts=round(self.bursts * factor),
            marketo_subscriptions=round(self.marketo_subscriptions * factor),
        )


@dataclass(frozen=True)
class Destination:
    number: int
    platform: str


class Accounts:
    """The accounts by number, the busy ones first: where each delivers, and how often each is the next to send."""

    def __init__(self, fleet: Fleet, chance: random.Random) -> None:
        self.fleet = fleet
        self._chance = chance
        subscriptions = [Destination(number, "marketo") for number in range(fleet.marketo_subscriptions)]
        self.destinations: list[Destination] = list(subscriptions)
        self.of: list[Destination] = []
        for number in range(fleet.accounts):
            # Every n-th account has a LeadConnector location of its own.
            if int((number + 1) * fleet.leadconnector_part) > int(number * fleet.leadconnector_part):
                location = Destination(len(self.destinations), "leadconnector")
                self.destinations.append(location)
                self.of.append(location)
            else:
                self.of.append(subscriptions[number % len(subscriptions)])
        harmonic = sum(_falling(rank) for rank in range(fleet.busy))
        weights = [self._weight(number, harmonic) for number in range(fleet.accounts)]
        self._cumulated = list(accumulate(weights))
        self.share = [weight / self._cumulated[-1] for weight in weights]
        # When each account last sent an event: at first as long ago as its rate lets expect.
        self.changed_at = [
            fleet.begin - chance.expovariate(1.0) * DAY / max(1e-9, fleet.events_a_day * share) for share in self.share
        ]

    def _weight(self, number: int, harmonic: float) -> float:
        fleet = self.fleet
        if fleet.busy in (0, fleet.accounts):
            return 1.0
        if number >= fleet.busy:
            return (1 - fleet.busy_part) / (fleet.accounts - fleet.busy)
        return fleet.busy_part * _falling(number) / harmonic

    def draw(self, count: int) -> list[int]:
        last = self._cumulated[-1]
        return [bisect(self._cumulated, self._chance.random() * last) for _ in range(count)]


def _falling(rank: int) -> float:
    """The busiest account sends ten times as much as the two-hundredth."""
    return float((rank + 1) ** -0.45)


class Arrivals:
    """The accounts whose events arrive in each tick."""

    def __init__(self, fleet: Fleet, accounts: Accounts, chance: random.Random) -> None:
        self.fleet, self.accounts, self._chance = fleet, accounts, chance
        self._bursts = [
            (chance.uniform(8 * HOUR, 11 * HOUR), chance.randrange(max(1, fleet.busy)))
            for _ in range(fleet.bursts if not fleet.even_per_s else 0)
        ]
        in_bursts = len(self._bursts) * fleet.burst_events
        self._per_weight = max(0.0, fleet.events_a_day - in_bursts) / sum(HOURS) / HOUR
        self._owed = 0.0

    def rate(self, at: float) -> float:
        """Events a second without bursts; between two hours' middles the rate changes evenly."""
        if self.fleet.even_per_s:
            return self.fleet.even_per_s
        hour = at % DAY / HOUR - 0.5
        first = math.floor(hour)
        part = hour - first
        return self._per_weight * (HOURS[first % 24] * (1 - part) + HOURS[(first + 1) % 24] * part)

    def at(self, now: float) -> list[int]:
        """The accounts of the events that arrive in the tick after `now`."""
        fleet = self.fleet
        if fleet.even_per_s:
            self._owed += fleet.even_per_s * fleet.tick_s
            count = int(self._owed + 1e-9)
            self._owed -= count
            return self.accounts.draw(count)
        found = self.accounts.draw(poisson(self.rate(now) * fleet.tick_s, self._chance))
        for begin, account in self._bursts:
            if begin <= now < begin + fleet.burst_s:
                found += [account] * poisson(fleet.burst_events / fleet.burst_s * fleet.tick_s, self._chance)
        return found

    def ticks(self) -> Iterator[float]:
        count = round((self.fleet.end - self.fleet.begin) / self.fleet.tick_s)
        return (self.fleet.begin + number * self.fleet.tick_s for number in range(count))


def poisson(mean: float, chance: random.Random) -> int:
    """How many of independent events with this mean happen. Above 50, the normal distribution is close enough."""
    if mean > 50:
        return max(0, round(chance.gauss(mean, math.sqrt(mean))))
    limit, product, count = math.exp(-mean), chance.random(), 0
    while product > limit:
        product *= chance.random()
        count += 1
    return count
