"""The cost model: complete for the template, and exact where it counts."""

from __future__ import annotations

from typing import Any

import pytest

from bench import cost
from bench.cost import alternatives, fleets, flows
from bench.cost.bill import MILLION, SERVICES, Bill, read_prices
from bench.cost.counted import read_units, write_units
from bench.cost.flows import API_GATEWAY, FUNCTION_URL, Model
from bench.cost.shape import CREATED_PRICES, OPTIONAL_PRICES, RESOURCE_PRICES
from bench.report import ROOT
from local.template_file import read_template
from portaria.connections.credential_stores.protocol import SECRETS_MANAGER, STORES

PRICES = read_prices()


@pytest.fixture(scope="module")
def model() -> Model:
    return cost.read_model()


def without_price(document: dict[str, Any]) -> set[str]:
    return {each["Type"] for each in document["Resources"].values()} - set(RESOURCE_PRICES)


def test_cost_model_has_a_price_row_for_each_resource_type() -> None:
    document = read_template()
    assert without_price(document) == set()
    document["Resources"]["Cache"] = {"Type": "AWS::ElastiCache::ServerlessCache"}
    assert without_price(document) == {"AWS::ElastiCache::ServerlessCache"}


def test_cost_model_prices_are_each_of_one_service_and_of_a_resource() -> None:
    of_services = [name for names in SERVICES.values() for name in names]
    assert sorted(of_services) == sorted(PRICES.prices)
    of_resources = {name for names in RESOURCE_PRICES.values() for name in names}
    assert of_resources | set(CREATED_PRICES) == set(PRICES.prices)


def test_cost_model_bill_of_a_fleet_has_each_price_but_optional_parts(model: Model) -> None:
    bill = fleets.month(model, fleets.FLEETS[-1], SECRETS_MANAGER, API_GATEWAY)
    counted = {name for name, count in bill.items() if count}
    assert set(PRICES.prices) - counted == {"trace", *OPTIONAL_PRICES}
    assert flows.live(model, API_GATEWAY, traced=True)["trace"] > 0


def test_cost_model_prices_name_their_source_and_whether_they_are_confirmed() -> None:
    for name, price in PRICES.prices.items():
        assert price.source.startswith("https://"), name
        assert price.per > 0
        assert price.usd > 0
        assert bool(price.read) or not price.confirmed, name
    document = alternatives.read_alternatives()
    for price in (*document["instances"].values(), *document["hosted"].values()):
        assert price["source"].startswith("https://")
        assert bool(price["read"]) or not price["confirmed"]


def test_cost_model_unknown_price_is_an_error() -> None:
    with pytest.raises(KeyError, match="lambda_gb_hours"):
        Bill(lambda_gb_hours=1).dollars(PRICES)


def test_cost_model_function_url_saves_the_calls_of_api_gateway(model: Model) -> None:
    at_api, at_url = flows.live(model, API_GATEWAY), flows.live(model, FUNCTION_URL)
    assert at_api["api_call"] - at_url["api_call"] == MILLION
    assert {name: count for name, count in at_api.items() if at_url[name] != count} == {"api_call": MILLION}
    assert at_url.dollars(PRICES) <= cost.LIMITS["live_function_url_usd"]


def test_cost_model_table_store_has_no_secret_for_each_account(model: Model) -> None:
    in_secrets, in_table = (fleets.idle(model, 1_000, store) for store in STORES)
    assert in_secrets["secret_month"] - in_table["secret_month"] == 1_000
    assert in_table["key_call"] > in_secrets["key_call"]
    assert in_table["dynamodb_write"] > in_secrets["dynamodb_write"]


def test_cost_model_event_makes_one_call_and_no_line_in_the_summary(model: Model) -> None:
    assert dict(model.measures.event.calls) == {"SendMessage": 1}
    assert model.measures.event.log_bytes == 0
    assert model.measures.event_each.log_bytes > 300


def test_cost_model_batch_writes_a_mark_for_each_record_and_little_else(model: Model) -> None:
    batch = model.measures.batch
    assert batch.calls["dynamodb.update_item"] >= model.shape.batch
    assert model.shape.batch < batch.write_units <= model.shape.batch + 10


@pytest.mark.parametrize("endpoint", flows.ENDPOINTS)
def test_cost_document_has_the_price_of_live_events(model: Model, endpoint: str) -> None:
    usd = flows.live(model, endpoint).dollars(PRICES)
    assert f"| live events, `{endpoint}` | {usd:.2f} |" in (ROOT / "docs" / "cost.md").read_text()


def test_cost_model_reconciliation_reads_one_credential_and_writes_little(model: Model) -> None:
    in_secrets, in_table = (model.measures.reconciliation[store] for store in STORES)
    assert (in_secrets.of("secretsmanager"), in_secrets.of("kms")) == (1, 0)
    assert (in_table.of("secretsmanager"), in_table.of("kms")) == (0, 1)
    assert in_secrets.write_units == in_table.write_units <= 12


def test_cost_model_renewal_in_table_replaces_secrets_by_a_sealed_item(model: Model) -> None:
    """The OAuth client's secret stays in Secrets Manager, and a process reads it once."""
    in_secrets, in_table = (model.measures.renewal[store] for store in STORES)
    assert in_table.of("secretsmanager") <= 1 < in_secrets.of("secretsmanager")
    assert in_table.of("kms") > in_secrets.of("kms")
    assert in_table.write_units > in_secrets.write_units


def test_cost_model_backfilled_record_is_read_and_not_written(model: Model) -> None:
    counted = model.measures.backfill
    assert 1_000 <= counted.read_units <= 1_100
    assert counted.write_units < 100


def item(size: int = 100, **keys: str) -> dict[str, dict[str, str]]:
    texts = {"pk": "p", "sk": "s", **keys, "data": "x" * size}
    return {name: {"S": text} for name, text in texts.items()}


@pytest.mark.parametrize(
    ("old", "new", "units"),
    [
        ({}, item(), 1),
        ({}, item(1_500), 2),
        (item(1_500), item(10), 2),
        (item(), {}, 1),
        ({}, item(list_pk="l", list_sk="1"), 2),
        (item(list_pk="l", list_sk="1"), item(200, list_pk="l", list_sk="1"), 2),
        (item(list_pk="l", list_sk="1"), item(list_pk="l", list_sk="2"), 3),
        (item(list_pk="l", list_sk="1"), item(), 2),
        (item(filter_pk="f", filter_sk="1"), item(200, filter_pk="f", filter_sk="1"), 1),
        (item(due_pk="d"), item(200, due_pk="d"), 1),
    ],
)
def test_write_units_of_a_write(old: dict[str, Any], new: dict[str, Any], units: int) -> None:
    assert write_units(old, new) == units


def test_read_units_of_a_read() -> None:
    assert read_units("get_item", {}) == 1
    assert read_units("get_item", {"Item": item(5_000)}) == 2
    assert read_units("batch_get_item", {"Responses": {"table": [item(), item(5_000)]}}) == 3
    assert read_units("query", {"Items": [item(3_000), item(3_000)]}) == 2
