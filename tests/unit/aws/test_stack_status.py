"""What CloudWatch and CloudFormation are asked, how often, and what becomes of their refusals."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from unittest.mock import MagicMock, patch

import pytest
from botocore.exceptions import ConnectTimeoutError

from portaria.aws import service_clients
from portaria.aws.stack_status import AlarmState, QueueAge, StackStatus
from tests.fakes.virtual_time import VirtualClock

QUEUES = "records=portaria-RecordsQueue-1,exchanges=portaria-ExchangesQueue-2"
ALARM = {
    "AlarmName": "portaria-RecordsOldAlarm-1ABC",
    "AlarmDescription": "Records wait.",
    "StateUpdatedTimestamp": datetime(2026, 3, 1, 10, tzinfo=UTC),
}


@pytest.fixture
def time() -> Iterator[VirtualClock]:
    made = VirtualClock()
    with made.installed():
        yield made


@pytest.fixture
def aws() -> Iterator[MagicMock]:
    """Both services, as one client."""
    client = MagicMock()
    client.describe_alarms.return_value = {"MetricAlarms": [ALARM]}
    client.get_metric_data.return_value = {
        "MetricDataResults": [{"Id": "q0", "Values": [42.0, 7.0]}, {"Id": "q1", "Values": []}]
    }
    with patch.object(service_clients, "client", return_value=client), patch.dict(os.environ, AWS_REGION="sa-east-1"):
        yield client


def test_alarms_are_named_as_in_the_template_with_their_page(aws: MagicMock, time: VirtualClock) -> None:
    (alarm,) = StackStatus("portaria", QUEUES).alarms() or ()
    page = "https://sa-east-1.console.aws.amazon.com/cloudwatch/home?region=sa-east-1"
    assert alarm == AlarmState(
        "RecordsOldAlarm",
        "Records wait.",
        "2026-03-01T10:00:00.000Z",
        f"{page}#alarmsV2:alarm/portaria-RecordsOldAlarm-1ABC",
    )
    asked = aws.describe_alarms.call_args.kwargs
    assert (asked["AlarmNamePrefix"], asked["StateValue"]) == ("portaria-", "ALARM")


def test_queue_ages_are_the_newest_values_of_each_queue(aws: MagicMock, time: VirtualClock) -> None:
    assert StackStatus("portaria", QUEUES).queue_ages() == (QueueAge("records", 42), QueueAge("exchanges", None))
    names = [
        each["MetricStat"]["Metric"]["Dimensions"][0]["Value"]
        for each in aws.get_metric_data.call_args.kwargs["MetricDataQueries"]
    ]
    assert names == ["portaria-RecordsQueue-1", "portaria-ExchangesQueue-2"]


@pytest.mark.parametrize(
    ("what", "operation", "kept_s"), [("alarms", "describe_alarms", 60), ("queue_ages", "get_metric_data", 120)]
)
def test_answers_are_kept_for_a_while(
    aws: MagicMock, time: VirtualClock, what: str, operation: str, kept_s: int
) -> None:
    status = StackStatus("portaria", QUEUES)
    for _ in range(kept_s // 15):
        assert getattr(status, what)()
        time.advance(15)
    assert getattr(aws, operation).call_count == 1
    getattr(status, what)()
    assert getattr(aws, operation).call_count == 2


@pytest.mark.parametrize("what", ["alarms", "queue_ages", "describe"])
def test_a_service_that_does_not_answer_is_not_asked_for_five_minutes(
    aws: MagicMock, time: VirtualClock, what: str
) -> None:
    calls: list[Any] = []

    def late(**call: Any) -> Any:
        calls.append(call)
        raise ConnectTimeoutError(endpoint_url="https://monitoring.sa-east-1.amazonaws.com")

    aws.describe_alarms.side_effect = aws.get_metric_data.side_effect = aws.describe_stacks.side_effect = late
    status = StackStatus("portaria", QUEUES)
    for _ in range(20):
        assert getattr(status, what)() is None
        time.advance(15)
    assert len(calls) == 1
    assert getattr(status, what)() is None
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("us-east-1", "us-east-1.console.aws.amazon.com"),
        ("cn-north-1", "cn-north-1.console.amazonaws.cn"),
        ("us-gov-west-1", "us-gov-west-1.console.amazonaws-us-gov.com"),
    ],
)
def test_console_url_is_of_the_region_s_partition(region: str, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", region)
    url = StackStatus("portaria").console_url("cloudwatch", "alarmsV2:")
    assert url == f"https://{host}/cloudwatch/home?region={region}#alarmsV2:"
