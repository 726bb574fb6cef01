"""The sweep: queues the deliveries that are due, a fair part for each webhook, and ends those of a disabled webhook.

It runs every minute, and for one webhook when its endpoint works again. A closed endpoint's deliveries stay where they are; one
of them is attempted when the pause is over. Due times are postponed before the messages are sent: after a death in between,
the deliveries are due again after `deliveries.QUEUED_FOR`.
"""

from __future__ import annotations

import logging
from collections import Counter

from portaria.aws import due_index, event_bus
from portaria.aws.table import Table
from portaria.core import event_catalogue
from portaria.core.settings import DeliverWebhooksSettings
from portaria.core.unexpected_errors import log_unexpected
from portaria.notifications import deliveries, delivery_messages, endpoint_gate, webhook_urls, webhooks
from portaria.notifications.endpoint_gate import Gate
from portaria.notifications.webhooks import Webhook

logger = logging.getLogger(__name__)

# How many due deliveries of one webhook are queued at once. The next part follows after `NEXT_PART_S`.
RELEASED = 100
RELEASED_SLOW = 5
NEXT_PART_S = 10.0
ENDED_AT_ONCE = 100


def run(table: Table, settings: DeliverWebhooksSettings, webhook_id: str = "") -> Counter[str]:
    """Sweep one webhook, or all of them. Returns metrics. Raises `Retryable` and what AWS raises if it was one webhook."""
    counts: Counter[str] = Counter()
    if webhook_id:
        found = webhooks.find(table, webhook_id)
        if found:
            counts += _sweep(table, settings, found)
        return counts
    for webhook in webhooks.list_all(table):
        try:
            counts += _sweep(table, settings, webhook)
        except Exception as error:  # noqa: BLE001 - the others are swept
            log_unexpected("webhook_not_swept", error, webhook=webhook.id)
    return counts


def reason_of(webhook: Webhook | None) -> str:
    """Why the pending deliveries of a webhook that is not enabled fail."""
    is_disabled = webhook is not None and webhook.state == webhooks.DISABLED
    return deliveries.WEBHOOK_DISABLED if is_disabled else deliveries.WEBHOOK_DELETED


def queue_of(settings: DeliverWebhooksSettings, gate: Gate) -> str:
    """The queue for an endpoint's deliveries: slow endpoints have workers of their own."""
    return settings.slow_webhook_deliveries_queue_url if gate.is_slow else settings.webhook_deliveries_queue_url


def _sweep(table: Table, settings: DeliverWebhooksSettings, webhook: Webhook) -> Counter[str]:
    counts: Counter[str] = Counter()
    if webhook.announce:
        counts += _announce(table, settings, webhook)
    if webhook.state != webhooks.ENABLED:
        return counts + _end_all(table, settings, webhook)
    gate = endpoint_gate.find(table, webhook.id)
    if gate.is_closed():
        return counts
    limit = 1 if gate.is_failing else RELEASED_SLOW if gate.is_slow else RELEASED
    due = due_index.claim_page(
        table, deliveries.due_partition(webhook.id), None, again_after=deliveries.QUEUED_FOR, limit=limit
    )
    for item in due.claimed:
        delivery_messages.send_delivery(queue_of(settings, gate), webhook.id, item["sk"])
    if due.cursor and not gate.is_failing:
        delivery_messages.send_sweep(settings.webhook_deliveries_queue_url, webhook.id, delay_s=NEXT_PART_S)
    return counts + Counter({"WebhookDeliveriesDue": len(due.claimed)})


def _announce(table: Table, settings: DeliverWebhooksSettings, webhook: Webhook) -> Counter[str]:
    """Publish that a webhook was disabled. After a death before the note is removed, it is published again."""
    gate = endpoint_gate.find(table, webhook.id)
    detail = {
        "webhook": webhook.id,
        "url": webhook_urls.shown(webhook.url),
        "reason": webhook.disabled_reason,
        "failing_since": gate.failing_since or webhook.disabled_at,
    }
    event_bus.put(settings.bus_name, event_catalogue.WEBHOOK_DISABLED, detail)
    webhooks.announced(table, webhook.id)
    logger.error("webhook_disabled", extra={"webhook": webhook.id, "reason": webhook.disabled_reason})
    return Counter({"WebhooksDisabled": 1})


def _end_all(table: Table, settings: DeliverWebhooksSettings, webhook: Webhook) -> Counter[str]:
    """Fail the pending deliveries of a webhook that is not enabled, page by page."""
    items, _ = table.query(deliveries.due_partition(webhook.id), index="by_due", limit=ENDED_AT_ONCE)
    ended = 0
    for item in items:
        # The index is eventually consistent, and the delivery may have been queued again since.
        delivery = deliveries.find(table, webhook.id, item["sk"])
        if delivery and delivery.state == deliveries.PENDING:
            ended += deliveries.ended(table, delivery, deliveries.FAILED, reason_of(webhook))
    if len(items) == ENDED_AT_ONCE:
        delivery_messages.send_sweep(settings.webhook_deliveries_queue_url, webhook.id, delay_s=1.0)
    if ended:
        facts = {"webhook": webhook.id, "reason": reason_of(webhook), "deliveries": ended}
        logger.error("webhook_deliveries_ended", extra=facts)
    return Counter({"WebhookDeliveriesFailed": ended})
