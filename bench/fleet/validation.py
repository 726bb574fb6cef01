"""The model against `record_load`: the same load with the local cloud's service times, and what the local cloud took.

`validation.toml` has one run of record_load: its pace, how long the local cloud takes for a batch, and the delays that were
measured. The model gets the pace and the times, and must find the delays.
"""

from __future__ import annotations

import tomllib
from dataclasses import replace

from bench.fleet.configuration import HERE, read_template
from bench.fleet.model import Day
from bench.fleet.workload import Fleet


def validate() -> dict[str, float]:
    """The median and the 99th percentile of a live event's delay, as the model says and as record_load measured."""
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
    day = Day(fleet, configured, times=measured["service_times"], spread=measured["spread"]).run()
    modelled_p50, modelled_p99 = (day.live.ages["live"].percentile(part) for part in (0.5, 0.99))
    errors = [
        abs(modelled / taken - 1)
        for modelled, taken in ((modelled_p50, measured["live_p50_s"]), (modelled_p99, measured["live_p99_s"]))
    ]
    return {
        "validation_modelled_p50_s": modelled_p50,
        "validation_measured_p50_s": measured["live_p50_s"],
        "validation_modelled_p99_s": modelled_p99,
        "validation_measured_p99_s": measured["live_p99_s"],
        "validation_error_percent": 100 * max(errors),
    }
