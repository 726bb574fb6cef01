"""When accounts are read next."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portaria.records import reconciliation_schedule, reconciliation_wakeups
from portaria.records.reconciliation_schedule import Bounds

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
BOUNDS = Bounds.of_minutes("30", "720")


@pytest.mark.parametrize(
    ("idle", "minutes"),
    [
        (timedelta(0), 30),
        (timedelta(hours=3, minutes=59), 30),
        (timedelta(hours=4), 60),
        (timedelta(hours=10), 120),
        (timedelta(hours=63), 480),
        (timedelta(hours=64), 720),
        (timedelta(days=3_000), 720),
        (timedelta(hours=-1), 30),
    ],
)
def test_interval_grows_with_idle_time_between_its_bounds(idle: timedelta, minutes: int) -> None:
    assert BOUNDS.interval(idle) == timedelta(minutes=minutes)


@given(st.timedeltas(timedelta(days=-10), timedelta(days=3_650)), st.integers(5, 1_440), st.integers(5, 10_080))
def test_interval_is_never_outside_its_bounds_and_at_most_a_quarter_of_idle_time(
    idle: timedelta, least: int, most: int
) -> None:
    bounds = Bounds.of_minutes(str(least), str(most))
    every = bounds.interval(idle)
    assert timedelta(minutes=least) <= every <= timedelta(minutes=max(least, most))
    assert every == bounds.least or every <= idle / 4


@given(
    st.integers(1_767_225_600, 4_000_000_000).map(lambda second: datetime.fromtimestamp(second + 0.37, UTC)),
    st.integers(300, 700_000),
    st.floats(0, 1, exclude_max=True),
)
def test_due_time_is_after_now_and_at_most_one_interval_away(now: datetime, every_s: int, phase: float) -> None:
    due_at = reconciliation_schedule.due_at(now, timedelta(seconds=every_s), phase)
    assert now < due_at <= now + timedelta(seconds=every_s)
    # Read when it was due, it is due again exactly one interval later.
    assert reconciliation_schedule.due_at(due_at, timedelta(seconds=every_s), phase) - due_at == timedelta(
        seconds=every_s
    )


def test_due_times_of_accounts_installed_together_are_spread_over_the_whole_interval() -> None:
    every, parts = timedelta(hours=12), 72
    counts = [0] * parts
    for number in range(10_000):
        phase = reconciliation_wakeups.phase(f"kommo-acme-{number}", "contacts")
        due_at = reconciliation_schedule.due_at(NOW, every, phase)
        counts[min(parts - 1, int((due_at - NOW) / every * parts))] += 1
    # 10,000 accounts in 72 parts of ten minutes: 139 each if they were spread perfectly.
    assert min(counts) > 80
    assert max(counts) < 210
