"""Fan-out: stores one delivery of an event for each webhook that subscribes to it, and queues their first attempts.

The deliveries are stored before the first message is sent. A repeated event finds its deliveries stored, and queues them again:
a delivery that has ended ignores that.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import Any

from portaria.aws import event_bus
from portaria.aws.table import Table
from portaria.core import clock
from portaria.core.errors import Rejected
from portaria.core.event_catalogue import CATALOGUE
from portaria.core.settings import FanOutEventsSettings
from portaria.notifications import deliveries, delivery_messages, webhooks
from portaria.notifications.deliveries import Delivery

logger = logging.getLogger(__name__)

# The most that an event's body may have. The specification asks for bodies below 20 kB; those of the catalogue have 1 kB.
MAX_BODY_BYTES = 65_536


@dataclass(frozen=True)
class BusEvent:
    """An event as a rule of the bus sends it. `at` is ISO 8601."""

    id: str
    type: str
    at: str
    detail: dict[str, Any]


def fan_out(body: str, settings: FanOutEventsSettings) -> int:
    """The number of deliveries. Raises `Rejected` for a message that is no event, `Retryable` and what AWS raises."""
    event = _read(body)
    table = Table(settings.table_name)
    now = clock.to_iso(clock.now())
    found = [webhook for webhook in webhooks.list_all(table) if webhook.selects(event.type)]
    content = body_of(event.type, event.at, event.detail)
    fits = len(content.encode()) <= MAX_BODY_BYTES
    for webhook in found:
        delivery = Delivery(
            webhook=webhook.id,
            id=deliveries.id_of(event.id, clock.from_iso(event.at)),
            type=event.type,
            event_at=event.at,
            body=content if fits else "",
            queued_at=now,
            state=deliveries.PENDING if fits else deliveries.FAILED,
            reason="" if fits else deliveries.TOO_LARGE,
        )
        deliveries.create(table, delivery)
    if not fits:
        logger.error("event_too_large", extra={"event": event.type, "bytes": len(content)})
        return 0
    for webhook in found:
        delivery_id = deliveries.id_of(event.id, clock.from_iso(event.at))
        delivery_messages.send_delivery(settings.webhook_deliveries_queue_url, webhook.id, delivery_id)
    return len(found)


def body_of(event_type: str, at: str, detail: dict[str, Any]) -> str:
    """The body of a webhook, as it is signed and sent."""
    content = {"type": event_type, "timestamp": at, "data": detail}
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def _read(body: str) -> BusEvent:
    try:
        event = json.loads(body)
        found = BusEvent(
            str(event["id"]), str(event["detail-type"]), clock.to_iso(clock.from_iso(event["time"])), event["detail"]
        )
        if event["source"] == event_bus.SOURCE and found.type in CATALOGUE and isinstance(found.detail, dict):
            return found
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise Rejected("bad_event", "the message is not an event of this project")
