"""For each alarm a scenario in which it fires, from the documented meaning of its metrics, and one in which it does not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
import requests
import responses
from aws_lambda_powertools import Logger
from aws_lambda_powertools import Metrics as Emitter
from botocore.exceptions import ClientError

from portaria.aws import queues, sqs_batch
from portaria.connections import connection_store
from portaria.core import clock
from portaria.core.errors import StackUnavailable
from portaria.webhooks import request_log
from tests.fakes.api.calling import Calling
from tests.fakes.api.manage import proxy_event
from tests.fakes.aws.functions import Context
from tests.fakes.aws.moto_cloud import cloud
from tests.fakes.template.translation import deploy
from tests.template.cloudwatch import Metrics, Queue

STACK = deploy("portaria", Deployment="Canary10Percent5Minutes", AdobeClientId="adobe")
ALARMS = STACK.of("AWS::CloudWatch::Alarm")
START_S = 1_800_000_000.0
MINUTE_S, HOUR_S, DAY_S = 60.0, 3_600.0, 86_400.0
SERVICE = {"service": "portaria"}
LEADCONNECTOR = "services.leadconnectorhq.com"

# Queues by the alarms that watch them: the queue, its visibility timeout and the age from which a message is too old.
WATCHED = {
    "Records": ("RecordsQueue", 725.0, HOUR_S),
    "BulkRecords": ("BulkRecordsQueue", 725.0, DAY_S),
    "Backfills": ("BackfillsQueue", 360.0, HOUR_S),
    "WaitingRecords": ("WaitingRecordsQueue", 725.0, HOUR_S / 2),
    "Renewals": ("RenewalsQueue", 540.0, 2 * HOUR_S),
    "Uninstalls": ("UninstallsQueue", 540.0, 6 * HOUR_S),
    "WebhookEvents": ("WebhookEventsQueue", 180.0, HOUR_S / 4),
}
# The same for queues whose messages may be dropped, because the table has the data.
HINTS = {
    "WebhookDeliveries": ("WebhookDeliveriesQueue", HOUR_S / 4),
    "SlowWebhookDeliveries": ("SlowWebhookDeliveriesQueue", HOUR_S),
}
# Their queues are not part of SourcesStopped.
NOT_IN_SOURCES_STOPPED = ("WaitingRecords", "WebhookEvents")
# The same for codes, whose alarms also detect a consumer that does not receive.
CODES = {
    "Codes": ("ExchangesQueue", 5 * MINUTE_S),
    "UnprovenCodes": ("UnprovenExchangesQueue", 2 * MINUTE_S),
    "DeferredCodes": ("DeferredExchangesQueue", 30 * MINUTE_S),
}
DEAD_LETTERS = ("Exchanges", "Backfills", "WaitingRecords", "Renewals", "Uninstalls", "WebhookEvents")
# Metrics of functions: a value that must raise the alarm, and one that must not. Functions emit them: see test_permissions.
OWN = {
    "InstallsFailed": (1, 0), "ArrivalsLost": (1, 0), "ArrivalsKept": (1, 0), "DeadLetters": (1, 0), "DeadLettersKept": (1, 0),
    "DeadLettersNotStored": (1, 0), "DestinationsStopped": (1, 0), "MessagesFailed": (1, 0), "ApiAttemptsFailed": (100, 99),
    "CodesOld": (600, 599), "InstallsDeferred": (100, 99),
    "QuotaLeft": (9, 10), "RecordsLeftWaiting": (93_600, 86_400), "DestinationsNotAnswering": (900, 899),
    "DaysToDeath": (30, 31), "WebhooksDisabled": (1, 0), "WebhookDeliveriesFailed": (1, 0),
}  # fmt: skip
# Metrics of AWS services that have a data point only when something happens.
COUNTED = ("InstallsThrottled", "EventsThrottled", "AcceptInstallErrors", "AcceptUninstallErrors", "ReceiveEventsErrors",
           "AcceptRecordsErrors", "TrackReceiptsErrors", "WorkerErrors", "TableThrottled")  # fmt: skip
SCENARIOS = (
    {f"{name}{kind}" for name in WATCHED for kind in ("Waiting", "Old")} | {f"{name}DeadLetters" for name in DEAD_LETTERS}
    | set(OWN) | set(COUNTED) | {f"{name}Waiting" for name in (*CODES, *HINTS)}
    | {"RecordsDeadLetters", "SourcesStopped", "InstallsRefused", "ApiErrors", "ApiFunctionErrors", "ApiUnavailable"}
)  # fmt: skip


def test_alarms_each_have_a_scenario() -> None:
    assert {name.removesuffix("Alarm") for name in ALARMS} == SCENARIOS


def alarm(name: str) -> dict[str, Any]:
    found: dict[str, Any] = ALARMS[f"{name}Alarm"]
    return found


def queue_named(logical_id: str) -> Queue:
    return Queue(f"portaria-{logical_id}-1ABCDEFGHIJKL")


def run(queue: Queue, metrics: Metrics, until_s: float, each_minute: Callable[[float], None]) -> float:
    now_s = START_S
    while now_s < START_S + until_s:
        each_minute(now_s)
        queue.publish(metrics, now_s)
        now_s += MINUTE_S
    return now_s


@pytest.mark.parametrize("name", WATCHED)
def test_waiting_alarm_consumer_receives_nothing_goes_off(name: str) -> None:
    logical_id, _, limit_s = WATCHED[name]
    queue, metrics = queue_named(logical_id), Metrics()
    queue.send(START_S)
    now_s = run(queue, metrics, limit_s - 10 * MINUTE_S, lambda now_s: None)
    assert metrics.state(alarm(f"{name}Waiting"), now_s) == "OK"
    now_s = run(queue, metrics, limit_s + 10 * MINUTE_S, lambda now_s: None)
    assert metrics.state(alarm(f"{name}Waiting"), now_s) == "ALARM"


@pytest.mark.parametrize("name", WATCHED)
def test_old_alarm_message_received_repeatedly_goes_off(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQS's own age ignores the message from its third receive on, so only the consumer's metric shows it."""
    logical_id, hidden_s, limit_s = WATCHED[name]
    queue, metrics = queue_named(logical_id), Metrics()
    message = queue.send(START_S)

    def receive(now_s: float) -> None:
        for one in queue.receive(now_s, hidden_s):
            monkeypatch.setattr(clock, "now", lambda: datetime.fromtimestamp(now_s, UTC))
            emitter = Emitter()
            event = {"Records": [{"attributes": {"SentTimestamp": str(int(one.sent_at_s * 1000))}}]}
            sqs_batch.report_age(event, emitter, name)
            print(json.dumps(emitter.serialize_metric_set()))
            emitter.clear_metrics()
            metrics.add_emitted(capsys.readouterr().out, now_s)

    now_s = run(queue, metrics, limit_s + 2 * hidden_s + 10 * MINUTE_S, receive)
    assert message.receives > 3
    assert metrics.state(alarm(f"{name}Waiting"), now_s) == "OK"
    assert any(
        metrics.state(alarm(f"{name}Old"), now_s - minutes * MINUTE_S) == "ALARM"
        for minutes in range(int(hidden_s / 60) + 6)
    )
    assert metrics.state(alarm(f"{name}Old"), START_S + limit_s - 10 * MINUTE_S) == "OK"


@pytest.mark.parametrize("name", HINTS)
def test_waiting_alarm_of_deliveries_consumer_receives_nothing_goes_off(name: str) -> None:
    logical_id, limit_s = HINTS[name]
    queue, metrics = queue_named(logical_id), Metrics()
    queue.send(START_S)
    now_s = run(queue, metrics, limit_s - 6 * MINUTE_S, lambda now_s: None)
    assert metrics.state(alarm(f"{name}Waiting"), now_s) == "OK"
    now_s = run(queue, metrics, limit_s + 10 * MINUTE_S, lambda now_s: None)
    assert metrics.state(alarm(f"{name}Waiting"), now_s) == "ALARM"


@pytest.mark.parametrize("name", CODES)
def test_codes_waiting_alarm_consumer_receives_nothing_goes_off_within_six_minutes(name: str) -> None:
    logical_id, limit_s = CODES[name]
    queue, metrics = queue_named(logical_id), Metrics()
    queue.send(START_S)
    now_s = run(queue, metrics, limit_s + 6 * MINUTE_S, lambda now_s: None)
    assert metrics.state(alarm(f"{name}Waiting"), now_s) == "ALARM"
    assert metrics.state(alarm(f"{name}Waiting"), START_S + limit_s - MINUTE_S) == "OK"


@pytest.mark.parametrize("name", [name for name in WATCHED if name not in NOT_IN_SOURCES_STOPPED])
def test_sources_stopped_alarm_source_disabled_goes_off(name: str) -> None:
    queue, metrics = queue_named(WATCHED[name][0]), Metrics()
    for number in range(10):
        queue.send(START_S + number)
    now_s = run(queue, metrics, 21 * MINUTE_S, lambda now_s: None)
    assert metrics.state(alarm("SourcesStopped"), now_s) == "ALARM"


def test_sources_stopped_alarm_backlog_being_processed_stays_ok() -> None:
    queue, metrics = queue_named("BulkRecordsQueue"), Metrics()
    for number in range(1_000):
        queue.send(START_S + number / 1000)

    def work(now_s: float) -> None:
        for one in [each for each in queue.messages if not each.deleted][:5]:
            one.deleted = True
            queue.received += 1

    now_s = run(queue, metrics, HOUR_S, work)
    assert any(not each.deleted for each in queue.messages)
    assert metrics.state(alarm("SourcesStopped"), now_s) == "OK"


@pytest.mark.parametrize("name", DEAD_LETTERS)
def test_dead_letters_alarm_message_arrives_goes_off(name: str) -> None:
    queue, metrics = queue_named(f"{name}DeadLetters"), Metrics()
    now_s = run(queue, metrics, 10 * MINUTE_S, lambda now_s: None)
    assert metrics.state(alarm(f"{name}DeadLetters"), now_s) == "OK"
    queue.send(START_S)
    now_s = run(queue, metrics, 10 * MINUTE_S, lambda now_s: None)
    assert metrics.state(alarm(f"{name}DeadLetters"), now_s) == "ALARM"


def test_records_dead_letters_alarm_function_not_running_goes_off() -> None:
    queue, metrics = queue_named("RecordsDeadLetters"), Metrics()
    queue.send(START_S)
    now_s = run(queue, metrics, 25 * MINUTE_S, lambda now_s: None)
    assert metrics.state(alarm("RecordsDeadLetters"), now_s) == "ALARM"


def test_dead_letters_not_stored_alarm_function_cannot_store_goes_off() -> None:
    """After repeated receives the message leaves the age metric; the function's own metric shows it, for up to 14 days."""
    queue, metrics = queue_named("RecordsDeadLetters"), Metrics()
    queue.send(START_S)

    def fail(now_s: float) -> None:
        for _ in queue.receive(now_s, sqs_batch.LONGEST_WAIT_S):
            metrics.add("Portaria", "DeadLettersNotStored", SERVICE, now_s, 1)

    now_s = run(queue, metrics, DAY_S, fail)
    assert metrics.state(alarm("RecordsDeadLetters"), now_s) == "OK"
    assert metrics.state(alarm("DeadLettersNotStored"), now_s) == "ALARM"


@pytest.mark.parametrize("name", OWN)
def test_alarm_on_own_metric_follows_its_value(name: str) -> None:
    bad, good = OWN[name]
    metric = alarm(name)
    for value, state in ((bad, "ALARM"), (good, "OK")):
        metrics = Metrics()
        metrics.add("Portaria", metric["MetricName"], SERVICE, START_S, value)
        metrics.add("Portaria", metric["MetricName"], {"service": "portaria-staging"}, START_S, bad)
        assert metrics.state(metric, START_S + metric["Period"]) == state
    assert Metrics().state(metric, START_S) == "OK"


@pytest.mark.parametrize("name", COUNTED)
def test_alarm_on_counted_metric_goes_off_within_five_minutes(name: str) -> None:
    found = alarm(name)
    parts = [each["MetricStat"]["Metric"] for each in found.get("Metrics", []) if "MetricStat" in each] or [found]
    for part in parts:
        metrics = Metrics()
        dimensions = {each["Name"]: str(each["Value"]) for each in part["Dimensions"]}
        metrics.add(part["Namespace"], part["MetricName"], dimensions, START_S, 1)
        minutes = [START_S + number * MINUTE_S for number in range(6)]
        assert "ALARM" in [metrics.state(found, now_s) for now_s in minutes]


@dataclass
class Api:
    """The function `call_connection` behind API Gateway, and CloudWatch's data about its calls."""

    calling: Calling
    printed: pytest.CaptureFixture[str]
    metrics: Metrics = field(default_factory=Metrics)
    statuses: list[int] = field(default_factory=list)

    def call(self, event: dict[str, Any]) -> None:
        """5XXError counts every 5XX; the function's own metric is in its log."""
        self.statuses.append(self.calling.module.handler(event, Context())["statusCode"])
        if self.statuses[-1] >= 500:
            stage = {"ApiName": "portaria", "Stage": "live"}
            self.metrics.add("AWS/ApiGateway", "5XXError", stage, START_S, 1)
        self.metrics.add_emitted(self.printed.readouterr().out, START_S)

    def state(self, name: str) -> str:
        return self.metrics.state(alarm(name), START_S + 5 * MINUTE_S)


@pytest.fixture
def api(capsys: pytest.CaptureFixture[str]) -> Iterator[Api]:
    with cloud() as aws:
        calling = Calling(aws)
        calling.connect("keyed")
        given = {"platform": "leadconnector", "allowed_domain": LEADCONNECTOR, "fields": {"location_id": "abc"}}
        calling.connect("lead", "bearer", **given)
        yield Api(calling, capsys)


OUTAGES: dict[str, dict[str, Any]] = {
    "503": {"status": 503},
    "unreachable": {"body": requests.exceptions.ConnectTimeout()},
    "no answer": {"body": requests.exceptions.ReadTimeout()},
    "too large": {"body": b"x" * 4_000_001},
}


@pytest.mark.parametrize("outage", OUTAGES)
def test_api_errors_alarm_platform_outage_stays_ok(api: Api, outage: str) -> None:
    """Operators are notified of a platform's outage, and no deployment is rolled back."""
    with responses.RequestsMock() as platform:
        platform.get(f"https://{LEADCONNECTOR}/contacts/abc", **OUTAGES[outage])
        for path in 5 * ["proxy/contacts/abc", "contacts/abc"]:
            api.call(proxy_event("GET", f"/connections/lead/{path}"))
    assert min(api.statuses) >= 500
    states = [api.state(name) for name in ("ApiErrors", "ApiFunctionErrors", "ApiUnavailable")]
    assert states == ["OK", "OK", "ALARM"]
    groups = STACK.of("AWS::CodeDeploy::DeploymentGroup").values()
    watched = {each["Name"] for group in groups for each in group["AlarmConfiguration"]["Alarms"]}
    assert {name.split("-")[1] for name in watched if "-Api" in name} == {"ApiErrorsAlarm", "ApiFunctionErrorsAlarm"}


@pytest.mark.parametrize(
    "failure",
    [
        KeyError("a bad version"),
        ClientError({"Error": {"Code": "AccessDeniedException"}}, "GetItem"),
        ClientError({"Error": {"Code": "ThrottlingException"}}, "GetItem"),
        StackUnavailable("vault_unavailable", "Secrets Manager or KMS did not respond"),
    ],
)
def test_api_errors_alarm_five_failures_of_the_stack_go_off(
    api: Api, failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise failure

    monkeypatch.setattr(connection_store, "get", fail)
    for count, state in ((4, "OK"), (1, "ALARM")):
        for _ in range(count):
            api.call(proxy_event("GET", "/connections/keyed/proxy/things"))
        assert api.state("ApiErrors") == state
    assert min(api.statuses) >= 500


@pytest.mark.parametrize("name", ["ManageFunction", "CallConnectionFunction", "RedeemTicketFunction"])
def test_api_function_errors_alarm_functions_that_raise_go_off(name: str) -> None:
    for errors, state in ((5, "ALARM"), (4, "OK")):
        metrics = Metrics()
        metrics.add("AWS/Lambda", "Errors", {"FunctionName": f"portaria-{name}-1ABCDEFGHIJKL"}, START_S, errors)
        assert metrics.state(alarm("ApiFunctionErrors"), START_S + 5 * MINUTE_S) == state


def test_api_errors_alarm_refused_calls_stay_ok(api: Api) -> None:
    for _ in range(6):
        api.call(proxy_event("GET", "/connections/none/proxy/things"))
    assert set(api.statuses) == {404}
    assert (api.state("ApiErrors"), api.state("ApiUnavailable")) == ("OK", "OK")


@pytest.mark.parametrize(
    ("refused", "answered", "state"), [(7, 7, "OK"), (7, 6, "ALARM"), (1, None, "ALARM"), (0, None, "OK")]
)
def test_installs_refused_alarm_hook_not_reaching_function_goes_off(
    refused: int, answered: int | None, state: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The method's 4XX counts refusals of API Gateway and of the function; the function counts its own."""
    metrics = Metrics()
    dimensions = {"ApiName": "portaria", "Stage": "live", "Method": "GET", "Resource": "/install/{platform}/{client}"}
    metrics.add("AWS/ApiGateway", "4XXError", dimensions, START_S, refused)
    if answered is not None:
        request_log.count("InstallCallsRefused", answered)
        metrics.add_emitted(capsys.readouterr().out, START_S)
    assert metrics.state(alarm("InstallsRefused"), START_S + 5 * MINUTE_S) == state


def test_messages_failed_alarm_failing_messages_roll_back_deployment(capsys: pytest.CaptureFixture[str]) -> None:
    """Workers catch every exception, so AWS's own metric `Errors` stays 0."""

    def fail(body: str, time_left_s: Callable[[], float]) -> None:
        raise KeyError("a bad version")

    emitter = Emitter()
    attributes = {"SentTimestamp": str(int(START_S * 1000)), "ApproximateReceiveCount": "1"}
    record = {"messageId": "1", "receiptHandle": "handle", "body": "{}", "attributes": attributes, "messageAttributes": {},
              "eventSource": "aws:sqs", "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:renewals",
              "awsRegion": "us-east-1", "md5OfBody": ""}  # fmt: skip

    class Context:
        def get_remaining_time_in_millis(self) -> int:
            return 30_000

    given_back: list[float] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(queues, "give_back", lambda url, handle, after_s: given_back.append(after_s))
        answer = sqs_batch.handle(
            {"Records": [record]}, Context(), fail, queue="Renewals", queue_url="url", logger=Logger(), metrics=emitter  # type: ignore[arg-type]
        )  # fmt: skip
    assert answer == {"batchItemFailures": [{"itemIdentifier": "1"}]}
    print(json.dumps(emitter.serialize_metric_set()))
    metrics = Metrics()
    metrics.add_emitted(capsys.readouterr().out, START_S)
    assert metrics.state(alarm("MessagesFailed"), START_S + MINUTE_S) == "ALARM"
    group = STACK.of("AWS::CodeDeploy::DeploymentGroup")["RenewTokensFunctionDeploymentGroup"]
    watched = {one["Name"].split("-")[1] for one in group["AlarmConfiguration"]["Alarms"]}
    assert "MessagesFailedAlarm" in watched


def test_install_alarms_lost_hook_goes_off_within_five_minutes() -> None:
    names = ("InstallsRefused", "InstallsThrottled", "AcceptInstallErrors", "ArrivalsLost")
    for name in names:
        found = alarm(name)
        parts = [each["MetricStat"]["Period"] for each in found.get("Metrics", []) if "MetricStat" in each]
        assert max(parts or [found["Period"]]) * found["EvaluationPeriods"] <= 5 * MINUTE_S, name
