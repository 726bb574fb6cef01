"""Sending a webhook's deliveries of a time range again, one page with each call."""

from __future__ import annotations

from datetime import datetime, timedelta

from portaria.aws.table import Table
from portaria.notifications import deliveries, delivery_messages

DELIVERIES_A_CALL = 100


def redeliver(
    table: Table,
    queue_url: str,
    webhook_id: str,
    *,
    since: datetime,
    until: datetime,
    state: str,
    cursor: str | None,
    dry_run: bool = False,
) -> tuple[int, str | None]:
    """Queue deliveries of events from `since` until `until` again, the oldest first; how many, and the next page's cursor.

    With `dry_run` they are only counted.

    Each delivery is pending again before its message is sent: after a death in between, the sweep sends it.
    Raises `Rejected` (`bad_cursor`), `Retryable` and what AWS raises.
    """
    pk = deliveries.key(webhook_id, "")[0]
    beyond = deliveries.lowest_id(until + timedelta(milliseconds=1))
    items, next_cursor = table.query(pk, sk_from=deliveries.lowest_id(since), limit=DELIVERIES_A_CALL, cursor=cursor)
    count = 0
    for item in items:
        if item["sk"] >= beyond or not item["sk"].startswith(deliveries.ID_PREFIX):
            return count, None
        delivery = deliveries.read(item)
        if delivery.state != state or not delivery.body:
            continue
        if dry_run:
            count += 1
        elif deliveries.queue_again(table, webhook_id, delivery.id):
            delivery_messages.send_delivery(queue_url, webhook_id, delivery.id)
            count += 1
    return count, next_cursor
