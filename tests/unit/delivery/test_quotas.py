"""The ledger of daily quotas, on a table in memory with atomic conditional writes; once on moto, for the expressions."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pytest
from botocore.exceptions import ClientError
from hypothesis import given, settings
from hypothesis import strategies as st

from portaria.aws import table
from portaria.aws.table import Table
from portaria.core import clock
from portaria.delivery import quotas
from portaria.delivery.quotas import Ledger, Reservation
from tests.fakes.aws import moto_cloud as fakes
from tests.simulation.aws import cloud as clouds
from tests.simulation.aws import limits
from tests.simulation.aws.cloud import TABLE, Cloud, InTurn

SUBSCRIPTION = "123-ABC-456"
ZONE = "America/Chicago"
CHICAGO = ZoneInfo(ZONE)
TODAY = "2026-11-23"
MIDNIGHT = datetime(2026, 11, 23, 6, tzinfo=UTC)
NOON = MIDNIGHT + timedelta(hours=12)


class World:
    """`calls` counts what went to DynamoDB, by operation; `before_call` runs before each of them."""

    def __init__(self) -> None:
        self.now = NOON
        self.cloud = Cloud()
        self.cloud.carry = self._carry
        self.calls: Counter[str] = Counter()
        self.before_call: Callable[[str], None] = lambda operation: None

    def _carry(self, name: str, call: Callable[[], Any]) -> Any:
        operation = name.removeprefix("dynamodb.")
        self.calls[operation] += 1
        self.before_call(operation)
        return call()

    def ledger(self, seed: int = 1) -> Ledger:
        return Ledger(Table(TABLE), ZONE, random.Random(seed))

    def used(self, day: str = TODAY) -> quotas.Used:
        return quotas.used(Table(TABLE), SUBSCRIPTION, day)


@pytest.fixture
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    made = World()
    with (
        clouds.installed(lambda: made.cloud),
        patch.object(clock, "now", lambda: made.now),
        patch.object(table, "ThreadPoolExecutor", InTurn),
        patch.object(quotas, "TENANTS_A_SHARD", getattr(request, "param", quotas.TENANTS_A_SHARD)),
    ):
        yield made


# Tenants are counted in the shards' items, or in a bucket each if the shards are full.
wherever_tenants_are_counted = pytest.mark.parametrize("world", [300, 0], indirect=True, ids=["within", "beside"])


def live(ledger: Ledger, quota: int, **shares: int) -> Reservation:
    return ledger.reserve(SUBSCRIPTION, quota, shares, bulk=False, weights={})


def bulk(ledger: Ledger, quota: int, **shares: int) -> Reservation:
    return ledger.reserve(SUBSCRIPTION, quota, shares, bulk=True, weights={})


@wherever_tenants_are_counted
def test_quota_reserve_counts_grants_per_tenant(world: World) -> None:
    ledger = world.ledger()
    first = live(ledger, 1_000, acme=30, other=5)
    live(ledger, 1_000, acme=10)
    assert first == Reservation({"acme": 30, "other": 5}, None, 965, TODAY)
    assert world.used() == quotas.Used(45, {"acme": 40, "other": 5})


def test_quota_reserve_expressions_work_on_moto() -> None:
    with fakes.cloud() as cloud, patch.object(clock, "now", lambda: NOON):
        ledger = Ledger(cloud.table, ZONE, random.Random(1))
        answers = [ledger.reserve(SUBSCRIPTION, 25, {"a-b": 4}, bulk=False, weights={"a-b": 3}) for _ in range(8)]
        assert [sum(answer.granted.values()) for answer in answers] == [4, 4, 4, 4, 4, 4, 1, 0]
        assert quotas.used(cloud.table, SUBSCRIPTION, TODAY) == quotas.Used(25, {"a-b": 25})
        item = next(
            item for shard in range(quotas.SHARDS)
            if (item := cloud.table.get(*quotas.key(SUBSCRIPTION, TODAY, shard)))
        )  # fmt: skip
        assert item["expires_at"] == int((MIDNIGHT + timedelta(days=8)).timestamp())


@wherever_tenants_are_counted
@pytest.mark.parametrize("quota", [1, 7, 10, 1_003])
def test_quota_reserve_grants_exactly_the_quota_across_shards(world: World, quota: int) -> None:
    ledgers = [world.ledger(seed) for seed in range(3)]
    granted = sum(sum(live(ledgers[turn % 3], quota, acme=9).granted.values()) for turn in range(quota // 9 + 12))
    assert granted == world.used().objects == quota
    answer = live(world.ledger(), quota, acme=1)
    assert not answer.granted
    assert answer.left == 0
    assert answer.after_s is not None
    assert 12 * 3600 < answer.after_s <= 12 * 3600 + 60


@wherever_tenants_are_counted
def test_quota_reserve_last_objects_satisfy_small_requests_first(world: World) -> None:
    one, two = world.ledger(1), world.ledger(2)
    live(two, 100, acme=1)
    live(one, 100, acme=89)
    answer = live(two, 100, acme=30, b=2, c=3)
    assert answer.granted == {"b": 2, "c": 3, "acme": 5}
    assert answer.after_s is not None


REQUESTS = st.tuples(
    st.integers(0, 2), st.sampled_from(["a", "b", "c"]), st.integers(1, 60), st.booleans(), st.integers(0, 3)
)


@settings(max_examples=150)
@given(
    quota=st.integers(1, 400), requests=st.lists(REQUESTS, max_size=40), hours=st.floats(0, 23.9), seed=st.integers(),
    room=st.sampled_from([300, 6, 0]),
)  # fmt: skip
def test_quota_reserve_concurrent_workers_never_exceed_quota(
    quota: int, requests: list[tuple[int, str, int, bool, int]], hours: float, seed: int, room: int
) -> None:
    """Three workers. Before each call of one, another worker's whole reservation may happen."""
    world = World()
    world.now = MIDNIGHT + timedelta(hours=hours)
    granted: Counter[str] = Counter()
    depth = 0
    with (
        clouds.installed(lambda: world.cloud),
        patch.object(clock, "now", lambda: world.now),
        patch.object(quotas, "TENANTS_A_SHARD", room),
    ):
        ledgers = [world.ledger(seed + number) for number in range(3)]

        def reserve() -> None:
            nonlocal depth
            worker, tenant, count, is_bulk, later_s = requests.pop()
            depth += 1
            # A worker makes one reservation at a time, so the reservation in between is another worker's.
            answer = ledgers[(worker + depth) % 3].reserve(
                SUBSCRIPTION, quota, {tenant: count}, bulk=is_bulk, weights={"a": 2}
            )
            depth -= 1
            world.now += timedelta(seconds=later_s * 15)
            assert sum(answer.granted.values()) <= count
            granted.update(answer.granted)

        def between(operation: str) -> None:
            if requests and depth < 3 and operation == "update_item":
                reserve()

        world.before_call = between
        while requests:
            reserve()
        days = [quotas.day_of(CHICAGO, moment).name for moment in (MIDNIGHT, MIDNIGHT + timedelta(days=1))]
        counts = [world.used(day) for day in days]
    assert all(count.objects <= quota for count in counts)
    assert Counter(counts[0].tenants) + Counter(counts[1].tenants) == granted


def give_back(ledger: Ledger, reserved: Reservation, **unsent: int) -> None:
    ledger.give_back(SUBSCRIPTION, reserved.day, Counter(unsent))


@wherever_tenants_are_counted
def test_quota_given_back_is_used_before_more_is_reserved(world: World) -> None:
    ledger = world.ledger()
    give_back(ledger, live(ledger, 1_000, acme=30, other=5), acme=30)
    world.calls.clear()
    assert live(ledger, 1_000, acme=10) == Reservation({"acme": 10}, None, 965, TODAY)
    assert world.calls == {}
    assert live(ledger, 1_000, acme=50, other=5).granted == {"acme": 50, "other": 5}
    assert world.used() == quotas.Used(70, {"acme": 60, "other": 10})


def test_quota_given_back_by_one_tenant_is_not_granted_to_another(world: World) -> None:
    ledger = world.ledger()
    give_back(ledger, live(ledger, 100, acme=100), acme=40)
    assert live(ledger, 100, other=10).granted == {}
    assert live(ledger, 100, acme=50).granted == {"acme": 40}
    assert live(ledger, 100, acme=1).granted == {}


def test_quota_given_back_is_unknown_to_other_processes(world: World) -> None:
    """A process that ends takes with it what was given back: the quota is used up earlier, and never exceeded."""
    ledger = world.ledger(1)
    give_back(ledger, live(ledger, 100, acme=100), acme=100)
    assert live(world.ledger(2), 100, acme=1).granted == {}
    assert world.used().objects == 100


@pytest.mark.parametrize("is_new_day_known", [False, True])
def test_quota_given_back_of_yesterday_is_not_granted_today(world: World, is_new_day_known: bool) -> None:
    ledger = world.ledger()
    world.now = MIDNIGHT + timedelta(days=1, seconds=-60)
    yesterday = live(ledger, 100, acme=100)
    world.now += timedelta(seconds=61)
    if is_new_day_known:
        live(ledger, 100, other=1)
    give_back(ledger, yesterday, acme=100)
    assert live(ledger, 100, acme=20).granted == {"acme": 20}
    assert world.used("2026-11-24").tenants["acme"] == 20


def test_quota_given_back_is_not_granted_right_before_the_reset(world: World) -> None:
    ledger = world.ledger()
    world.now = MIDNIGHT + timedelta(days=1, seconds=-quotas.CLOSING_S - 1)
    give_back(ledger, live(ledger, 100, acme=10), acme=10)
    world.now += timedelta(seconds=1)
    assert live(ledger, 100, acme=10).granted == {}


def test_quota_given_back_is_kept_if_more_cannot_be_reserved(world: World) -> None:
    ledger = world.ledger()
    give_back(ledger, live(ledger, 1_000, acme=10), acme=10)

    def refuse(operation: str) -> None:
        raise ClientError({"Error": {"Code": "InternalServerError"}}, operation)

    world.before_call = refuse
    with pytest.raises(ClientError):
        live(ledger, 1_000, acme=20)
    assert live(ledger, 1_000, acme=10).granted == {"acme": 10}


@settings(max_examples=60)
@given(
    quota=st.integers(1, 200), seed=st.integers(), hours=st.floats(0, 23.9),
    requests=st.lists(st.tuples(st.integers(0, 2), st.sampled_from("abc"), st.integers(1, 60), st.integers(0, 60),
                                st.integers(0, 200)), max_size=30),
)  # fmt: skip
def test_quota_sent_objects_never_exceed_quota_if_some_are_given_back(
    quota: int, seed: int, hours: float, requests: list[tuple[int, str, int, int, int]]
) -> None:
    """Three workers send what they were granted, but for some of it, and give that back."""
    world, sent = World(), Counter[str]()
    world.now = MIDNIGHT + timedelta(hours=hours)
    with clouds.installed(lambda: world.cloud), patch.object(clock, "now", lambda: world.now):
        ledgers = [world.ledger(seed + number) for number in range(3)]
        for worker, tenant, count, unsent, later_s in requests:
            reserved = live(ledgers[worker], quota, **{tenant: count})
            granted = reserved.granted.get(tenant, 0)
            give_back(ledgers[worker], reserved, **{tenant: min(unsent, granted)})
            sent[reserved.day] += granted - min(unsent, granted)
            world.now += timedelta(seconds=later_s * 15)
        for day, count in sent.items():
            assert count <= world.used(day).objects <= quota


def test_quota_reserve_costs_one_write_and_one_snapshot_per_thirty_seconds(world: World) -> None:
    ledger = world.ledger()
    live(ledger, 10_000_000, acme=1_000)
    world.calls.clear()
    for _ in range(20):
        live(ledger, 10_000_000, acme=500, other=500)
        world.now += timedelta(seconds=1)
    assert world.calls == {"update_item": 20}
    world.now += timedelta(seconds=quotas.STALE_S)
    live(ledger, 10_000_000, acme=1_000)
    assert world.calls == {"update_item": 21, "batch_get_item": 1}


def test_quota_reserve_spreads_writes_over_shards(world: World) -> None:
    ledger = world.ledger()
    for _ in range(400):
        live(ledger, 10_000_000, acme=10)
    counts = [
        (Table(TABLE).get(*quotas.key(SUBSCRIPTION, TODAY, shard)) or {})["used"] for shard in range(quotas.SHARDS)
    ]
    assert max(counts) < 2.5 * 400


@wherever_tenants_are_counted
def test_quota_reserve_includes_grants_of_other_workers_after_thirty_seconds(world: World) -> None:
    """At noon of a first day backfills leave a quarter of the quota, so a worker that knows the usage refuses this one."""
    one, two = world.ledger(1), world.ledger(2)
    bulk(two, 10_000, b=1)
    for _ in range(12):
        live(one, 10_000, acme=500)
    world.now += timedelta(seconds=quotas.STALE_S - 1)
    assert bulk(two, 10_000, b=1_000).granted == {"b": 1_000}
    world.now += timedelta(seconds=2)
    assert not bulk(two, 10_000, b=1_000).granted


def test_quota_reserve_many_tenants_are_split_into_writes_of_allowed_size(world: World) -> None:
    """Given 300 tenants with long names, then each expression is within the 4 kB that the table in memory allows."""
    shares = {f"kommo-account-{number}-{'x' * 60}": 1 for number in range(300)}
    answer = live(world.ledger(), 10_000_000, **shares)
    assert answer.granted == shares
    assert world.calls["update_item"] == 2
    assert world.used() == quotas.Used(300, shares)


def test_quota_reserve_20000_tenants_are_counted_exactly_in_small_items(world: World) -> None:
    """Given 20,000 tenants, which once needed items of 500 kB, then no item is near the 400 kB that DynamoDB allows."""
    ledgers = [world.ledger(seed) for seed in range(4)]
    granted: dict[str, int] = {}
    for start in range(0, 20_000, 200):
        shares = {f"kommo-acme-{30_000_000 + number}": 3 for number in range(start, start + 200)}
        granted |= ledgers[start // 200 % 4].reserve(SUBSCRIPTION, 10_000_000, shares, bulk=False, weights={}).granted
    assert world.used() == quotas.Used(60_000, granted)
    assert len(granted) == 20_000
    assert max(item.size for item in world.cloud.items.values()) < limits.ITEM_BYTES / 20


def test_quota_reserve_with_full_shards_costs_constant_calls(world: World) -> None:
    """Given shards without room for tenants, then a tenant's request is two writes, and its bucket is read every 30 s."""
    ledger = world.ledger()
    with patch.object(quotas, "TENANTS_A_SHARD", 0):
        live(ledger, 10_000_000, acme=1_000)
        world.calls.clear()
        for _ in range(20):
            live(ledger, 10_000_000, acme=500)
            world.now += timedelta(seconds=1)
        assert world.calls == {"update_item": 40}
        live(ledger, 10_000_000, other=500)
        assert world.calls == {"update_item": 42}
        world.now += timedelta(seconds=quotas.STALE_S)
        live(ledger, 10_000_000, other=500)
    # The shards and one bucket: the other bucket is read when its tenant sends a request.
    assert world.calls["batch_get_item"] <= 2


def test_quota_reserve_killed_between_writes_loses_only_tenant_attribution(world: World) -> None:
    """Given a crash after the shard's write, then the objects are counted, and the quota is never exceeded."""
    ledger = world.ledger()
    seen = 0

    def die(operation: str) -> None:
        nonlocal seen
        seen += operation == "update_item"
        if seen == 2:
            raise ClientError({"Error": {"Code": "InternalServerError", "Message": ""}}, operation)

    with patch.object(quotas, "TENANTS_A_SHARD", 0):
        world.before_call = die
        with pytest.raises(ClientError):
            live(ledger, 1_000, acme=100)
        world.before_call = lambda operation: None
        assert world.used() == quotas.Used(100, {})
        assert sum(live(world.ledger(2), 1_000, acme=1_000).granted.values()) == 900
    assert world.used().objects == 1_000


@wherever_tenants_are_counted
def test_quota_reserve_dynamodb_failure_grants_nothing(world: World) -> None:
    ledger = world.ledger()

    def fail(operation: str) -> None:
        if operation == "update_item":
            raise ClientError({"Error": {"Code": "InternalServerError", "Message": ""}}, operation)

    world.before_call = fail
    with pytest.raises(ClientError):
        live(ledger, 1_000, acme=1)
    world.before_call = lambda operation: None
    assert live(ledger, 1_000, acme=1_000).granted == {"acme": 1_000}


def yesterday(world: World, quota: int, **shares: int) -> None:
    world.now = MIDNIGHT - timedelta(minutes=5)
    for tenant, count in shares.items():
        assert live(world.ledger(), quota, **{tenant: count}).granted == {tenant: count}
    world.now = MIDNIGHT


@wherever_tenants_are_counted
def test_quota_reserve_backfill_at_midnight_leaves_yesterdays_use_of_others(world: World) -> None:
    yesterday(world, 10_000, a=3_000, b=3_000)
    ledger = world.ledger()
    taken = 0
    while bulk(ledger, 10_000, hog=100).granted:
        taken += 100
    assert 3_000 <= taken <= 4_000
    for hour in range(24):
        world.now = MIDNIGHT + timedelta(hours=hour, minutes=30)
        bulk(world.ledger(hour), 10_000, hog=100)
        assert live(ledger, 10_000, a=125, b=125).granted == {"a": 125, "b": 125}, f"hour {hour}"


@wherever_tenants_are_counted
def test_quota_reserve_backfill_on_first_day_leaves_half_for_unknown_tenants(world: World) -> None:
    world.now = MIDNIGHT
    ledger = world.ledger()
    taken = 0
    while bulk(ledger, 10_000, hog=100).granted:
        taken += 100
    assert taken == 5_000
    assert live(ledger, 10_000, late=2_500).granted == {"late": 2_500}
    world.now = MIDNIGHT + timedelta(hours=23, minutes=50)
    while bulk(ledger, 10_000, hog=100).granted:
        taken += 100
    assert taken >= 7_400, "at the end of the day nothing is kept back for nobody"


@wherever_tenants_are_counted
def test_quota_reserve_live_events_precede_backfills(world: World) -> None:
    yesterday(world, 10_000, a=100, b=100)
    ledger = world.ledger()
    while bulk(ledger, 10_000, a=100).granted:
        pass
    assert not bulk(ledger, 10_000, a=100).granted
    assert live(ledger, 10_000, a=100).granted


@wherever_tenants_are_counted
def test_quota_reserve_live_flood_leaves_share_of_other_tenants(world: World) -> None:
    yesterday(world, 10_000, a=100, b=2_000)
    ledger = world.ledger()
    while live(ledger, 10_000, flood=100).granted:
        pass
    assert live(ledger, 10_000, b=2_000).granted == {"b": 2_000}
    assert live(ledger, 10_000, a=100).granted == {"a": 100}


@wherever_tenants_are_counted
def test_quota_reserve_request_of_several_tenants_is_granted_in_part(world: World) -> None:
    yesterday(world, 10_000, a=4_000, b=4_000)
    ledger = world.ledger()
    while live(ledger, 10_000, flood=100).granted:
        pass
    answer = live(ledger, 10_000, flood=100, a=50)
    assert answer.granted == {"a": 50}
    assert answer.after_s is not None
    assert answer.left > 0


@wherever_tenants_are_counted
def test_quota_reserve_backfills_share_by_weight(world: World) -> None:
    world.now = MIDNIGHT
    ledgers = [world.ledger(seed) for seed in range(3)]
    taken: Counter[str] = Counter()
    for minute in range(0, 24 * 60, 10):
        world.now = MIDNIGHT + timedelta(minutes=minute)
        for turn in range(60):
            tenant = ("heavy", "light")[turn % 2]
            answer = ledgers[turn % 3].reserve(
                SUBSCRIPTION, 10_000, {tenant: 25}, bulk=True, weights={"heavy": 3, "light": 1}
            )
            taken.update(answer.granted)
    assert 2.5 < taken["heavy"] / taken["light"] < 3.5
    assert taken.total() >= 9_800


@wherever_tenants_are_counted
def test_quota_reserve_unneeded_quota_is_shared_by_weight(world: World) -> None:
    world.now = MIDNIGHT - timedelta(minutes=5)
    weights = {"heavy": 3, "light": 1, "idle": 4}
    for tenant, count in (("heavy", 7_500), ("light", 2_000), ("idle", 1)):
        world.ledger().reserve(SUBSCRIPTION, 10_000, {tenant: count}, bulk=False, weights=weights)
    world.now = MIDNIGHT
    ledger = world.ledger()
    for tenant in ("light", "heavy"):
        # A request carries its own weight only: the ledger knows the others' from the day before.
        while ledger.reserve(SUBSCRIPTION, 10_000, {tenant: 25}, bulk=False, weights={tenant: weights[tenant]}).granted:
            pass
    # A quarter and three quarters of the 9,500 that live events may use at once; a share by weight would be 1,250 for light.
    assert world.used().tenants == {"light": 2_350, "heavy": 7_100}


@wherever_tenants_are_counted
def test_quota_reserve_refused_tenant_precedes_tenants_with_more_use(world: World) -> None:
    yesterday(world, 10_000, a=1)
    ledger = world.ledger()
    while bulk(ledger, 10_000, first=100).granted:
        pass
    world.now = NOON
    assert not bulk(ledger, 10_000, second=4_000).granted
    assert not bulk(ledger, 10_000, first=100).granted
    assert bulk(ledger, 10_000, second=2_000).granted


def test_quota_reserve_refused_waits_stay_within_queue_receives(world: World) -> None:
    world.now = MIDNIGHT
    ledger = world.ledger()
    while bulk(ledger, 10_000, hog=100).granted:
        pass
    asked = 0
    ends = MIDNIGHT + timedelta(days=1)
    while world.now < ends:
        answer = ledger.reserve(SUBSCRIPTION, 10_000, {"hog": 9_000}, bulk=True, weights={})
        assert not answer.granted
        assert answer.after_s is not None
        world.now += timedelta(seconds=answer.after_s)
        asked += 1
    assert 8 <= asked < 30
    assert world.now < ends + timedelta(minutes=2)


@wherever_tenants_are_counted
def test_quota_reserve_restarts_at_midnight_of_time_zone(world: World) -> None:
    ledger = world.ledger()
    world.now = MIDNIGHT - timedelta(minutes=1)
    assert live(ledger, 100, acme=100).granted == {"acme": 100}
    assert not live(ledger, 100, acme=1).granted
    world.now = MIDNIGHT + timedelta(seconds=1)
    assert live(ledger, 100, acme=100).granted == {"acme": 100}
    assert world.used("2026-11-22").objects == world.used("2026-11-23").objects == 100


def test_quota_reserve_shortly_before_reset_grants_nothing(world: World) -> None:
    ledger = world.ledger()
    world.now = MIDNIGHT - timedelta(seconds=quotas.CLOSING_S)
    answer = live(ledger, 100, acme=1)
    assert not answer.granted
    assert answer.after_s is not None
    assert quotas.CLOSING_S < answer.after_s <= quotas.CLOSING_S + 60
    world.now -= timedelta(seconds=1)
    assert live(ledger, 100, acme=1).granted


@pytest.mark.parametrize(
    ("zone", "date", "hours"),
    [
        ("America/Chicago", "2026-03-08", 23),
        ("America/Chicago", "2026-11-01", 25),
        ("America/Chicago", "2026-11-02", 24),
        # Daylight saving starts at midnight, so the day begins at one o'clock.
        ("Asia/Beirut", "2026-03-29", 23),
        # It ends at midnight, so the day before has its last hour twice.
        ("Asia/Beirut", "2026-10-24", 25),
        ("UTC", "2026-03-08", 24),
    ],
)
def test_quota_day_of_has_length_with_daylight_saving(zone: str, date: str, hours: int) -> None:
    noon = datetime.fromisoformat(f"{date}T12:00").replace(tzinfo=ZoneInfo(zone))
    day = quotas.day_of(ZoneInfo(zone), noon)
    assert day.name == date
    assert day.ends - day.begins == hours * 3600


@given(
    moment=st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31), timezones=st.just(UTC)),  # noqa: DTZ001
    zone=st.sampled_from(["America/Chicago", "Asia/Beirut", "America/Havana", "Australia/Lord_Howe", "UTC"]),
)
def test_quota_day_of_any_moment_is_in_one_day(moment: datetime, zone: str) -> None:
    place = ZoneInfo(zone)
    day = quotas.day_of(place, moment)
    assert day.begins <= moment.timestamp() < day.ends
    following = quotas.day_of(place, datetime.fromtimestamp(day.ends, UTC))
    assert following.begins == day.ends
    assert following.name > day.name


def test_quota_ledger_unknown_time_zone_is_refused() -> None:
    with pytest.raises(ZoneInfoNotFoundError):
        Ledger(Table(TABLE), "America/Chicogo")
