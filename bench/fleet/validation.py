"""The model against `record_load`: the same load with the local cloud's service times, and what the local cloud took.

`validation.toml` has runs of that load: its pace, how long the local cloud took for a batch, and the delays that were measured.
The model gets the pace and the times, and must find the delays.
"""

from __future__ import annotations

import tomllib
from dataclasses import replace
from typing import Any

from bench.fleet.configuration import HERE, Configuration, read_template
from bench.fleet.model import Day
from bench.fleet.workload import Fleet

ERROR = "validation_error_percent"


def validate() -> dict[str, float]:
    """The delays of the worst run, as the model says and as they were measured; the error is the largest of all."""
    measured = tomllib.loads((HERE / "validation.toml").read_text())
    configured = read_template()
    # The local cloud invokes at once, without waiting for a batch to fill.
    source = replace(configured.sources["Records"], window_s=0.0)
    configured = replace(configured, sources={**configured.sources, "Records": source})
    fleet = Fleet(
        accounts=measured["tenants"],
        busy=0,
        leadconnector_part=0.0,
        marketo_subscriptions=1,
        bursts=0,
        installs=0,
        outage=None,
        parked_subscription=None,
        even_per_s=measured["events_a_second"],
        tick_s=0.02,
        begin=0.0,
        end=1_800.0,
        renewals_at=86_400.0,
    )
    return max((_compare(fleet, configured, run) for run in measured["run"]), key=lambda each: each[ERROR])


def _compare(fleet: Fleet, configured: Configuration, run: dict[str, Any]) -> dict[str, float]:
    day = Day(fleet, configured, times=run["service_times"], spread=run["spread"]).run()
    ages = day.live.ages["live"]
    modelled = {"p50_s": ages.percentile(0.5), "p99_s": ages.percentile(0.99)}
    taken = {name: run[f"live_{name}"] for name in modelled}
    return {
        **{f"validation_modelled_{name}": value for name, value in modelled.items()},
        **{f"validation_measured_{name}": value for name, value in taken.items()},
        ERROR: 100 * max(abs(modelled[name] / taken[name] - 1) for name in modelled),
    }
