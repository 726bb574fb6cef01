"""Finding receipts: by correlation id, by destination, by call and by record."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta

from portaria.aws.table import Item, Table, cursor_after, decode_cursor, encode_cursor
from portaria.core.errors import Rejected
from portaria.records import record_index
from portaria.records.receipts import (
    KEPT_FOR,
    LIST,
    MAX_READ,
    PAGE_SIZE,
    AcceptedRequest,
    Receipt,
    key,
    noted_key,
    read_all,
    read_noted,
    sent_pk,
)

MAX_SENT_PAGES = 25


def find(table: Table, correlation_id: str, now: datetime) -> Receipt | None:
    item = table.get(*key(correlation_id))
    return read_all(table, [item], now)[0] if item else None


def requests_of(table: Table, correlation_id: str) -> list[AcceptedRequest]:
    """The data ingestion requests that a request carried records of."""
    item = table.get(key(correlation_id)[0], "REQUESTS")
    items = table.get_many([noted_key(request) for request in item["requests"]]) if item else {}
    return sorted(map(read_noted, items.values()), key=lambda noted: noted.accepted_at)


def by_destination(
    table: Table, destination: str, now: datetime, *, state: str = "", cursor: str | None = None, limit: int = 50
) -> tuple[list[Receipt], str | None]:
    """The newest first. With a `state` a page can be short, even empty, before the last: the cursor then leads on."""
    found: list[Receipt] = []
    for _ in range(MAX_READ // PAGE_SIZE):
        items, cursor = table.query(
            f"{LIST}#{destination}",
            index="listing",
            newest_first=True,
            limit=PAGE_SIZE if state else limit,
            cursor=cursor,
        )
        for position, receipt in enumerate(read_all(table, items, now)):
            if state in ("", receipt.state):
                found.append(receipt)
            if len(found) == limit:
                ended = not cursor and position == len(items) - 1
                return found, None if ended else cursor_after(items[position])
        if not cursor:
            break
    return found, cursor


def noted(table: Table, request_id: str) -> AcceptedRequest | None:
    """The stored data ingestion request, or None."""
    item = table.get(*noted_key(request_id))
    return read_noted(item) if item else None


def of_call(
    table: Table, request_id: str, now: datetime, *, cursor: str | None = None, limit: int = 50
) -> tuple[list[Receipt], str | None]:
    """The receipts of a data ingestion request."""
    pointers, cursor = table.query(f"REQUEST#{request_id}", sk_prefix="RECEIPT#", cursor=cursor, limit=limit)
    items = table.get_many([key(pointer["sk"].removeprefix("RECEIPT#")) for pointer in pointers]) if pointers else {}
    return sorted(read_all(table, list(items.values()), now), key=lambda receipt: receipt.sent_at), cursor


def by_request(
    table: Table, request_id: str, now: datetime, *, cursor: str | None = None, limit: int = 50
) -> tuple[list[Receipt], str | None]:
    """The receipts of a data ingestion request, or of a request that the destination gave this id."""
    found, next_cursor = of_call(table, request_id, now, cursor=cursor, limit=limit)
    if found or cursor or next_cursor:
        return found, next_cursor
    items, _ = table.query(f"request:{request_id}", index="by_source")
    return sorted(read_all(table, items, now), key=lambda receipt: receipt.sent_at), None


def by_record(
    table: Table, destination: str, record: str, now: datetime, *, cursor: str | None = None, limit: int = 50
) -> tuple[list[Receipt], str | None]:
    """The receipts of the requests that carried a record (`{source}/{key}`, or `record_index.of_email`), the newest first.

    A page with a cursor may be short or empty: one call searches at most `MAX_SENT_PAGES` pages of requests.
    """
    wanted = record_index.of(record)
    today = now.date()
    oldest = today - KEPT_FOR
    day, before = _read_place(cursor, oldest, today) if cursor else (today, "")
    found: list[Item] = []
    for _ in range(MAX_SENT_PAGES):
        sent, more = table.query(sent_pk(destination, day.isoformat()), newest_first=True, sk_until=before)
        sent = [item for item in sent if item["sk"] != before]
        hits = [item for item in sent if record_index.holds(item["keys"], wanted)]
        hits = hits[: limit - len(found)]
        found += hits
        if len(found) == limit:
            return _sent_receipts(table, found, now), _place(day, hits[-1]["sk"])
        if more and sent:
            before = sent[-1]["sk"]
            continue
        day, before = day - timedelta(days=1), ""
        if day < oldest:
            return _sent_receipts(table, found, now), None
    return _sent_receipts(table, found, now), _place(day, before)


def _sent_receipts(table: Table, sent: list[Item], now: datetime) -> list[Receipt]:
    """A request that was started several times has an item for each time: the last one counts."""
    places = [item["sk"].rpartition("#") for item in sent]
    items = table.get_many({key(correlation_id): None for _, _, correlation_id in places})
    known = [(items.get(key(correlation_id)), sent_at) for sent_at, _, correlation_id in places]
    return read_all(table, [item for item, sent_at in known if item and item["sent_at"] == sent_at], now)


def _place(day: date, before: str) -> str:
    return encode_cursor([day.isoformat(), before])


def _read_place(cursor: str, oldest: date, newest: date) -> tuple[date, str]:
    """Raises `Rejected` (`bad_cursor`)."""
    try:
        day, before = decode_cursor(cursor)
        moment = date.fromisoformat(day)
        if not isinstance(before, str) or not re.fullmatch(r"[0-9A-Za-z:.#-]{0,100}", before):
            raise ValueError
    except (ValueError, TypeError, RecursionError):
        raise Rejected(
            "bad_cursor",
            "the cursor is not valid: send the next_cursor of the last response, or none to begin again",
            field="cursor",
        ) from None
    # An old cursor begins at the oldest day that is still stored.
    return (max(moment, oldest), before) if moment <= newest else (newest, "")
