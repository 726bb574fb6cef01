"""The application's logger, at the level that the template's parameter `LogLevel` sets.

Lambda filters JSON log lines by `ApplicationLogLevel` and treats a line without a level, such as a metric in CloudWatch's
embedded metric format, as INFO. The template therefore never sets that level above INFO, and the level is applied here:
https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html
"""

from __future__ import annotations

import logging
import os

from aws_lambda_powertools import Logger

NAME = "portaria"


def application_logger() -> Logger:
    """The logger of a function's handler. The package's modules log through the same handler, as `portaria.{module}`.

    Libraries log from WARNING on, whatever the level: at DEBUG, botocore logs requests with the secrets in them.
    """
    logging.getLogger().setLevel(logging.WARNING)
    logger = Logger(service=NAME)
    # Powertools prefers Lambda's own level over every other, so its level is set on the logger below it.
    logging.getLogger(NAME).setLevel(os.environ.get("POWERTOOLS_LOG_LEVEL") or logging.INFO)
    return logger
