"""`python -m bench fleet`: one day of 10,000 accounts on paper, what it uses of each limit, and the load that breaks the first.

Everything here is simulated. The figures are as good as `service_times.toml`, whose assumed times no benchmark of this
repository can measure. docs/benchmarks.md says what the model leaves out.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import simpy
from rich.table import Table

from bench.fleet import bill
from bench.fleet.configuration import Configuration, read_template
from bench.fleet.model import Day, Usage
from bench.fleet.validation import validate
from bench.fleet.workload import HOUR, Fleet, Outage
from bench.report import BUILD, conclude, console

# A fleet of this size needs these parameters; the defaults are for smaller ones.
PARAMETERS = {
    "Size": "large",
    "EventsThrottle": "1000,2000",
    "ReconcileEvery": "45",
    "RetryAfterMinutes": "5,30,60,60",
}
SEED = 1
FACTORS = (1.0, 1.5, 2.0, 3.0, 4.0)
HALVINGS = 3
BROKEN = 99.5
LIMITS = {"nearest_percent": 80.0, "installs_over_2_min": 0.0, "not_conserved": 0.0, "validation_error_percent": 30.0}


def measure() -> bool:
    configured = read_template(**PARAMETERS)
    day = _simulate("A day of 10,000 accounts", Fleet(), configured)
    defaults = _simulate("Its busiest hours with the template's defaults", Fleet().at_peak(), read_template())
    slow = _simulate("Its busiest hours with an outage of timeouts", _with_timeouts(), configured)
    broken, factor, tried = find_breaking_load(configured)
    validation = validate()
    show(day, defaults, slow)
    nearest = day_limits(day)[0]
    console.print(
        f"{broken.name} is the first limit that is reached when the load grows: at {factor:.2f} times the fleet. "
        f"simpy handled {_jobs_per_s():,.0f} jobs a second here."
    )
    live, monthly = day.live, bill.month(day)
    open_ages = live.ages["open"]
    figures = {
        "accounts": day.fleet.accounts,
        "events": day.arrived,
        "nearest_percent": nearest.percent,
        "installs": day.installs.connected,
        "installs_over_2_min": day.installs.late,
        "slowest_install_s": day.installs.slowest_s,
        "live_p50_s": open_ages.percentile(0.5),
        "live_p99_s": open_ages.percentile(0.99),
        "live_max_s": open_ages.largest,
        "all_p99_s": live.ages["live"].percentile(0.99),
        "timeouts_live_p99_s": slow.live.ages["open"].percentile(0.99),
        "refused": live.refused,
        "defaults_refused": defaults.live.refused,
        "dead_letters": live.dead,
        "waited_most": live.waited_most,
        "outage_recovered_after_s": live.recovered_at - day.fleet.outage.end if day.fleet.outage else 0.0,
        "undelivered": live.undelivered,
        "not_conserved": float(not day.is_conserved),
        "renewal_time_used_percent": 100 * day.renewals.slack_used,
        "reconciliation_overdue_s": day.readings.most_overdue_s,
        "slowest_backfill_s": day.readings.slowest_backfill_s,
        "usd_of_the_day": sum(bill.dollars(bill.used_units(day)).values()),
        "usd_per_month": sum(monthly.values()),
        "usd_per_month_without_secrets_and_api_gateway": sum(monthly.values())
        - monthly["secret_month"]
        - monthly["api_call"],
        "breaks_at_accounts": day.fleet.accounts * factor,
        "breaks_at_events_a_month": day.fleet.events_a_month * factor,
        **validation,
    }
    kept = conclude("fleet", figures, LIMITS)
    _add_texts(
        nearest_limit=nearest.name,
        breaks_first=broken.name,
        parameters=PARAMETERS,
        quotas_percent=_percents(day),
        defaults_quotas_percent=_percents(defaults),
        breaking_load=tried,
        oldest_s={name: round(age, 1) for name, age in day.oldest_s.items()},
        usd_per_month_by_price={name: round(cost, 2) for name, cost in monthly.items()},
    )
    return kept


def day_limits(day: Day) -> list[Usage]:
    """The limits that count for the goal: without workers on work that can wait: drains after a failure, backfills."""
    return [usage for usage in day.usages() if not usage.can_wait]


def find_breaking_load(
    configured: Configuration, factors: tuple[float, ...] = FACTORS
) -> tuple[Usage, float, dict[str, Any]]:
    """The limit that is reached first when accounts and events grow together, at how many times the fleet, and what was tried.

    The answer is the least tried factor that breaks a limit, within an eighth of the step between two factors.
    """
    tried: dict[str, Any] = {}
    first: Usage | None = None
    works, breaks = 0.0, factors[-1]
    for factor in factors:
        usage = _worst(factor, configured, tried)
        if usage.percent >= BROKEN:
            first, breaks = usage, factor
            break
        works = factor
        first = usage
    assert first is not None
    if first.percent < BROKEN:
        return first, factors[-1], tried
    for _ in range(HALVINGS):
        middle = (works + breaks) / 2
        usage = _worst(middle, configured, tried)
        if usage.percent >= BROKEN:
            first, breaks = usage, middle
        else:
            works = middle
    return first, breaks, tried


def _worst(factor: float, configured: Configuration, tried: dict[str, Any]) -> Usage:
    day = _simulate(f"{factor:.2f} times the fleet", Fleet().grown(factor).at_peak(), configured)
    usages = day_limits(day)
    tried[f"{factor:.3f}"] = {usage.name: round(usage.percent, 1) for usage in usages[:5]}
    return usages[0]


def _with_timeouts() -> Fleet:
    outage = Outage("leadconnector", 9 * HOUR, 11 * HOUR, 10.0)
    return replace(Fleet().at_peak(), outage=outage, end=10 * HOUR)


def _simulate(title: str, fleet: Fleet, configured: Configuration) -> Day:
    began = time.monotonic()
    with console.status(f"{title} …") as status:

        def progress(part: float) -> None:
            status.update(f"{title}: {part:.0%}")

        day = Day(fleet, configured, seed=SEED).run(progress)
    console.print(f"✓ {title} [dim]{time.monotonic() - began:.0f} s, {day.arrived:,} events[/]")
    return day


def _jobs_per_s() -> float:
    """How many jobs simpy handles: why single events of the fleet are not processes of it."""
    env = simpy.Environment()
    places = simpy.Resource(env, 5)

    def job() -> Any:
        with places.request() as place:
            yield place
            yield env.timeout(0.1)

    def source() -> Any:
        for _ in range(20_000):
            env.process(job())
            yield env.timeout(0.05)

    env.process(source())
    began = time.process_time()
    env.run()
    return 20_000 / (time.process_time() - began)


def show(day: Day, defaults: Day, slow: Day) -> None:
    shown = Table(title="Peak use of limits (%)", title_justify="left")
    shown.add_column("", no_wrap=True)
    for heading in ("day", "at", "defaults", "timeouts"):
        shown.add_column(heading, justify="right", no_wrap=True)
    others = [{usage.name: usage for usage in each.usages()} for each in (defaults, slow)]
    for usage in day.usages():
        if usage.percent < 0.5:
            continue
        hour, minute = divmod(int(usage.at) // 60, 60)
        percents = [f"{each[usage.name].percent:.1f}" if usage.name in each else "" for each in others]
        name = usage.name.removeprefix("dynamodb_key_") + (" (can wait)" if usage.can_wait else "")
        shown.add_row(name, f"{usage.percent:.1f}", f"{hour:02}:{minute:02}" if usage.at else "", *percents)
    console.print(shown)
    oldest = ", ".join(f"{name} {age:,.0f} s" for name, age in day.oldest_s.items())
    console.print(f"Largest age of each queue: {oldest}")


def _percents(day: Day) -> dict[str, float]:
    return {usage.name: round(usage.percent, 1) for usage in day.usages()}


def _add_texts(**texts: Any) -> None:
    """Add the values that are not numbers to build/bench/fleet.json."""
    path = BUILD / "fleet.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **texts}, indent=2) + "\n")
