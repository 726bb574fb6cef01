"""Daily quotas of destinations: objects are reserved for each tenant before each request.

A day's count is kept in `SHARDS` items. A conditional write increases each item up to its part of the quota, so all of them
together never exceed it, however many workers write at the same time. An item with `TENANTS_A_SHARD` tenants takes eight of the
1,000 write units a second that DynamoDB allows for a key, so all items together take about 1,250 reservations a second. The
same write counts what each tenant was given, so fairness costs no further write; and each answer has the current item, so a
worker knows what the others do without reading.

A shard's item has room for `TENANTS_A_SHARD` tenants. Further tenants are counted in one of `BUCKETS` other items, chosen by
their name, by a second write after the shard's. So no item grows with the number of tenants (at 20,000, a bucket has 20), and
neither does the cost of a reservation. After a death between the two writes, a tenant's count is too small, which affects
only fairness. A tenant's count is the sum over all items.

Shares are computed from these counts, which may be `STALE_S` old, or `STALE_S_A_TENANT` for each tenant if there are many.
Shares are therefore nearly right; that the quota holds does not depend on them. The counts of a tenant that asks are at most
`STALE_S` old. A tenant can always have its own part, the quota divided by weight. Beyond that, it shares by weight, with the
other tenants that ask for more, what the rest is not expected to need: the larger of what a tenant used yesterday and what it
would use today at its rate so far, for the rest of the day. A part of the quota is kept for unexpected records, less and less
towards the reset: live events may use more of it than backfills.

Objects that were reserved and certainly not sent are given back in memory: the next requests of their tenants from the same
process use them before any is reserved. Nothing is written, because a write that is repeated after a lost answer could be
applied twice, which would exceed the quota. What a process holds when it ends, or when the day ends, stays counted.

A day lasts from midnight to midnight of a time zone, so 23 or 25 hours twice a year.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from zlib import crc32
from zoneinfo import ZoneInfo

from portaria.aws.table import Conflict, Item, Table, run_concurrently
from portaria.core import clock
from portaria.delivery.fair_shares import Counts, Levels

SHARDS = 10
# Of about 25 bytes each: 7.5 kB, of the 400 kB that an item may have.
TENANTS_A_SHARD = 300
# In `SHARDS` partitions.
BUCKETS = 1_000
STALE_S = 30.0
# All buckets are read again after so long for each tenant: after ten minutes for 20,000, which are half a megabyte.
STALE_S_A_TENANT = 0.03
KEPT_FOR = timedelta(days=7)
# What part of a whole day's quota a reservation leaves, times what is left of the day: for a tenant's own part and for what
# goes beyond it. Half of it from backfills: a tenant cannot get in the afternoon what a backfill used in the morning.
# `python -m bench day` shows the effect of these values.
LIVE_LEAVES = (0.0, 0.05)
BULK_LEAVES = (0.05, 0.5)
# A request during the reset may be counted on either day, so no request begins this shortly before it.
CLOSING_S = 30.0
# A tenant that waits for its share asks again after a quarter of what is left of the day: about twenty times between two
# resets.
LEAST_WAIT_S = 300.0
# DynamoDB takes 4 kB of update expression, of which each tenant needs about ten bytes.
MAX_TENANTS_A_WRITE = 250
_USED, _WEIGHT = "t:", "w:"


class Day(NamedTuple):
    """`name` is the local date, `begins` and `ends` are epoch seconds."""

    name: str
    begins: float
    ends: float

    def gone(self, now: float) -> float:
        """The fraction of the day that has passed, from 0 to 1."""
        return min(1.0, max(0.0, (now - self.begins) / (self.ends - self.begins)))


class Reservation(NamedTuple):
    """`granted` is what may be sent now, by tenant; tenants that get nothing are not in it.

    The rest may be asked for again after `after_s` seconds, which is None if there is no rest. `left` is what the
    subscription has left of today's quota, as far as this process knows. `day` is the local date on which it is counted.
    """

    granted: dict[str, int]
    after_s: float | None
    left: int
    day: str


class _Room(NamedTuple):
    """What a shard must have room for: objects, up to its limit, and tenants that are new in its item."""

    objects: int
    limit: int
    tenants: int


class Used(NamedTuple):
    objects: int
    tenants: dict[str, int]


def day_of(zone: ZoneInfo, moment: datetime) -> Day:
    local = moment.astimezone(zone)
    midnight = datetime(local.year, local.month, local.day, tzinfo=zone)
    following = midnight + timedelta(days=1)
    # In UTC: the difference of two local times ignores a change to or from daylight saving time between them.
    return Day(f"{local:%Y-%m-%d}", midnight.astimezone(UTC).timestamp(), following.astimezone(UTC).timestamp())


def key(subscription: str, day: str, shard: int) -> tuple[str, str]:
    return f"QUOTA#{subscription}#{day}#{shard}", "QUOTA"


def _bucket_of(tenant: str) -> int:
    return crc32(tenant.encode()) % BUCKETS


def _bucket_key(subscription: str, day: str, bucket: int) -> tuple[str, str]:
    return _partition(subscription, day, bucket % SHARDS), f"{bucket:03}"


def _partition(subscription: str, day: str, number: int) -> str:
    return f"QUOTA#{subscription}#{day}#TENANTS#{number}"


def used_count(table: Table, subscription: str, day: str) -> int:
    """The objects that were reserved on a day so far. One read of each shard. Raises what DynamoDB raises."""
    items = table.get_many(key(subscription, day, shard) for shard in range(SHARDS))
    return sum(int(item.get("used", 0)) for item in items.values())


def used(table: Table, subscription: str, day: str) -> Used:
    """The objects that were reserved on a day (its local date, `2026-11-22`). Kept for a week. Raises what DynamoDB raises."""
    book = _KnownDay(Day(day, 0.0, 0.0))
    book.look(table, subscription, 0.0, ())
    return Used(sum(book.used), dict(book.tenants))


@dataclass
class _KnownDay:
    """What this process knows of a subscription's day. Counts only grow, so the known ones are never too large.

    `hungry` has the tenants that were refused a part here, each until it asks again. `unsent` is what was given back to this
    process, by tenant.
    """

    day: Day
    yesterday: dict[str, int] = field(default_factory=dict)
    used: list[int] = field(default_factory=lambda: [0] * SHARDS)
    tenants: dict[str, int] = field(default_factory=dict)
    weights: dict[str, int] = field(default_factory=dict)
    levels: Levels | None = None
    hungry: dict[str, float] = field(default_factory=dict)
    unsent: Counter[str] = field(default_factory=Counter)
    _seen_at: dict[tuple[str, str], float] = field(default_factory=dict)
    _all_seen_at: float | None = None
    _items: dict[tuple[str, str], Item] = field(default_factory=dict)

    def look(self, table: Table, subscription: str, at: float, asking: Iterable[str]) -> None:
        """Read the shards, and the buckets of the tenants that ask, that were not seen for `STALE_S`.

        And at longer intervals all buckets.
        """
        shards = {key(subscription, self.day.name, shard): shard for shard in range(SHARDS)}
        if stale := self._stale(shards, at):
            items = table.get_many(stale)
            for place in stale:
                self.see_shard(place, shards[place], items.get(place, {}), at)
            self.levels = None
        if not any(self.room(place) <= 0 for place in shards):
            return
        if self._all_seen_at is None or at - self._all_seen_at > max(STALE_S, len(self.tenants) * STALE_S_A_TENANT):
            for number in range(SHARDS):
                for item in table.query_all(_partition(subscription, self.day.name, number)):
                    self.see((item["pk"], item["sk"]), item, at)
            self._all_seen_at, self.levels = at, None
        places = {_bucket_key(subscription, self.day.name, _bucket_of(tenant)) for tenant in asking}
        if stale := self._stale(places, at, self._all_seen_at):
            items = table.get_many(stale)
            for place in stale:
                self.see(place, items.get(place, {}), at)

    def _stale(self, places: Iterable[tuple[str, str]], at: float, never: float | None = None) -> list[tuple[str, str]]:
        """Those that were not seen for a while; `never` is when one was seen that was not there."""
        seen_at = {place: self._seen_at.get(place, never) for place in places}
        return [place for place, seen in seen_at.items() if seen is None or at - seen > STALE_S]

    def room(self, place: tuple[str, str]) -> int:
        """How many more tenants fit into a shard's item."""
        return TENANTS_A_SHARD - int(self._items.get(place, {}).get("tenants", 0))

    def holds(self, place: tuple[str, str], tenant: str) -> bool:
        return _USED + tenant in self._items.get(place, ())

    def see_shard(self, place: tuple[str, str], shard: int, item: Item, now: float) -> None:
        self.see(place, item, now)
        self.used[shard] = int(item.get("used", 0))

    def see(self, place: tuple[str, str], item: Item, now: float) -> None:
        before = self._items.get(place, {})
        for name, value in item.items() - before.items():
            if name.startswith(_USED):
                tenant = name[len(_USED) :]
                self.tenants[tenant] = self.tenants.get(tenant, 0) + int(value) - int(before.get(name, 0))
            elif name.startswith(_WEIGHT):
                self.weights[name[len(_WEIGHT) :]] = int(value)
        self._items[place], self._seen_at[place] = item, now


class Ledger:
    """One per process; not thread-safe. Call `reserve` immediately before the request that the reservation is for."""

    def __init__(self, table: Table, time_zone: str, chance: random.Random | None = None) -> None:
        """Raises `ZoneInfoNotFoundError` if this machine does not know the time zone."""
        self.table = table
        self.zone = ZoneInfo(time_zone)
        self._random = chance or random.Random()  # noqa: S311 - spreads writes, keeps no secret
        self._books: dict[str, _KnownDay] = {}

    def reserve(
        self, subscription: str, quota: int, shares: dict[str, int], *, bulk: bool, weights: dict[str, int]
    ) -> Reservation:
        """Reserve objects of today's quota. `shares` has the objects of each tenant in the request; `weights` default to 1.

        A tenant gets all that it asks for or nothing; of the last objects of a day, and of those given back, it may get a part.
        Reserved objects stay counted, also if the request fails. Raises what DynamoDB raises; then nothing may be sent.
        """
        now = clock.now()
        at = now.timestamp()
        day = day_of(self.zone, now)
        book = self._book(subscription, day, at, shares)
        if day.ends - at <= CLOSING_S:
            return Reservation({}, self._until_reset(day, at), quota - sum(book.used), day.name)
        reused = Counter(shares) & book.unsent
        shares = dict(Counter(shares) - reused)
        fair = self._fair(book, quota, shares, bulk, weights, at)
        granted: dict[str, int] = {}
        for part in _parts(fair):
            granted |= self._take(subscription, book, quota, part, weights, at)
            for tenant in part:
                book.hungry.pop(tenant, None)
        left = quota - sum(book.used)
        after_s = None
        short = [tenant for tenant, count in shares.items() if granted.get(tenant, 0) < count]
        if short:
            wait_s = max(LEAST_WAIT_S, (day.ends - at) / 4) * self._random.uniform(0.75, 1.25)
            until_reset_s = self._until_reset(day, at)
            after_s = until_reset_s if left <= 0 else min(wait_s, until_reset_s)
            if any(book.hungry.get(tenant, 0.0) <= at for tenant in short):
                book.levels = None
            book.hungry |= dict.fromkeys(short, at + after_s + LEAST_WAIT_S)
        # At the end: after an exception, nothing is sent.
        book.unsent -= reused
        return Reservation(dict(reused + Counter(granted)), after_s, left, day.name)

    def give_back(self, subscription: str, day: str, unsent: Counter[str]) -> None:
        """Let this process reuse reserved objects, by tenant. Call it once, and only for objects that were certainly not sent.

        `day` is the reservation's. Raises nothing.
        """
        book = self._books.get(subscription)
        if book and book.day.name == day:
            book.unsent += unsent

    def until_reset_s(self) -> float:
        """The seconds until the next day begins, with jitter."""
        now = clock.now()
        return self._until_reset(day_of(self.zone, now), now.timestamp())

    def _until_reset(self, day: Day, at: float) -> float:
        """The seconds until the reset, with jitter, so that not all workers send at the same moment."""
        return day.ends - at + self._random.uniform(1.0, 60.0)

    def _book(self, subscription: str, day: Day, at: float, asking: Iterable[str]) -> _KnownDay:
        book = self._books.get(subscription)
        if book is None or book.day != day:
            before = _KnownDay(day_of(self.zone, datetime.fromtimestamp(day.begins - 1, UTC)))
            before.look(self.table, subscription, at, ())
            book = _KnownDay(day, yesterday=before.tenants, weights=before.weights)
        book.look(self.table, subscription, at, asking)
        self._books[subscription] = book
        return book

    def _fair(
        self, book: _KnownDay, quota: int, wanted: dict[str, int], bulk: bool, weights: dict[str, int], at: float
    ) -> dict[str, int]:
        """Those of the shares that their tenants may have now."""
        gone = book.day.gone(at)
        levels = book.levels
        if levels is None or not levels.hold(wanted, weights, at):
            counts = Counts(book.tenants, book.yesterday, book.weights, book.hungry)
            levels = book.levels = Levels(counts, wanted, weights, at, gone)
        part = quota / levels.total_weight
        left = quota - sum(book.used)
        of_own, beyond = BULK_LEAVES if bulk else LIVE_LEAVES
        if bulk and not book.yesterday:
            # No tenant sent anything yesterday, so the number of tenants, and with it the own part, is unknown.
            of_own = beyond
        own_room, most = left - of_own * quota * (1 - gone), quota - beyond * quota * (1 - gone)
        fair: dict[str, int] = {}
        for tenant, count in wanted.items():
            # Of the last objects of a day a part is better than none.
            least = min(count, max(left, 0))
            after = book.tenants.get(tenant, 0) + least
            weight = levels.weights[tenant]
            if (least > own_room or after > weight * part) and after > weight * levels.of(tenant, most):
                continue
            fair[tenant] = count
            left, own_room, most = left - least, own_room - least, most - least
        return fair

    def _take(
        self, subscription: str, book: _KnownDay, quota: int, wanted: dict[str, int], weights: dict[str, int], at: float
    ) -> dict[str, int]:
        """Count what is wanted, or as much as there is room for: in one shard if it has room for all, else in several."""
        limits = [quota // SHARDS + (shard < quota % SHARDS) for shard in range(SHARDS)]
        missing, granted = dict(wanted), dict.fromkeys(wanted, 0)
        while count := sum(missing.values()):
            # A shard may be fuller than this process knows, but not emptier.
            room = [limit - known for limit, known in zip(limits, book.used, strict=True)]
            roomy = [shard for shard in range(SHARDS) if room[shard] >= count]
            shard = self._random.choice(roomy) if roomy else max(range(SHARDS), key=room.__getitem__)
            if room[shard] <= 0:
                break
            piece = _first(missing, room[shard])
            place = key(subscription, book.day.name, shard)
            within, new = self._within(book, place, piece)
            room_for = _Room(sum(piece.values()), limits[shard], new)
            try:
                item = self._count(place, book.day, within, weights, room_for)
            except Conflict as conflict:
                book.see_shard(place, shard, conflict.item or self.table.get(*place) or {}, at)
                continue
            book.see_shard(place, shard, item, at)
            beside: dict[tuple[str, str], dict[str, int]] = {}
            for tenant in piece.keys() - within.keys():
                bucket = _bucket_key(subscription, book.day.name, _bucket_of(tenant))
                beside.setdefault(bucket, {})[tenant] = piece[tenant]
            counted = run_concurrently(
                lambda each: self._count(each[0], book.day, each[1], weights), list(beside.items())
            )
            for bucket, item in zip(beside, counted, strict=True):
                book.see(bucket, item, at)
            for tenant, taken in piece.items():
                granted[tenant] += taken
                missing[tenant] -= taken
        return {tenant: count for tenant, count in granted.items() if count}

    def _within(self, book: _KnownDay, place: tuple[str, str], piece: dict[str, int]) -> tuple[dict[str, int], int]:
        """Those tenants of a piece that are counted in the shard's item itself: that are there, or that it has room for.

        With how many of them are new there.
        """
        room = book.room(place)
        within: dict[str, int] = {}
        new = 0
        for tenant, count in piece.items():
            is_new = not book.holds(place, tenant)
            if not is_new or new < room:
                within[tenant] = count
                new += is_new
        return within, new

    def _count(
        self,
        place: tuple[str, str],
        day: Day,
        tenants: dict[str, int],
        weights: dict[str, int],
        room_for: _Room | None = None,
    ) -> Item:
        """Add to the tenants' counts and, in a shard, to what is used. Raises `Conflict` if the shard has no room."""
        adds, sets, names = [], ["expires_at = :expires_at"], {}
        values: Item = {":expires_at": int(day.ends + KEPT_FOR.total_seconds())}
        condition = ""
        if room_for:
            adds.append("used :count")
            values |= {":count": room_for.objects, ":most": room_for.limit - room_for.objects}
            condition = "(attribute_not_exists(used) OR used <= :most)"
            if room_for.tenants:
                adds.append("tenants :new")
                values |= {":new": room_for.tenants, ":before": TENANTS_A_SHARD - room_for.tenants}
                condition += " AND (attribute_not_exists(tenants) OR tenants <= :before)"
        for number, (tenant, taken) in enumerate(tenants.items()):
            names[f"#{number}"] = _USED + tenant
            values[f":{number}"] = taken
            adds.append(f"#{number} :{number}")
            if weights.get(tenant, 1) != 1:
                names[f"#w{number}"] = _WEIGHT + tenant
                values[f":w{number}"] = weights[tenant]
                sets.append(f"#w{number} = :w{number}")
        expression = f"SET {', '.join(sets)} ADD {', '.join(adds)}"
        return self.table.update(*place, expression, condition=condition, values=values, names=names)


def _parts(shares: dict[str, int]) -> Iterator[dict[str, int]]:
    names = list(shares)
    for start in range(0, len(names), MAX_TENANTS_A_WRITE):
        yield {name: shares[name] for name in names[start : start + MAX_TENANTS_A_WRITE]}


def _first(wanted: dict[str, int], room: int) -> dict[str, int]:
    """As much of what is wanted as there is room for, small shares first, so that most tenants get all of theirs."""
    piece: dict[str, int] = {}
    for tenant, count in sorted(wanted.items(), key=lambda each: each[1]):
        if taken := min(count, room):
            piece[tenant] = taken
            room -= taken
    return piece
