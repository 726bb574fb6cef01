"""The worker: attempts deliveries, one for each message.

    read the webhook and the delivery → take a slot of the endpoint → attempt → write the delivery → return the slot → queue

A message whose endpoint is closed, or has no free slot for long, is dropped: its delivery is in the index of due deliveries,
where `delivery_sweep` finds it. After a death before the delivery is written, the delivery is attempted again (at least once).
After one behind it, the slot is free when its lease ends, and the sweep queues the next attempt.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from portaria.aws import queues
from portaria.aws.table import Table
from portaria.core import clock
from portaria.core.settings import DeliverWebhooksSettings
from portaria.notifications import (
    deliveries,
    delivery_attempt,
    delivery_messages,
    delivery_sweep,
    endpoint_gate,
    schedule,
    webhooks,
)
from portaria.notifications.deliveries import Delivery
from portaria.notifications.delivery_attempt import AttemptResult, SigningKeys
from portaria.notifications.endpoint_gate import Gate, Slot
from portaria.notifications.webhooks import Webhook

logger = logging.getLogger(__name__)

# How often a message goes back to its queue because all slots of its endpoint are taken, waiting twice as long each time.
MAX_HOPS = 6
# Do not begin an attempt with less time left than it may take and this.
TIME_SLACK_S = 5.0
# A delivery may be attempted this much before its time: the clocks of SQS and of the workers differ.
EARLY = timedelta(seconds=1)

Attempting = Callable[[Webhook, Delivery, SigningKeys, float], AttemptResult]


class Worker:
    """`attempt` posts one delivery (see `delivery_attempt.attempt`). `counts` are metrics of the messages so far."""

    def __init__(self, settings: DeliverWebhooksSettings, attempt: Attempting = delivery_attempt.attempt) -> None:
        self.settings = settings
        self.table = Table(settings.table_name)
        self.keys = SigningKeys(settings.sealing_key_id)
        self.counts: Counter[str] = Counter()
        self._attempt = attempt

    def handle(self, body: str, time_left_s: Callable[[], float], *, is_patient: bool) -> str:
        """Handle one message and say what became of it. `is_patient`: it came from the queue for slow endpoints.

        Raises `Retryable` and what AWS raises: the message then returns to its queue.
        """
        message = delivery_messages.read(body)
        if message is None:
            logger.error("webhook_message_unreadable")
            return "ignored"
        if message.is_sweep:
            self.counts += delivery_sweep.run(self.table, self.settings, message.webhook)
            return "swept"
        webhook = webhooks.find(self.table, message.webhook)
        delivery = deliveries.find(self.table, message.webhook, message.delivery)
        if delivery is None or delivery.state != deliveries.PENDING:
            return "ignored"
        if webhook is None or webhook.state != webhooks.ENABLED:
            return self._fail(delivery, delivery_sweep.reason_of(webhook))
        now = clock.now()
        if clock.from_iso(delivery.next_at) > now + EARLY:
            return "not_due"
        if clock.from_iso(delivery.queued_at) + schedule.MAX_AGE < now:
            return self._fail(delivery, deliveries.TOO_OLD)
        gate = endpoint_gate.find(self.table, webhook.id)
        if gate.is_slow and not is_patient:
            self._send(delivery, gate, hops=message.hops)
            return "forwarded"
        timeout_s = schedule.PATIENT_S if is_patient else schedule.QUICK_S
        slot = None
        if time_left_s() > timeout_s + TIME_SLACK_S:
            slot = endpoint_gate.take(self.table, webhook.id, gate, timeout_s)
        if slot is None:
            return self._postpone(delivery, message.hops)
        return self._attempt_in(slot, gate, webhook, delivery, timeout_s)

    def _attempt_in(self, slot: Slot, gate: Gate, webhook: Webhook, delivery: Delivery, timeout_s: float) -> str:
        try:
            result = self._attempt(webhook, delivery, self.keys, timeout_s)
        except Exception:
            # The secret could not be unsealed. That is not the endpoint's failure.
            endpoint_gate.give_back(self.table, webhook.id, slot)
            raise
        made = result.attempt
        facts: dict[str, Any] = {"webhook": webhook.id, "delivery": delivery.id, "event": delivery.type}
        facts |= {"status": made.status, "error": made.error, "duration_ms": made.duration_ms}
        self.counts["WebhookAttempts"] += 1
        if not result.is_delivered:
            logger.warning("webhook_attempt_failed", extra=facts)
            return self._record_failure(slot, webhook, delivery, result)
        if deliveries.ended(self.table, delivery, deliveries.DELIVERED, attempt=made):
            self.counts["WebhooksDelivered"] += 1
        logger.info("webhook_delivered", extra=facts)
        endpoint_gate.succeeded(self.table, webhook.id, slot, is_slow=_is_slow(result))
        if gate.failures:
            # The others have waited for this success.
            delivery_messages.send_sweep(self.settings.webhook_deliveries_queue_url, webhook.id)
        return "delivered"

    def _record_failure(self, slot: Slot, webhook: Webhook, delivery: Delivery, result: AttemptResult) -> str:
        if result.is_gone:
            state = self._fail(delivery, deliveries.GONE, result)
            endpoint_gate.give_back(self.table, webhook.id, slot)
            webhooks.disable(self.table, webhook.id, webhook.url, webhooks.GONE)
            delivery_messages.send_sweep(self.settings.webhook_deliveries_queue_url, webhook.id)
            return state
        wait_s = schedule.wait_s(delivery.tries + 1, result.asked_s)
        if wait_s is None:
            state = self._fail(delivery, deliveries.EXHAUSTED, result)
        else:
            now = clock.now()
            next_at = now + timedelta(seconds=wait_s)
            is_queued = wait_s <= queues.MAX_SEND_DELAY_S
            due_at = next_at + deliveries.QUEUED_FOR if is_queued else next_at
            deliveries.retried(self.table, delivery, result.attempt, next_at, due_at)
            state = "retried"
        gate = endpoint_gate.failed(self.table, webhook.id, slot, is_slow=_is_slow(result))
        if _has_failed_for_long(gate):
            webhooks.disable(self.table, webhook.id, webhook.url, webhooks.FAILING)
            delivery_messages.send_sweep(self.settings.webhook_deliveries_queue_url, webhook.id)
        elif wait_s is not None and wait_s <= queues.MAX_SEND_DELAY_S:
            self._send(delivery, gate, delay_s=wait_s)
        return state

    def _fail(self, delivery: Delivery, reason: str, result: AttemptResult | None = None) -> str:
        if deliveries.ended(self.table, delivery, deliveries.FAILED, reason, result.attempt if result else None):
            self.counts["WebhookDeliveriesFailed"] += 1
            facts = {"webhook": delivery.webhook, "delivery": delivery.id, "reason": reason}
            logger.error("webhook_delivery_failed", extra=facts)
        return "failed"

    def _postpone(self, delivery: Delivery, hops: int) -> str:
        """Have a delivery of a busy endpoint attempted soon; one of a closed endpoint waits for the sweep."""
        gate = endpoint_gate.find(self.table, delivery.webhook)
        if gate.is_closed() or gate.is_failing or hops >= MAX_HOPS:
            return "waits"
        self._send(delivery, gate, hops=hops + 1, delay_s=2.0**hops)
        return "postponed"

    def _send(self, delivery: Delivery, gate: Gate, *, hops: int = 0, delay_s: float = 0.0) -> None:
        queue_url = delivery_sweep.queue_of(self.settings, gate)
        delivery_messages.send_delivery(queue_url, delivery.webhook, delivery.id, hops=hops, delay_s=delay_s)


def _is_slow(result: AttemptResult) -> bool:
    return result.attempt.duration_ms >= schedule.SLOW_MS


def _has_failed_for_long(gate: Gate) -> bool:
    if not gate.failing_since or gate.failures < schedule.FAILING_ATTEMPTS:
        return False
    return clock.from_iso(gate.failing_since) + schedule.FAILING_FOR <= clock.now()
