"""The simulated fleet behaves as the product does: nothing is lost, and a limit that is lowered shows."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

import pytest

from bench.fleet import bill, configuration, report
from bench.fleet.call_counts import count_batches
from bench.fleet.configuration import Configuration, ReadingRules, read_template
from bench.fleet.meters import Ages, BusyShare, Meters
from bench.fleet.model import Day, Usage
from bench.fleet.pauses import Pauses
from bench.fleet.workload import HOUR, Destination, Fleet, Outage
from portaria.platforms.leadconnector import persons

# An hour of 20 events a second of 40 accounts, all of them for four subscriptions of Marketo.
SMALL = Fleet(
    accounts=40,
    busy=0,
    leadconnector_part=0.0,
    marketo_subscriptions=4,
    bursts=0,
    installs=0,
    outage=None,
    parked_subscription=None,
    begin=0.0,
    end=HOUR,
    renewals_at=24 * HOUR,
    even_per_s=20.0,
)


def configured(**concurrency: int) -> Configuration:
    """The template's defaults with another concurrency of some queues."""
    default = read_template()
    changed = {name: replace(default.sources[name], concurrency=count) for name, count in concurrency.items()}
    return replace(default, sources=default.sources | changed)


def run(fleet: Fleet, given: Configuration | None = None, *, seed: int = 1) -> Day:
    return Day(fleet, given or configured(), seed=seed).run()


def test_day_same_seed_gives_same_figures() -> None:
    fleet = replace(SMALL, even_per_s=0.0, events_a_month=20e6, outage=Outage("marketo", 600.0, 1_200.0, 0.3))
    first, second, other = run(fleet), run(fleet), run(fleet, seed=9)
    assert first.usages() == second.usages()
    assert first.oldest_s == second.oldest_s
    assert first.arrived != other.arrived


@pytest.mark.parametrize("end", [600.0, 1_800.0, HOUR])
def test_day_with_failures_conserves_events(end: float) -> None:
    outage = Outage("leadconnector", 300.0, 2_000.0, 0.3)
    fleet = replace(SMALL, leadconnector_part=0.3, outage=outage, parked_subscription=0, parked_until=2_400.0, end=end)
    day = run(fleet, replace(configured(), retry_waits_s=(60.0, 120.0)))
    assert day.is_conserved
    assert day.live.accepted == 20 * end
    assert day.live.delivered > 0
    if end == HOUR:
        assert day.live.dead > 0


def test_day_halved_concurrency_ages_queue() -> None:
    fleet = replace(SMALL, even_per_s=50.0, end=900.0)
    enough, half = run(fleet, configured(Records=2)), run(fleet, configured(Records=1))
    assert enough.oldest_s["Records"] < 30
    assert half.oldest_s["Records"] > 5 * enough.oldest_s["Records"]
    assert half.live.ages["live"].percentile(0.5) > enough.live.ages["live"].percentile(0.5)
    assert {usage.name: usage.percent for usage in half.usages()}["workers of Records"] > 99


def test_day_parked_destination_does_not_delay_others() -> None:
    without = run(SMALL)
    beside = run(replace(SMALL, parked_subscription=0, parked_until=24 * HOUR))
    assert len(beside.live.waiting[0].parked) == pytest.approx(beside.arrived / 4, rel=0.1)
    assert beside.live.delivered + len(beside.live.waiting[0]) + 200 > beside.arrived
    assert beside.live.ages["live"].percentile(0.99) <= 1.1 * without.live.ages["live"].percentile(0.99)


def test_day_parked_destination_released_delivers_its_events() -> None:
    day = run(replace(SMALL, parked_subscription=0, parked_until=1_800.0))
    assert not day.live.waiting[0]
    assert day.oldest_s["WaitingRecords"] == pytest.approx(1_800, abs=120)


def test_day_outage_longer_than_retries_makes_dead_letters() -> None:
    short = run(replace(SMALL, outage=Outage("marketo", 0.0, 300.0, 0.3)))
    fleet = replace(SMALL, even_per_s=1.0, outage=Outage("marketo", 0.0, HOUR, 0.3))
    long = run(fleet, replace(configured(), retry_waits_s=(60.0, 60.0)))
    assert short.live.dead == 0
    assert short.live.recovered_at > 300
    assert long.live.dead > 0
    assert long.live.delivered == 0


def test_day_silent_platform_does_not_delay_other_destinations() -> None:
    fleet = replace(SMALL, leadconnector_part=0.5, end=1_800.0)
    without = run(fleet)
    beside = run(replace(fleet, outage=Outage("leadconnector", 120.0, 1_200.0, 10.0)))
    assert beside.live.ages["open"].percentile(0.99) <= without.live.ages["live"].percentile(0.99) + 10
    # One request at a time tried the host, at most one in each of its pauses.
    assert 5 <= beside.live.pauses.probes <= 1_200 / 15
    assert beside.live.dead == 0
    assert beside.is_conserved


def test_day_silent_subscription_pauses_only_itself() -> None:
    pauses, silent, other = Pauses(), Destination(0, "marketo"), Destination(1, "marketo")
    for at in (0.0, 20.0):
        pauses.fail(silent, at, 20.0)
    assert (pauses.close(silent, 41.0), pauses.close(other, 41.0)) == (True, False)
    for number in (2, 3, 4):
        pauses.fail(Destination(number, "marketo"), 20.0, 20.0)
    assert pauses.close(other, 41.0)
    assert not pauses.close(Destination(9, "leadconnector"), 41.0)


def test_day_location_gets_no_more_than_its_rate_limit() -> None:
    fleet = replace(SMALL, accounts=1, leadconnector_part=1.0, marketo_subscriptions=1, end=600.0)
    day = run(fleet)
    assert day.live.delivered <= 600 * (persons.REQUESTS_PER_SECOND or 0)
    assert day.live.delivered > 600
    assert day.is_conserved


def test_day_above_throttle_refuses_the_rest() -> None:
    throttle = configuration.Throttle(10.0, 20.0)
    day = run(replace(SMALL, end=600.0), replace(configured(), events_throttle=throttle))
    assert day.live.accepted == pytest.approx(6_000, abs=25)
    assert day.live.refused == 20 * 600 - day.live.accepted
    assert {usage.name: usage.percent for usage in day.usages()}["EventsThrottle"] == pytest.approx(200, rel=0.1)


def test_day_installs_with_one_worker_are_late() -> None:
    fleet = replace(SMALL, even_per_s=1.0, installs=600, installs_at=0.0, installs_within=10.0)
    enough = run(fleet, configured(Exchanges=5))
    few = configured(Exchanges=1)
    one = run(fleet, replace(few, sources=few.sources | {"Exchanges": replace(few.sources["Exchanges"], batch=1)}))
    assert (enough.installs.connected, enough.installs.late) == (600, 0)
    assert one.installs.late > 300


def test_day_renewals_fit_before_tokens_end_or_are_reported() -> None:
    fleet = replace(SMALL, even_per_s=0.1, accounts=1_000, renewals_at=600.0, token_life_s=10_000.0)
    day = run(fleet)
    assert day.renewals.renewed == 1_000
    assert 0 < day.renewals.slack_used < 0.5
    assert run(replace(fleet, token_life_s=1_000.0)).renewals.slack_used > 1


def test_day_readings_above_budget_fall_behind() -> None:
    rules = ReadingRules(workers=2, per_s=2.0, per_worker_s=2.0, least_s=1_800.0, most_s=1_800.0, sweep_limit=0)
    fleet = replace(SMALL, even_per_s=0.1, accounts=5_000, events_a_month=1e3, end=2 * HOUR)
    behind = run(fleet, replace(configured(), readings=rules))
    idle = run(fleet, replace(configured(), readings=replace(rules, most_s=86_400.0)))
    assert behind.readings.oldest_s > 600
    assert {usage.name: usage.percent for usage in behind.usages()}["workers of Backfills"] > 99
    assert idle.readings.oldest_s < 60


def test_template_size_changes_concurrency_of_records() -> None:
    small, large = read_template(), read_template(Size="large")
    assert large.sources["Records"].concurrency > small.sources["Records"].concurrency
    assert large.sources["Records"].batch == small.sources["Records"].batch
    with pytest.raises(KeyError):
        read_template(NoSuchParameter="1")


def test_quotas_name_source_and_date() -> None:
    for quota in configuration.quotas().values():
        assert quota.value > 0
        assert quota.source.startswith("https://docs.aws.amazon.com/")
        assert quota.read >= "2026-11-01"


def test_counted_batch_writes_one_mark_for_each_record() -> None:
    calls = count_batches()
    marks = [line for key, line in calls.writes.items() if key.startswith("MARK#")]
    assert [(line.fixed, line.each) for line in marks] == [(0.0, 1.0)]
    # Receipts are written for a request, whatever the number of its records.
    assert calls.writes["listing:RECEIPTS#marketo-*"].each == 0


def test_counted_parked_batch_writes_waiting_lists_for_each_source() -> None:
    calls = count_batches(parked=True)
    assert calls.writes["WAITING#marketo-*"].each > 0
    assert calls.writes["listing:WAITING"].each == 0


def test_meters_long_use_is_spread_over_its_seconds() -> None:
    meters = Meters()
    meters.add("writes", 10.0, 30.0, 3.0)
    meters.add("writes", 11.5, 5.0)
    meters.end()
    assert (meters.peaks["writes"].value, meters.peaks["writes"].at) == (15.0, 11)
    assert meters.totals["writes"] == 35


def test_busy_share_counts_windows_separately() -> None:
    busy = BusyShare(concurrency=2, window_s=100.0)
    busy.add(50.0, 100.0)
    assert busy.percent == 25
    busy.add(100.0, 100.0)
    assert busy.percent == 75


def test_ages_percentiles_of_known_values() -> None:
    ages = Ages()
    for age in range(1, 101):
        ages.add(age / 100)
    assert (ages.percentile(0.5), ages.percentile(0.99), ages.largest) == (0.5, 0.99, 1.0)


def test_bill_month_grows_with_accounts_and_events() -> None:
    day = run(replace(SMALL, end=60.0))
    units = bill.used_units(day)
    assert units["api_call"] == day.arrived
    assert bill.fixed_units(day)["secret_month"] == 42
    assert bill.month(day)["secret_month"] == pytest.approx(42 * 0.40)


def test_find_breaking_load_narrows_to_the_first_broken_limit() -> None:
    def worst(factor: float, given: Configuration, tried: dict[str, object]) -> Usage:
        return Usage("workers of Records", 60 * factor, 0, 1)

    with patch.object(report, "_worst", worst):
        usage, factor, _ = report.find_breaking_load(configured())
    assert usage.name == "workers of Records"
    assert 99.5 / 60 <= factor <= 99.5 / 60 + 0.07
