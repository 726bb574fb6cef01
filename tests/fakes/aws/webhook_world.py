"""Webhooks on the fake AWS: the functions that send them, and an application that receives them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.sqs.models import sqs_backends

from portaria.core import clock
from portaria.core.event_catalogue import CATALOGUE
from portaria.core.http.messages import Request, Response
from portaria.outbound import http_client
from tests.fakes.api.manage import Manage
from tests.fakes.aws import functions
from tests.fakes.aws.moto_cloud import Cloud

URL = "https://app.example.com/webhooks"


@dataclass
class Application:
    """Answers each request as `answer` says: a response, or an error that is raised."""

    answer: Callable[[Request], Response] = lambda request: Response(204)
    requests: list[Request] = field(default_factory=list)

    def send(self, request: Request, *, allowed_domain: str, owner: str = "") -> Response:
        http_client.check(request, allowed_domain)
        self.requests.append(request)
        return self.answer(request)


class WebhookWorld:
    """`deliver` runs the queued messages through the functions until the queues are empty. Delays are not waited for."""

    def __init__(self, cloud: Cloud, application: Application) -> None:
        self.cloud = cloud
        self.application = application
        self.manage = Manage(cloud)
        self._times: dict[str, str] = {}
        self.fan_out = functions.load("fan_out_events", cloud.environment)
        self.worker = functions.load("deliver_webhooks", cloud.environment)

    def create(self, *events: str, url: str = URL) -> tuple[str, str]:
        """A webhook's id and secret."""
        made = self.manage.call("POST", "/webhooks", {"url": url, "events": list(events) or ["*"]})
        assert made.status == 201, made.text
        return made.content["id"], made.content["secret"]

    def publish(self, event_type: str, event_id: str = "6f0f6f2e-0001", **changes: Any) -> None:
        """An event as the rule of the bus puts it on the queue, to the fan-out."""
        event = {
            "version": "0",
            "id": event_id,
            "source": "portaria",
            "detail-type": event_type,
            "time": self._times.setdefault(event_id, clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")),
            "detail": CATALOGUE[event_type].example | changes,
        }
        self._run(self.fan_out, "webhook_events", [json.dumps(event)])

    def deliver(self) -> None:
        """Handle the messages that are queued, each once; those that are queued meanwhile stay."""
        for queue in ("webhook_deliveries", "slow_webhook_deliveries"):
            self._run(self.worker, queue, self.cloud.receive(queue))

    def sweep(self) -> None:
        self._run(self.worker, "webhook_deliveries", ['{"sweep": ""}'])

    def deliveries(self, webhook: str, query: str = "") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.manage.call("GET", f"/webhooks/{webhook}/deliveries{query}").content["items"]
        return found

    def delivery(self, webhook: str) -> dict[str, Any]:
        """The only delivery, with its attempts."""
        (found,) = self.deliveries(webhook)
        return self.manage.call("GET", f"/webhooks/{webhook}/deliveries/{found['id']}").content

    def shown(self, webhook: str) -> dict[str, Any]:
        return self.manage.call("GET", f"/webhooks/{webhook}").content

    def heard(self) -> list[tuple[str, dict[str, Any]]]:
        return [(event["detail-type"], event["detail"]) for event in map(json.loads, self.cloud.receive("heard"))]

    def _run(self, module: Any, queue: str, bodies: list[str]) -> None:
        for number, body in enumerate(bodies):
            event = functions.sqs_event({f"message-{number}": body}, queue)
            answer = module.handler(event, functions.Context())
            assert answer == {"batchItemFailures": []}


@contextmanager
def webhook_world(cloud: Cloud) -> Iterator[WebhookWorld]:
    application = Application()
    for queue in ("webhook_events", "webhook_deliveries", "slow_webhook_deliveries", "heard"):
        # An earlier test may have left delayed messages.
        sqs_backends[DEFAULT_ACCOUNT_ID]["us-east-1"].queues[queue]._messages.clear()
    with patch.object(http_client, "send", application.send), patch.object(http_client, "check_public"):
        yield WebhookWorld(cloud, application)
