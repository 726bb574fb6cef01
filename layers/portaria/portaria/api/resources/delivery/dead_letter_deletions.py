"""Deleting dead letters by ids or filters."""

from __future__ import annotations

from typing import Literal

from portaria.api.operation import ApiRequest, Reply
from portaria.api.resources.delivery import dead_letters as resource
from portaria.api.resources.delivery.dead_letters import TIME, DeadLetterSelection
from portaria.api.schemas import Output
from portaria.aws.table import Conflict, Table
from portaria.core import clock
from portaria.records import dead_letter_redrive, dead_letters
from portaria.records.dead_letters import LetterSummary


class DeadLetterDeletion(DeadLetterSelection):
    """Which dead letters to delete: those with these `ids`, or all that match the filters, also redriven ones.

    `before` matches dead letters that were set aside before a time. `cursor` is the `next_cursor` of the last response.
    """


class UndeletedDeadLetter(Output):
    """A dead letter that was not deleted: it does not exist (`gone`), is being redriven, or there was no time left."""

    id: str
    outcome: Literal["gone", "in_progress", "not_tried"]


class DeletionOutcome(Output):
    """How many dead letters were deleted, and how many records they held; with `dry_run`, how many would be.

    If `more` is true, repeat the request with `next_cursor` as its `cursor`.
    """

    dead_letter_count: int
    record_count: int
    not_deleted: list[UndeletedDeadLetter]
    more: bool
    next_cursor: str | None


def delete(asked: ApiRequest) -> Reply:
    """Raises `Rejected` (`bad_cursor`, 404 `unknown_connection`, `unknown_route`).

    Each deletion stands by itself: after a death the request can be repeated, and finds those that are left.
    """
    sent: DeadLetterDeletion = asked.sent
    table, ends_at = asked.context.table, clock.now() + TIME
    heads, next_cursor = resource.select(table, sent, is_waiting=False)
    if sent.ids:
        found = {letter_id: dead_letters.find_head(table, letter_id) for letter_id in dict.fromkeys(sent.ids)}
    else:
        found = {head.id: head for head in heads}
    letters = records = 0
    left: list[dict[str, str]] = []
    before: LetterSummary | None = None
    for letter_id, head in found.items():
        if clock.now() > ends_at:
            if sent.ids:
                left.append({"id": letter_id, "outcome": "not_tried"})
                continue
            next_cursor = dead_letters.cursor_behind(before) if before else sent.cursor
            break
        outcome = _delete(table, letter_id, head, dry_run=sent.dry_run)
        if outcome:
            left.append({"id": letter_id, "outcome": outcome})
        elif head:
            letters, records = letters + 1, records + head.count
        before = head
    return Reply(
        {
            "dead_letter_count": letters,
            "record_count": records,
            "not_deleted": left,
            "more": bool(next_cursor),
            "next_cursor": next_cursor,
        }
    )


def _delete(table: Table, letter_id: str, head: LetterSummary | None, *, dry_run: bool) -> str:
    """Why the dead letter was not deleted, or an empty text."""
    if not head:
        return "gone"
    if dry_run:
        return "" if head.is_free(clock.now()) else "in_progress"
    try:
        return "" if dead_letter_redrive.discard(table, letter_id) else "gone"
    except Conflict:
        return "in_progress"
