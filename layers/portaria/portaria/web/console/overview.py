"""The overview: what happened, what is about to end, and what is stuck. Every number leads to what it counts.

Its content is the operation `show_overview`, and the newest failed installs.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode

from markupsafe import Markup

from portaria.core import clock
from portaria.web.console import charts, pages
from portaria.web.console.api_calls import Problem
from portaria.web.console.charts import Bar, Column
from portaria.web.console.visit import Outcome, Visit

Content = dict[str, Any]
NEWEST = 5
# How late the next count may be before the page warns: `count_states` has failed twice, or does not run.
LATE = timedelta(minutes=10)
HOURS, DAYS = "24h", "7d"
# Which list shows what waits in a queue.
QUEUE_LINKS = {
    "exchanges": "installs?state=received", "unproven_exchanges": "installs?state=received",
    "deferred_exchanges": "installs?state=received", "records": "receipts?state=sent", "bulk_records": "receipts?state=sent",
    "waiting_records": "destinations", "renewals": "connections?state=connected", "uninstalls": "connections",
    "webhook_events": "webhooks", "webhook_deliveries": "webhooks", "slow_webhook_deliveries": "webhooks",
    "backfills": "connections",
}  # fmt: skip
# Ages from which a queue is coloured, in seconds: as docs/operations.md says when to act.
SLOW_S, STUCK_S = 60, 600
LOW_QUOTA, USED_QUOTA = 0.8, 1.0


def show(visit: Visit) -> Outcome:
    """A part that the session may not see is left out."""
    found = _call(visit, "show_overview")
    failed = _call(visit, "list_installs", state="failed", limit=str(NEWEST))
    return Outcome(
        pages.render(
            "overview.html",
            visit.frame,
            found=found,
            windows=[_window(each) for each in found["installs"]] if found else [],
            bars={} if found is None else _bars(visit, found),
            parts_at=_counted(found),
            grants=found["grants"][:NEWEST] if found else [],
            failed=None if failed is None else failed["items"],
            destinations=[each | {"destination": each["name"]} for each in found["destinations"]] if found else [],
        )
    )


def _call(visit: Visit, operation: str, **query: str) -> Content | None:
    if not visit.api.allows(operation):
        return None
    try:
        return visit.api.call(operation, query=query).content
    except Problem:
        return None


def _link(section: str, **filters: str) -> str:
    return f"{section}?{urlencode(filters)}"


def _counted(found: Content | None) -> Content:
    """When the parts were counted: the oldest, whether that is long ago, and which parts are minimums."""
    parts = found["parts"] if found else []
    oldest = min((part["counted_at"] for part in parts), default="")
    due = [moment for part in parts if (moment := _moment(part["next_count_at"]))]
    return {
        "oldest": oldest,
        "is_stale": any(clock.now() - moment > LATE for moment in due),
        "minimums": {part["name"] for part in parts if not part["is_complete"]},
    }


def _window(window: Content) -> Content:
    """A chart of installs: its columns, and the totals with their lists."""
    is_hours = window["window"] == HOURS
    moments = [_moment(bar["since"]) for bar in window["bars"]]
    labels = [moment.strftime("%H:%M" if is_hours else "%m-%d") if moment else "" for moment in moments]
    counted = [
        {name: bar[f"{name}_count"] for name in ("connected", "failed", "in_progress")} for bar in window["bars"]
    ]
    columns: list[Column] = charts.columns(counted, labels, 6 if is_hours else 1)
    since = window["since"]
    return {
        "name": f"installs_{window['window']}",
        "columns": columns,
        "received": window["received_count"],
        "all": _link("installs", since=since),
        "states": [each | {"link": _link("installs", state=each["name"], since=since)} for each in window["states"]],
        "failures": [
            each | {"link": _link("installs", state="failed", reason=each["name"], since=since)}
            for each in window["failures"]
        ],
    }


def _bars(visit: Visit, found: Content) -> dict[str, list[Bar] | None]:
    """The charts with horizontal bars; None for one whose numbers are not known now."""

    def states(name: str, section: str) -> list[Bar]:
        return charts.bars(
            (
                each["name"],
                pages.text_or_name(visit.frame.language, "state", each["name"]),
                each["total_count"],
                _link(section, state=each["name"]),
                pages.BADGES.get(each["name"], "quiet"),
            )
            for each in found[name]
        )

    letters = charts.bars(
        (
            each["name"],
            each["name"],
            each["total_count"],
            _link("dead-letters", reason=each["name"], state="open"),
            "bad",
        )
        for each in found["dead_letters"]
    )
    return {
        "connections": states("connections", "connections"),
        "receipts": states("receipts", "receipts"),
        "dead_letters": letters,
        "quotas": [_quota(visit, each) for each in found["quotas"]],
        "queues": None if found["queues"] is None else _queues(visit, found["queues"]),
    }


def _quota(visit: Visit, quota: Content) -> Bar:
    share = quota["used_count"] / quota["quota_count"]
    colour = "bad" if share >= USED_QUOTA else "warn" if share >= LOW_QUOTA else "good"
    numbers = {name: pages.shown(visit.frame, "count", quota[f"{name}_count"]) for name in ("used", "quota")}
    detail = pages.translate(visit.frame.language, "overview.used", **numbers)
    link = f"receipts?destination={quote(quota['connection'], safe='')}"
    return Bar(
        quota["subscription"],
        quota["subscription"],
        quota["used_count"],
        min(share, 1.0),
        link,
        colour,
        f"{share:.0%}",
        detail,
    )


def _queues(visit: Visit, queues: list[Content]) -> list[Bar]:
    longest = max((queue["oldest_age_s"] or 0 for queue in queues), default=0)
    return [
        Bar(
            queue["name"],
            pages.text_or_name(visit.frame.language, "queue", queue["name"]),
            age,
            age / max(longest, SLOW_S),
            QUEUE_LINKS.get(queue["name"], "destinations"),
            "bad" if age >= STUCK_S else "warn" if age >= SLOW_S else "good",
            _duration(visit, age),
        )
        for queue in queues
        for age in [queue["oldest_age_s"] or 0]
    ]


def _moment(text: str) -> datetime | None:
    try:
        return clock.from_iso(text)
    except ValueError:
        return None


def _duration(visit: Visit, seconds: int) -> Markup:
    language = visit.frame.language
    if not seconds:
        return pages.translate(language, "overview.empty_queue")
    if seconds < pages.MINUTE:
        return pages.translate(language, "overview.seconds", count=seconds)
    unit, size = (
        ("minute", pages.MINUTE)
        if seconds < pages.HOUR
        else ("hour", pages.HOUR)
        if seconds < 2 * pages.DAY
        else ("day", pages.DAY)
    )
    count = seconds // size
    return pages.translate(language, f"time.{unit}" if count == 1 else f"time.{unit}s", count=count)
