"""The event catalogue: its schemas and examples, which events a webhook may subscribe to, and docs/events.md."""

from __future__ import annotations

import ast

import jsonschema_rs
import pytest

from portaria.api.openapi import event_document
from portaria.core import event_catalogue
from portaria.core.event_catalogue import CATALOGUE
from tests.fakes import published_events
from tests.fakes.paths import ROOT


@pytest.fixture(name="name", params=CATALOGUE)
def _name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_events_document_is_generated_from_catalogue() -> None:
    """Written by `make openapi`."""
    assert (ROOT / "docs" / "events.md").read_text() == event_document.document()


def test_catalogue_example_matches_schema(name: str) -> None:
    event = CATALOGUE[name]
    published_events.check(name, event.example)
    jsonschema_rs.validate(event.webhook_schema, event.webhook_example)


def test_catalogue_schema_refuses_unknown_missing_and_wrong_fields(name: str) -> None:
    example = CATALOGUE[name].example
    assert published_events.faults(name, example | {"token": "x"})
    assert published_events.faults(name, example | {"version": 2})
    for field in CATALOGUE[name].fields:
        without = {key: value for key, value in example.items() if key != field.name}
        assert bool(published_events.faults(name, without)) == (not field.is_optional)
        assert published_events.faults(name, example | {field.name: None})


def test_catalogue_payload_unknown_event_is_refused() -> None:
    with pytest.raises(ValueError, match=r"connection\.gone"):
        event_catalogue.payload("connection.gone", {})


def test_catalogue_every_event_type_constant_is_listed() -> None:
    constants = {
        value
        for name, value in vars(event_catalogue).items()
        if name.isupper() and isinstance(value, str) and not name.startswith("_")
    }
    assert constants == set(CATALOGUE)


def test_product_publishes_events_by_constant_only() -> None:
    """An event type given as a literal would bypass the catalogue until it is published."""
    literals = []
    for path in (ROOT / "layers" / "portaria" / "portaria").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "event_bus.put":
                literals += [ast.unparse(node) for kind in node.args[1:2] if isinstance(kind, ast.Constant)]
    assert literals == []


@pytest.mark.parametrize("selector", ["*", "connection.*", "private_integration.*", "connection.ready", "quota.low"])
def test_selector_of_known_events_is_accepted(selector: str) -> None:
    assert event_catalogue.is_selector(selector)


@pytest.mark.parametrize(
    "selector",
    ["", "connection", "connection.", "connections.*", "connection.re*", "*.ready", "connection.*.x", "**", "Connection.*",
     "connection.ready ", "connection.ready\n", "connection.*\n"],
)  # fmt: skip
def test_selector_of_no_event_is_refused(selector: str) -> None:
    assert not event_catalogue.is_selector(selector)


def test_selector_matches_its_family_only() -> None:
    assert event_catalogue.selects("connection.*", "connection.ready")
    assert event_catalogue.selects("*", "quota.low")
    assert event_catalogue.selects("quota.low", "quota.low")
    assert not event_catalogue.selects("connection.*", "private_integration.rotation_due")
    assert not event_catalogue.selects("connection.ready", "connection.ready_later")
