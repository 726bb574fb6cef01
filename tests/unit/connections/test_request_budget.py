"""The request budget at its edges: claims in the table, waits, and refusals."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from unittest.mock import patch

import pytest

from portaria.connections import request_budget
from portaria.connections.request_budget import BudgetExhausted, RequestBudget, SlotCounters
from portaria.core import clock
from portaria.outbound.request_slots import CYCLE, FOR_BACKFILLS, FOR_RECONCILIATIONS, SHARED, Lane, Priority
from tests.fakes.aws.moto_cloud import Cloud, cloud

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Time:
    """A clock that only waiting moves."""

    def __init__(self) -> None:
        self.now = START

    def sleep(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture(scope="module")
def stack() -> Iterator[Cloud]:
    with cloud() as stack:
        yield stack


@pytest.fixture
def time(stack: Cloud) -> Iterator[Time]:
    for pk in ("BUDGET#kommo", "BUDGET#kommo#one", "BUDGET#kommo#two"):
        for item in list(stack.table.query_all(pk)):
            stack.table.delete(item["pk"], item["sk"])
    time = Time()
    with patch.object(clock, "now", lambda: time.now), patch.object(clock, "sleep", time.sleep):
        yield time


def sent(budget: RequestBudget, time: Time, priority: Priority, count: int, account: str = "one") -> list[float]:
    """The times of so many requests, in seconds since the start."""
    times = []
    for _ in range(count):
        budget.wait(priority, account)
        times.append((time.now - START).total_seconds())
    return times


def exhaust(counters: SlotCounters, priority: Priority) -> BudgetExhausted:
    """Claim all slots that a priority may claim now, and return the refusal of the next one."""
    while True:
        try:
            counters.claim(priority.rules)
        except BudgetExhausted as refused:
            return refused


@pytest.mark.parametrize("priority", list(Priority))
def test_budget_requests_of_one_process_never_exceed_the_limit(stack: Cloud, time: Time, priority: Priority) -> None:
    times = sent(RequestBudget(stack.table, "kommo", 1), time, priority, 40)
    assert all(later - earlier >= 1 for earlier, later in zip(times, times[7:], strict=False))
    most_a_second = 3 if priority.account_rules else 5
    assert times[-1] == pytest.approx(40 / most_a_second, rel=0.3)


def test_budget_is_shared_by_processes(stack: Cloud, time: Time) -> None:
    budgets = [RequestBudget(stack.table, "kommo", 1) for _ in range(4)]
    times = []
    for number in range(40):
        times += sent(budgets[number % 4], time, Priority.EXCHANGE, 1)
    assert all(later - earlier >= 1 for earlier, later in zip(times, times[7:], strict=False))


def test_budget_first_request_waits_for_nothing(stack: Cloud, time: Time) -> None:
    assert sent(RequestBudget(stack.table, "kommo", 1), time, Priority.EXCHANGE, 1)[0] <= 2 / 6


def test_budget_without_shared_addresses_limits_only_reading(stack: Cloud, time: Time) -> None:
    budget = RequestBudget(stack.table, "kommo", 0)
    for priority in (Priority.EXCHANGE, Priority.REFRESH, Priority.CALL):
        assert sent(budget, time, priority, 20) == [0.0] * 20
    assert sent(budget, time, Priority.RECONCILIATION, 10)[-1] > 2
    assert list(stack.table.query_all("BUDGET#kommo"))


def test_budget_of_platform_without_limits_never_waits(stack: Cloud, time: Time) -> None:
    budget = RequestBudget(stack.table, "leadconnector", 1)
    assert sent(budget, time, Priority.BACKFILL, 20) == [0.0] * 20
    assert list(stack.table.query_all("BUDGET#leadconnector")) == []


def test_budget_exchange_waits_at_most_for_the_slots_that_lower_priorities_may_claim(stack: Cloud, time: Time) -> None:
    exhaust(SlotCounters(stack.table, "kommo", 6.0), Priority.RECONCILIATION)
    (waited_s,) = sent(RequestBudget(stack.table, "kommo", 1), time, Priority.EXCHANGE, 1)
    assert waited_s <= 0.7


def test_budget_reading_has_a_slot_within_a_cycle_while_calls_take_the_rest(stack: Cloud, time: Time) -> None:
    address = SlotCounters(stack.table, "kommo", 6.0)
    reading = SlotCounters(stack.table, "kommo", 6.0)
    cycle_s = CYCLE / 6
    for _ in range(5):
        assert (exhaust(address, Priority.CALL).after_s or 0) > 0
        for priority in (Priority.BACKFILL, Priority.RECONCILIATION):
            assert reading.claim(priority.rules) - time.now.timestamp() <= cycle_s
        time.sleep(cycle_s)


def test_budget_refused_reading_waits_for_its_next_lane_slot(stack: Cloud, time: Time) -> None:
    address = SlotCounters(stack.table, "kommo", 6.0)
    time.sleep(exhaust(address, Priority.RECONCILIATION).after_s or 0)
    address.claim(Priority.RECONCILIATION.rules)


def test_budget_claim_of_a_process_that_dies_passes_with_time(stack: Cloud, time: Time) -> None:
    # None of them is used.
    exhaust(SlotCounters(stack.table, "kommo", 6.0), Priority.EXCHANGE)
    time.sleep(6)
    assert sent(RequestBudget(stack.table, "kommo", 1), time, Priority.EXCHANGE, 1)[0] <= 6 + 2 / 6


def test_budget_counter_of_a_wrong_clock_is_reset(stack: Cloud, time: Time) -> None:
    time.now += timedelta(days=400)
    SlotCounters(stack.table, "kommo", 6.0).claim(Priority.EXCHANGE.rules)
    time.now = START
    assert sent(RequestBudget(stack.table, "kommo", 1), time, Priority.EXCHANGE, 1)[0] <= 2 / 6


def test_budget_claim_answered_after_its_slot_takes_a_later_one(stack: Cloud, time: Time) -> None:
    counters, update = SlotCounters(stack.table, "kommo", 6.0), type(stack.table).update

    def slow(*args: object, **more: object) -> object:
        answer = update(*args, **more)  # type: ignore[arg-type]
        time.sleep(0.5)
        return answer

    with patch.object(type(stack.table), "update", slow):
        begins_at = counters.claim(Priority.EXCHANGE.rules)
    assert begins_at + counters.slot_s > time.now.timestamp()


def test_budget_one_account_leaves_half_of_the_slots_to_others(stack: Cloud, time: Time) -> None:
    budget = RequestBudget(stack.table, "kommo", 1)
    greedy = sent(budget, time, Priority.CALL, 10, "one")
    assert greedy[-1] >= 2.5
    before = time.now
    budget.wait(Priority.CALL, "two")
    assert time.now - before <= timedelta(seconds=0.5)


def test_budget_account_counter_expires(stack: Cloud, time: Time) -> None:
    RequestBudget(stack.table, "kommo", 1).wait(Priority.CALL, "one")
    (item,) = stack.table.query_all("BUDGET#kommo#one")
    assert item["expires_at"] > time.now.timestamp()


def test_budget_configured_addresses_multiply_the_rate(stack: Cloud, time: Time) -> None:
    try:
        request_budget.configure("3")
        for _ in range(30):
            request_budget.wait(stack.table, "kommo", Priority.EXCHANGE)
        assert (time.now - START).total_seconds() <= 2.5
    finally:
        request_budget.configure("0")


@pytest.mark.parametrize("lane", [SHARED, FOR_BACKFILLS, FOR_RECONCILIATIONS])
def test_lane_indexes_and_slots_agree(lane: Lane) -> None:
    slots = [lane.slot(index) for index in range(100)]
    assert slots == sorted(set(slots))
    for slot in range(1, 80):
        assert lane.slot(lane.first(slot)) >= slot > lane.slot(lane.first(slot) - 1)
        assert lane.slot(lane.last(slot)) <= slot < lane.slot(lane.last(slot) + 1)


def test_lanes_divide_the_cycle() -> None:
    positions = [position for lane in (SHARED, FOR_BACKFILLS, FOR_RECONCILIATIONS) for position in lane.positions]
    assert sorted(positions) == list(range(CYCLE))
