"""Log lines and metrics of the cold path, which cannot wait for Powertools."""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import UTC, datetime
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


def write_line(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
