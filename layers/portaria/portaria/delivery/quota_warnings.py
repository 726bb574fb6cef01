"""The event `quota.low`: once a day for each subscription whose daily quota is nearly used up."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from portaria.aws import event_bus
from portaria.aws.table import Table
from portaria.core import clock, event_catalogue
from portaria.core.unexpected_errors import log_unexpected

LOW_PERCENT = 20
KEPT_FOR = timedelta(days=2)


def publish(table: Table, bus_name: str, left: Mapping[tuple[str, str], int]) -> None:
    """Publish the event for each subscription below `LOW_PERCENT`, unless it was published for its day (a local date).

    `left` is in percent, by subscription and day. The day is that of the reservation: a batch can end after the reset.

    The event is published before that is noted, so that it is not lost; several workers may publish it at the same moment.
    Raises nothing: the next batch publishes it.
    """
    for (subscription, day), percent in left.items():
        if percent >= LOW_PERCENT:
            continue
        try:
            pk, sk = key(subscription, day)
            if table.get(pk, sk):
                continue
            detail = {"subscription": subscription, "day": day, "left_percent": percent}
            event_bus.put(bus_name, event_catalogue.QUOTA_LOW, detail)
            table.put({"pk": pk, "sk": sk, "expires_at": int((clock.now() + KEPT_FOR).timestamp())})
        except Exception as error:  # noqa: BLE001 - see above
            log_unexpected("quota_warning_not_published", error, subscription=subscription)


def key(subscription: str, day: str) -> tuple[str, str]:
    return f"QUOTA#{subscription}#{day}#LOW", "LOW"
