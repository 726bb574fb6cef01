"""Dead letters: listing, showing, redriving and deleting them."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from portaria.api.operation import ApiRequest, Filters, Reply, page
from portaria.api.rules import named, record_filters
from portaria.api.schemas import Output, Time
from portaria.api.validation import NAME, Input, Matching
from portaria.aws.table import Conflict, Table
from portaria.core import clock, redaction
from portaria.core.errors import Rejected
from portaria.records import dead_letter_redrive, dead_letters
from portaria.records.dead_letter_redrive import RedriveResult
from portaria.records.dead_letters import LetterFilter, LetterSummary

_REASON = Matching(r"[a-z][a-z0-9_]{0,63}", "a reason, such as refused_by_destination")
_NAME = Matching(NAME, "3 to 64 of A-Z a-z 0-9 _ -")
FILTERS: Filters = {
    "reason": _REASON,
    "route": _NAME,
    "connection": Matching(NAME, "the name of the source or the destination: 3 to 64 of A-Z a-z 0-9 _ -"),
    "state": dead_letters.STATES,
    "record": record_filters.RECORD,
    "email": record_filters.EMAIL,
    "request": record_filters.REQUEST,
}
MAX_LETTERS = 100
# What one call may take of the function's time; a letter that has been begun is brought to its end.
TIME = timedelta(seconds=12)
# How much of a letter is shown, and of a record that is too long for that.
MAX_SHOWN_CHARACTERS = 100_000
EXCERPT_CHARACTERS = 20_000
# The year 9999: what is beyond is no time of a record.
MAX_EPOCH_S = 253_402_300_800
MAX_DEPTH_DETAIL = "the record is nested too deeply to be shown"


class DeadLetter(Output):
    """Records that could not be delivered, with the reason. Kept for 90 days."""

    id: str = Field(description="The dead letter's id.")
    state: Literal["open", "redriving", "redriven"] = Field(
        description="`open`, `redriving` (it is being sent again) or `redriven`."
    )
    reason: str = Field(description="Why the records could not be delivered.")
    detail: str | None = Field(description="A sentence about the reason, for people.")
    source: str | None = Field(
        description="The name of the connection, or of the private integration, that the records came from."
    )
    connection: str | None = Field(
        description="What the filter `connection` takes for it: the connection's name, or the private integration's id."
    )
    route: str | None = Field(
        description="The name of the route. Null if the records were to go by every route of their source."
    )
    object: str | None = Field(description="The object of the records at their source.")
    origin: str | None = Field(
        description="What brought the records: `event`, `backfill`, `reconciliation` or `front_door`."
    )
    destination: str | None = Field(
        description="The name of the destination. Null if the records were to go by every route of their source."
    )
    record_count: int = Field(description="How many records it holds.")
    request: str | None = Field(
        description="The id of the request that sent the records. Null if no request of a program did."
    )
    set_aside_at: Time = Field(description="When delivery of the records was given up.")
    redrive_count: int = Field(description="How many times the records were sent again.")
    redriven_at: Time | None = Field(description="When they were sent again last.")


class DeadRecord(Output):
    """One record of a dead letter."""

    key: str | None = Field(description="The record's key at its source.")
    updated_at: Time | None = Field(description="The time of the record's version.")
    data: dict[str, Any] | None = Field(
        description="The record in its source's shape. Values that look like credentials are `***`. Null if the record is not"
        " JSON or too long.",
    )
    excerpt: str | None = Field(description="The beginning of a record that has no `data`.")


class DeadLetterWithRecords(DeadLetter):
    """A dead letter with its records."""

    content: list[DeadRecord] = Field(
        description="The first records, up to 100,000 characters. A message that could not be read counts as one record.",
    )


def _moment(text: str) -> str:
    try:
        return clock.to_iso(clock.from_iso(text))
    except ValueError:
        raise PydanticCustomError("rule", "must be a time such as 2026-01-31T23:59:59Z") from None


_Moment = Annotated[
    str,
    Matching(
        r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z", "a time in UTC that ends with Z"
    ),
    AfterValidator(_moment),
]


class DeadLetterSelection(Input):
    """Dead letters with these `ids`, or all that match the filters."""

    ids: list[Annotated[str, Matching(r"[A-Za-z0-9_-]{1,64}", "a dead letter's id")]] | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_LETTERS,
        description="The ids of the dead letters. Give them, or at least one filter.",
    )
    reason: Annotated[str, _REASON] | None = Field(default=None, description="Only dead letters with this reason.")
    route: Annotated[str, _NAME] | None = Field(default=None, description="Only dead letters of this route.")
    connection: Annotated[str, _NAME] | None = Field(
        default=None, description="Only dead letters whose source or destination is this connection."
    )
    before: _Moment | None = Field(default=None, description="Only dead letters that were set aside before this time.")
    limit: Annotated[int, Field(ge=1, le=MAX_LETTERS)] = Field(
        default=MAX_LETTERS, description="How many dead letters one request handles at most."
    )
    cursor: Annotated[str, Field(min_length=1, max_length=1_000)] | None = Field(
        default=None, description="The `next_cursor` of the last response. Only with filters."
    )
    dry_run: bool = Field(default=False, description="Whether to return what would happen, and to change nothing.")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        filters = [self.reason, self.route, self.connection, self.before]
        if bool(self.ids) == any(filters):
            raise PydanticCustomError(
                "rule", "must hold either ids or filters (reason, route, connection, before), and not both"
            )
        if self.ids and self.cursor:
            raise PydanticCustomError("rule", "must not hold a cursor together with ids")
        return self

    def audited(self) -> dict[str, Any]:
        """For the audit trail, which holds no secrets: there are none here."""
        return self.model_dump(exclude_none=True, exclude={"cursor"})


class DeadLetterRedrive(DeadLetterSelection):
    """Which dead letters to redrive: those with these `ids`, even if they were redriven before, or all open ones that
    match the filters.
    """


class RedrivenDeadLetter(Output):
    """What became of one dead letter."""

    id: str = Field(description="The dead letter's id.")
    record_count: int = Field(description="How many of its records were sent.")
    outcome: Literal["would_redrive", "redriven", "gone", "in_progress", "failed"] = Field(
        description="`redriven`, `would_redrive` (with `dry_run`), `gone` (it does not exist), `in_progress` (it is being "
        "redriven by another request) or `failed`.",
    )
    reason: str | None = Field(description="Why it was not redriven, or not completely.")


class RedriveOutcome(Output):
    """One outcome for each dead letter."""

    letters: list[RedrivenDeadLetter] = Field(description="The outcomes.")
    more: bool = Field(
        description="Whether more dead letters match. Then repeat the request with `next_cursor` as its `cursor`."
    )
    next_cursor: str | None = Field(description="Where the next request continues. Null if no more dead letters match.")


def list_page(asked: ApiRequest) -> Reply:
    """The newest first. Raises `Rejected` (404 `unknown_connection`, `unknown_route`)."""
    table, given = asked.context.table, {name: asked.filters.get(name, "") for name in FILTERS}
    wanted = LetterFilter(
        given["reason"],
        given["route"],
        given["connection"],
        given["state"],
        given["record"],
        email=given["email"],
        request=given["request"],
    )
    heads, cursor = dead_letters.list_page(table, wanted, cursor=asked.cursor, limit=asked.limit)
    if not heads and not cursor and not asked.cursor:
        require_names(table, wanted)
    return page(show(table, heads), cursor)


def require_names(table: Table, wanted: LetterFilter) -> None:
    """For filters that matched nothing. A name that dead letters have is known, also after what it named was deleted."""
    try:
        named.require(table, connection=wanted.connection, route=wanted.route, record=wanted.record)
    except Rejected:
        names = LetterFilter(route=wanted.route, connection=wanted.connection, record=wanted.record)
        kept, cursor = dead_letters.list_page(table, names, limit=1)
        if not kept and not cursor:
            raise


def get(asked: ApiRequest) -> Reply:
    """Raises `Rejected` (404 `unknown_dead_letter`)."""
    found = dead_letters.find(asked.context.table, asked.path["id"])
    if not found:
        raise _unknown()
    head, letter = found
    (shown,) = show(asked.context.table, [head])
    return Reply(shown | {"content": _content([letter.raw] if letter.raw else letter.records)})


def redrive(asked: ApiRequest) -> Reply:
    """Raises `Rejected` (`bad_cursor`, 404 `unknown_connection`, `unknown_route`)."""
    sent: DeadLetterRedrive = asked.sent
    table, ends_at = asked.context.table, clock.now() + TIME
    heads, next_cursor = select(table, sent, is_waiting=True)
    outcomes: list[RedriveResult] = []
    for number, letter_id in enumerate(dict.fromkeys(sent.ids or [head.id for head in heads])):
        if clock.now() <= ends_at:
            queue_url, again = asked.context.records_queue_url, bool(sent.ids)
            outcomes.append(dead_letter_redrive.redrive(table, queue_url, letter_id, again=again, dry_run=sent.dry_run))
        elif sent.ids:
            outcomes.append(
                RedriveResult(
                    letter_id,
                    0,
                    dead_letter_redrive.FAILED,
                    "there was no time left in this call: send the request again",
                )
            )
        else:
            next_cursor = dead_letters.cursor_behind(heads[number - 1])
            break
    return Reply(
        {
            "letters": [_shown_outcome(outcome) for outcome in outcomes],
            "more": bool(next_cursor),
            "next_cursor": next_cursor,
        }
    )


def select(table: Table, sent: DeadLetterSelection, *, is_waiting: bool) -> tuple[list[LetterSummary], str | None]:
    """A page of the dead letters that match the filters, the oldest first, and the next cursor; none if `ids` are given.

    Raises as `redrive`.
    """
    if sent.ids:
        return [], None
    wanted = LetterFilter(sent.reason or "", sent.route or "", sent.connection or "", is_waiting=is_waiting)
    heads, next_cursor = dead_letters.list_page(
        table, wanted, cursor=sent.cursor, limit=sent.limit, newest_first=False, before=sent.before or ""
    )
    if not heads and not next_cursor and not sent.cursor:
        require_names(table, wanted)
    return heads, next_cursor


def _shown_outcome(outcome: RedriveResult) -> dict[str, Any]:
    told = asdict(outcome)
    return {"record_count": told.pop("records"), **told}


def delete(asked: ApiRequest) -> Reply:
    """Raises `Rejected` (404 `unknown_dead_letter`, 409 `in_progress`)."""
    try:
        if not dead_letter_redrive.discard(asked.context.table, asked.path["id"]):
            raise _unknown()
    except Conflict:
        raise Rejected("in_progress", "this dead letter is being redriven: try again in a minute", status=409) from None
    return Reply(None)


def show(table: Table, heads: list[LetterSummary]) -> list[dict[str, Any]]:
    """Dead letters without their records, with the names of their sources and destinations."""
    sources = named.of_sources(table, {head.connection for head in heads})
    destinations = named.of_destinations(table, {head.route for head in heads if not head.destination})
    return [
        {
            name: getattr(head, name)
            for name in DeadLetter.model_fields
            if name not in ("record_count", "redrive_count", "source")
        }
        | {
            "source": sources.get(head.connection, head.connection),
            "destination": head.destination or destinations.get(head.route, ""),
            "record_count": head.count,
            "redrive_count": head.redrives,
            "redriven_at": head.redriven_at or None,
        }
        for head in heads
    ]


def _content(records: list[Any]) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = []
    left = MAX_SHOWN_CHARACTERS
    for record in records:
        one, length = _shown_record(record)
        left -= length
        if shown and left < 0:
            break
        shown.append(one)
    return shown


def _shown_record(record: Any) -> tuple[dict[str, Any], int]:
    """A record without what looks like a credential, and how many characters it has."""
    known = record if isinstance(record, dict) else {}
    key, updated_at, data = known.get("key"), known.get("updated_at"), known.get("data")
    told: dict[str, Any] = {
        "key": redaction.masked_text(key[:400]) if isinstance(key, str) else None,
        "updated_at": clock.epoch_to_iso(updated_at)
        if type(updated_at) is int and 0 < updated_at < MAX_EPOCH_S
        else None,
        "data": None,
        "excerpt": None,
    }
    try:
        masked = redaction.masked(data if isinstance(data, dict) else record)
        text = masked if isinstance(masked, str) else json.dumps(masked, ensure_ascii=False)
    except RecursionError:
        return told | {"excerpt": MAX_DEPTH_DETAIL}, 100
    if isinstance(data, dict) and len(text) <= EXCERPT_CHARACTERS:
        return told | {"data": masked}, len(text)
    return told | {"excerpt": text[:EXCERPT_CHARACTERS]}, min(len(text), EXCERPT_CHARACTERS)


def _unknown() -> Rejected:
    return Rejected(
        "unknown_dead_letter", "there is no dead letter with this id; dead letters are kept for 90 days", status=404
    )
