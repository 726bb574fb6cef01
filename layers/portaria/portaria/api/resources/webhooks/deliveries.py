"""The deliveries of a webhook: listing them with their attempts, sending a test event, and delivering again."""

from __future__ import annotations

import json
import uuid
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from portaria.api import listing_parameters, validation
from portaria.api.operation import ApiRequest, Filters, Reply, page
from portaria.api.schemas import Output, Time
from portaria.api.validation import Input, read_moment
from portaria.core import clock
from portaria.core.errors import Rejected
from portaria.core.event_catalogue import WEBHOOK_TEST, payload
from portaria.notifications import deliveries, delivery_messages, event_fan_out, redeliveries, webhooks
from portaria.notifications.deliveries import Delivery
from portaria.notifications.webhooks import Webhook

FILTERS: Filters = {"state": deliveries.STATES, "since": validation.MOMENT}
_State = Literal["pending", "delivered", "failed"]


class DeliveryAttempt(Output):
    """One request to the endpoint."""

    at: Time = Field(description="When the request was sent.")
    duration_ms: int = Field(description="How long it took in milliseconds.")
    status: int | None = Field(description="The status of the response. Null without a response.")
    error: str | None = Field(
        description="Why it failed: `http_error`, `redirect`, `unreachable`, `no_answer` or `address_not_allowed`."
    )
    response: str | None = Field(description="The beginning of the response's body, without credentials.")


class WebhookDelivery(Output):
    """One event for one webhook. Kept for 30 days."""

    id: str = Field(description="The delivery's id, which the endpoint receives as `webhook-id`.")
    webhook: str = Field(description="The webhook's id.")
    event: str = Field(description="The name of the event.")
    event_at: Time = Field(description="When the event was published.")
    state: _State = Field(description="`pending`, `delivered` or `failed`.")
    reason: str | None = Field(description="Why it failed.")
    attempt_count: int = Field(description="How many of its attempts are kept, at most twenty.")
    last_status: int | None = Field(description="The status of the last response. Null without one.")
    next_attempt_at: Time | None = Field(description="When it is attempted next. Null once it has ended.")
    ended_at: Time | None = Field(description="When it was delivered or failed.")


class WebhookDeliveryWithAttempts(WebhookDelivery):
    """A delivery with its attempts and what is sent."""

    attempts: list[DeliveryAttempt] = Field(description="Its last twenty attempts, the oldest first.")
    payload: dict[str, Any] | None = Field(
        description="The body of the request. Null if it was too large to be stored."
    )


def _moment(text: str) -> str:
    try:
        return clock.to_iso(clock.from_iso(text))
    except ValueError:
        raise PydanticCustomError("rule", "must be a time such as 2026-01-31T23:59:59Z") from None


Moment = Annotated[
    str, validation.MOMENT, AfterValidator(_moment), WithJsonSchema({"type": "string", "format": "date-time"})
]


class WebhookRedelivery(Input):
    """Which deliveries are sent again: those of the events of a time range."""

    since: Moment = Field(description="Events from this time on.")
    until: Moment | None = Field(default=None, description="Events until this time. By default, until now.")
    state: Literal["failed", "delivered"] = Field(default="failed", description="Deliveries in this state.")
    dry_run: bool = Field(default=False, description="Whether to count the deliveries, and to queue none.")
    cursor: str | None = Field(
        default=None,
        min_length=1,
        max_length=listing_parameters.MAX_CURSOR_LENGTH,
        description="The `next_cursor` of the last response.",
    )

    @model_validator(mode="after")
    def _forward(self) -> Self:
        if self.until is not None and self.until < self.since:
            raise PydanticCustomError("rule", "until must not be before since")
        return self

    def audited(self) -> dict[str, Any]:
        return self.model_dump(exclude_none=True, exclude={"cursor"})


class RedeliveredDeliveries(Output):
    """What one call has queued."""

    delivery_count: int = Field(description="How many deliveries were queued, or would be (`dry_run`).")
    more: bool = Field(description="Whether to repeat the request with `next_cursor` as its `cursor`.")
    next_cursor: str | None = Field(description="Where the next call continues. Null at the end.")


def list_page(asked: ApiRequest) -> Reply:
    """The newest first. With a `state` a page can be short, even empty, before the last: the cursor then leads on.

    Raises `Rejected` (404 `unknown_webhook`, `bad_cursor`, `bad_since`).
    """
    webhook = webhooks.get(asked.context.table, asked.path["id"])
    since = read_moment(asked.filters["since"], "since") if "since" in asked.filters else None
    found, cursor = deliveries.list_page(
        asked.context.table,
        webhook.id,
        state=asked.filters.get("state", ""),
        since=since,
        cursor=asked.cursor,
        limit=asked.limit,
    )
    return page([show(each) for each in found], cursor)


def get(asked: ApiRequest) -> Reply:
    """Raises `Rejected` (404 `unknown_webhook`, `unknown_delivery`)."""
    found = _find(asked)
    attempts = [
        {
            "at": each.at,
            "duration_ms": each.duration_ms,
            "status": each.status or None,
            "error": each.error or None,
            "response": each.response or None,
        }
        for each in found.attempts
    ]
    content = json.loads(found.body) if found.body else None
    return Reply(show(found) | {"attempts": attempts, "payload": content})


def test(asked: ApiRequest) -> Reply:
    """Send the event `webhook.test`. Raises `Rejected` (404 `unknown_webhook`, 409 `webhook_disabled`) and `Retryable`."""
    webhook = _enabled(asked)
    now = clock.now()
    detail = payload(WEBHOOK_TEST, {"webhook": webhook.id})
    delivery = Delivery(
        webhook=webhook.id,
        id=deliveries.id_of(uuid.uuid4().hex, now),
        type=WEBHOOK_TEST,
        event_at=clock.to_iso(now),
        body=event_fan_out.body_of(WEBHOOK_TEST, clock.to_iso(now), detail),
        queued_at=clock.to_iso(now),
        next_at=clock.to_iso(now),
    )
    deliveries.create(asked.context.table, delivery)
    _queue(asked, delivery.id)
    return Reply(show(delivery), target=f"{webhook.id}/{delivery.id}")


def redeliver(asked: ApiRequest) -> Reply:
    """Attempt a delivery again, now and by the whole schedule.

    Raises `Rejected` (404 `unknown_webhook`, `unknown_delivery`, 409 `webhook_disabled`, `not_redeliverable`) and `Retryable`.
    """
    webhook = _enabled(asked)
    found = _find(asked)
    if not found.body:
        raise Rejected("not_redeliverable", "the payload was too large to be stored", status=409)
    if not deliveries.queue_again(asked.context.table, webhook.id, found.id):
        raise _unknown()
    _queue(asked, found.id)
    return Reply(show(deliveries.find(asked.context.table, webhook.id, found.id) or found))


def redeliver_range(asked: ApiRequest) -> Reply:
    """Raises `Rejected` (404 `unknown_webhook`, 409 `webhook_disabled`, `bad_cursor`) and `Retryable`."""
    sent: WebhookRedelivery = asked.sent
    webhook = _enabled(asked)
    until = clock.from_iso(sent.until) if sent.until else clock.now()
    count, cursor = redeliveries.redeliver(
        asked.context.table,
        asked.context.webhook_deliveries_queue_url,
        webhook.id,
        since=clock.from_iso(sent.since),
        until=until,
        state=sent.state,
        cursor=sent.cursor,
        dry_run=sent.dry_run,
    )
    return Reply({"delivery_count": count, "more": bool(cursor), "next_cursor": cursor})


def show(delivery: Delivery) -> dict[str, Any]:
    """A delivery without its attempts and its payload."""
    last = delivery.attempts[-1] if delivery.attempts else None
    return {
        "id": delivery.id,
        "webhook": delivery.webhook,
        "event": delivery.type,
        "event_at": delivery.event_at,
        "state": delivery.state,
        "reason": delivery.reason or None,
        "attempt_count": len(delivery.attempts),
        "last_status": (last.status or None) if last else None,
        "next_attempt_at": delivery.next_at or None,
        "ended_at": delivery.ended_at or None,
    }


def _find(asked: ApiRequest) -> Delivery:
    webhook = webhooks.get(asked.context.table, asked.path["id"])
    delivery_id = asked.path["delivery"]
    found = (
        deliveries.find(asked.context.table, webhook.id, delivery_id)
        if delivery_id.startswith(deliveries.ID_PREFIX)
        else None
    )
    if not found:
        raise _unknown()
    return found


def _enabled(asked: ApiRequest) -> Webhook:
    webhook = webhooks.get(asked.context.table, asked.path["id"])
    if webhook.state != webhooks.ENABLED:
        raise Rejected("webhook_disabled", "the webhook is disabled: enable it first", status=409)
    return webhook


def _queue(asked: ApiRequest, delivery_id: str) -> None:
    queue_url = asked.context.webhook_deliveries_queue_url
    delivery_messages.send_delivery(queue_url, asked.path["id"], delivery_id)


def _unknown() -> Rejected:
    detail = "the webhook has no delivery with this id; deliveries are kept for 30 days"
    return Rejected("unknown_delivery", detail, status=404)
