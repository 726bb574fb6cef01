"""Receipts: what became of each request to a destination.

sent → accepted (202), or failed with the destination's code; open ones are called unknown after their deadline
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from portaria import clock
from portaria.table import Conflict, Item, Table

LIST = "RECEIPTS"
# The longest that a destination is known to keep trying on its own is 6.5 hours (platforms/marketo).
DEADLINE = timedelta(hours=24)
KEPT_FOR = timedelta(days=30)


@dataclass(frozen=True)
class Receipt:
    """`state` is sent, accepted, failed or unknown. Times are ISO 8601, `deadline` is epoch seconds."""

    correlation_id: str
    destination: str
    routes: tuple[str, ...]
    count: int
    bytes: int
    state: str
    sent_at: str
    deadline: int
    accepted_at: str = ""
    request_id: str = ""
    code: str = ""


def key(correlation_id: str) -> tuple[str, str]:
    return f"RECEIPT#{correlation_id}", "RECEIPT"


def correlation_id(destination: str, message_ids: Iterable[str], body: bytes) -> str:
    """The id of a request: decided by what is sent and by the messages that it is sent for.

    So a redelivery that makes the same request finds the same receipt, a redelivery of a part makes another request and
    gets another, and the same records under new messages (a redrive, a second backfill) are never taken for a repetition.
    """
    digest = hashlib.sha256(destination.encode())
    for message_id in sorted(set(message_ids)):
        digest.update(b"\n" + message_id.encode())
    digest.update(b"\n\n" + body)
    return digest.hexdigest()[:40]


def open_receipt(
    table: Table, correlation_id: str, destination: str, routes: Iterable[str], count: int, size: int
) -> None:
    """Write down that a request is about to be sent. Raises `Conflict` where it has been sent and accepted already."""
    now = clock.now()
    pk, sk = key(correlation_id)
    sent_at = clock.to_iso(now)
    item: Item = {
        "pk": pk,
        "sk": sk,
        "list_pk": f"{LIST}#{destination}",
        "list_sk": sent_at,
        "correlation_id": correlation_id,
        "destination": destination,
        "routes": sorted(set(routes)),
        "count": count,
        "bytes": size,
        "state": "sent",
        "sent_at": sent_at,
        "deadline": int((now + DEADLINE).timestamp()),
        "expires_at": int((now + KEPT_FOR).timestamp()),
    }
    table.put(
        item,
        condition="attribute_not_exists(pk) OR #state <> :accepted",
        values={":accepted": "accepted"},
        names={"#state": "state"},
    )


def accept(table: Table, correlation_id: str, request_id: str) -> None:
    table.update(
        *key(correlation_id),
        "SET #state = :accepted, request_id = :request_id, accepted_at = :now",
        values={":accepted": "accepted", ":request_id": request_id, ":now": clock.to_iso(clock.now())},
        names={"#state": "state"},
    )


def fail(table: Table, correlation_id: str, code: str, request_id: str) -> None:
    """A receipt that another worker has brought to `accepted` meanwhile stays so."""
    try:
        table.update(
            *key(correlation_id),
            "SET #state = :failed, code = :code, request_id = :request_id",
            condition="#state = :sent",
            values={":failed": "failed", ":sent": "sent", ":code": code, ":request_id": request_id},
            names={"#state": "state"},
        )
    except Conflict:
        return


def find(table: Table, correlation_id: str, now: datetime) -> Receipt | None:
    item = table.get(*key(correlation_id))
    return read(item, now) if item else None


def read(item: Item, now: datetime) -> Receipt:
    """An open receipt whose deadline has passed reads `unknown`; nothing has to sweep for that."""
    receipt = Receipt(
        correlation_id=item["correlation_id"],
        destination=item["destination"],
        routes=tuple(item["routes"]),
        count=item["count"],
        bytes=item["bytes"],
        state=item["state"],
        sent_at=item["sent_at"],
        deadline=item["deadline"],
        accepted_at=item.get("accepted_at", ""),
        request_id=item.get("request_id", ""),
        code=item.get("code", ""),
    )
    if receipt.state in ("sent", "accepted") and now.timestamp() > receipt.deadline:
        return replace(receipt, state="unknown")
    return receipt
