"""The function accept_install after a cold start, and the events of `events/accept_install/`."""

from __future__ import annotations

import json
from typing import Any

from tests.fakes.aws import functions
from tests.fakes.paths import ROOT

EVENTS: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text()) for path in (ROOT / "events" / "accept_install").glob("*.json")
}


def load_handler(endpoint_url: str, **environment: str) -> Any:
    """A fresh copy of the function, as after a cold start."""
    values = {
        "TABLE_NAME": "portaria",
        "EXCHANGES_QUEUE_URL": f"{endpoint_url}/1/exchanges",
        "UNPROVEN_EXCHANGES_QUEUE_URL": f"{endpoint_url}/1/unproven_exchanges",
        "AWS_ENDPOINT_URL": endpoint_url,
    }
    return functions.load("accept_install", values | environment)
