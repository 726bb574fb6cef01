"""Deleting dead letters by ids or filters."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from portaria.api.operation import ApiRequest, Reply
from portaria.api.resources.delivery import dead_letters as resource
from portaria.api.resources.delivery.dead_letters import TIME, DeadLetterSelection
from portaria.api.schemas import Output
from portaria.aws.table import Conflict, Table
from portaria.core import clock
from portaria.records import dead_letter_redrive, dead_letters
from portaria.records.dead_letters import LetterSummary


class DeadLetterDeletion(DeadLetterSelection):
    """Which dead letters to delete: those with these `ids`, or all that match the filters, also redriven ones."""


class UndeletedDeadLetter(Output):
    """A dead letter that was not deleted."""

    id: str = Field(description="The dead letter's id.")
    outcome: Literal["gone", "in_progress", "not_tried"] = Field(
        description="Why it was not deleted: it does not exist (`gone`), it is being redriven (`in_progress`), or there was "
        "no time left (`not_tried`).",
    )


class DeletionOutcome(Output):
    """What was deleted or, with `dry_run`, what would be."""

    dead_letter_count: int = Field(description="How many dead letters were deleted.")
    record_count: int = Field(description="How many records they held.")
    not_deleted: list[UndeletedDeadLetter] = Field(description="The dead letters that were not deleted.")
    more: bool = Field(
        description="Whether more dead letters match. Then repeat the request with `next_cursor` as its `cursor`."
    )
    next_cursor: str | None = Field(description="Where the next request continues. Null if no more dead letters match.")


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
