"""Dead letters: records that could not be delivered, kept with their reason until a person redrives or deletes them.

    open → redriving → redriven, and from there again

A letter is a head, which listings show, and parts that hold its records, compressed. The parts are written first, so a letter
with a head is complete. Letters are kept for `KEPT_FOR`, whatever their state.

A redrive claims the head, sends the records as a new message, and marks the head. After a death between claim and message,
nothing was sent; after one between message and mark, the records were sent. In both cases the letter can be redriven again
after `dead_letter_redrive.CLAIM_S`, and destinations tolerate records that are sent twice. Versions stay as they were, so a
redriven record never overwrites a newer one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import zlib
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from datetime import datetime, timedelta
from typing import Any

from portaria.aws.table import Conflict, Item, Table, cursor_after
from portaria.core import clock, record_messages
from portaria.core.errors import Rejected
from portaria.records import record_index
from portaria.records.mapping import record_mapping

logger = logging.getLogger(__name__)

LIST = "DEAD_LETTERS"
# Long enough for an operator who returns from holidays; then the records are deleted.
KEPT_FOR = timedelta(days=90)
# An item holds 400 kB.
MAX_PART_BYTES = 350_000
# Reasons of letters that hold a whole message.
GAVE_UP, UNREADABLE = "gave_up", "message_unreadable"
OPEN, REDRIVING, REDRIVEN = "open", "redriving", "redriven"
STATES = (OPEN, REDRIVING, REDRIVEN)


@dataclass(frozen=True)
class Letter:
    """Records of one source that could not be delivered, all for the same reason.

    `id` is the same if a redelivery rejects the same records again. `reason` is a stable word, `detail` a sentence that quotes
    no value. `raw` is an unreadable message; `records` is empty then. The other fields are the message's, which a redrive
    sends again.
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
    trace: dict[str, str] | None = None


_TOLD = tuple(
    field.name for field in dataclass_fields(Letter) if field.name not in ("records", "raw", "target", "trace")
)


def key(letter_id: str) -> tuple[str, str]:
    return f"DEAD_LETTER#{letter_id}", "LETTER"


def part_key(letter_id: str, number: int) -> tuple[str, str]:
    return f"DEAD_LETTER#{letter_id}", f"PART#{number:04d}"


def put(table: Table, letter: Letter) -> None:
    """Store a letter: its parts, then its head. A letter that exists already keeps its state. Raises what AWS raises."""
    now = clock.now()
    expires_at = int((now + KEPT_FOR).timestamp())
    payload = {"records": letter.records, "raw": letter.raw, "target": letter.target, "trace": letter.trace}
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
    """The letter of a Records message that failed on each delivery; an unreadable message is kept as text.

    Its id is that of the message and its body, because parts of one message can wait, and fail, apart.
    """
    letter_id = hashlib.sha256(f"{message_id}\n{GAVE_UP}\n{body}".encode(errors="surrogatepass")).hexdigest()[:32]
    try:
        message = record_mapping.read_message(message_id, body)
        # A message that cannot be encoded again, such as one that is nested too deeply, is kept as it is.
        record_messages.encode({"records": message.records})
    except (Rejected, ValueError, RecursionError):
        detail = f"this is not a Records message of version {record_messages.VERSION}"
        return Letter(letter_id, "", "", "", "", UNREADABLE, detail, [], raw=body)
    detail = "the message failed on each of its deliveries; the log of ingest_records says why"
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
        trace=message.trace.fields,
    )


def cut(data: bytes) -> list[bytes]:
    """Cut data into parts that fit into an item; at least one."""
    return [data[start : start + MAX_PART_BYTES] for start in range(0, len(data), MAX_PART_BYTES)] or [b""]


def joined(parts: list[bytes]) -> dict[str, Any]:
    """The content that `put` cut into parts."""
    return dict(json.loads(zlib.decompress(b"".join(parts))))


def _fingerprints(letter: Letter) -> bytes:
    """The fingerprints of a letter's records and their e-mail addresses, by which listings find it without these values."""
    records = [record for record in letter.records if isinstance(record, dict)]
    keys = [f"{letter.connection}/{record['key']}" for record in records if isinstance(record.get("key"), str)]
    emails = [email for record in records for email in record_index.emails(record.get("data"))]
    return record_index.packed([*keys, *emails])


# How many items of the listing one call reads at most.
MAX_READ, PAGE_SIZE = 2_000, 100


@dataclass(frozen=True)
class LetterSummary:
    """A letter without its `count` records; `redrives` says how often it was redriven. Times are ISO 8601.

    `claimed_until` (epoch seconds) is when a redrive's claim ends.
    """

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
        """Whether no redrive has claimed it."""
        return self.state != REDRIVING or self.claimed_until < now.timestamp()


@dataclass(frozen=True)
class LetterFilter:
    """A filter of letters. `connection` is the source or the destination; `record` is `{source}/{key}`. `request` is the id of
    the request that sent the records.

    `is_waiting` selects the letters to redrive: open ones, and those whose redrive did not finish.
    """

    reason: str = ""
    route: str = ""
    connection: str = ""
    state: str = ""
    record: str = ""
    is_waiting: bool = False
    email: str = ""
    request: str = ""

    def includes(self, head: LetterSummary, item: Item) -> bool:
        """Whether the filter selects a letter; `item` is the stored head."""
        return (
            self.reason in ("", head.reason)
            and self.route in ("", head.route)
            and self.connection in ("", head.connection, head.destination)
            and self.state in ("", head.state)
            and not (self.is_waiting and (head.state == REDRIVEN or not head.is_free(clock.now())))
            and self.request in ("", head.request)
            and (not self.email or record_index.holds(item["keys"], record_index.of(record_index.of_email(self.email))))
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
    """A page of heads, and the cursor of the next page. A page with a cursor may be short or empty. `before` is ISO 8601."""
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
    """The cursor of the page that begins after a letter."""
    pk, sk = key(head.id)
    return cursor_after({"pk": pk, "sk": sk, "list_pk": LIST, "list_sk": f"{head.set_aside_at}#{head.id}"})


def find(table: Table, letter_id: str) -> tuple[LetterSummary, Letter] | None:
    """A letter with its records, or None."""
    item = table.get(*key(letter_id))
    return (read_head(item), read_letter(table, item)) if item else None


def find_head(table: Table, letter_id: str) -> LetterSummary | None:
    """A letter without its records, or None."""
    item = table.get(*key(letter_id))
    return read_head(item) if item else None


def read_head(item: Item) -> LetterSummary:
    absent = {"redriven_at": "", "claimed_until": 0}
    return LetterSummary(**{name: item.get(name, absent.get(name)) for name in LetterSummary.__annotations__})


def read_letter(table: Table, item: Item) -> Letter:
    keys = [part_key(item["id"], number) for number in range(item["parts"])]
    parts = table.get_many(keys)
    content = joined([parts[key]["data"] for key in keys])
    return Letter(**{name: item[name] for name in _TOLD}, **content)
