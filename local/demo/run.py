"""One run of the demo: its names, its clients, and its counts."""

from __future__ import annotations

import random
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

import requests

from local.control import Control
from local.stack import Stack
from portaria.core.item_keys import INSTALL_STATES, install_list


@dataclass
class Account:
    """A customer's account: its number of contacts, how it installs (`webhook` or `browser`), and the fault on its way.

    With a `customer_id` it installs by an install link that is tagged with it, whose URL is `page_url`.
    """

    host: str
    contacts: int
    by: str
    fault: str = ""
    customer_id: str = ""
    page_url: str = ""


@dataclass
class Run:
    """One run on one stack. Its names contain a unique mark, so it can use a stack that already has data."""

    stack: Stack
    control: Control
    mark: str = field(default_factory=lambda: secrets.token_hex(3))
    answers_ms: list[float] = field(default_factory=list)
    accepted: int = 0
    forged_refused: int = 0
    refusals_shown: int = 0

    def __post_init__(self) -> None:
        self.client = f"demo-{self.mark}"
        self.client_id = f"demo-client-{self.mark}"
        self.client_secret = secrets.token_urlsafe(32)
        number = random.Random(self.mark).randrange(1000)
        letters = "".join(random.Random(self.mark).choices("ABCDEFGHJKLMNPQRSTUVWXYZ", k=3))
        self.munchkin = f"{number:03d}-{letters}-{number:03d}"
        self.install_url = f"{self.stack.public_url}/install/kommo/{self.client}"

    def session(self) -> requests.Session:
        """The HTTP client of a browser or of Kommo's server. It uses the API's public name, through the proxy."""
        session = requests.Session()
        session.trust_env = False
        session.proxies = {"https": self.stack.proxy_url}
        session.verify = self.stack.ca_bundle
        return session

    def timed(self, session: requests.Session, url: str, query: dict[str, str]) -> requests.Response:
        """Request the redirect URI and record the duration of the answer."""
        started = time.monotonic()
        answer = session.get(url, params=query, allow_redirects=False, timeout=30)
        self.answers_ms.append((time.monotonic() - started) * 1000)
        return answer


def installs(run: Run) -> list[dict[str, Any]]:
    """This run's installs."""
    found = [item for state in INSTALL_STATES for item in list_items(run, install_list(state))]
    return [item for item in found if item["client"] == run.client]


def list_items(run: Run, name: str) -> list[dict[str, Any]]:
    """The items of one listing in the table, including those of earlier runs on the same stack."""
    table = run.stack.client("dynamodb")
    pages = table.get_paginator("query").paginate(
        TableName=run.stack.table,
        IndexName="listing",
        KeyConditionExpression="list_pk = :name",
        ExpressionAttributeValues={":name": {"S": name}},
    )
    return [
        {name: next(iter(value.values())) for name, value in item.items()} for page in pages for item in page["Items"]
    ]
