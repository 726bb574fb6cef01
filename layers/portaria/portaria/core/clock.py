"""The time, and the two ways in which it is stored: ISO 8601 for people, epoch seconds for TTLs and leases."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def now() -> datetime:
    return datetime.now(UTC)


def sleep(seconds: float) -> None:
    time.sleep(seconds)


def to_iso(moment: datetime) -> str:
    """`2026-01-31T23:59:59.123Z`: sorts as text in the order of time."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def epoch_to_iso(seconds: float) -> str:
    return to_iso(datetime.fromtimestamp(seconds, UTC))


def from_iso(text: str) -> datetime:
    return datetime.fromisoformat(text)
