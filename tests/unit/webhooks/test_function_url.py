"""receive_events behind a function URL: its path, what a flood of forged calls costs, and the summary of its logs."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from portaria.connections import webhook_endpoints
from portaria.core.callbacks import Secret
from portaria.core.entities import Connection
from portaria.webhooks import event_receiver, request_log, token_bucket
from tests.fakes.aws.endpoint import Endpoint, aws_endpoint
from tests.fakes.aws.functions import load, sample
from tests.fakes.aws.moto_cloud import Cloud, cloud

KEY = Secret("canary" + "k" * 37)
ACME = Connection("kommo-crm-32427762", "kommo", "oauth2", "acme.kommo.com", "connected", 1, "s", account_id="32427762",
                  client="crm", granted_at="2026-01-01T00:00:00.000Z")  # fmt: skip
ADDRESS = f"/events/kommo/{ACME.name}/{KEY.reveal()}"
FORGED_CALLS = 1_000
# A hundred forged calls a second at one process, which is ten times what Lambda lets through for each reserved execution.
FORGED_EVERY_S = 0.01

pytestmark = pytest.mark.enable_socket


class Clock:
    """The monotonic time of the modules that limit calls and lines."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        """The wall clock, which `request_log` writes."""
        return 1_700_000_000.0 + self.now


class Function:
    def __init__(self, aws: Cloud, endpoint: Endpoint, success_logs: str) -> None:
        self.aws, self.endpoint = aws, endpoint
        environment = {"AWS_ENDPOINT_URL": endpoint.url, "SUCCESS_LOGS": success_logs}
        self.handler = load("receive_events", aws.environment | environment)

    def post(self, path: str = ADDRESS, *, method: str = "POST", body: bytes = b"") -> dict[str, Any]:
        """As Lambda's documentation (urls-invocation) shows the event; a form's body is in base64."""
        body = body or sample("receive_events", "kommo_contact_updated")["body"].encode()
        event = {
            "version": "2.0",
            "routeKey": "$default",
            "rawPath": path,
            "rawQueryString": "",
            "headers": {"content-type": "application/x-www-form-urlencoded", "host": "abc.lambda-url.us-east-1.on.aws"},
            "requestContext": {
                "apiId": "abc",
                "domainName": "abc.lambda-url.us-east-1.on.aws",
                "http": {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1"},
                "requestId": "request-1",
                "stage": "$default",
            },
            "body": base64.b64encode(body).decode(),
            "isBase64Encoded": True,
        }
        answer: dict[str, Any] = self.handler.handler(event, None)
        return answer

    def close(self) -> None:
        self.handler.receiver._sqs.close()
        self.handler.receiver._table.close()


@pytest.fixture(scope="module")
def aws() -> Iterator[Cloud]:
    with cloud() as made:
        webhook_endpoints.open_address(made.table, ACME, KEY)
        yield made


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    for module in (token_bucket, request_log):
        monkeypatch.setattr(module, "time", made)
    return made


@pytest.fixture
def function(aws: Cloud, clock: Clock) -> Iterator[Function]:
    with aws_endpoint() as endpoint:
        made = Function(aws, endpoint, "summary")
        yield made
        made.close()
    aws.receive("records")


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_receive_events_function_url_event_is_queued(function: Function) -> None:
    assert function.post()["statusCode"] == 200
    [body] = function.aws.receive("records")
    message = json.loads(body)
    assert (message["connection"], message["object"]) == (ACME.name, "contacts")


@pytest.mark.parametrize(
    "path",
    ["/", "", "/events", f"{ADDRESS}/more", ADDRESS.replace("/events/", "/event/"), f"/live{ADDRESS}", "/events/a/b"],
)
def test_receive_events_function_url_other_path_is_not_found_without_a_read(function: Function, path: str) -> None:
    assert function.post(path)["statusCode"] == 404
    assert function.endpoint.calls == []


def test_receive_events_function_url_wrong_key_is_not_found(function: Function) -> None:
    assert function.post(ADDRESS[:-1] + "x")["statusCode"] == 404
    assert function.endpoint.operations() == ["dynamodb.GetItem"]


def test_receive_events_flood_of_unknown_addresses_is_bounded_and_known_addresses_are_accepted(
    function: Function, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    """Given a flood of forged calls, then a remembered address gets 200 each time, and few reads and lines are made."""
    assert function.post()["statusCode"] == 200
    function.endpoint.calls.clear()
    statuses = set()
    accepted = 0
    for number in range(FORGED_CALLS):
        clock.now += FORGED_EVERY_S
        statuses.add(function.post(f"/events/kommo/forged-{number}/{'f' * 43}")["statusCode"])
        if number % 100 == 0:
            accepted += function.post()["statusCode"] == 200
    assert accepted == FORGED_CALLS / 100
    assert statuses == {404, event_receiver.retry_status("kommo")}
    reads = function.endpoint.operations().count("dynamodb.GetItem")
    seconds = FORGED_CALLS * FORGED_EVERY_S
    assert 0 < reads <= event_receiver.UNKNOWN_BURST + event_receiver.UNKNOWN_PER_S * seconds + 1
    assert len(lines(capsys)) <= 4 * (1 + seconds / event_receiver.SUMMARY_S) * 2


def test_receive_events_after_flood_new_address_is_looked_up_again(function: Function, clock: Clock) -> None:
    for number in range(event_receiver.UNKNOWN_BURST + 1):
        function.post(f"/events/kommo/forged-{number}/{'f' * 43}")
    assert function.post()["statusCode"] == event_receiver.retry_status("kommo")
    clock.now += 1 / event_receiver.UNKNOWN_PER_S
    assert function.post()["statusCode"] == 200


def test_receive_events_summary_has_one_line_for_many_deliveries(
    function: Function, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    function.post()
    first = [line for line in lines(capsys) if "_aws" not in line]
    assert [(line["message"], line["deliveries"], line["records"]) for line in first] == [("events_received", 1, 1)]
    for _ in range(20):
        function.post()
    assert lines(capsys) == []
    clock.now += event_receiver.SUMMARY_S
    function.post()
    written = lines(capsys)
    [line] = [line for line in written if "_aws" not in line]
    assert (line["deliveries"], line["records"], line["connection"]) == (21, 21, ACME.name)
    assert [line["EventsReceived"] for line in written if "EventsReceived" in line] == [21]


def test_receive_events_summary_counts_refusals_that_anyone_can_cause(
    function: Function, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    function.post("/")
    function.post("/", method="GET")
    function.post("/")
    clock.now += event_receiver.SUMMARY_S
    capsys.readouterr()
    function.post("/")
    refused = {line["reason"]: line["refused"] for line in lines(capsys) if line.get("message") == "events_refused"}
    assert refused == {"unknown_address": 2, "not_post": 1}


def test_receive_events_large_bodies_at_unknown_addresses_write_no_line_each(
    function: Function, capsys: pytest.CaptureFixture[str]
) -> None:
    large = b"x" * (event_receiver.MAX_BODY_BYTES + 1)
    for _ in range(20):
        function.post(f"/events/kommo/{ACME.name}/{'w' * 43}", body=large)
    refused = [line for line in lines(capsys) if line.get("message") == "events_refused"]
    assert [line["reason"] for line in refused] == ["unknown_address"]
    # Only who knows the address learns the limit.
    assert function.post(body=large)["statusCode"] == 413


def test_receive_events_each_writes_a_line_for_each_delivery(
    aws: Cloud, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with aws_endpoint() as endpoint:
        function = Function(aws, endpoint, "each")
        for _ in range(3):
            function.post()
        function.close()
    aws.receive("records")
    assert [line["deliveries"] for line in lines(capsys) if line.get("message") == "events_received"] == [1, 1, 1]
