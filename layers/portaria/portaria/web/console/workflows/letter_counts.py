"""How many dead letters there are for each reason and route, among the newest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from portaria.web.console.api_calls import Problem
from portaria.web.console.visit import Visit

Content = dict[str, Any]
# What is counted is bounded, whatever the table holds. A page that counts says whether there are more.
PAGES, PAGE_SIZE = 2, 100
COLUMNS = ("reason", "route", "dead_letter_count", "record_count", "oldest_at", "newest_at")


def count(visit: Visit, filters: Mapping[str, str]) -> Content:
    """`rows`, the largest first, each with the `query` of its list, and whether there are `more` than were counted."""
    groups: dict[tuple[str, str], Content] = {}
    cursor, counted = "", 0
    for _ in range(PAGES):
        query = {**filters, "limit": str(PAGE_SIZE), "cursor": cursor}
        try:
            page = visit.api.call("list_dead_letters", query=query).content
        except Problem:
            break
        for letter in page["items"]:
            _add(groups, letter, filters)
        counted += len(page["items"])
        cursor = page["next_cursor"] or ""
        if not cursor:
            break
    rows = sorted(groups.values(), key=lambda row: (-row["dead_letter_count"], row["reason"], row["route"] or ""))
    return {"rows": rows, "more": bool(cursor), "counted": counted}


def _add(groups: dict[tuple[str, str], Content], letter: Content, filters: Mapping[str, str]) -> None:
    key = (letter["reason"], letter["route"] or "")
    chosen = {**filters, "reason": letter["reason"]} | ({"route": letter["route"]} if letter["route"] else {})
    row = groups.setdefault(
        key,
        {
            "reason": letter["reason"],
            "route": letter["route"],
            "dead_letter_count": 0,
            "record_count": 0,
            "oldest_at": letter["set_aside_at"],
            "newest_at": letter["set_aside_at"],
            "query": "?" + urlencode(chosen),
        },
    )
    row["dead_letter_count"] += 1
    row["record_count"] += letter["record_count"]
    row["oldest_at"] = min(row["oldest_at"], letter["set_aside_at"])
    row["newest_at"] = max(row["newest_at"], letter["set_aside_at"])
