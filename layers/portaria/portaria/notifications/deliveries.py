"""Deliveries: one event for one webhook, with its attempts. Kept for `KEPT_FOR`.

    pending → delivered | failed, and back to pending by a redelivery

A pending delivery is always in the index `by_due`, in its webhook's own partition. A message in a queue only has it attempted
earlier: whatever becomes of that message, the sweep finds the delivery when it is due. A delivery's id is decided by the
event, so that an event that is fanned out twice is stored once. Ids sort by the time of the event.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from portaria.aws import due_index
from portaria.aws.table import Conflict, Item, Table
from portaria.core import clock

KEPT_FOR = timedelta(days=30)
PENDING, DELIVERED, FAILED = "pending", "delivered", "failed"
STATES = (PENDING, DELIVERED, FAILED)
# A message that was queued is expected to have been handled after this time.
QUEUED_FOR = timedelta(minutes=1)
# With redeliveries a delivery can have more attempts than the schedule has.
MAX_ATTEMPTS = 20
# How many pages one call reads to find deliveries of a state.
PAGES_A_CALL = 10
ID_PREFIX = "msg_"
# Why a delivery failed.
EXHAUSTED, GONE, TOO_LARGE, TOO_OLD, WEBHOOK_DISABLED, WEBHOOK_DELETED = (
    "attempts_exhausted", "gone", "payload_too_large", "too_old", "webhook_disabled", "webhook_deleted",
)  # fmt: skip


@dataclass(frozen=True)
class Attempt:
    """`status` is the response's, 0 without one. `error` says what failed, `response` is its beginning, without credentials."""

    at: str
    duration_ms: int
    status: int = 0
    error: str = ""
    response: str = ""


@dataclass(frozen=True)
class Delivery:
    """`tries` are the failed attempts since the delivery was last queued (`queued_at`). `body` is what is sent.

    `next_at` is when it is attempted next; times are ISO 8601. `reason` says why it failed.
    """

    webhook: str
    id: str
    type: str
    event_at: str
    body: str = field(repr=False)
    queued_at: str
    state: str = PENDING
    tries: int = 0
    next_at: str = ""
    reason: str = ""
    ended_at: str = ""
    attempts: tuple[Attempt, ...] = ()


def key(webhook_id: str, delivery_id: str) -> tuple[str, str]:
    return f"WEBHOOK#{webhook_id}", delivery_id


def due_partition(webhook_id: str) -> str:
    """The partition of the index `by_due`: each webhook has its own waiting list."""
    return f"DELIVERIES#{webhook_id}"


def id_of(event_id: str, at: datetime) -> str:
    """The id of an event's deliveries, which is also the header `webhook-id`."""
    milliseconds = max(0, int(at.timestamp() * 1_000))
    return f"{ID_PREFIX}{milliseconds:012x}{hashlib.sha256(event_id.encode()).hexdigest()[:20]}"


def read(item: Item) -> Delivery:
    return Delivery(
        webhook=item["pk"].partition("#")[2],
        id=item["sk"],
        type=item["type"],
        event_at=item["event_at"],
        body=item.get("body", ""),
        queued_at=item["queued_at"],
        state=item["state"],
        tries=int(item["tries"]),
        next_at=item.get("next_at", ""),
        reason=item.get("reason", ""),
        ended_at=item.get("ended_at", ""),
        attempts=tuple(Attempt(**each) for each in item.get("attempts", [])),
    )


def find(table: Table, webhook_id: str, delivery_id: str) -> Delivery | None:
    item = table.get(*key(webhook_id, delivery_id))
    return read(item) if item else None


def list_page(
    table: Table, webhook_id: str, *, state: str, since: datetime | None, cursor: str | None, limit: int
) -> tuple[list[Delivery], str | None]:
    """Deliveries, the newest event first, and the cursor of the next page. A page that looks for a `state` may be short.

    Raises `Rejected` (`bad_cursor`).
    """
    pk = key(webhook_id, "")[0]
    found: list[Delivery] = []
    for _ in range(PAGES_A_CALL if state else 1):
        narrow = {"sk_from": lowest_id(since)} if since else {"sk_prefix": ID_PREFIX}
        items, cursor = table.query(pk, newest_first=True, limit=limit - len(found), cursor=cursor, **narrow)
        found += [each for each in map(read, items) if state in ("", each.state)]
        if not cursor or len(found) >= limit:
            break
    return found, cursor


def lowest_id(at: datetime) -> str:
    """What sorts before the ids of all events from a moment on."""
    return id_of("", at)[: len(ID_PREFIX) + 12]


def create(table: Table, delivery: Delivery) -> bool:
    """Store a delivery that is due now, or one that failed from the beginning. False if it is stored already."""
    pk, sk = key(delivery.webhook, delivery.id)
    now = clock.now()
    item: Item = {
        "pk": pk,
        "sk": sk,
        "type": delivery.type,
        "event_at": delivery.event_at,
        "body": delivery.body,
        "queued_at": delivery.queued_at,
        "state": delivery.state,
        "tries": 0,
        "attempts": [],
        "expires_at": int((now + KEPT_FOR).timestamp()),
    }
    if delivery.state == PENDING:
        item |= {"next_at": clock.to_iso(now)}
        item |= due_index.attributes(due_partition(delivery.webhook), now + QUEUED_FOR)
    else:
        item |= {"reason": delivery.reason, "ended_at": clock.to_iso(now)}
    try:
        table.put(item, condition="attribute_not_exists(pk)")
    except Conflict:
        return False
    return True


def ended(table: Table, delivery: Delivery, state: str, reason: str = "", attempt: Attempt | None = None) -> bool:
    """Write the end of a pending delivery. False if it has changed since it was read."""
    values: dict[str, Any] = {":ended": state, ":now": clock.to_iso(clock.now()), ":reason": reason}
    return _change(
        table,
        delivery,
        "SET #state = :ended, ended_at = :now, reason = :reason, attempts = :attempts REMOVE next_at, due_pk, due_at",
        values | {":attempts": _attempts(delivery, attempt)},
    )


def retried(table: Table, delivery: Delivery, attempt: Attempt, next_at: datetime, due_at: datetime) -> bool:
    """Write a failed attempt. `due_at` is when the sweep attempts it. False if it has changed since it was read."""
    return _change(
        table,
        delivery,
        "SET tries = :more, next_at = :next_at, due_at = :due_at, attempts = :attempts",
        {
            ":more": delivery.tries + 1,
            ":next_at": clock.to_iso(next_at),
            ":due_at": clock.to_iso(due_at),
            ":attempts": _attempts(delivery, attempt),
        },
    )


def queue_again(table: Table, webhook_id: str, delivery_id: str) -> bool:
    """Have a delivery in any state attempted from now on, as often as a new one. False if there is none."""
    now = clock.now()
    due = due_index.attributes(due_partition(webhook_id), now + QUEUED_FOR)
    try:
        table.update(
            *key(webhook_id, delivery_id),
            "SET #state = :pending, tries = :none, queued_at = :now, next_at = :now, due_pk = :due_pk, due_at = :due_at, "
            "expires_at = :expires_at REMOVE reason, ended_at",
            condition="attribute_exists(pk)",
            names={"#state": "state"},
            values={
                ":pending": PENDING,
                ":none": 0,
                ":now": clock.to_iso(now),
                ":due_pk": due["due_pk"],
                ":due_at": due["due_at"],
                ":expires_at": int((now + KEPT_FOR).timestamp()),
            },
        )
    except Conflict:
        return False
    return True


def _change(table: Table, delivery: Delivery, expression: str, values: dict[str, Any]) -> bool:
    try:
        table.update(
            *key(delivery.webhook, delivery.id),
            expression,
            condition="#state = :pending AND tries = :tries AND queued_at = :queued_at",
            names={"#state": "state"},
            values=values | {":pending": PENDING, ":tries": delivery.tries, ":queued_at": delivery.queued_at},
        )
    except Conflict:
        return False
    return True


def _attempts(delivery: Delivery, attempt: Attempt | None) -> list[dict[str, Any]]:
    made = [*delivery.attempts, *([attempt] if attempt else [])]
    return [asdict(each) for each in made[-MAX_ATTEMPTS:]]
