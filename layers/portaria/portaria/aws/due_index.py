"""The index `by_due`: items that a sweep processes when they are due.

An item is in the index while it has `due_pk`, the sweep that visits it, and `due_at`, the time from which it does
(ISO 8601, UTC). A sweep runs on a schedule, reads the index page by page and queues one message for each item.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from portaria.aws.table import Item, Table
from portaria.core import clock

# `renew_tokens` sweeps connections and private integrations, `backfill_records` sweeps reconciliations. Deliveries of webhooks
# have one partition for each webhook (`notifications.deliveries`).
RENEWALS = "CONNECTIONS"
RECONCILIATIONS = "RECONCILIATIONS"
PAGE_SIZE = 100


class DuePage(NamedTuple):
    """One page of due items. `claimed` are the items that this sweep has postponed; `cursor` is None on the last page."""

    items: list[Item]
    claimed: list[Item]
    cursor: str | None


def attributes(sweep: str, due_at: datetime) -> Item:
    """The attributes that add an item to the index."""
    return {"due_pk": sweep, "due_at": clock.to_iso(due_at)}


def claim_page(
    table: Table, sweep: str, cursor: str | None, *, again_after: timedelta, limit: int | None = None
) -> DuePage:
    """Read at most `limit` items that are due now, and postpone each by `again_after` so that no other sweep claims it.

    The limit is `PAGE_SIZE` by default.

    The caller queues the claimed items afterwards. If it dies before that, they are due again after `again_after`.
    """
    now = clock.now()
    items, next_cursor = table.query(
        sweep, index="by_due", sk_until=clock.to_iso(now), limit=limit or PAGE_SIZE, cursor=cursor or None
    )
    claimed = [item for item in items if table.postpone(item, clock.to_iso(now + again_after))]
    return DuePage(items, claimed, next_cursor)
