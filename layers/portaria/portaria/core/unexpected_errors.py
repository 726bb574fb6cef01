"""Logging of exceptions that no code expected."""

from __future__ import annotations

import logging
import traceback

logger = logging.getLogger(__name__)


def log_unexpected(event: str, error: Exception, **facts: str) -> None:
    """Log an exception's type and place. Its text may quote a record or a token, so it is left out."""
    extra = {**facts, "error": type(error).__name__, "at": traceback.format_tb(error.__traceback__)}
    logger.error(event, extra=extra)
