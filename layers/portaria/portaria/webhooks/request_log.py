"""Log lines and metrics of the cold path, which cannot wait for Powertools."""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import UTC, datetime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


def log(level: str, message: str, **fields: str | int) -> None:
    """Write one line in the form of Lambda's own JSON logs, unless the template's `LogLevel` is above `level`.

    Never give it a code, a state or a query string. The texts of `Retryable` and `AwsError` hold no secret.
    """
    if LEVELS.index(level) < LEVELS.index(os.environ.get("POWERTOOLS_LOG_LEVEL") or "INFO"):
        return
    moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    write_line({"timestamp": moment, "level": level, "message": message, "service": "portaria", **fields})


def count(metric: str, number: int = 1) -> None:
    """Add to a metric of this stack, in CloudWatch's embedded metric format, whatever the log level.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
    """
    directive = {"Namespace": "Portaria", "Dimensions": [["service"]], "Metrics": [{"Name": metric, "Unit": "Count"}]}
    metadata = {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [directive]}
    write_line({"_aws": metadata, "service": os.environ["POWERTOOLS_SERVICE_NAME"], metric: number})


class Tally:
    """Counts of one process, due at once if none were written in the last `every_s` seconds, and otherwise after that time."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._counts: dict[str, int] = {}
        self._taken_at: float | None = None

    def add(self, **counts: int) -> None:
        for name, number in counts.items():
            if number:
                self._counts[name] = self._counts.get(name, 0) + number

    def take_due(self) -> dict[str, int]:
        """Return the counts and begin again at zero; empty while they are not due."""
        now = time.monotonic()
        if self._taken_at is not None and now - self._taken_at < self._every_s:
            return {}
        self._taken_at = now
        counts, self._counts = self._counts, {}
        return counts


def write_line(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
