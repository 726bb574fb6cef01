"""What a stack costs: computed from prices, from what the code does for an event, and from assumptions.

prices.json has the prices; no free tier is applied. Memory, batches, queues, alarms and schedules come from template.yaml.
counted.py runs the code and counts its calls of AWS. `flows.Assumed` has everything else. `build/bench/cost.json` has the
figures and, under `bills`, each line of each bill.
"""

from __future__ import annotations

import json

from rich.table import Table

from bench.cost import alternatives, counted, fleets, flows
from bench.cost.bill import Bill, PriceList, read_prices
from bench.cost.flows import API_GATEWAY, FUNCTION_URL, Assumed, Measures, Model
from bench.cost.shape import read_shape
from bench.report import BUILD, conclude, console
from portaria.connections.credential_stores.protocol import SECRETS_MANAGER, STORES, TABLE

CONNECTIONS = 10_000
LIMITS = {"idle_10000_table_usd": 100.0, "live_function_url_usd": 3.0}
STORE_NAMES = {SECRETS_MANAGER: "secrets_manager", TABLE: "table"}
ENDPOINT_NAMES = {API_GATEWAY: "api_gateway", FUNCTION_URL: "function_url"}


def read_model() -> Model:
    shape = read_shape()
    measures = Measures(
        batch=counted.count_batch(shape.batch),
        backfill=counted.count_batch(1_000, bulk=True),
        front_door=counted.count_front_door(1_000, Assumed().front_door_records_a_call),
        renewal={store: counted.count_renewal(store) for store in STORES},
        reconciliation={store: counted.count_reconciliation(store) for store in STORES},
        event=counted.count_event("summary"),
        event_each=counted.count_event("each"),
    )
    return Model(shape, Assumed(), measures)


def flow_bills(model: Model) -> dict[str, Bill]:
    """A million of each, and the console for a month."""
    return {
        "live_api_gateway": flows.live(model, API_GATEWAY),
        "live_function_url": flows.live(model, FUNCTION_URL),
        "live_function_url_traced_each": flows.live(model, FUNCTION_URL, traced=True, logs_each=True),
        "forged_api_gateway": flows.forged(model, API_GATEWAY),
        "forged_function_url": flows.forged(model, FUNCTION_URL),
        "front_door": flows.front_door(model),
        "front_door_function_url": flows.front_door(model, endpoint=FUNCTION_URL),
        "backfill": flows.backfill(model),
        "waiting": flows.waiting(model),
        "webhooks": flows.webhooks(model),
        "console": flows.overview(model),
        "live_naive": alternatives.naive(model.assumed, api=True),
        "backfill_naive": alternatives.naive(model.assumed, api=False),
    }


def idle_bills(model: Model) -> dict[str, Bill]:
    bills = {"idle_0": fleets.idle(model, 0, SECRETS_MANAGER)}
    for store, name in STORE_NAMES.items():
        bills[f"idle_{CONNECTIONS}_{name}"] = fleets.idle(model, CONNECTIONS, store)
    return bills


def fleet_bills(model: Model) -> dict[str, Bill]:
    return {
        f"fleet_{fleet.name}_{STORE_NAMES[store]}_{ENDPOINT_NAMES[endpoint]}": fleets.month(
            model, fleet, store, endpoint
        )
        for fleet in fleets.FLEETS
        for store in STORES
        for endpoint in flows.ENDPOINTS
    } | {f"fleet_{fleet.name}_naive": alternatives.naive_month(model.assumed, fleet) for fleet in fleets.FLEETS}


def measure() -> bool:
    prices, model = read_prices(), read_model()
    groups = {
        "USD for a million; the console for a month": flow_bills(model),
        "USD a month without records": idle_bills(model),
        "USD a month of a fleet": fleet_bills(model),
    }
    for title, bills in groups.items():
        show(title, bills, prices)
    bills = {name: bill for group in groups.values() for name, bill in group.items()}
    figures = {f"{name}_usd": bill.dollars(prices) for name, bill in bills.items()}
    figures["live_ratio"] = figures["live_function_url_usd"] / figures["live_naive_usd"]
    figures["backfill_ratio"] = figures["backfill_usd"] / figures["backfill_naive_usd"]
    document = alternatives.read_alternatives()
    for fleet in fleets.FLEETS:
        figures[f"fleet_{fleet.name}_nango_usd"] = alternatives.nango_usd(document)
        for name, usd in alternatives.hosted_usd(document, fleet.accounts).items():
            figures[f"fleet_{fleet.name}_{name}_usd"] = usd
    explain(model, prices)
    kept = conclude("cost", figures, LIMITS)
    lines = {name: {line: round(usd, 4) for line, usd in bill.lines(prices).items()} for name, bill in bills.items()}
    file = BUILD / "cost.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"bills": lines}, indent=2) + "\n")
    return kept


def show(title: str, bills: dict[str, Bill], prices: PriceList) -> None:
    """A row for each bill: the columns of its services would not fit."""
    shown = Table(title=f"{title}; list prices of {prices.region} as of {prices.as_of}", title_justify="left")
    for heading in ("", "together", "largest lines"):
        shown.add_column(heading, justify="left" if heading != "together" else "right")
    for name, bill in bills.items():
        lines = sorted(bill.lines(prices).items(), key=lambda line: -line[1])[:5]
        text = ", ".join(f"{line} {usd:,.2f}" for line, usd in lines)
        shown.add_row(name, f"{bill.dollars(prices):,.2f}", text)
    console.print(shown)


def explain(model: Model, prices: PriceList) -> None:
    shape, assumed, measures = model
    rows = {
        f"a batch of {shape.batch} live events": measures.batch,
        "a batch of 1,000 backfilled records": measures.backfill,
        "a batch of 1,000 records that programs send": measures.front_door,
        **{f"a renewal ({store})": each for store, each in measures.renewal.items()},
        **{f"a reconciliation ({store})": each for store, each in measures.reconciliation.items()},
    }
    shown = Table(title="Counted", title_justify="left")
    for heading in ("", "write units", "read units", "Secrets Manager", "KMS", "SQS"):
        shown.add_column(heading, justify="right" if heading else "left")
    for name, each in rows.items():
        calls = (f"{each.of(service):g}" for service in ("secretsmanager", "kms", "sqs"))
        shown.add_row(name, f"{each.write_units:g}", f"{each.read_units:g}", *calls)
    console.print(shown)
    console.print(
        f"An event logs {measures.event.log_bytes} bytes, or {measures.event_each.log_bytes} with SuccessLogs=each.\n"
        f"Assumed: {', '.join(f'{name} {value:g}' for name, value in assumed._asdict().items())}.\n"
        f"Reconciled every {shape.reconcile_every:g} minutes if busy and every {shape.reconcile_idle_every:g} if idle."
    )
    unofficial = sorted(name for name, price in prices.prices.items() if not price.official)
    unconfirmed = sorted(name for name, price in prices.prices.items() if not price.confirmed)
    console.print(f"Not read on a page of AWS's own: {', '.join(unofficial)}. Not confirmed: {', '.join(unconfirmed)}.")
