"""A month of a whole stack: what it costs without work, with idle accounts, and with the work of three fleets."""

from __future__ import annotations

import math
from typing import NamedTuple

from bench.cost import flows
from bench.cost.bill import DAYS, MILLION, SECONDS_A_MONTH, Bill, total
from bench.cost.counted import Counted
from bench.cost.flows import Model
from portaria.connections.credential_stores.protocol import TABLE
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
BUSY_METRICS = len(IDLE_METRICS) + 37
# Of the install hook's method, whose hours are few: Count, 4XXError, 5XXError, Latency and IntegrationLatency.
HOOK_METRICS, HOOK_HOURS_A_DAY = 5, 2.0
RENEWALS_A_DAY = 1.0
# Each account has two objects to reconcile: contacts and companies.
OBJECTS = 2
# Of an account in the table, its indexes included: connection, address, reconciliations, install, audit entries.
ACCOUNT_BYTES = 12_000
# Of each record that was delivered: its mark.
MARK_BYTES = 200
PACKAGES_GB = 0.3
ALARM_EMAILS = 30
# What the overview's counts read of a connection, from an index that holds whole items, and of a receipt: its entry in an index
# and, consistently, what was reported of it. Each part is read and stored by itself.
CONNECTION_BYTES, RECEIPT_UNITS, COUNTED_PARTS = 1_200, 1.1, 5
COUNTED_ITEM_S = 0.0002
# connection.ready, connection.ended and the like, for each account and month.
EVENTS_AN_ACCOUNT = 2


class Fleet(NamedTuple):
    """`busy` accounts have live events and are reconciled often. The other fields count a month's records."""

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
        counts(model, 0, fleet.live / DAYS / model.shape.batch),
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
            counts(model, accounts, 0),
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


def counts(model: Model, accounts: float, receipts_a_day: float) -> Bill:
    """What `count_states` reads for the overview, whether it is open or not; the number of items in a run is bounded."""
    runs = SECONDS_A_MONTH / stored_counts.EVERY.total_seconds()
    connections, receipts = (min(items, stored_counts.ITEMS_A_RUN) for items in (accounts, receipts_a_day))
    return Bill(
        # A read of an index is not consistent and costs half.
        dynamodb_read=runs * (connections * CONNECTION_BYTES / 4_096 / 2 + receipts * RECEIPT_UNITS),
        dynamodb_write=runs * (COUNTED_PARTS if accounts else 0),
        lambda_gb_s=runs * (connections + receipts) * COUNTED_ITEM_S * model.shape.memory_gb["CountStatesFunction"],
    )


def credentials(accounts: int, store: str) -> Bill:
    """What storing them costs. In the table they are part of `ACCOUNT_BYTES`."""
    return Bill() if store == TABLE else Bill(secret_month=accounts)


def renewals(model: Model, count: float, store: str) -> Bill:
    shape, assumed, measures = model
    bill = Bill(
        lambda_request=count,
        lambda_gb_s=count * assumed.renewal_s * shape.memory_gb["RenewTokensFunction"],
        out_gb=count * 1_000 / 1e9,
        **flows.logs(assumed, count * assumed.log_bytes_a_call),
    ).add(**_calls(measures.renewal[store], count))
    if store == TABLE:
        # Beyond the one unit that short tokens take, for the write and for each time that the item is opened.
        opened = measures.renewal[store].calls.get("kms.decrypt", 0.0)
        bill.add(dynamodb_write=count * (math.ceil(assumed.sealed_item_bytes / 1_024) - 1))
        bill.add(dynamodb_read=count * opened * (math.ceil(assumed.sealed_item_bytes / 4_096) - 1))
    return bill


def reconciliations(model: Model, busy: int, idle_accounts: int, store: str) -> Bill:
    """Readings of changes; each reads the account's credentials, because a process has seldom just used them."""
    shape, assumed, measures = model
    minutes = SECONDS_A_MONTH / 60
    count = OBJECTS * (busy * minutes / shape.reconcile_every + idle_accounts * minutes / shape.reconcile_idle_every)
    return Bill(
        lambda_request=count,
        lambda_gb_s=count * assumed.reconciliation_s * shape.memory_gb["BackfillRecordsFunction"],
        out_gb=count * 2_000 / 1e9,
        **flows.logs(assumed, count * assumed.log_bytes_a_call),
    ).add(**_calls(measures.reconciliation[store], count))


def _calls(counted: Counted, count: float) -> Bill:
    """The calls of AWS for messages of which each is sent, received and deleted by itself."""
    return Bill(
        dynamodb_write=count * counted.write_units,
        dynamodb_read=count * counted.read_units,
        secret_call=count * counted.of("secretsmanager"),
        key_call=count * counted.of("kms"),
        event=count * counted.of("events"),
        sqs_request=3 * count,
    )


def _marks_gb(fleet: Fleet) -> float:
    """Marks of a month's records; each record is changed a few times, so that this is the most there are."""
    return (fleet.live + fleet.backfilled + fleet.front_door) * MARK_BYTES / 1e9
