"""The newest receipts of several destinations. Each destination has its own partition in the index, so pages are merged."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

from portaria.aws.table import Item, Table, decode_cursor, encode_cursor, run_concurrently
from portaria.core.errors import Rejected
from portaria.records.receipts import LIST, Receipt, read_all

_PLACE = re.compile(r"[0-9T:.Z-]{20,30}#[0-9a-f]{40}")


def newest(
    table: Table, destinations: Sequence[str], now: datetime, *, cursor: str | None = None, limit: int = 50
) -> tuple[list[Receipt], str | None]:
    """One page, the newest first. Raises `Rejected` (`bad_cursor`)."""
    before = _read_place(cursor) if cursor else ""

    def first_of(destination: str) -> list[Item]:
        # The place itself is included by `sk_until`, and left out of the page.
        items, _ = table.query(
            f"{LIST}#{destination}", index="listing", newest_first=True, limit=limit + 2, sk_until=before
        )
        return [item for item in items if item["list_sk"] != before]

    found = [item for items in run_concurrently(first_of, destinations) for item in items]
    found.sort(key=lambda item: str(item["list_sk"]), reverse=True)
    page = found[:limit]
    place = encode_cursor(page[-1]["list_sk"]) if len(found) > limit else None
    return read_all(table, page, now), place


def _read_place(cursor: str) -> str:
    try:
        place = decode_cursor(cursor)
        if isinstance(place, str) and _PLACE.fullmatch(place):
            return place
    except (ValueError, RecursionError):
        pass
    raise Rejected(
        "bad_cursor",
        "the cursor is not valid: send the next_cursor of the last response, or none to begin again",
        field="cursor",
    )
