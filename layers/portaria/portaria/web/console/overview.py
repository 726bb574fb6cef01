"""The overview: what happened, what is about to end, and what is stuck.

Each number is read from one page of a listing that an index serves, so that the reads stay bounded whatever the table holds.
A state with more than a page says so.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from portaria.core import clock
from portaria.web.console import pages
from portaria.web.console.api_calls import Problem
from portaria.web.console.sections import BY_ID
from portaria.web.console.visit import Outcome, Visit

Content = dict[str, Any]
NEWEST, COUNTED, SOONEST = 10, 50, 5
RECENT = timedelta(hours=24)


@dataclass(frozen=True)
class Bar:
    """One bar of a chart. `share` is its length as a part of the longest bar's; `is_more` says that the count is a minimum."""

    name: str
    count: int
    share: float
    is_more: bool = False
    link: str = ""


def show(visit: Visit) -> Outcome:
    """A part that the session may not see is left out."""
    since = clock.to_iso(clock.now() - RECENT)
    letters = _page(visit, "list_dead_letters", COUNTED)
    connected = _page(visit, "list_connections", COUNTED, state="connected")
    charts = {
        "installs_by_state": _by_state(visit, "list_installs", "installs", {}, since=since),
        "connections_by_state": _by_state(visit, "list_connections", "connections", {"connected": connected}),
        "dead_letters_by_reason": _by_reason(letters),
    }
    parts = {
        "failed_installs": _rows(_page(visit, "list_installs", NEWEST, state="failed")),
        "newest_installs": _rows(_page(visit, "list_installs", NEWEST)),
        "destinations": _rows(_page(visit, "list_destinations", NEWEST)),
        "dead_letters": _rows(letters),
        "receipts": _rows(_page(visit, "list_receipts", NEWEST)),
        "tokens_end": _ending(connected),
    }
    shown = {name: bars for name, bars in charts.items() if bars is not None}
    return Outcome(pages.render("overview.html", visit.frame, parts_=parts, charts=shown))


def _by_state(
    visit: Visit, operation: str, section: str, known: dict[str, Content | None], **filters: str
) -> list[Bar] | None:
    """How many there are in each state; `known` are pages that have been read."""
    counted: list[tuple[str, int, bool, str]] = []
    for state in BY_ID[operation].filters["state"]:  # type: ignore[union-attr]
        page = known[state] if state in known else _page(visit, operation, COUNTED, state=state, **filters)
        if page is None:
            return None
        counted.append((state, len(page["items"]), bool(page["next_cursor"]), f"{section}?state={state}"))
    return _bars(counted)


def _by_reason(page: Content | None) -> list[Bar] | None:
    if page is None:
        return None
    reasons = Counter(each["reason"] for each in page["items"]).most_common()
    return _bars([(reason, count, False, f"dead-letters?reason={reason}") for reason, count in reasons])


def _bars(counted: list[tuple[str, int, bool, str]]) -> list[Bar]:
    longest = max((count for _, count, _, _ in counted), default=0) or 1
    return [Bar(name, count, count / longest, is_more, link) for name, count, is_more, link in counted]


def _ending(page: Content | None) -> list[Content] | None:
    if page is None:
        return None
    ending = [each for each in page["items"] if each["token_ends_at"]]
    return sorted(ending, key=lambda each: str(each["token_ends_at"]))[:SOONEST]


def _rows(page: Content | None) -> list[Content] | None:
    return None if page is None else page["items"][:NEWEST]


def _page(visit: Visit, operation: str, limit: int, **filters: str) -> Content | None:
    if not visit.api.allows(operation):
        return None
    try:
        return visit.api.call(operation, query={**filters, "limit": str(limit)}).content
    except Problem:
        return None
