"""The cells of tables: times, ages, states and lists, as `rich` text."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from rich.text import Text

# The ages in days from which a token should be rotated, and must be.
ROTATE_SOON, ROTATE_NOW = 80, 90
MOST_IN_A_CELL = 2
STYLES = {
    "created": "green", "replaced": "yellow", "updated": "yellow", "unchanged": "dim",
    "connected": "green", "failed": "red", "needs_reconnect": "red", "received": "yellow", "exchanging": "yellow",
    "pending": "yellow", "removed": "dim", "running": "yellow",
    "done": "green", "refused": "red", "begun": "yellow",
    "registered": "green", "unknown": "yellow", "not_sent": "yellow",
    "works": "green", "unclear": "yellow",
    "applied": "green", "redriven": "green", "would_redrive": "green", "gone": "yellow", "in_progress": "yellow",
    "open": "yellow", "paused": "red", "waiting": "yellow",
}  # fmt: skip


def plain(text: str) -> Text:
    """Text without markup."""
    return Text(text)


def brief(value: Any) -> Text:
    if value in (None, "", {}, []):
        return none()
    if isinstance(value, dict):
        return Text(" ".join(str(inner) for inner in value.values()))
    if isinstance(value, list):
        more = f" and {len(value) - MOST_IN_A_CELL} more" if len(value) > MOST_IN_A_CELL else ""
        return Text(", ".join(map(str, value[:MOST_IN_A_CELL])) + more)
    return styled(str(value))


def or_none(value: Any, told: Callable[[Any], str]) -> Text:
    return Text(told(value)) if value else none()


def none() -> Text:
    return Text("–", style="dim")


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def styled(word: str) -> Text:
    return Text(word.replace("_", " ") if word == "not_sent" else word, style=STYLES.get(word, ""))


def age(days: int, *, rotates: bool = True) -> Text:
    """A token's age, with a remark if it should be rotated."""
    told = f"{days} d"
    if rotates and days >= ROTATE_NOW:
        return Text(f"{told}: rotate", style="bold red")
    if rotates and days >= ROTATE_SOON:
        return Text(f"{told}: rotate soon", style="yellow")
    return Text(told)


def since(iso: str) -> str:
    seconds = int((datetime.now(UTC) - datetime.fromisoformat(iso)).total_seconds())
    return f"{span(seconds)} ago" if seconds >= 0 else f"in {span(-seconds)}"


def until_in(iso: str) -> str:
    """The time that remains, rounded to the nearest unit."""
    return span(round((datetime.fromisoformat(iso) - datetime.now(UTC)).total_seconds()), round)


def to_the_hour(iso: str) -> str:
    hours = int((datetime.now(UTC) - datetime.fromisoformat(iso)).total_seconds()) // 3_600
    if hours < 1:
        return "this hour"
    return f"{hours // 24} d ago" if hours >= 24 else f"{hours} h ago"


def span(seconds: int, whole: Callable[[float], int] = int) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{whole(seconds / size)} {unit}"
    return f"{max(0, seconds)} s"
