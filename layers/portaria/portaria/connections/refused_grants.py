"""Runs of refusals: a provider that answers refreshes with nothing but 4xx, with error codes that do not end a grant.

Such a refusal may have its cause in the OAuth client (a wrong secret), in the provider (a broken gateway), or in the end of the
grant under an unknown error code. The first refusal begins a run, which the connection's item records; a 5xx answer, a time-out
or a success ends it. The owner is warned during the run (`connection.refresh_refused` once a day, `portaria doctor`, the log).
A run that has lasted for the stack's RefusedGrantDays ends the connection as `refused_too_long`. Its tokens stay in the vault:
`resume` tries such connections again after the OAuth client has been corrected.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import Enum

from portaria.aws import due_index
from portaria.aws.table import Conflict, Item, Table
from portaria.connections import connection_store
from portaria.core import clock
from portaria.core.errors import RateLimited, Rejected, Retryable
from portaria.core.stored_reasons import ConnectionReason

# A run of fewer refusals is no evidence, however long it has lasted.
LEAST_REFUSALS = 3
# 4xx that are not about the request's content: time-out, too early, rate limits.
_NO_REFUSAL = (408, 425, 429)
MAX_DETAIL_LENGTH = 500


class Verdict(Enum):
    """What the response to a refresh means for the grant. `NONE`: nothing, for example a rate limit."""

    REFUSED = "refused"
    FAILED = "failed"
    NONE = "none"


def verdict(status: int | None, error: Rejected | Retryable) -> Verdict:
    """`status` is the response's status; None if there was no response."""
    if status is None or status >= 500:
        return Verdict.FAILED
    if status in _NO_REFUSAL or isinstance(error, RateLimited):
        return Verdict.NONE
    if 400 <= status < 500:
        return Verdict.REFUSED
    # Some providers refuse with 200.
    return Verdict.REFUSED if status < 300 and isinstance(error, Rejected) else Verdict.NONE


def changes(item: Item, found: Verdict, error: Exception, now: datetime) -> Item:
    """The attributes that a connection's item gets after an attempt that did not refresh its tokens."""
    if found is Verdict.REFUSED:
        begins = {} if item.get("refused_since") else {"refused_since": clock.to_iso(now), "refused_told": 0}
        told = getattr(error, "detail", "")[:MAX_DETAIL_LENGTH]
        return {**begins, "refusal": told, "refused_times": _times(item) + 1}
    if found is Verdict.FAILED and item.get("refused_since"):
        return {"refused_since": "", "refusal": "", "refused_times": 0}
    return {}


def has_lasted(item: Item, limit: timedelta, now: datetime) -> bool:
    """Whether one more refusal ends the connection. `item` is the item before that refusal is recorded."""
    since = str(item.get("refused_since", ""))
    return bool(since) and _times(item) + 1 >= LEAST_REFUSALS and clock.from_iso(since) + limit <= now


def resume(table: Table, platform: str, client: str) -> list[str]:
    """Try the connections of a corrected OAuth client again that refusals ended. Returns their names.

    The next sweep refreshes each of them; a new run of refusals ends it again.
    """
    resumed = []
    for item in table.query_all(connection_store.LIST, index="listing"):
        if (item["platform"], item.get("client"), item.get("reason")) != (
            platform,
            client,
            ConnectionReason.REFUSED_TOO_LONG,
        ):
            continue
        changed = due_index.attributes(due_index.RENEWALS, clock.now())
        changed |= connection_store.filter_keys(connection_store.read(item), "connected")
        try:
            table.update(
                *connection_store.key(item["name"]),
                "SET #state = :connected, #reason = :none, refused_since = :none, refusal = :none, refused_times = :zero, "
                "resumed = :yes, " + ", ".join(f"{name} = :{name}" for name in changed) + " REMOVE retry_at, tries",
                condition="#state = :needs_reconnect AND #reason = :refused AND generation = :generation",
                names={"#state": "state", "#reason": "reason"},
                values={
                    ":connected": "connected",
                    ":needs_reconnect": "needs_reconnect",
                    ":refused": ConnectionReason.REFUSED_TOO_LONG,
                    ":none": "",
                    ":zero": 0,
                    ":yes": True,
                    ":generation": item["generation"],
                    **{f":{name}": value for name, value in changed.items()},
                },
            )
        except Conflict:
            continue
        resumed.append(str(item["name"]))
    return resumed


def _times(item: Item) -> int:
    return int(item.get("refused_times", 0))
