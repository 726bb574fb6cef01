"""The function accept_install after a cold start, and the events of `events/accept_install/`."""

from __future__ import annotations

import copy
import json
import re
from datetime import timedelta
from typing import Any

from portaria.aws.table import Table
from portaria.core.item_keys import install_link_key
from portaria.installs import install_links
from portaria.installs.install_links import InstallLink
from portaria.webhooks import install_receiver
from tests.fakes.aws import functions
from tests.fakes.aws.endpoint import Endpoint
from tests.fakes.aws.moto_cloud import Cloud
from tests.fakes.paths import ROOT

EVENTS: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text()) for path in (ROOT / "events" / "accept_install").glob("*.json")
}

CODE = EVENTS["widget_hook"]["multiValueQueryStringParameters"]["code"][0]
HTML = {"Accept": ["text/html"]}


def load_handler(endpoint_url: str, **environment: str) -> Any:
    """A fresh copy of the function, as after a cold start."""
    values = {
        "TABLE_NAME": "portaria",
        "EXCHANGES_QUEUE_URL": f"{endpoint_url}/1/exchanges",
        "UNPROVEN_EXCHANGES_QUEUE_URL": f"{endpoint_url}/1/unproven_exchanges",
        "AWS_ENDPOINT_URL": endpoint_url,
    }
    return functions.load("accept_install", values | environment)


def create_link(table: Table, link: InstallLink, life: timedelta = timedelta(hours=1), **changes: Any) -> str:
    """The token of a new install link; `changes` are of its item."""
    link_id, token = install_links.create(table, link, life)
    item = table.get(*install_link_key(link_id)) or {}
    table.put(item | changes)
    return token.reveal()


class Function:
    """accept_install and the AWS behind it."""

    def __init__(self, aws: Cloud, endpoint: Endpoint) -> None:
        self.aws = aws
        self.endpoint = endpoint
        names = ("EXCHANGES_QUEUE_URL", "UNPROVEN_EXCHANGES_QUEUE_URL")
        self.handler = load_handler(endpoint.url, **{name: aws.environment[name] for name in names})

    def get(
        self,
        event_name: str,
        *,
        query: dict[str, list[str] | None] | None = None,
        headers: dict[str, list[str]] | None = None,
        path: dict[str, str] | None = None,
        context: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Call with one of the events; a query parameter that is None is left out."""
        event = copy.deepcopy(EVENTS[event_name])
        values = (event["multiValueQueryStringParameters"] or {}) | (query or {})
        values = {name: value for name, value in values.items() if value is not None}
        event["multiValueQueryStringParameters"] = values or None
        event["multiValueHeaders"] |= headers or {}
        event["pathParameters"] |= path or {}
        event["requestContext"] |= context or {}
        answer: dict[str, Any] = self.handler.handler(event, None)
        return answer

    def open_page(self, cookie: str = "", **options: Any) -> tuple[str, str]:
        """Open the install page; returns the cookie header and the state."""
        answer = self.get("start", headers={"Cookie": [cookie]}, **options)
        assert answer["statusCode"] == 200
        state = re.search(r"state=([A-Za-z0-9_-]{43})", answer["body"])
        assert state is not None
        return answer["headers"]["Set-Cookie"].partition(";")[0], state[1]

    def come_back(self, cookie: str, state: str | None, code: str = CODE, **options: Any) -> dict[str, Any]:
        query = {"state": [state] if state else None, "code": [code]}
        return self.get("browser_return", query=query, headers={**HTML, "Cookie": [cookie]}, **options)

    def queued(self) -> list[dict[str, Any]]:
        return self.queued_in("exchanges") + self.queued_in("unproven_exchanges")

    def queued_in(self, queue: str) -> list[dict[str, Any]]:
        return [json.loads(body) for body in self.aws.receive(queue)]

    def kept(self) -> list[dict[str, Any]]:
        return [
            json.loads(item["body"])
            for name in (install_receiver.ARRIVALS, install_receiver.UNPROVEN_ARRIVALS)
            for item in self.aws.table.query(name)[0]
        ]


def refused_with(reason: str, answer: dict[str, Any]) -> bool:
    """A page that says why, as a person's browser gets it."""
    assert 400 <= answer["statusCode"] < 500
    assert answer["headers"]["Content-Type"].startswith("text/html")
    assert "Location" not in answer["headers"]
    assert reason in answer["body"]
    return True
