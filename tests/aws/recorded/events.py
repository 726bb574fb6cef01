"""EventBridge and its scheduler: the messages that a queue receives from them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from tests.aws import functions
from tests.aws.expectations import MEMORY, MINISTACK, MOTO, Expectation, refusal
from tests.aws.stand_ins import Aws

ROLE = "arn:aws:iam::000000000000:role/schedule"
NO_BUS = {MEMORY: "the in-memory AWS keeps events where the simulation reads them; it delivers none"}
SOURCE = "core.update-account-command"
DETAIL = {"command": "update-account", "payload": {"acc_id": "0a787ecb-4015", "sf_id": "baz"}}
PUT_PAGE = "https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_PutEvents.html"


def events(test: str) -> str:
    return f"test_events_targets::{test}"


def _delivered(aws: Aws, detail: Any, pattern: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """The messages that a queue receives from a rule of a bus."""
    bus, url = aws.fresh("bus"), aws.queue()
    aws.events.create_event_bus(Name=bus)
    aws.events.put_rule(Name="rule", EventBusName=bus, EventPattern=json.dumps(pattern or {"source": [SOURCE]}))
    aws.events.put_targets(Rule="rule", EventBusName=bus, Targets=[{"Id": "queue", "Arn": aws.arn(url)}])
    entry = {"EventBusName": bus, "Source": SOURCE, "DetailType": SOURCE, "Detail": json.dumps(detail)}
    answer = aws.events.put_events(Entries=[entry])
    assert answer["FailedEntryCount"] == 0
    received = aws.sqs.receive_message(QueueUrl=url, WaitTimeSeconds=1, MessageAttributeNames=["All"])
    return list(received.get("Messages", []))


def _body(aws: Aws) -> Any:
    (message,) = _delivered(aws, DETAIL)
    body = json.loads(message["Body"])
    fixed = {name: body[name] for name in ("version", "detail-type", "source", "resources", "detail")}
    return set(body), fixed, "MessageAttributes" in message


def _unmatched(aws: Aws) -> Any:
    return _delivered(aws, {"EventType": "2"}, pattern={"detail": {"EventType": ["0", "1"]}})


def _scheduled(aws: Aws) -> Any:
    """The message of a schedule whose target has an input."""
    url, name = aws.queue(), aws.fresh("schedule")
    aws.client("scheduler").create_schedule(
        Name=name,
        ScheduleExpression=f"at({datetime.now(UTC):%Y-%m-%dT%H:%M:%S})",
        FlexibleTimeWindow={"Mode": "OFF"},
        Target={"Arn": aws.arn(url), "RoleArn": ROLE, "Input": '{"sweep": ""}'},
    )
    received = functions.wait_for(
        lambda: aws.sqs.receive_message(QueueUrl=url, WaitTimeSeconds=1, MessageAttributeNames=["All"]).get("Messages")
    )
    return received[0]["Body"], "MessageAttributes" in received[0]


def _entries(aws: Aws, count: int, size: int = 2) -> str:
    entry = {"Source": SOURCE, "DetailType": SOURCE, "Detail": json.dumps({"a": "a" * size})}
    return refusal(aws.events.put_events, Entries=[entry] * count)


MEMBERS = {"version", "id", "detail-type", "source", "account", "time", "region", "resources", "detail"}
EVENT = {"version": "0", "detail-type": SOURCE, "source": SOURCE, "resources": [], "detail": DETAIL}

EXPECTATIONS = (
    Expectation(
        "events_queue_receives_the_whole_event",
        events("TestEventsTargetSqs::test_put_events_with_target_sqs"),
        _body,
        (MEMBERS, EVENT, False),
        lacks=NO_BUS,
        differs={MOTO: (MEMBERS - {"account"}, EVENT, False)},
    ),
    Expectation(
        "events_detail_that_does_not_match_is_not_delivered",
        events("TestEventsTargetSqs::test_put_events_with_target_sqs_event_detail_match"),
        _unmatched,
        [],
        lacks=NO_BUS,
    ),
    Expectation(
        "events_queue_receives_the_input_of_a_schedule",
        "https://docs.aws.amazon.com/scheduler/latest/UserGuide/managing-targets-templated.html",
        _scheduled,
        ('{"sweep": ""}', False),
        lacks={MOTO: "it keeps schedules and runs none", MEMORY: "the simulation calls the workers itself"},
    ),
    Expectation(
        "events_put_of_more_than_ten_is_refused",
        PUT_PAGE,
        lambda aws: _entries(aws, 11),
        "ValidationException",
    ),
    Expectation(
        "events_put_above_256_kb_is_refused",
        PUT_PAGE,
        lambda aws: _entries(aws, 1, 270_000),
        "ValidationException",
        differs={MOTO: "", MINISTACK: ""},
    ),
)
