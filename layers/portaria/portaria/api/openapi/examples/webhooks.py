"""Examples of webhooks and their deliveries."""

from __future__ import annotations

from typing import Any

from portaria.core.event_catalogue import CATALOGUE, CONNECTION_READY

Example = dict[str, Any]

WEBHOOK = "wh_4fZ0aQ9xTb7kLm2NpQ8r"
DELIVERY = "msg_0199f3c2a80013b5d7f92c4e6a8b0d1f"

_WEBHOOK: Example = {
    "id": WEBHOOK,
    "url": "https://app.example.com/webhooks/portaria",
    "events": ["connection.*", "install.failed"],
    "description": "Customer pages",
    "state": "enabled",
    "disabled_reason": None,
    "disabled_at": None,
    "failing_since": None,
    "last_success_at": "2026-11-28T18:00:00.000Z",
    "created_at": "2026-11-02T12:30:00.000Z",
    "created_by": "arn:aws:iam::123456789012:user/maria",
    "updated_at": "2026-11-02T12:30:00.000Z",
    "secret_made_at": "2026-11-02T12:30:00.000Z",
    "previous_secret_until": None,
}
_DELIVERY: Example = {
    "id": DELIVERY,
    "webhook": WEBHOOK,
    "event": CONNECTION_READY,
    "event_at": "2026-11-28T18:00:00.000Z",
    "state": "delivered",
    "reason": None,
    "attempt_count": 2,
    "last_status": 204,
    "next_attempt_at": None,
    "ended_at": "2026-11-28T18:00:06.000Z",
}
_FAILED_ATTEMPT: Example = {
    "at": "2026-11-28T18:00:00.000Z",
    "duration_ms": 312,
    "status": 503,
    "error": "http_error",
    "response": "try later",
}
_ATTEMPT: Example = {
    "at": "2026-11-28T18:00:05.000Z",
    "duration_ms": 84,
    "status": 204,
    "error": None,
    "response": None,
}
_CREATION: Example = {
    "url": _WEBHOOK["url"],
    "events": _WEBHOOK["events"],
    "description": _WEBHOOK["description"],
}
OBJECTS: dict[str, Example] = {
    "Webhook": _WEBHOOK,
    "WebhookWithSecret": _WEBHOOK | {"secret": "whsec_EXAMPLE"},
    "WebhookCreation": _CREATION,
    "WebhookReplacement": _CREATION | {"enabled": True},
    "WebhookRotation": {"expire_now": False},
    "WebhookDelivery": _DELIVERY,
    "DeliveryAttempt": _FAILED_ATTEMPT,
    "WebhookDeliveryWithAttempts": _DELIVERY
    | {"attempts": [_FAILED_ATTEMPT, _ATTEMPT], "payload": CATALOGUE[CONNECTION_READY].webhook_example},
    "WebhookRedelivery": {
        "since": "2026-11-28T00:00:00Z",
        "until": "2026-11-28T18:00:00Z",
        "state": "failed",
        "cursor": None,
    },
    "RedeliveredDeliveries": {"delivery_count": 12, "more": False, "next_cursor": None},
}
PROPERTIES: dict[str, Any] = {
    "disabled_reason": "failing",
    "disabled_at": "2026-11-28T18:00:00.000Z",
    "failing_since": "2026-11-23T18:00:00.000Z",
    "previous_secret_until": "2026-11-29T18:00:00.000Z",
    "WebhookDelivery.reason": "attempts_exhausted",
    "WebhookDeliveryWithAttempts.reason": "attempts_exhausted",
    "next_attempt_at": "2026-11-28T18:05:00.000Z",
}
