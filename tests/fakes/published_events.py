"""Hold each published event against the catalogue. The fake clouds call this, so every suite that publishes checks it."""

from __future__ import annotations

from functools import cache
from typing import Any

import jsonschema_rs

from portaria.core.event_catalogue import CATALOGUE


@cache
def _validator(event_type: str) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(CATALOGUE[event_type].schema, validate_formats=True)


def faults(event_type: str, detail: dict[str, Any]) -> list[str]:
    """How an event differs from its schema."""
    if event_type not in CATALOGUE:
        return [f"{event_type} is not in the catalogue"]
    return [f"{event_type}: {fault.message}" for fault in _validator(event_type).iter_errors(detail)]


def check(event_type: str, detail: dict[str, Any]) -> None:
    assert not (found := faults(event_type, detail)), found
