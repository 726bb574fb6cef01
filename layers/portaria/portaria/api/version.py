"""The version of Portaria and of its API, and the deprecation of an operation. docs/api.md has the rules."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time

VERSION = "1.0.0"


@dataclass(frozen=True)
class Deprecation:
    """`since` is the day on which an operation was deprecated, `sunset` the day after which it may be removed."""

    since: date
    sunset: date

    @property
    def headers(self) -> dict[str, str]:
        """`Deprecation` (RFC 9745, a structured date) and `Sunset` (RFC 8594, an HTTP date) of each response."""
        from email.utils import format_datetime  # noqa: PLC0415 - few operations are deprecated

        since, sunset = (datetime.combine(day, time(), UTC) for day in (self.since, self.sunset))
        return {"Deprecation": f"@{int(since.timestamp())}", "Sunset": format_datetime(sunset, usegmt=True)}
