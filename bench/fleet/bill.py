"""What a simulated day costs, and a month of it: used units times the prices of bench/cost/prices.json.

Fixed costs beside secrets, the key and the queues' polls (alarms, metrics, logs' storage) are in docs/cost.md.
"""

from __future__ import annotations

import json
from typing import Any

from bench.fleet.model import Day
from bench.fleet.workload import DAYS_A_MONTH
from bench.report import ROOT

PRICES = ROOT / "bench" / "cost" / "prices.json"
RECORD_BYTES, LOG_BYTES_A_CALL = 600, 1_000
# Lambda keeps five long polls of 20 seconds open at each queue.
POLLS_A_MONTH = 5 * DAYS_A_MONTH * 86_400 / 20


def used_units(day: Day) -> dict[str, float]:
    """What the day used of everything that has a price, by its name in prices.json."""
    totals, live = day.meters.totals, day.live
    sent = live.delivered + day.readings.records
    return {
        "api_call": totals["api_gateway_requests"],
        "lambda_request": totals["invocations"],
        "lambda_gb_s": day.steps.busy_gb_s,
        "dynamodb_write": totals["dynamodb_table_writes"],
        "dynamodb_read": totals["dynamodb_table_reads"],
        "sqs_request": totals["sqs_requests"],
        "sqs_group": live.accepted,
        "secret_call": totals["secrets_reads"] + totals["secrets_writes"],
        "key_call": totals["kms_requests"],
        "schedule": totals["scheduler_invocations"],
        "log_gb": totals["invocations"] * LOG_BYTES_A_CALL / 1e9,
        "out_gb": sent * RECORD_BYTES / 1e9,
    }


def fixed_units(day: Day) -> dict[str, float]:
    """What a month costs without any traffic."""
    return {
        "secret_month": day.fleet.accounts + 2,
        "key_month": 1,
        "sqs_request": day.configured.queues * POLLS_A_MONTH,
    }


def dollars(units: dict[str, float]) -> dict[str, float]:
    prices: dict[str, dict[str, Any]] = json.loads(PRICES.read_text())["prices"]
    return {name: count * prices[name]["usd"] / prices[name]["per"] for name, count in units.items()}


def month(day: Day) -> dict[str, float]:
    """US dollars a month by what they pay for: the day's use, scaled to the month's events, and the fixed costs."""
    scale = day.fleet.events_a_month / max(1, day.arrived)
    used = {name: cost * scale for name, cost in dollars(used_units(day)).items()}
    for name, cost in dollars(fixed_units(day)).items():
        used[name] = used.get(name, 0.0) + cost
    return used
