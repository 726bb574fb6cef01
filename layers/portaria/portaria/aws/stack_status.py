"""What CloudWatch and CloudFormation say about this stack: alarms that are on, ages of queues, parameters.

Each answer is kept in this process for a while, because CloudWatch charges for each metric that is read, and an open overview
asks every 15 seconds. A service that does not answer (in a VPC without its endpoint) is asked again after `FAILED_FOR`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar
from urllib.parse import quote

from portaria.aws import service_clients
from portaria.core import clock

logger = logging.getLogger(__name__)

Told = TypeVar("Told")
ALARMS_FOR, AGES_FOR, DESCRIPTION_FOR = timedelta(seconds=60), timedelta(seconds=120), timedelta(minutes=5)
FAILED_FOR = timedelta(minutes=5)
# SQS publishes the age each minute, and sometimes late.
AGE_PERIOD_S, AGE_LOOKBACK = 60, timedelta(minutes=15)
MAX_ALARMS = 100
CONSOLES = {"cn": "console.amazonaws.cn", "us-gov": "console.amazonaws-us-gov.com"}


@dataclass(frozen=True)
class AlarmState:
    """An alarm that is on. `name` is its logical name in the template, `since` is ISO 8601, `url` its page at CloudWatch."""

    name: str
    description: str
    since: str
    url: str


@dataclass(frozen=True)
class QueueAge:
    """`oldest_age_s` is None if SQS has published no age lately: the queue has been empty for hours, or is new."""

    name: str
    oldest_age_s: int | None


@dataclass(frozen=True)
class StackDescription:
    status: str
    updated_at: str
    parameters: dict[str, str]
    outputs: dict[str, str]


@dataclass
class StackStatus:
    """One per process. `queues` are `name=physical name`, separated by commas. What is not known is None."""

    name: str = ""
    queues: str = ""
    _known: dict[str, tuple[datetime, Any]] = field(default_factory=dict, repr=False)

    def alarms(self) -> tuple[AlarmState, ...] | None:
        """The alarms that are on, the newest first."""
        return self._keep("alarms", ALARMS_FOR, self._read_alarms)

    def queue_ages(self) -> tuple[QueueAge, ...] | None:
        return self._keep("queue_ages", AGES_FOR, self._read_ages)

    def describe(self) -> StackDescription | None:
        return self._keep("description", DESCRIPTION_FOR, self._read_description)

    @property
    def region(self) -> str:
        return os.environ["AWS_REGION"]

    def console_url(self, service: str, fragment: str) -> str:
        """A page of the AWS console, such as `cloudwatch` and `alarmsV2:`."""
        host = CONSOLES.get(self.region.rpartition("-")[0].rpartition("-")[0], "console.aws.amazon.com")
        return f"https://{self.region}.{host}/{service}/home?region={self.region}#{fragment}"

    def _keep(self, what: str, kept_for: timedelta, read: Callable[[], Told]) -> Told | None:
        now = clock.now()
        until, told = self._known.get(what, (now, None))
        if now < until:
            kept: Told | None = told
            return kept
        try:
            fresh = read()
        except service_clients.FAILURES as error:
            code = service_clients.error_code(error) or type(error).__name__
            logger.warning("stack_status_not_read", extra={"what": what, "error": code})
            self._known[what] = (now + FAILED_FOR, None)
            return None
        self._known[what] = (now + kept_for, fresh)
        return fresh

    def _read_alarms(self) -> tuple[AlarmState, ...]:
        prefix = f"{self.name}-"
        answer = service_clients.client("cloudwatch").describe_alarms(
            AlarmNamePrefix=prefix, StateValue="ALARM", MaxRecords=MAX_ALARMS
        )
        found = [
            AlarmState(
                # CloudFormation's names: the stack, the logical name, and a random part.
                alarm["AlarmName"].removeprefix(prefix).partition("-")[0],
                alarm.get("AlarmDescription", ""),
                clock.to_iso(alarm["StateUpdatedTimestamp"]),
                self.console_url("cloudwatch", f"alarmsV2:alarm/{quote(alarm['AlarmName'], safe='')}"),
            )
            for alarm in answer.get("MetricAlarms", [])
        ]
        return tuple(sorted(found, key=lambda alarm: alarm.since, reverse=True))

    def _read_ages(self) -> tuple[QueueAge, ...]:
        names = dict(each.split("=", 1) for each in self.queues.split(","))
        now = clock.now()
        queries = [
            {
                "Id": f"q{number}",
                "MetricStat": {
                    "Metric": {
                        "Namespace": "AWS/SQS",
                        "MetricName": "ApproximateAgeOfOldestMessage",
                        "Dimensions": [{"Name": "QueueName", "Value": physical_name}],
                    },
                    "Period": AGE_PERIOD_S,
                    "Stat": "Maximum",
                },
            }
            for number, physical_name in enumerate(names.values())
        ]
        answer = service_clients.client("cloudwatch").get_metric_data(
            MetricDataQueries=queries, StartTime=now - AGE_LOOKBACK, EndTime=now, ScanBy="TimestampDescending"
        )
        values = {each["Id"]: each["Values"] for each in answer["MetricDataResults"]}
        newest = (values.get(f"q{number}", []) for number in range(len(names)))
        return tuple(
            QueueAge(name, int(found[0]) if found else None) for name, found in zip(names, newest, strict=True)
        )

    def _read_description(self) -> StackDescription:
        (stack,) = service_clients.client("cloudformation").describe_stacks(StackName=self.name)["Stacks"]
        updated_at = stack.get("LastUpdatedTime") or stack["CreationTime"]
        return StackDescription(
            stack["StackStatus"],
            clock.to_iso(updated_at),
            {each["ParameterKey"]: each.get("ParameterValue", "") for each in stack.get("Parameters", [])},
            {each["OutputKey"]: each.get("OutputValue", "") for each in stack.get("Outputs", [])},
        )
