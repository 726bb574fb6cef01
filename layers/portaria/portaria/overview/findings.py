"""What a check of the stack finds: one line each, with what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

OK, WARN, FAIL, SKIPPED = "ok", "warn", "fail", "skipped"
STATES = (OK, WARN, FAIL, SKIPPED)
# The most names in a finding; the others are counted.
MOST_NAMES = 5


@dataclass(frozen=True)
class Finding:
    """`found` is a sentence, `advice` what to do, empty where there is nothing to do. `check` is the check's title."""

    check: str
    state: str
    found: str
    advice: str = ""

    def document(self) -> dict[str, Any]:
        return asdict(self)


def named(names: Iterable[str]) -> str:
    """The first few names, and how many more."""
    all_names = list(names)
    more = len(all_names) - MOST_NAMES
    return ", ".join(all_names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def runbook(section: str) -> str:
    return f"see docs/operations.md#{section}"
