"""Redrive dead letters, by sending their records to the Records queue again, and delete them.

Of several callers at the same time, one redrives a letter.
"""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass
from functools import cache
from typing import Any

from portaria.aws import queues, service_clients
from portaria.aws.table import Conflict, Item, Table
from portaria.core import clock, record_messages
from portaria.core.callbacks import Record
from portaria.core.errors import Retryable
from portaria.outbound.rate_limiter import RateLimiter
from portaria.records.dead_letters import (
    OPEN,
    REDRIVEN,
    REDRIVING,
    Letter,
    LetterSummary,
    key,
    part_key,
    read_head,
    read_letter,
)

logger = logging.getLogger(__name__)

# How long the claim of a redrive lasts.
CLAIM_S = 300
# Letters a second, so that redriven records do not delay new ones.
RATE = 20.0
WOULD_REDRIVE, GONE, IN_PROGRESS, FAILED = "would_redrive", "gone", "in_progress", "failed"
OUTCOMES = (WOULD_REDRIVE, REDRIVEN, GONE, IN_PROGRESS, FAILED)


@dataclass(frozen=True)
class RedriveResult:
    """The result of a letter's redrive. `reason` says why it was not redriven, or not completely; `records` were sent."""

    id: str
    records: int
    outcome: str
    reason: str = ""


@cache
def _rate_limiter() -> RateLimiter:
    return RateLimiter(RATE)


def redrive(table: Table, queue_url: str, letter_id: str, *, again: bool, dry_run: bool) -> RedriveResult:
    """Send a letter's records as a new message; with `again`, also if it was redriven before. Raises what DynamoDB raises.

    If the queue accepts none of it, or not all, the letter keeps its state.
    """
    item = table.get(*key(letter_id))
    if not item:
        return RedriveResult(letter_id, 0, GONE, "the dead letter does not exist any more")
    head = read_head(item)
    if head.state == REDRIVEN and not again:
        return RedriveResult(letter_id, 0, GONE, "it has just been redriven by another request")
    if not head.is_free(clock.now()):
        return RedriveResult(letter_id, 0, IN_PROGRESS, "it is being redriven by another request")
    if dry_run:
        return RedriveResult(letter_id, head.count, WOULD_REDRIVE)
    _rate_limiter().wait()
    claim = uuid.uuid4().hex
    if not _claim(table, head, claim):
        return RedriveResult(letter_id, 0, IN_PROGRESS, "it is being redriven by another request")
    try:
        letter = read_letter(table, item)
        bodies, unreadable = _bodies(letter)
        if not bodies:
            _release(table, head, claim)
            return RedriveResult(letter_id, 0, FAILED, "it has no records that can be sent: delete it")
        queues.send(queue_url, bodies, tenant=letter.connection)
    except Exception as error:  # noqa: BLE001 - whatever it was, the other letters go on
        reason = (
            error.reason if isinstance(error, Retryable) else service_clients.error_code(error) or type(error).__name__
        )
        logger.error("dead_letter_not_redriven", extra={"letter": letter_id, "error": reason})
        _release(table, head, claim)
        return RedriveResult(letter_id, 0, FAILED, reason)
    _mark(table, letter_id, claim)
    left = f"{unreadable} records without data were not sent" if unreadable else ""
    return RedriveResult(letter_id, head.count - unreadable, REDRIVEN, left)


def discard(table: Table, letter_id: str) -> bool:
    """Delete a letter, its head first; whether there was one. Raises `Conflict` if a redrive has claimed it.

    After a death behind the head, its parts stay until they expire.
    """
    item = table.get(*key(letter_id))
    if not item:
        return False
    now = int(clock.now().timestamp())
    table.delete(
        *key(letter_id),
        condition="attribute_not_exists(pk) OR #state <> :redriving OR claimed_until < :now",
        names={"#state": "state"},
        values={":redriving": REDRIVING, ":now": now},
    )
    for number in range(item["parts"]):
        table.delete(*part_key(letter_id, number))
    return True


def _claim(table: Table, head: LetterSummary, claim: str) -> bool:
    """Claim a letter, if it is as it was read: only one of several callers that read the same succeeds."""
    now = int(clock.now().timestamp())
    try:
        table.update(
            *key(head.id),
            "SET #state = :redriving, #claim = :claim, claimed_until = :until",
            condition="#state = :state AND redrives = :redrives AND (#state <> :redriving OR claimed_until < :now)",
            names={"#state": "state", "#claim": "claim"},
            values={
                ":redriving": REDRIVING,
                ":claim": claim,
                ":until": now + CLAIM_S,
                ":state": head.state,
                ":redrives": head.redrives,
                ":now": now,
            },
        )
    except Conflict:
        return False
    return True


def _release(table: Table, head: LetterSummary, claim: str) -> None:
    """End a claim without a redrive. If this fails, the letter can be redriven when the claim has ended."""
    before = REDRIVEN if head.redrives else OPEN
    _settle(table, head.id, claim, "SET #state = :state REMOVE #claim, claimed_until", {":state": before})


def _mark(table: Table, letter_id: str, claim: str) -> None:
    expression = "SET #state = :state, redrives = redrives + :one, redriven_at = :now REMOVE #claim, claimed_until"
    values = {":state": REDRIVEN, ":one": 1, ":now": clock.to_iso(clock.now())}
    _settle(table, letter_id, claim, expression, values)


def _settle(table: Table, letter_id: str, claim: str, expression: str, values: Item) -> None:
    try:
        table.update(
            *key(letter_id),
            expression,
            condition="#claim = :claim",
            names={"#state": "state", "#claim": "claim"},
            values=values | {":claim": claim},
        )
    except (Conflict, *service_clients.FAILURES) as error:
        logger.warning("dead_letter_claim_not_ended", extra={"letter": letter_id, "error": type(error).__name__})


def _bodies(letter: Letter) -> tuple[list[str], int]:
    """The messages that send a letter's records again, and how many of these cannot be sent."""
    if letter.raw:
        return [letter.raw], 0
    readable = [record for each in letter.records if (record := _record(each))]
    bodies = record_messages.pack(
        readable,
        connection=letter.connection,
        object=letter.object,
        origin=letter.origin,
        read_at=letter.read_at,
        route=letter.route,
        request=letter.request,
        target=letter.target,
        trace=letter.trace,
    )
    return bodies, len(letter.records) - len(readable)


def _record(value: Any) -> Record | None:
    """A record with its data, as it was read; nothing else can be sent."""
    if not isinstance(value, dict):
        return None
    key, updated_at, data = value.get("key"), value.get("updated_at"), value.get("data")
    if not isinstance(key, str) or type(updated_at) is not int or not isinstance(data, dict):
        return None
    return Record(key, updated_at, data, value.get("partial") is True)
