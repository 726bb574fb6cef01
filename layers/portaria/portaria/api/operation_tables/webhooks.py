"""The operations of webhooks to the team's application."""

from __future__ import annotations

from http import HTTPStatus

from portaria.api.operation import Operation
from portaria.api.resources.webhooks import deliveries as webhook_deliveries
from portaria.api.resources.webhooks import webhooks
from portaria.api.rules import webhook_rules

CREATED, NO_CONTENT = HTTPStatus.CREATED, HTTPStatus.NO_CONTENT

OPERATIONS = [
    Operation(
        "list_webhooks", "GET", "/webhooks", "webhooks:list", "List webhooks",
        webhooks.list_page, webhooks.WebhookOutput, listing=True, description="Newest first, on one page.",
    ),
    Operation(
        "create_webhook", "POST", "/webhooks", "webhooks:create", "Create a webhook",
        webhooks.create, webhooks.WebhookWithSecret, input=webhook_rules.WebhookCreation, status=CREATED, creates=True,
        is_secret=True, changes=True,
        description="Events are sent to the URL, signed by the Standard Webhooks specification. The secret is returned once, "
        "and again if the request is repeated with the same `Idempotency-Key`.",
    ),
    Operation(
        "show_webhook", "GET", "/webhooks/{id}", "webhooks:show", "Get a webhook", webhooks.get, webhooks.WebhookOutput,
        description="With when its endpoint last answered, and since when it fails. The secret is not returned.",
    ),
    Operation(
        "replace_webhook", "PUT", "/webhooks/{id}", "webhooks:replace", "Replace a webhook", webhooks.replace,
        webhooks.WebhookOutput, input=webhook_rules.WebhookReplacement, edits=True, changes=True,
        description="Also enables and disables it. The pending deliveries of a disabled webhook fail.",
    ),
    Operation(
        "delete_webhook", "DELETE", "/webhooks/{id}", "webhooks:delete", "Delete a webhook", webhooks.delete, None,
        status=NO_CONTENT, changes=True, description="Its pending deliveries fail.",
    ),
    Operation(
        "rotate_webhook_secret", "POST", "/webhooks/{id}/rotation", "webhooks:rotate", "Rotate a webhook's secret",
        webhooks.rotate, webhooks.WebhookWithSecret, input=webhook_rules.WebhookRotation, creates=True, is_secret=True,
        changes=True,
        description="For a day each request has a signature with the new secret and one with the previous secret. With "
        "`expire_now` the previous secret stops signing at once.",
    ),
    Operation(
        "test_webhook", "POST", "/webhooks/{id}/test", "webhooks:test", "Send a test event",
        webhook_deliveries.test, webhook_deliveries.WebhookDelivery, status=HTTPStatus.ACCEPTED, creates=True, changes=True,
        description="The event `webhook.test`, whatever the webhook subscribes to.",
    ),
    Operation(
        "list_webhook_deliveries", "GET", "/webhooks/{id}/deliveries", "webhook-deliveries:list",
        "List a webhook's deliveries", webhook_deliveries.list_page, webhook_deliveries.WebhookDelivery, listing=True,
        filters=webhook_deliveries.FILTERS, description="Newest first. Kept for 30 days.",
    ),
    Operation(
        "show_webhook_delivery", "GET", "/webhooks/{id}/deliveries/{delivery}", "webhook-deliveries:show",
        "Get a delivery with its attempts", webhook_deliveries.get, webhook_deliveries.WebhookDeliveryWithAttempts,
        description="Each attempt has the status and the beginning of the response. `payload` is what was signed and sent.",
    ),
    Operation(
        "redeliver_webhook_delivery", "POST", "/webhooks/{id}/deliveries/{delivery}/redelivery",
        "webhook-deliveries:redeliver", "Send a delivery again", webhook_deliveries.redeliver,
        webhook_deliveries.WebhookDelivery, status=HTTPStatus.ACCEPTED, creates=True, changes=True,
        description="It keeps its id, and is attempted now and by the whole schedule.",
    ),
    Operation(
        "redeliver_webhook_deliveries", "POST", "/webhooks/{id}/redelivery", "webhook-deliveries:redeliver",
        "Send deliveries of a range again", webhook_deliveries.redeliver_range,
        webhook_deliveries.RedeliveredDeliveries, input=webhook_deliveries.WebhookRedelivery, status=HTTPStatus.ACCEPTED,
        creates=True, changes=True,
        description="At most a hundred with each call: repeat it with `next_cursor` while `more` is true.",
    ),
]  # fmt: skip
