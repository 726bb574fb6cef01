"""Messages of the delivery queues: attempt one delivery, or sweep the deliveries that are due."""

from __future__ import annotations

import json
from dataclasses import dataclass

from portaria.aws import queues


@dataclass(frozen=True)
class DeliveryMessage:
    """`hops` counts how often the message was queued again because its endpoint was busy.

    A sweep is of one webhook, or of all of them if `webhook` is empty.
    """

    webhook: str
    delivery: str = ""
    hops: int = 0
    is_sweep: bool = False


def read(body: str) -> DeliveryMessage | None:
    """None for a message that is none of these."""
    try:
        content = json.loads(body)
        if "sweep" in content:
            return DeliveryMessage(str(content["sweep"]), is_sweep=True)
        return DeliveryMessage(str(content["webhook"]), str(content["delivery"]), int(content.get("hops", 0)))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def send_delivery(queue_url: str, webhook: str, delivery: str, *, hops: int = 0, delay_s: float = 0.0) -> None:
    """Queue an attempt. Deliveries of one webhook share a message group. Raises `Retryable`."""
    content = {"webhook": webhook, "delivery": delivery, "hops": hops}
    queues.send(queue_url, [queues.encode(content)], delay_s=delay_s, tenant=webhook)


def send_sweep(queue_url: str, webhook: str, *, delay_s: float = 0.0) -> None:
    """Queue a sweep of one webhook. Raises `Retryable`."""
    queues.send(queue_url, [queues.encode({"sweep": webhook})], delay_s=delay_s, tenant=webhook)
