"""What a million records cost, by which way they come, and 10,000 idle connections a month: computed, not measured.

Prices are bench/prices.json's, without free tiers but where said otherwise; memory sizes, batch sizes, queues, alarms and
schedules are read from template.yaml; writes are counted from the code that makes them; what is assumed is in `Assumed` and
printed below the table. The naive design beside it has one invocation, one request to the destination and one table write
for each record, and waits for the destination's answer.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from rich.table import Table

from bench.report import ROOT, conclude, console

PRICES = Path(__file__).with_name("prices.json")
MILLION = 1_000_000
CONNECTIONS = 10_000
DAYS = 30.4
SECONDS_A_MONTH = DAYS * 86_400
# Lambda keeps five long polls of 20 seconds open at each queue that it drains.
POLLS_A_MONTH = 5 * SECONDS_A_MONTH / 20
# CloudWatch charges alarms and custom metrics by the metric, and the first ten of each are free.
FREE_ALARMS = FREE_METRICS = 10
# Metrics that are emitted while nothing happens, since a schedule starts the function each hour; all others cost only in the
# hours in which something happens.
IDLE_METRICS = (
    "RenewalsAgeSeconds", "RenewalMessages", "ConnectionsDue", "BackfillsAgeSeconds", "BackfillMessages", "BackfillsStarted",
    "ReconciliationsStarted", "PagesRead", "RecordsQueued", "WaitingRecordsAgeSeconds", "RecordsWaiting",
    "OldestWaitingSeconds", "WebhookDeliveriesAgeSeconds",
)  # fmt: skip
# Of the install hook's method, whose hours are few: Count, 4XXError, 5XXError, Latency and IntegrationLatency.
HOOK_METRICS, HOOK_HOURS_A_DAY = 5, 2.0

# What the bill calls them, in the table's order.
SERVICES = {
    "API Gateway": ("api_call",),
    "Lambda": ("lambda_request", "lambda_gb_s"),
    "DynamoDB": ("dynamodb_write", "dynamodb_read"),
    "SQS": ("sqs_request", "sqs_group"),
    "secrets": ("secret_month", "secret_call"),
    "the key": ("key_month", "key_call"),
    "alarms": ("alarm_month",),
    "metrics": ("metric_month",),
    "the hook's metrics": ("api_metric_month",),
    "schedules": ("schedule",),
    "logs": ("log_gb",),
    "traces (X-Ray)": ("trace",),
    "data out": ("out_gb",),
}


class Assumed(NamedTuple):
    """What is neither in the template nor in the code. Times are what a warm function is billed for."""

    record_bytes: int = 600
    records_a_second: float = 10.0
    receive_events_s: float = 0.020
    accept_records_s: float = 0.080
    ingest_of_40_events_s: float = 0.800
    ingest_of_1000_records_s: float = 1.200
    release_of_1000_records_s: float = 1.000
    backfill_page_s: float = 0.700
    renewal_s: float = 0.800
    webhook_attempt_s: float = 0.250
    fan_out_of_10_events_s: float = 0.200
    webhook_bytes: int = 1_500
    naive_s: float = 0.350
    naive_mb: int = 512
    front_door_records_a_call: int = 100
    contacts_a_page: int = 250
    messages_a_receive: int = 5
    log_bytes_a_call: int = 1_000
    log_bytes_a_batch: int = 3_000
    renewals_a_day: float = 1.0


class Shape(NamedTuple):
    """What template.yaml says."""

    memory_gb: dict[str, float]
    batch: int
    queues: int
    alarm_metrics: int
    runs_a_month: float


class Bill(dict[str, float]):
    """How much there is of what has a price."""

    def add(self, **counts: float) -> Bill:
        for name, count in counts.items():
            self[name] = self.get(name, 0.0) + count
        return self


def measure() -> bool:
    prices = json.loads(PRICES.read_text())
    shape, assumed = read_template(), Assumed()
    bills = {
        "live": (live(shape, assumed), naive(assumed, api=True)),
        "front_door": (front_door(shape, assumed), naive(assumed, api=True)),
        "backfill": (backfill(shape, assumed), naive(assumed, api=False)),
        "waiting": (waiting(shape, assumed), None),
        "webhooks": (webhooks(shape, assumed), None),
        "idle": (idle(shape, assumed, CONNECTIONS), None),
    }
    shown = Table(title=f"USD, list prices of {prices['region']} as of {prices['as_of']}", title_justify="left")
    shown.add_column("")
    for heading in ("live", "naive", "door", "naive", "backfill", "naive", "waiting", "webhooks", "idle"):
        shown.add_column(heading, justify="right")
    columns = [bill for pair in bills.values() for bill in pair if bill is not None]
    for service, names in SERVICES.items():
        costs = [dollars(bill, prices, names) for bill in columns]
        shown.add_row(service, *(f"{cost:,.2f}" if cost else "" for cost in costs))
    shown.add_section()
    totals = [dollars(bill, prices) for bill in columns]
    shown.add_row("together", *(f"{total:,.2f}" for total in totals))
    console.print(shown)
    nobody = dollars(idle(shape, assumed, 0), prices)
    explain(shape, assumed, prices, nobody)
    figures = {f"{name}_usd": dollars(ours, prices) for name, (ours, _) in bills.items()}
    figures |= {f"{name}_naive_usd": dollars(theirs, prices) for name, (_, theirs) in bills.items() if theirs}
    figures |= {
        f"{name}_ratio": dollars(ours, prices) / dollars(theirs, prices)
        for name, (ours, theirs) in bills.items()
        if theirs
    }
    figures["no_connection_usd"] = nobody
    return conclude("cost", figures, {})


def dollars(bill: Bill, prices: dict[str, Any], names: tuple[str, ...] | None = None) -> float:
    listed: dict[str, dict[str, float]] = prices["prices"]
    counted = [name for name in bill if names is None or name in names]
    return sum(bill[name] * listed[name]["usd"] / listed[name]["per"] for name in counted)


def live(shape: Shape, assumed: Assumed) -> Bill:
    """A million events, one record each, in batches that the window of five seconds fills."""
    bill = _calls(shape, assumed, "ReceiveEventsFunction", MILLION, assumed.receive_events_s)
    # The address is read once a minute in each instance; a record's mark is one conditional write.
    bill.add(dynamodb_write=MILLION, dynamodb_read=0.1 * MILLION)
    bill.add(**_messages(assumed, MILLION, assumed.record_bytes))
    return bill.add(**_batches(shape, assumed, MILLION / shape.batch, assumed.ingest_of_40_events_s, shape.batch))


def front_door(shape: Shape, assumed: Assumed) -> Bill:
    calls = MILLION / assumed.front_door_records_a_call
    batches = MILLION / 1_000
    bill = _calls(shape, assumed, "AcceptRecordsFunction", calls, assumed.accept_records_s)
    # The token, the connection, and the note of what was taken; a pointer for each call, and the list of them.
    bill.add(dynamodb_read=3 * calls, dynamodb_write=calls + calls + batches)
    bill.add(**_messages(assumed, calls, assumed.record_bytes * assumed.front_door_records_a_call))
    return bill.add(**_batches(shape, assumed, batches, assumed.ingest_of_1000_records_s, 1_000))


def backfill(shape: Shape, assumed: Assumed) -> Bill:
    pages = MILLION / assumed.contacts_a_page
    bill = Bill(
        lambda_gb_s=pages * assumed.backfill_page_s * shape.memory_gb["BackfillRecordsFunction"],
        lambda_request=pages / 50,
    )
    # Each page is checked off; each record's mark is looked at, so that none overwrites a newer one, and once more where its
    # request is not among the first of a batch.
    bill.add(dynamodb_write=2 * pages, dynamodb_read=2 * MILLION)
    bill.add(**_messages(assumed, pages, assumed.record_bytes * assumed.contacts_a_page))
    return bill.add(**_batches(shape, assumed, MILLION / 1_000, assumed.ingest_of_1000_records_s, 1_000))


def waiting(shape: Shape, assumed: Assumed) -> Bill:
    """What a million live events cost on top if they wait in the table for their destination."""
    bill = Bill()
    arriving, leaving = MILLION / shape.batch, MILLION / 1_000
    # An entry is put and deleted, and its version is marked again for its one way. Each batch that arrives or leaves writes the
    # list, and the backlog (an item in one index).
    bill.add(dynamodb_write=3 * MILLION + 3 * (arriving + leaving))
    # An entry is read, of which four kilobytes are one unit, and so is the mark of all ways.
    bill.add(dynamodb_read=MILLION * (1 + assumed.record_bytes / 4_000))
    bill.add(**_batches(shape, assumed, leaving, assumed.ingest_of_1000_records_s, 1_000))
    return bill.add(lambda_gb_s=leaving * assumed.release_of_1000_records_s * shape.memory_gb["ReleaseRecordsFunction"])


def webhooks(shape: Shape, assumed: Assumed) -> Bill:
    """A million events, each for one webhook that takes it at the first attempt."""
    bill = _calls(shape, assumed, "DeliverWebhooksFunction", MILLION, assumed.webhook_attempt_s)
    del bill["api_call"]
    batches = MILLION / 10
    bill.add(lambda_request=batches)
    bill.add(lambda_gb_s=batches * assumed.fan_out_of_10_events_s * shape.memory_gb["FanOutEventsFunction"])
    # The delivery is put and ended, each in one index too; a slot of the endpoint is taken and returned.
    units = math.ceil(assumed.webhook_bytes / 1_024)
    bill.add(dynamodb_write=MILLION * (2 * 2 * units + 2))
    # The webhooks by the fan-out, and by the worker the webhook, the delivery and the slots, all consistently.
    bill.add(dynamodb_read=4 * MILLION)
    bill.add(**_messages(assumed, MILLION, assumed.webhook_bytes))
    bill.add(**_messages(assumed, MILLION, 100))
    return bill.add(
        log_gb=batches * assumed.log_bytes_a_batch / 1e9, out_gb=MILLION * (assumed.webhook_bytes + 500) / 1e9
    )


def idle(shape: Shape, assumed: Assumed, connections: int) -> Bill:
    """A month in which nothing arrives, as docs/cost.md counts it: alarms and metrics above the ten free ones of each."""
    bill = Bill(secret_month=connections + 2, key_month=1, alarm_month=max(0, shape.alarm_metrics - FREE_ALARMS))
    bill.add(metric_month=max(0, len(IDLE_METRICS) - FREE_METRICS))
    bill.add(api_metric_month=HOOK_METRICS * HOOK_HOURS_A_DAY / 24 if connections else 0)
    # Each run of a schedule starts a short look into the table.
    runs = shape.runs_a_month
    bill.add(sqs_request=shape.queues * POLLS_A_MONTH, schedule=runs)
    bill.add(lambda_request=runs, lambda_gb_s=runs * 0.05 * 0.5, dynamodb_read=runs)
    # As `python -m bench renewal_sweep` counts: DynamoDB 7 (4 writes, 3 reads), Secrets Manager 4, KMS 1. Each write is made
    # in three indexes too. `by_filter`, the fourth, holds only keys, which a renewal does not change.
    renewals = connections * assumed.renewals_a_day * DAYS
    bill.add(dynamodb_write=16 * renewals, dynamodb_read=3 * renewals, secret_call=4 * renewals, key_call=renewals)
    bill.add(sqs_request=3 * renewals, lambda_request=renewals, log_gb=renewals * assumed.log_bytes_a_call / 1e9)
    return bill.add(lambda_gb_s=renewals * assumed.renewal_s * shape.memory_gb["RenewTokensFunction"])


def naive(assumed: Assumed, *, api: bool) -> Bill:
    """An invocation for each record that waits for the destination and writes one item."""
    return Bill(
        api_call=MILLION if api else 0,
        lambda_request=MILLION,
        lambda_gb_s=MILLION * assumed.naive_s * assumed.naive_mb / 1024,
        dynamodb_write=MILLION,
        log_gb=MILLION * assumed.log_bytes_a_call / 1e9,
        trace=MILLION * _traced(assumed.records_a_second),
        out_gb=MILLION * (assumed.record_bytes + 500) / 1e9,
    )


def _calls(shape: Shape, assumed: Assumed, function: str, calls: float, seconds: float) -> Bill:
    return Bill(
        api_call=calls,
        lambda_request=calls,
        lambda_gb_s=calls * seconds * shape.memory_gb[function],
        log_gb=calls * assumed.log_bytes_a_call / 1e9,
        trace=calls * _traced(assumed.records_a_second * calls / MILLION),
    )


def _messages(assumed: Assumed, messages: float, size: int) -> Bill:
    """Sent one by one, received and deleted several at once, each billed by 64 kB and as one of a message group."""
    chunks = math.ceil((size + 300) / 64_000)
    received = max(1 / assumed.messages_a_receive, size / 64_000)
    requests = messages * (chunks + received + 1 / 10)
    return Bill(sqs_request=requests, sqs_group=requests)


def _batches(shape: Shape, assumed: Assumed, batches: float, seconds: float, records: int) -> Bill:
    """Invocations of ingest_records, each with one request of so many records."""
    # Of each request: its receipt (an item in one index) written and closed, its records' fingerprints of eight bytes, what
    # Adobe reports of it, and the quota's ledger.
    writes = 2 + 2 + math.ceil((8 * records + 200) / 1_024) + 1 + 1
    return Bill(
        lambda_request=batches,
        lambda_gb_s=batches * seconds * shape.memory_gb["IngestRecordsFunction"],
        dynamodb_write=batches * writes,
        # Connection, routes, parking, the token's state; the ledger's snapshot now and then.
        dynamodb_read=batches * 8,
        log_gb=batches * assumed.log_bytes_a_batch / 1e9,
        trace=batches * _traced(assumed.records_a_second * batches / MILLION),
        out_gb=batches * (records * assumed.record_bytes + 1_000) / 1e9,
    )


def _traced(a_second: float) -> float:
    """Which part X-Ray records by itself: the first of each second, and a twentieth of the rest."""
    return 1.0 if a_second <= 1 else (1 + 0.05 * (a_second - 1)) / a_second


def read_template() -> Shape:
    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("!", lambda loader, suffix, node: None)
    resources: dict[str, Any] = yaml.load((ROOT / "template.yaml").read_text(), Loader)["Resources"]
    functions = {
        name: each["Properties"] for name, each in resources.items() if each["Type"] == "AWS::Serverless::Function"
    }
    sources = [source for each in functions.values() for source in each.get("Events", {}).values()]
    batches = [source["Properties"]["BatchSize"] for source in functions["IngestRecordsFunction"]["Events"].values()]
    schedules = [source["Properties"]["ScheduleExpression"] for source in sources if source["Type"] == "ScheduleV2"]
    schedules += [
        each["Properties"]["ScheduleExpression"]
        for each in resources.values()
        if each["Type"] == "AWS::Scheduler::Schedule"
    ]
    return Shape(
        {name: each["MemorySize"] / 1024 for name, each in functions.items()},
        min(batches),
        sum(source["Type"] == "SQS" for source in sources),
        # Alarms that exist only with a parameter that is off by default are not counted.
        sum(
            len([one for one in each["Properties"].get("Metrics", []) if "MetricStat" in one]) or 1
            for each in resources.values()
            if each["Type"] == "AWS::CloudWatch::Alarm" and each.get("Condition") in (None, "CombinesAlarms")
        ),
        sum(SECONDS_A_MONTH / _seconds(expression) for expression in schedules),
    )


def _seconds(expression: str) -> float:
    count, unit = expression.removeprefix("rate(").removesuffix(")").split()
    return int(count) * {"minute": 60, "hour": 3_600, "day": 86_400}[unit.removesuffix("s")]


def explain(shape: Shape, assumed: Assumed, prices: dict[str, Any], nobody: float) -> None:
    memory = {name.removesuffix("Function"): f"{gb * 1024:.0f} MB" for name, gb in shape.memory_gb.items()}
    shown = ("ReceiveEvents", "AcceptRecords", "BackfillRecords", "IngestRecords", "RenewTokens")
    console.print(
        "For a million live events, records through the front door and backfilled contacts; waiting: what a million live "
        "events cost on top if they wait for their destination; webhooks: a million events for one webhook each; "
        f"idle: {CONNECTIONS:,} connections and a month, of which {nobody:,.2f} without any.\n"
        f"From template.yaml: {', '.join(f'{name} {memory[name]}' for name in shown)}; batches of {shape.batch} messages; "
        f"{shape.queues} queues polled; alarms on {shape.alarm_metrics} metrics, of which {FREE_ALARMS} are free.\n"
        f"Assumed: {', '.join(f'{name} {value:g}' for name, value in assumed._asdict().items())}.\n"
        "Not counted: other free tiers, the platforms' own prices, storage (what is written here expires), a "
        "WAF, a VPC, access logs, the dashboard, and the functions' own metrics in the hours in which something happens."
    )
    unofficial = sorted(name for name, price in prices["prices"].items() if not price["official"])
    console.print(f"Prices not read on a page of AWS's own: {', '.join(unofficial)}. Sources: bench/prices.json.")
