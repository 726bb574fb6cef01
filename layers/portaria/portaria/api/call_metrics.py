"""Counts of the API's calls, as metrics that alarms watch."""

from __future__ import annotations

import os

from aws_lambda_powertools import single_metric
from aws_lambda_powertools.metrics import MetricUnit

# A call that this stack failed, not a platform. The alarm on it ends a gradual deployment.
FAILED = "ApiCallsFailed"
# A call whose token does not work.
ATTEMPT_FAILED = "ApiAttemptsFailed"


def count(name: str) -> None:
    with single_metric(name, MetricUnit.Count, 1) as metric:
        metric.add_dimension("service", os.environ["POWERTOOLS_SERVICE_NAME"])
