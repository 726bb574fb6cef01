"""The template's `LogLevel` decides what each kind of logger writes; metrics are written at every level."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from local.template_file import read_template
from tests.fakes.paths import ROOT

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
# Logs at each level with the loggers of the handler, a module and the cold path, and emits two metrics.
FUNCTION = """
import logging, sys
from aws_lambda_powertools import Metrics
from portaria.aws import queues
from portaria.core.logs import application_logger
from portaria.webhooks import request_log

logger, metrics = application_logger(), Metrics()
for level in ("DEBUG", "INFO", "WARNING", "ERROR"):
    logger.log(getattr(logging, level), "from_handler")
    queues.logger.log(getattr(logging, level), "from_module")
    request_log.log(level, "from_light")
    logging.getLogger("botocore.endpoint").log(getattr(logging, level), "from_library")
metrics.add_metric("FromPowertools", "Count", 1)
metrics.flush_metrics()
request_log.count("FromLight")
"""


def lines_at(level: str) -> list[dict[str, str]]:
    of_lambda = read_template()["Mappings"]["LogLevels"][level]["Lambda"]
    environment = {
        "PYTHONPATH": str(ROOT / "layers" / "portaria"),
        "POWERTOOLS_LOG_LEVEL": level,
        "POWERTOOLS_SERVICE_NAME": "portaria",
        "POWERTOOLS_METRICS_NAMESPACE": "Portaria",
        "AWS_LAMBDA_LOG_FORMAT": "JSON",
        "AWS_LAMBDA_LOG_LEVEL": of_lambda,
        "AWS_REGION": "us-east-1",
    }
    done = subprocess.run([sys.executable, "-c", FUNCTION], env=environment, check=True, capture_output=True, text=True)
    assert "from_library" not in done.stdout.replace("from_library_", "")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    # Lambda drops lines below its own level, and treats a line without a level as INFO.
    return [line for line in lines if LEVELS.index(line.get("level", "INFO")) >= LEVELS.index(of_lambda)]


@pytest.mark.parametrize("level", LEVELS)
def test_log_level_applies_to_each_logger_and_not_to_metrics(level: str) -> None:
    lines = lines_at(level)
    for message in ("from_handler", "from_module", "from_light"):
        written = [line["level"] for line in lines if line.get("message") == message]
        assert written == list(LEVELS[LEVELS.index(level) :]), message
    assert {name for line in lines for name in line if name.startswith("From")} == {"FromPowertools", "FromLight"}


def test_log_level_of_lambda_is_never_above_info() -> None:
    parameter = read_template()["Parameters"]["LogLevel"]["AllowedValues"]
    mapping = read_template()["Mappings"]["LogLevels"]
    assert set(mapping) == set(parameter) == set(LEVELS)
    assert {each["Lambda"] for each in mapping.values()} <= {"DEBUG", "INFO"}
    level = read_template()["Globals"]["Function"]["LoggingConfig"]["ApplicationLogLevel"]
    assert level == {"Fn::FindInMap": ["LogLevels", {"Ref": "LogLevel"}, "Lambda"]}
