"""Receipts by the X-Correlation-Id of data ingestion requests.

One query lists the requests with an id, the newest first (`receipts.note_request` writes them), and one more for each of them
finds its receipts. A page costs at most as many queries as it may have rows.
"""

from __future__ import annotations

import re
from datetime import datetime

from portaria.aws.table import Table, decode_cursor, encode_cursor
from portaria.core.errors import Rejected
from portaria.records import receipt_search, receipts
from portaria.records.receipts import AcceptedRequest, Receipt


def search(
    table: Table, correlation_id: str, now: datetime, *, cursor: str | None = None, limit: int = 50
) -> tuple[list[Receipt | AcceptedRequest], str | None]:
    """The receipts of the requests with an id; a request without receipts yet is listed itself.

    The listing is eventually consistent: a request is found about a second after its 202. Raises `Rejected` (`bad_cursor`).
    """
    # The place is the last request that was looked at, and where its receipts continue; not DynamoDB's, which holds the long
    # id.
    last, inner = _read_place(cursor) if cursor else ("", "")
    noted, more = table.query(
        f"{receipts.BY_CORRELATION}#{correlation_id}",
        index="listing", newest_first=True, sk_until=last, limit=limit + 1,
    )  # fmt: skip
    found: list[Receipt | AcceptedRequest] = []
    for item in noted:
        if item["list_sk"] == last and not inner:
            continue
        if item["list_sk"] != last:
            # Also where the request of the place has expired meanwhile.
            inner = ""
        if len(found) == limit:
            return found, _place(last, "")
        of_call, next_inner = receipt_search.of_call(
            table, item["request_id"], now, cursor=inner or None, limit=limit - len(found)
        )
        found += of_call if of_call or inner else [receipts.read_noted(item)]
        last, inner = item["list_sk"], next_inner or ""
        if inner:
            return found, _place(last, inner)
    return found, _place(last, "") if more else None


def _place(list_sk: str, inner: str) -> str:
    return encode_cursor([list_sk, inner])


def _read_place(cursor: str) -> tuple[str, str]:
    """Raises `Rejected` (`bad_cursor`)."""
    try:
        list_sk, inner = decode_cursor(cursor)
        if not re.fullmatch(r"[0-9A-Za-z:.#-]{1,100}", list_sk) or not isinstance(inner, str):
            raise ValueError
    except (ValueError, TypeError, RecursionError):
        raise Rejected("bad_cursor", "the cursor is not one that a listing gave out", field="cursor") from None
    return list_sk, inner
