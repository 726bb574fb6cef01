"""CloudWatch in memory: data points, the metrics that SQS publishes, and the evaluation of an alarm's properties.

An expression may use what the template uses: arithmetic, comparisons, IF, FILL and SUM(METRICS()).
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html
"""

from __future__ import annotations

import json
import operator
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Key = tuple[str, str, tuple[tuple[str, str], ...]]
STATISTICS: dict[str, Callable[[list[float]], float]] = {"Sum": sum, "Maximum": max, "Minimum": min}
COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "GreaterThanOrEqualToThreshold": operator.ge,
    "LessThanThreshold": operator.lt,
    "LessThanOrEqualToThreshold": operator.le,
}
# From this number of receives on, ApproximateAgeOfOldestMessage ignores the message.
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-available-cloudwatch-metrics.html
IGNORED_FROM_RECEIVES = 3


class Metrics:
    def __init__(self) -> None:
        self.points: dict[Key, list[tuple[float, float]]] = defaultdict(list)

    def add(self, namespace: str, name: str, dimensions: dict[str, str], at_s: float, value: float) -> None:
        self.points[namespace, name, tuple(sorted(dimensions.items()))].append((at_s, value))

    def add_emitted(self, log: str, at_s: float) -> None:
        """Every metric in CloudWatch's embedded metric format among the lines of a function's log."""
        for line in log.splitlines():
            if '"_aws"' not in line:
                continue
            blob = json.loads(line)
            for directive in blob["_aws"]["CloudWatchMetrics"]:
                for names in directive["Dimensions"]:
                    for metric in directive["Metrics"]:
                        values = blob[metric["Name"]]
                        for value in values if isinstance(values, list) else [values]:
                            dimensions = {name: str(blob[name]) for name in names}
                            self.add(directive["Namespace"], metric["Name"], dimensions, at_s, value)

    def value(self, metric: dict[str, Any], statistic: str, begin_s: float, end_s: float) -> float | None:
        dimensions = tuple(sorted((one["Name"], str(one["Value"])) for one in metric["Dimensions"]))
        points = self.points.get((metric["Namespace"], metric["MetricName"], dimensions), [])
        values = [value for at_s, value in points if begin_s <= at_s < end_s]
        return STATISTICS[statistic](values) if values else None

    def state(self, alarm: dict[str, Any], now_s: float) -> str:
        """`ALARM` if each of the alarm's last periods is beyond its threshold; missing data is within it."""
        assert alarm["TreatMissingData"] == "notBreaching"
        parts = [each for each in alarm.get("Metrics", []) if "MetricStat" in each]
        period_s = parts[0]["MetricStat"]["Period"] if parts else alarm["Period"]
        end_s = now_s // period_s * period_s
        compare = COMPARISONS[alarm["ComparisonOperator"]]
        for number in range(alarm["EvaluationPeriods"]):
            begin_s = end_s - (number + 1) * period_s
            value = self._value_of(alarm, parts, begin_s, begin_s + period_s)
            if value is None or not compare(value, alarm["Threshold"]):
                return "OK"
        return "ALARM"

    def _value_of(
        self, alarm: dict[str, Any], parts: list[dict[str, Any]], begin_s: float, end_s: float
    ) -> float | None:
        if not parts:
            return self.value(alarm, alarm["Statistic"], begin_s, end_s)
        values = {
            each["Id"]: self.value(each["MetricStat"]["Metric"], each["MetricStat"]["Stat"], begin_s, end_s)
            for each in parts
        }
        (expression,) = [each["Expression"] for each in alarm["Metrics"] if "Expression" in each]
        return _evaluate(expression, values)


def _evaluate(expression: str, values: dict[str, float | None]) -> float | None:
    known = [value for value in values.values() if value is not None]
    if not known:
        # An expression over metrics without data has no data, with or without FILL.
        return None
    if expression == "SUM(METRICS())":
        return sum(known)
    filled = re.sub(
        r"FILL\((\w+), 0\)",
        lambda match: str(0.0 if values[match[1]] is None else values[match[1]]),
        expression,
    )
    if any(values[name] is None for name in re.findall(r"\b[a-z]\w*\b", filled)):
        return None
    text = re.sub(r"\b[a-z]\w*\b", lambda match: str(values[match[0]]), filled)
    text = re.sub(r"IF\(([^,]+), ([^,]+), ([^)]+)\)", r"(\2 if \1 else \3)", text).replace("AND", "and")
    return float(eval(text, {"__builtins__": {}}))


@dataclass
class Message:
    sent_at_s: float
    receives: int = 0
    invisible_until_s: float = 0.0
    deleted: bool = False


@dataclass
class Queue:
    """A queue and the metrics that SQS publishes of it each minute."""

    name: str
    messages: list[Message] = field(default_factory=list)
    received: int = 0

    def send(self, at_s: float) -> Message:
        self.messages.append(Message(at_s))
        return self.messages[-1]

    def receive(self, at_s: float, hidden_for_s: float) -> list[Message]:
        found = [one for one in self.messages if not one.deleted and one.invisible_until_s <= at_s]
        for one in found:
            one.receives += 1
            one.invisible_until_s = at_s + hidden_for_s
        self.received += len(found)
        return found

    def publish(self, metrics: Metrics, at_s: float) -> None:
        there = [one for one in self.messages if not one.deleted]
        visible = sum(one.invisible_until_s <= at_s for one in there)
        counted = [one.sent_at_s for one in there if one.receives < IGNORED_FROM_RECEIVES]
        values = {
            "ApproximateAgeOfOldestMessage": at_s - min(counted, default=at_s),
            "ApproximateNumberOfMessagesVisible": visible,
            "ApproximateNumberOfMessagesNotVisible": len(there) - visible,
            "NumberOfMessagesReceived": self.received,
        }
        for name, value in values.items():
            metrics.add("AWS/SQS", name, {"QueueName": self.name}, at_s, value)
        self.received = 0
