"""The same work elsewhere: a naive design on AWS, a self-hosted Nango, and hosted services at their published prices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.cost.bill import MILLION, Bill
from bench.cost.fleets import Fleet
from bench.cost.flows import Assumed, logs, sampled

ALTERNATIVES = Path(__file__).with_name("alternatives.json")


def naive(assumed: Assumed, *, api: bool) -> Bill:
    """A million records, each with one invocation that waits for the destination, one request and one table write."""
    return Bill(
        api_call=MILLION if api else 0,
        lambda_request=MILLION,
        lambda_gb_s=MILLION * assumed.naive_s * assumed.naive_mb / 1_024,
        dynamodb_write=MILLION,
        trace=MILLION * sampled(assumed.records_a_second),
        out_gb=MILLION * (assumed.record_bytes + 500) / 1e9,
        **logs(assumed, MILLION * assumed.log_bytes_a_call),
    )


def naive_month(assumed: Assumed, fleet: Fleet) -> Bill:
    """A month of a fleet in the naive design, with a secret for each account."""
    bill = naive(assumed, api=True).times((fleet.live + fleet.front_door) / MILLION)
    return bill.add(**naive(assumed, api=False).times(fleet.backfilled / MILLION)).add(secret_month=fleet.accounts)


def read_alternatives() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(ALTERNATIVES.read_text())
    return document


def nango_usd(document: dict[str, Any]) -> float:
    """Instances only, whatever the fleet: the smallest on which its services run, without anyone's time."""
    return float(sum(part["usd"] * part["count"] for part in document["instances"].values()))


def hosted_usd(document: dict[str, Any], accounts: int) -> dict[str, float]:
    """By service, without those whose price could not be read."""
    found = {}
    for name, price in document["hosted"].items():
        if price["base_usd"] is None:
            continue
        further = max(0, accounts - (price["base_accounts"] or accounts))
        found[name] = float(price["base_usd"] + further * price["account_usd"])
    return found
