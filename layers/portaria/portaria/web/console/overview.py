"""The overview: what happened, what is about to end, and what is stuck.

What it reads is bounded, whatever the table holds: states are counted in an index up to a limit, without the items, and each
list is one short page. A state with more than the limit says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from portaria import platforms
from portaria.aws import merged_pages
from portaria.aws.table import Table
from portaria.connections import connection_store
from portaria.core import clock
from portaria.core.item_keys import install_list
from portaria.web.console import pages
from portaria.web.console.api_calls import Problem
from portaria.web.console.sections import BY_ID
from portaria.web.console.visit import Outcome, Visit

Content = dict[str, Any]
NEWEST, COUNTED, LETTERS, CONNECTED = 5, 50, 50, 10
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
    letters = _page(visit, "list_dead_letters", LETTERS)
    connected = _page(visit, "list_connections", CONNECTED, state="connected")
    charts = {
        "installs_by_state": _by_state(visit, "list_installs", "installs", _count_installs),
        "connections_by_state": _by_state(visit, "list_connections", "connections", _count_connections),
        "dead_letters_by_reason": _by_reason(letters),
    }
    parts = {
        "failed_installs": _rows(_page(visit, "list_installs", NEWEST, state="failed")),
        "newest_installs": _rows(_page(visit, "list_installs", NEWEST)),
        "destinations": _rows(_page(visit, "list_destinations", NEWEST)),
        "dead_letters": _rows(letters),
        "tokens_end": _ending(connected),
    }
    shown = {name: bars for name, bars in charts.items() if bars is not None}
    return Outcome(pages.render("overview.html", visit.frame, parts_=parts, charts=shown))


def _by_state(
    visit: Visit, operation: str, section: str, count: Callable[[Table, str], tuple[int, bool]]
) -> list[Bar] | None:
    """How many there are in each state, if the session may list them."""
    if not visit.api.allows(operation):
        return None
    states = BY_ID[operation].filters["state"]
    counted = [(state, *count(visit.context.table, state), f"{section}?state={state}") for state in states]  # type: ignore[union-attr]
    return _bars(counted)


def _count_installs(table: Table, state: str) -> tuple[int, bool]:
    """Those that arrived in the last day."""
    since = clock.to_iso(clock.now() - RECENT)
    found, cursor = merged_pages.merged_page(
        table, [install_list(state)], index="listing", cursor=None, limit=COUNTED, newest_first=True, since=since
    )
    return len(found), bool(cursor)


def _count_connections(table: Table, state: str) -> tuple[int, bool]:
    return connection_store.count(table, [each.name for each in platforms.every()], state, COUNTED)


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
    return sorted(ending, key=lambda each: str(each["token_ends_at"]))[:NEWEST]


def _rows(page: Content | None) -> list[Content] | None:
    return None if page is None else page["items"][:NEWEST]


def _page(visit: Visit, operation: str, limit: int, **filters: str) -> Content | None:
    if not visit.api.allows(operation):
        return None
    try:
        return visit.api.call(operation, query={**filters, "limit": str(limit)}).content
    except Problem:
        return None
