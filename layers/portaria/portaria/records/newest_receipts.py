"""The newest receipts of several destinations. Each destination has its own partition in the index, so pages are merged."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from portaria.aws import merged_pages
from portaria.aws.table import Table
from portaria.records.receipts import LIST, Receipt, read_all


def newest(
    table: Table, destinations: Sequence[str], now: datetime, *, cursor: str | None = None, limit: int = 50
) -> tuple[list[Receipt], str | None]:
    """One page, the newest first. Raises `Rejected` (`bad_cursor`)."""
    partitions = [f"{LIST}#{destination}" for destination in destinations]
    items, next_cursor = merged_pages.merged_page(
        table, partitions, index="listing", cursor=cursor, limit=limit, newest_first=True
    )
    return read_all(table, items, now), next_cursor
