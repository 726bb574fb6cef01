"""A month of a whole stack: what it costs without work, with idle accounts, and with the work of three fleets."""

from __future__ import annotations

import math
from typing import NamedTuple

from bench.cost import flows
from bench.cost.bill import DAYS, MILLION, SECONDS_A_MONTH, Bill, total
from bench.cost.flows import SEALED_TABLE, Model
from portaria.overview import stored_counts

# Lambda keeps five long polls of 20 seconds open at each queue that it drains.
POLLS_A_MONTH = 5 * SECONDS_A_MONTH / 20
# Metrics that are emitted while nothing happens, since a schedule starts the function; all others cost only in the hours in
# which something happens, and `BUSY_METRICS` is the most there are.
IDLE_METRICS = (
    "RenewalsAgeSeconds", "RenewalMessages", "ConnectionsDue", "BackfillsAgeSeconds", "BackfillMessages", "BackfillsStarted",
    "ReconciliationsStarted", "PagesRead", "RecordsQueued", "WaitingRecordsAgeSeconds", "RecordsWaiting",
    "OldestWaitingSeconds", "WebhookDeliveriesAgeSeconds",
)  # fmt: skip
BUSY_METRICS = len(IDLE_METRICS) + 36
# Of the install hook's method, whose hours are few: Count, 4XXError, 5XXError, Latency and IntegrationLatency.
HOOK_METRICS, HOOK_HOURS_A_DAY = 5, 2.0
RENEWALS_A_DAY = 1.0
# Objects of an account that are reconciled: contacts and companies.
OBJECTS = 2
# Of an account in the table, its indexes included: connection, address, reconciliations, install, audit entries.
ACCOUNT_BYTES = 12_000
# Of each record that was delivered: its mark.
MARK_BYTES = 200
PACKAGES_GB = 0.3
ALARM_EMAILS = 30
# connection.ready, connection.ended and the like, for each account and month.
EVENTS_AN_ACCOUNT = 2


class Fleet(NamedTuple):
    """`busy` accounts have live events and are reconciled often, the others seldom. Records are those of a month."""

    name: str
    accounts: int
    busy: int
    live: int
    backfilled: int
    front_door: int
    has_console: bool = True


FLEETS = (
    Fleet("20", accounts=20, busy=20, live=100_000, backfilled=100_000, front_door=10_000),
    Fleet("200", accounts=200, busy=100, live=2_000_000, backfilled=2_000_000, front_door=200_000),
    Fleet("10000", accounts=10_000, busy=200, live=100_000_000, backfilled=10_000_000, front_door=1_000_000),
)


def month(model: Model, fleet: Fleet, store: str, endpoint: str) -> Bill:
    """Everything that a fleet's bill has in a month."""
    parts = [
        idle(model, fleet.accounts, store, busy=fleet.busy),
        flows.live(model, endpoint).times(fleet.live / MILLION),
        flows.backfill(model).times(fleet.backfilled / MILLION),
        flows.front_door(model).times(fleet.front_door / MILLION),
        flows.webhooks(model).times(EVENTS_AN_ACCOUNT * fleet.accounts / MILLION),
        Bill(
            metric_month=BUSY_METRICS - len(IDLE_METRICS),
            dynamodb_gb_month=_marks_gb(fleet),
            backup_gb_month=_marks_gb(fleet),
        ),
    ]
    if fleet.has_console:
        parts.append(flows.overview(model))
    return total(parts)


def idle(model: Model, accounts: int, store: str, *, busy: int = 0) -> Bill:
    """A month in which no record arrives: the stack itself, renewals and reconciliations of the accounts."""
    return total(
        [
            stack(model, has_accounts=accounts > 0),
            counts(model, accounts),
            credentials(accounts, store),
            renewals(model, accounts * RENEWALS_A_DAY * DAYS, store),
            reconciliations(model, busy, accounts - busy, store),
            Bill(dynamodb_gb_month=accounts * ACCOUNT_BYTES / 1e9, backup_gb_month=accounts * ACCOUNT_BYTES / 1e9),
        ]
    )


def stack(model: Model, *, has_accounts: bool) -> Bill:
    """A stack without accounts: polls, schedules, alarms, metrics, keys, the OAuth client's secret and the destination's."""
    shape, assumed, _ = model
    runs = shape.runs_a_month
    return Bill(
        secret_month=2,
        key_month=1,
        alarm_month=shape.alarm_metrics,
        dashboard_month=shape.dashboards,
        metric_month=len(IDLE_METRICS),
        api_metric_month=HOOK_METRICS * HOOK_HOURS_A_DAY / 24 if has_accounts else 0,
        sqs_request=shape.queues * POLLS_A_MONTH,
        schedule=runs,
        # Each run of a schedule starts a short look into the table.
        lambda_request=runs,
        lambda_gb_s=runs * 0.05 * 0.5,
        dynamodb_read=runs,
        artifact_gb_month=PACKAGES_GB,
        email=ALARM_EMAILS,
        **flows.logs(assumed, runs * assumed.log_bytes_a_call),
    )


def counts(model: Model, accounts: int) -> Bill:
    """What `count_states` reads every five minutes; many connections less often. An item in the index has about a kilobyte."""
    assumed = model.assumed
    runs = SECONDS_A_MONTH / stored_counts.EVERY.total_seconds()
    counted = runs * accounts / max(1, math.ceil(accounts / stored_counts.ITEMS_A_RUN))
    return Bill(
        dynamodb_read=runs * assumed.count_read_units + counted * 0.5 / 4,
        dynamodb_write=runs * assumed.count_write_units,
        lambda_gb_s=(runs * assumed.count_s + counted * assumed.count_s_a_connection)
        * model.shape.memory_gb["CountStatesFunction"],
    )


def credentials(accounts: int, store: str) -> Bill:
    """What storing them costs. In the table they are part of `ACCOUNT_BYTES`."""
    return Bill() if store == SEALED_TABLE else Bill(secret_month=accounts)


def renewals(model: Model, count: float, store: str) -> Bill:
    """As counted, with credentials in Secrets Manager. In the table their reads and their write are of one sealed item."""
    shape, assumed, measures = model
    counted = measures.renewal
    reads, writes = counted.calls["secretsmanager.get_secret_value"], counted.calls["secretsmanager.put_secret_value"]
    bill = Bill(
        lambda_request=count,
        lambda_gb_s=count * assumed.renewal_s * shape.memory_gb["RenewTokensFunction"],
        dynamodb_write=count * counted.write_units,
        dynamodb_read=count * counted.read_units,
        key_call=count * counted.of("kms"),
        # Sent, received and deleted.
        sqs_request=3 * count,
        out_gb=count * 1_000 / 1e9,
        **flows.logs(assumed, count * assumed.log_bytes_a_call),
    )
    if store != SEALED_TABLE:
        return bill.add(secret_call=count * (reads + writes))
    # One of the reads is of the OAuth client's secret, which stays in Secrets Manager.
    grants = reads - 1
    return bill.add(
        secret_call=count,
        key_call=count * (grants + writes),
        dynamodb_read=count * (grants + writes) * math.ceil(assumed.sealed_item_bytes / 4_096),
        dynamodb_write=count * writes * math.ceil(assumed.sealed_item_bytes / 1_024),
    )


def reconciliations(model: Model, busy: int, idle_accounts: int, store: str) -> Bill:
    """Readings of changes, as counted; each reads the account's credentials, because a process has seldom just used them."""
    shape, assumed, measures = model
    counted = measures.reconciliation
    minutes = SECONDS_A_MONTH / 60
    count = OBJECTS * (busy * minutes / shape.reconcile_every + idle_accounts * minutes / shape.reconcile_idle_every)
    bill = Bill(
        lambda_request=count,
        lambda_gb_s=count * assumed.reconciliation_s * shape.memory_gb["BackfillRecordsFunction"],
        dynamodb_write=count * counted.write_units,
        dynamodb_read=count * counted.read_units,
        # Sent, received and deleted.
        sqs_request=3 * count,
        out_gb=count * 2_000 / 1e9,
        **flows.logs(assumed, count * assumed.log_bytes_a_call),
    )
    reads = count * counted.of("secretsmanager")
    if store == SEALED_TABLE:
        return bill.add(key_call=reads, dynamodb_read=reads * math.ceil(assumed.sealed_item_bytes / 4_096))
    return bill.add(secret_call=reads)


def _marks_gb(fleet: Fleet) -> float:
    """Marks of a month's records; each record is changed a few times, so that this is the most there are."""
    return (fleet.live + fleet.backfilled + fleet.front_door) * MARK_BYTES / 1e9
