"""Bills: the quantity of each item that AWS charges for, and its cost at the prices in prices.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

PRICES = Path(__file__).with_name("prices.json")
MILLION = 1_000_000
DAYS = 30.4
SECONDS_A_MONTH = DAYS * 86_400

# The services of the bill, in the order of the tables, and the prices that each is made of.
SERVICES = {
    "API Gateway": ("api_call",),
    "Lambda requests": ("lambda_request",),
    "Lambda duration": ("lambda_gb_s",),
    "DynamoDB writes": ("dynamodb_write",),
    "DynamoDB reads": ("dynamodb_read",),
    "DynamoDB storage, backups": ("dynamodb_gb_month", "backup_gb_month"),
    "SQS": ("sqs_request", "sqs_group"),
    "secrets": ("secret_month", "secret_call"),
    "KMS": ("key_month", "key_call"),
    "EventBridge": ("event", "schedule"),
    "alarms": ("alarm_month", "email"),
    "dashboard": ("dashboard_month",),
    "custom metrics": ("metric_month",),
    "requests to CloudWatch": ("cloudwatch_request",),
    "metrics of the API": ("api_metric_month",),
    "logs": ("log_gb", "log_stored_gb"),
    "traces": ("trace",),
    "data transfer": ("out_gb",),
    "packages in S3": ("artifact_gb_month",),
    "firewall, domain": ("web_acl_month", "hosted_zone_month"),
}


class Price(NamedTuple):
    """`usd` for `per` units. `confirmed` is false where no page with the figure could be read."""

    usd: float
    per: float
    unit: str
    source: str
    read: str
    official: bool
    confirmed: bool


class PriceList(NamedTuple):
    region: str
    as_of: str
    prices: dict[str, Price]


def read_prices() -> PriceList:
    document = json.loads(PRICES.read_text())
    prices = {name: Price(**price) for name, price in document["prices"].items()}
    return PriceList(document["region"], document["as_of"], prices)


class Bill(dict[str, float]):
    """Quantities by the name of their price."""

    def add(self, **counts: float) -> Bill:
        for name, count in counts.items():
            self[name] = self.get(name, 0.0) + count
        return self

    def times(self, factor: float) -> Bill:
        return Bill({name: count * factor for name, count in self.items()})

    def dollars(self, prices: PriceList, names: tuple[str, ...] | None = None) -> float:
        """Of all, or of the prices in `names`. Raises `KeyError` for a quantity without a price."""
        counted = {name: count for name, count in self.items() if names is None or name in names}
        return sum(count * prices.prices[name].usd / prices.prices[name].per for name, count in counted.items())

    def lines(self, prices: PriceList) -> dict[str, float]:
        """The cost of each service in USD. Services that cost nothing are left out."""
        found = {service: self.dollars(prices, names) for service, names in SERVICES.items()}
        return {service: usd for service, usd in found.items() if usd}


def total(bills: list[Bill]) -> Bill:
    whole = Bill()
    for bill in bills:
        whole.add(**bill)
    return whole
