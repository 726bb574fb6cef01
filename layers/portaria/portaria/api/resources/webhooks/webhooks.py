"""Administering webhooks: the endpoints of the team's application that events are sent to.

The signing secret is returned once, in the response to the creation or the rotation, and again if that request is repeated
with its `Idempotency-Key`.
"""

from __future__ import annotations

import logging
from dataclasses import replace as with_changes
from typing import Any, Literal

from pydantic import Field

from portaria.access import api_tokens
from portaria.api.operation import ApiRequest, Reply, changed_meanwhile, page, require_match
from portaria.api.rules.webhook_rules import WebhookCreation, WebhookReplacement, WebhookRotation
from portaria.api.schemas import Output, Time
from portaria.aws.table import Conflict
from portaria.core import clock
from portaria.core.callbacks import Secret
from portaria.core.errors import ChangedMeanwhile, Rejected, Retryable
from portaria.notifications import delivery_messages, endpoint_gate, webhook_urls, webhooks
from portaria.notifications.endpoint_gate import Gate
from portaria.notifications.webhooks import Webhook

logger = logging.getLogger(__name__)

ID_PREFIX = "wh_"


class WebhookOutput(Output):
    """An endpoint of your application that receives events."""

    id: str = Field(description="The webhook's id.")
    url: str = Field(description="Where events are sent.")
    events: list[str] = Field(description="The names and families of the events that it receives.")
    description: str | None = Field(description="What it is for.")
    state: Literal["enabled", "disabled"] = Field(
        description="`enabled` or `disabled`. A disabled one receives nothing."
    )
    disabled_reason: Literal["gone", "failing", "by_request"] | None = Field(
        description="`gone` (its endpoint answered 410), `failing` (for five days) or `by_request`."
    )
    disabled_at: Time | None = Field(description="When it was disabled.")
    failing_since: Time | None = Field(description="The first failed attempt since the last success.")
    last_success_at: Time | None = Field(description="When a delivery last succeeded.")
    created_at: Time = Field(description="When it was created.")
    created_by: str = Field(description="Who created it.")
    updated_at: Time = Field(description="When it was last changed.")
    rotated_at: Time = Field(description="When its secret was made.")
    rotation_ends_at: Time | None = Field(description="Until when the previous secret signs too.")


class WebhookWithSecret(WebhookOutput):
    """A webhook with its secret, which is returned once."""

    secret: str | None = Field(
        description="Signs what is sent to the webhook (`whsec_…`). Null if it has been replaced since the first response."
    )


def create(asked: ApiRequest) -> Reply:
    """Raises `Rejected` (400 `bad_url`, `address_not_allowed`, 409 `too_many_webhooks`) and `Retryable`.

    With an Idempotency-Key the id follows from it, so that a creation that is repeated after a death finds the first one.
    """
    sent: WebhookCreation = asked.sent
    table, context = asked.context.table, asked.context
    by_key = _key_digest(asked)
    webhook_id = ID_PREFIX + (by_key[:24] if by_key else api_tokens.new_id() + api_tokens.new_id())
    found = webhooks.find(table, webhook_id) if by_key else None
    if found:
        return _repeated(asked, found, is_first=found.secret_made_at == found.created_at)
    url = webhook_urls.check(sent.url)
    if sum(each.state != webhooks.DELETED for each in webhooks.list_all(table)) >= webhooks.MAX_WEBHOOKS:
        detail = f"a stack can have {webhooks.MAX_WEBHOOKS} webhooks: delete one that is not needed"
        raise Rejected("too_many_webhooks", detail, status=409)
    secret = webhooks.new_secret()
    now = clock.to_iso(clock.now())
    made = Webhook(
        id=webhook_id,
        url=url,
        events=tuple(sorted(set(sent.events))),
        description=sent.description or "",
        state=webhooks.ENABLED,
        created_at=now,
        created_by=asked.caller.id,
        updated_at=now,
        secret_made_at=now,
        sealed=webhooks.seal(context.sealing_key_id, webhook_id, secret),
        made_by_key=by_key,
    )
    try:
        webhooks.create(table, made)
    except Conflict:
        raise Retryable("outcome_unknown", "the same request is in progress: send it again", after_s=1) from None
    return _with_secret(asked, made, secret)


def replace(asked: ApiRequest) -> Reply:
    """Raises `Rejected` (400 `bad_url`, 404 `unknown_webhook`, 409 or 412 `changed_meanwhile`) and `Retryable`.

    A new URL, or enabling the webhook again, forgets the failures of the endpoint. The item is written first: after a death in
    between, the endpoint is tried at the next pause's end.
    """
    sent: WebhookReplacement = asked.sent
    table = asked.context.table
    old = webhooks.get(table, asked.path["id"])
    require_match(asked, str(old.version))
    url = sent.url if sent.url == old.url else webhook_urls.check(sent.url)
    fresh = with_changes(
        old, url=url, events=tuple(sorted(set(sent.events))), description=sent.description or "", announce=False
    )
    if sent.enabled:
        fresh = with_changes(fresh, state=webhooks.ENABLED, disabled_reason="", disabled_at="")
    elif old.state == webhooks.ENABLED:
        now = clock.to_iso(clock.now())
        fresh = with_changes(fresh, state=webhooks.DISABLED, disabled_reason=webhooks.BY_REQUEST, disabled_at=now)
    try:
        fresh = webhooks.edit(table, old, fresh)
    except ChangedMeanwhile:
        raise changed_meanwhile(asked) from None
    if url != old.url or (sent.enabled and old.state != webhooks.ENABLED):
        endpoint_gate.reset(table, fresh.id)
    _sweep(asked, fresh.id)
    return _reply(asked, fresh)


def get(asked: ApiRequest) -> Reply:
    """Raises `Rejected` (404 `unknown_webhook`)."""
    return _reply(asked, webhooks.get(asked.context.table, asked.path["id"]))


def list_page(asked: ApiRequest) -> Reply:
    """The newest first, on one page: there are at most `MAX_WEBHOOKS`."""
    table = asked.context.table
    found = [each for each in webhooks.list_all(table) if each.state != webhooks.DELETED]
    found.sort(key=lambda each: each.created_at, reverse=True)
    gates = table.get_many(endpoint_gate.key(each.id) for each in found)
    shown = [show(each, endpoint_gate.read(gates.get(endpoint_gate.key(each.id)))) for each in found]
    return page(shown, None)


def delete(asked: ApiRequest) -> Reply:
    """Its pending deliveries fail. Raises `Rejected` (404 `unknown_webhook`)."""
    webhooks.delete(asked.context.table, asked.path["id"])
    _sweep(asked, asked.path["id"])
    return Reply(None)


def rotate(asked: ApiRequest) -> Reply:
    """A new secret. Raises `Rejected` (404, 409 `changed_meanwhile`, `rotation_under_way`) and `Retryable`."""
    sent: WebhookRotation = asked.sent
    table = asked.context.table
    old = webhooks.get(table, asked.path["id"])
    by_key = _key_digest(asked)
    if by_key and old.rotated_by_key == by_key:
        return _repeated(asked, old, is_first=True)
    if old.overlaps() and not sent.expire_now:
        detail = f"the previous secret signs until {old.previous_until}: wait, or rotate with expire_now"
        raise Rejected("rotation_under_way", detail, status=409)
    secret = webhooks.new_secret()
    sealed = webhooks.seal(asked.context.sealing_key_id, old.id, secret)
    try:
        fresh = webhooks.rotate(table, old, sealed, by_key, overlaps=not sent.expire_now)
    except ChangedMeanwhile:
        raise changed_meanwhile(asked) from None
    return _with_secret(asked, fresh, secret)


def show(webhook: Webhook, gate: Gate) -> dict[str, Any]:
    """Everything but the secrets."""
    return {
        "id": webhook.id,
        "url": webhook.url,
        "events": list(webhook.events),
        "description": webhook.description,
        "state": webhook.state,
        "disabled_reason": webhook.disabled_reason or None,
        "disabled_at": webhook.disabled_at or None,
        "failing_since": gate.failing_since or None,
        "last_success_at": gate.last_success_at or None,
        "created_at": webhook.created_at,
        "created_by": webhook.created_by,
        "updated_at": webhook.updated_at,
        "rotated_at": webhook.secret_made_at,
        "rotation_ends_at": webhook.previous_until if webhook.overlaps() else None,
    }


def _reply(asked: ApiRequest, webhook: Webhook) -> Reply:
    gate = endpoint_gate.find(asked.context.table, webhook.id)
    return Reply(show(webhook, gate), etag=str(webhook.version), target=webhook.id)


def _with_secret(asked: ApiRequest, webhook: Webhook, secret: Secret) -> Reply:
    reply = _reply(asked, webhook)
    return with_changes(reply, content=(reply.content or {}) | {"secret": None}, once={"secret": secret})


def _repeated(asked: ApiRequest, found: Webhook, *, is_first: bool) -> Reply:
    """The answer to a request that was done before, with its secret unless that has been replaced since."""
    if found.state == webhooks.DELETED:
        raise Rejected("unknown_webhook", "the webhook that this request created has been deleted", status=404)
    if not is_first:
        reply = _reply(asked, found)
        return with_changes(reply, content=(reply.content or {}) | {"secret": None})
    return _with_secret(asked, found, webhooks.unseal(asked.context.sealing_key_id, found.id, found.sealed))


def _sweep(asked: ApiRequest, webhook_id: str) -> None:
    """Have the change applied to the pending deliveries now. If this fails, the next sweep does it within a minute."""
    try:
        delivery_messages.send_sweep(asked.context.webhook_deliveries_queue_url, webhook_id)
    except Retryable as later:
        logger.warning("webhook_sweep_not_queued", extra={"webhook": webhook_id, "reason": later.reason})


def _key_digest(asked: ApiRequest) -> str:
    """What is stored of an Idempotency-Key, or an empty text where there is none."""
    return api_tokens.digest(f"{asked.caller.id}\n{asked.key}") if asked.key else ""
