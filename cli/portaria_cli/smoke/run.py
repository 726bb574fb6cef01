"""One smoke run: the stack, who calls it, the names of what it creates, and waiting for what happens later."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar
from urllib.parse import urlencode

from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError, HTTPClientError
from botocore.httpsession import URLLib3Session
from botocore.utils import get_environ_proxies

from portaria import platforms
from portaria.core.callbacks import Secret
from portaria.platforms.protocols import SmokeInstall
from portaria.platforms.record_protocols import SmokeRecord
from portaria.webhooks import install_receiver
from portaria_cli.api import TIMEOUT_S, Api
from portaria_cli.auth import Integration
from portaria_cli.doctor.deployment import Deployment
from portaria_cli.errors import Document
from portaria_cli.smoke.lease import Lease

Found = TypeVar("Found")

# Begins the name of everything that a run creates, so that people and later runs recognise it.
PREFIX = "portaria-smoke-"
POLL_S = 0.5
# What the private integration of the outbound call and of the front door may do, and nothing else.
SCOPES = ("connections:list", "records:send")


def smoke_install() -> tuple[str, SmokeInstall]:
    """The name of the platform that describes a refused install, and the description."""
    return next((each.name, each.smoke_install) for each in platforms.every() if each.smoke_install)


def smoke_record() -> tuple[str, SmokeRecord]:
    """The name of the platform that describes a record for an unknown account, and the description."""
    return next((each.name, each.smoke_record) for each in platforms.every() if each.smoke_record)


class Failed(Exception):
    """A check found a fault: `found` says what, `advice` what to do."""

    def __init__(self, found: str, advice: str) -> None:
        super().__init__(found)
        self.found = found
        self.advice = advice


@dataclass(frozen=True)
class Names:
    """What a run with this mark creates. Each follows from the mark, so that a later run finds it without a list."""

    mark: str

    @property
    def name(self) -> str:
        """The name of its OAuth client, of its connection and of its private integrations."""
        return f"{PREFIX}{self.mark}"

    @property
    def destination(self) -> str:
        """The name of a connection that never exists."""
        return f"{self.name}-gone"

    @property
    def unknown_client(self) -> str:
        return f"{PREFIX}none-{self.mark}"

    @property
    def code(self) -> Secret:
        """A code that no platform gave out."""
        return Secret(f"forged-{self.mark}")

    def install(self, client: str) -> str:
        return install_receiver.install_id(smoke_install()[0], client, self.code)

    @property
    def subscription_key(self) -> tuple[str, str]:
        return f"SMOKE#{self.mark}", "SUBSCRIPTION"


@dataclass(frozen=True)
class Answer:
    status: int
    text: str

    @property
    def document(self) -> Document:
        try:
            found = json.loads(self.text)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def words(self) -> str:
        """What it says, in a line of a table."""
        told = self.document
        return str(told.get("detail") or told.get("message") or self.text.strip())[:200]


class Run:
    def __init__(self, deployment: Deployment, api: Api, lease: Lease, patience_s: float) -> None:
        self.deployment = deployment
        self.api = api
        self.lease = lease
        self.patience_s = patience_s
        self.names = Names(lease.mark)
        # Alarms that go off because of what this run did on purpose.
        self.alarms: list[str] = []

    @property
    def public_url(self) -> str:
        """The API as the stack's own functions reach it."""
        return self.deployment.outputs["ApiUrl"].rstrip("/")

    @cached_property
    def token(self) -> Secret:
        """The token of a private integration for the checks that need a caller."""
        return self.new_integration(*SCOPES)[1]

    def new_integration(self, *scopes: str) -> tuple[str, Secret]:
        """Its id and its token."""
        made = self.api.create(
            "private-integrations",
            body={"name": self.names.name, "description": "Made by `portaria smoke`.", "scopes": list(scopes)},
        )
        if not made["token"]:
            raise Failed("the answer with a new token was lost on its way", "run this again")
        return str(made["id"]), Secret(str(made["token"]))

    def with_token(self, token: Secret) -> Api:
        return Api(self.api.url, Integration(token), self.api.timeout_s)

    def hook(self, client: str) -> Answer:
        """The marketplace's install hook, with the forged code."""
        platform, smoke = smoke_install()
        query = smoke.hook_query(self.names.name, self.names.code)
        return self.send("GET", f"/install/{platform}/{client}?{urlencode(query)}")

    def send(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, body: Document | None = None
    ) -> Answer:
        """A call that is not signed. Raises `Failed` where no answer comes."""
        url = self.api.url + path
        request = AWSRequest(
            method=method,
            url=url,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Accept": "application/json", "Content-Type": "application/json", **(headers or {})},
        )
        session = URLLib3Session(timeout=TIMEOUT_S, proxies=get_environ_proxies(url))
        try:
            answer = session.send(request.prepare())
        except (HTTPClientError, BotoCoreError) as error:
            raise Failed(
                f"the API gave no answer ({type(error).__name__})",
                "is there a proxy or a firewall between you and AWS?",
            ) from None
        return Answer(answer.status_code, answer.text or "")

    def until(self, look: Callable[[], Found | None]) -> Found | None:
        """What `look` finds, or None after the run's patience."""
        ends_at = time.monotonic() + self.patience_s
        while True:
            self.lease.renew()
            found = look()
            if found is not None or time.monotonic() >= ends_at:
                return found
            time.sleep(POLL_S)

    def call(self, service: str, operation: str, **parameters: Any) -> Document:
        return self.deployment.call(service, operation, **parameters)
