"""Dead letters: records that could not go on, kept with their reason until somebody sends them again or deletes them.

    open → redriving → redriven, and from there again

A letter is a head, which listings show, and parts that hold its records, compressed. The parts are written first, so a head
that is there is whole. Letters are kept for `KEPT_FOR`, whatever became of them.

A redrive claims the head, sends the records as a new message and marks the head. Whoever dies between the first two has sent
nothing, and between the last two leaves a letter that was sent: after `CLAIM_S` either may be taken again, and records bear
being sent twice. Versions stay as they were, so a redriven record never overwrites a newer one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import uuid
import zlib
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from portaria.aws import boto3_clients, queues
from portaria.aws.table import Conflict, Item, Table, cursor_after
from portaria.core import clock, record_messages
from portaria.core.entities import Record, Rejected, Retryable
from portaria.outbound.rate_limiter import Pace
from portaria.records import record_index, record_mapping

logger = logging.getLogger(__name__)

LIST = "DEAD_LETTERS"
# Long enough for whoever comes back from holidays; after it the records are gone for good.
KEPT_FOR = timedelta(days=90)
# An item holds 400 kB.
MAX_PART_BYTES = 350_000

# Why a whole message stands here.
GAVE_UP, UNREADABLE = "gave_up", "message_unreadable"
OPEN, REDRIVING, REDRIVEN = "open", "redriving", "redriven"
STATES = (OPEN, REDRIVING, REDRIVEN)


@dataclass(frozen=True)
class Letter:
    """Records of one source that could not go on, all for the same reason.

    `id` is the same where the same records are set aside again for the same delivery. `reason` is a stable word, `detail` a
    sentence that quotes no value. `raw` is a message that nobody could read; it stands in place of `records` then. The rest is
    what the message said, which a redrive says again.
    """

    id: str
    connection: str
    route: str
    object: str
    origin: str
    reason: str
    detail: str
    records: list[Any]
    destination: str = ""
    target: dict[str, Any] | None = None
    read_at: int = 0
    request: str = ""
    set_aside_at: str = ""
    raw: str = ""


_TOLD = tuple(field.name for field in dataclass_fields(Letter) if field.name not in ("records", "raw", "target"))


def key(letter_id: str) -> tuple[str, str]:
    return f"DEAD_LETTER#{letter_id}", "LETTER"


def part_key(letter_id: str, number: int) -> tuple[str, str]:
    return f"DEAD_LETTER#{letter_id}", f"PART#{number:04d}"


def put(table: Table, letter: Letter) -> None:
    """Keep a letter; one that is kept already stays as it is, with what became of it."""
    now = clock.now()
    expires_at = int((now + KEPT_FOR).timestamp())
    payload = {"records": letter.records, "raw": letter.raw, "target": letter.target}
    parts = cut(zlib.compress(record_messages.encode(payload).encode()))
    for number, data in enumerate(parts):
        pk, sk = part_key(letter.id, number)
        table.put({"pk": pk, "sk": sk, "data": data, "expires_at": expires_at})
    set_aside_at = letter.set_aside_at or clock.to_iso(now)
    pk, sk = key(letter.id)
    head: Item = {name: getattr(letter, name) for name in _TOLD}
    head |= {
        "pk": pk,
        "sk": sk,
        "list_pk": LIST,
        "list_sk": f"{set_aside_at}#{letter.id}",
        "set_aside_at": set_aside_at,
        "state": OPEN,
        "count": len(letter.records),
        "keys": _fingerprints(letter),
        "parts": len(parts),
        "redrives": 0,
        "expires_at": expires_at,
    }
    try:
        table.put(head, condition="attribute_not_exists(pk)")
    except Conflict:
        return


def of_message(message_id: str, body: str) -> Letter:
    """The letter of a Records message that no worker could handle; one that cannot be read keeps its text."""
    letter_id = hashlib.sha256(f"{message_id}\n{GAVE_UP}".encode()).hexdigest()[:32]
    try:
        message = record_mapping.read_message(message_id, body)
        # What cannot be written again, such as what is nested too deeply, is kept as it came.
        record_messages.encode({"records": message.records})
    except (Rejected, ValueError, RecursionError):
        detail = f"this is no Records message of version {record_messages.VERSION}"
        return Letter(letter_id, "", "", "", "", UNREADABLE, detail, [], raw=body)
    detail = "no worker could handle its message, however often it came back; ingest_records' log tells why"
    return Letter(
        letter_id,
        message.connection,
        message.route,
        message.object,
        message.origin,
        GAVE_UP,
        detail,
        message.records,
        destination=message.target.destination if message.target else "",
        target=record_mapping.target_fields(message.target) if message.target else None,
        read_at=message.read_at,
        request=message.request,
    )


def cut(data: bytes) -> list[bytes]:
    """Parts that an item can hold, one at least."""
    return [data[start : start + MAX_PART_BYTES] for start in range(0, len(data), MAX_PART_BYTES)] or [b""]


def joined(parts: list[bytes]) -> dict[str, Any]:
    """What `put` cut into parts."""
    return dict(json.loads(zlib.decompress(b"".join(parts))))


def _fingerprints(letter: Letter) -> bytes:
    """By which a letter is found for a record, without its key in every listing."""
    keys = [
        record["key"] for record in letter.records if isinstance(record, dict) and isinstance(record.get("key"), str)
    ]
    return record_index.packed(f"{letter.connection}/{each}" for each in keys)


# --------------------------------------------------------------------------------------------------------------- reading

# How much one call reads at most of the listing.
MAX_READ, PAGE_SIZE = 2_000, 100


@dataclass(frozen=True)
class LetterSummary:
    """A letter without its records, of which it has `count`; `redrives` says how often it was sent again."""

    id: str
    state: str
    connection: str
    route: str
    object: str
    origin: str
    destination: str
    reason: str
    detail: str
    count: int
    request: str
    set_aside_at: str
    redrives: int
    redriven_at: str
    claimed_until: int

    def is_free(self, now: datetime) -> bool:
        """Whether nobody is just sending it again."""
        return self.state != REDRIVING or self.claimed_until < now.timestamp()


@dataclass(frozen=True)
class LetterFilter:
    """Which letters. `connection` is where records come from or where they go; `record` is `{source}/{key}`.

    `is_waiting` leaves those to be redriven: open ones, and those whose redrive was never brought to its end.
    """

    reason: str = ""
    route: str = ""
    connection: str = ""
    state: str = ""
    record: str = ""
    is_waiting: bool = False

    def includes(self, head: LetterSummary, item: Item) -> bool:
        """Whether a letter is among them; `item` is what its head was read from."""
        return (
            self.reason in ("", head.reason)
            and self.route in ("", head.route)
            and self.connection in ("", head.connection, head.destination)
            and self.state in ("", head.state)
            and not (self.is_waiting and (head.state == REDRIVEN or not head.is_free(clock.now())))
            and (not self.record or record_index.holds(item["keys"], record_index.of(self.record)))
        )


def list_page(
    table: Table,
    wanted: LetterFilter,
    *,
    cursor: str | None = None,
    limit: int = 50,
    newest_first: bool = True,
    before: str = "",
) -> tuple[list[LetterSummary], str | None]:
    """Heads. A page can be short, even empty, before the last: the cursor then leads on. `before` is ISO 8601."""
    found: list[LetterSummary] = []
    for _ in range(MAX_READ // PAGE_SIZE):
        items, cursor = table.query(
            LIST,
            index="listing",
            newest_first=newest_first,
            sk_until=before,
            limit=limit if wanted == LetterFilter() else PAGE_SIZE,
            cursor=cursor,
        )
        for position, item in enumerate(items):
            head = read_head(item)
            if wanted.includes(head, item):
                found.append(head)
            if len(found) == limit:
                ended = not cursor and position == len(items) - 1
                return found, None if ended else cursor_after(item)
        if not cursor:
            break
    return found, cursor


def cursor_behind(head: LetterSummary) -> str:
    """The cursor that goes on behind a letter."""
    pk, sk = key(head.id)
    return cursor_after({"pk": pk, "sk": sk, "list_pk": LIST, "list_sk": f"{head.set_aside_at}#{head.id}"})


def find(table: Table, letter_id: str) -> tuple[LetterSummary, Letter] | None:
    """A letter with its records."""
    item = table.get(*key(letter_id))
    return (read_head(item), _read(table, item)) if item else None


def read_head(item: Item) -> LetterSummary:
    absent = {"redriven_at": "", "claimed_until": 0}
    return LetterSummary(**{name: item.get(name, absent.get(name)) for name in LetterSummary.__annotations__})


def _read(table: Table, item: Item) -> Letter:
    keys = [part_key(item["id"], number) for number in range(item["parts"])]
    parts = table.get_many(keys)
    content = joined([parts[key]["data"] for key in keys])
    return Letter(**{name: item[name] for name in _TOLD}, **content)


# -------------------------------------------------------------------------------------------------------------- redrives

# How long whoever redrives a letter has for it.
CLAIM_S = 300
# Letters a second: what is sent again should not stand in the way of what is new.
RATE = 20.0

WOULD_REDRIVE, GONE, IN_PROGRESS, FAILED = "would_redrive", "gone", "in_progress", "failed"
OUTCOMES = (WOULD_REDRIVE, REDRIVEN, GONE, IN_PROGRESS, FAILED)


@dataclass(frozen=True)
class RedriveResult:
    """What became of a letter's redrive. `reason` says why it is not what was asked for; `records` is how many were sent."""

    id: str
    records: int
    outcome: str
    reason: str = ""


@cache
def _pace() -> Pace:
    return Pace(RATE)


def redrive(table: Table, queue_url: str, letter_id: str, *, again: bool, dry_run: bool) -> RedriveResult:
    """Send a letter's records as a new message; with `again` also where that has been done before.

    Of several callers at once one sends it. Where the queue takes nothing, or not all, the letter stays as it was.
    """
    item = table.get(*key(letter_id))
    if not item:
        return RedriveResult(letter_id, 0, GONE, "there is no such letter any more")
    head = read_head(item)
    if head.state == REDRIVEN and not again:
        return RedriveResult(letter_id, 0, GONE, "somebody else has just redriven it")
    if not head.is_free(clock.now()):
        return RedriveResult(letter_id, 0, IN_PROGRESS, "somebody else is redriving it")
    if dry_run:
        return RedriveResult(letter_id, head.count, WOULD_REDRIVE)
    _pace().wait()
    claim = uuid.uuid4().hex
    if not _claim(table, head, claim):
        return RedriveResult(letter_id, 0, IN_PROGRESS, "somebody else is redriving it")
    try:
        letter = _read(table, item)
        bodies, unreadable = _bodies(letter)
        if not bodies:
            _release(table, head, claim)
            return RedriveResult(letter_id, 0, FAILED, "there is nothing in it that could be sent: delete it")
        queues.send(queue_url, bodies, tenant=letter.connection)
    except Exception as error:  # noqa: BLE001 - whatever it was, the other letters go on
        reason = (
            error.reason if isinstance(error, Retryable) else boto3_clients.error_code(error) or type(error).__name__
        )
        logger.error("a dead letter was not redriven", extra={"letter": letter_id, "error": reason})
        _release(table, head, claim)
        return RedriveResult(letter_id, 0, FAILED, reason)
    _mark(table, letter_id, claim)
    left = f"{unreadable} records without data stay behind" if unreadable else ""
    return RedriveResult(letter_id, head.count - unreadable, REDRIVEN, left)


def discard(table: Table, letter_id: str) -> bool:
    """Delete a letter and its records: whether there was one. Raises `Conflict` where somebody is redriving it."""
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
    """Whether it is ours: it stands as it was read, so one of several who read the same gets it."""
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
    """Where this fails, the letter can be taken again when the claim has ended."""
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
    except (Conflict, *boto3_clients.FAILURES) as error:
        logger.warning("a dead letter keeps its claim", extra={"letter": letter_id, "error": type(error).__name__})


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
