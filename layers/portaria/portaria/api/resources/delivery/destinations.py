"""Destinations that are paused, or that records wait for."""

from __future__ import annotations

import re
from typing import Any, Literal

from portaria.api.operation import ApiRequest, Reply, page
from portaria.api.schemas import Output, Time
from portaria.api.validation import NAME
from portaria.connections import connection_store
from portaria.core import clock
from portaria.core.errors import Rejected
from portaria.delivery import destination_states
from portaria.delivery.destination_pause import DestinationPause
from portaria.delivery.destination_states import DestinationState


class DestinationPauseEntry(Output):
    """`quota` is over when the day ends, `stopped` needs a person, `busy` is a wait that the destination asked for.

    `object` is null for all objects. `code` is the destination's. `until` is when one request tries again.
    """

    object: str | None
    reason: Literal["quota", "stopped", "busy"]
    code: str | None
    since: Time | None
    until: Time


class Destination(Output):
    """`reason` and `since` are those of the pause that ends last; without a pause, records wait for a retry or for their turn.

    `connection` is its state, or null where there is no connection of this name. About `waiting_record_count` records wait, the
    oldest since `oldest_since`. `next_try_at` is null where they are being sent, or will be within a minute.
    """

    name: str
    state: Literal["paused", "waiting"]
    connection: str | None
    reason: str | None
    since: Time | None
    next_try_at: Time | None
    waiting_record_count: int
    oldest_since: Time | None
    oldest_age_s: int | None
    pauses: list[DestinationPauseEntry]


class ResumedDestination(Output):
    """What was ended, and about how many records are tried now. Both are empty where the destination takes everything."""

    name: str
    ended: list[DestinationPauseEntry]
    waiting_record_count: int


def list_page(asked: ApiRequest) -> Reply:
    """Raises `Rejected` (`bad_cursor`)."""
    table, after = asked.context.table, asked.cursor or ""
    if after and not re.fullmatch(NAME, after):
        raise Rejected("bad_cursor", "the cursor is not one that a listing gave out", field="cursor")
    found, next_cursor = destination_states.page(table, after=after, limit=asked.limit)
    known = table.get_many([connection_store.key(state.name) for state in found])
    states = {item["name"]: str(item["state"]) for item in known.values()}
    return page([show(state, states.get(state.name)) for state in found], next_cursor)


def resume(asked: ApiRequest) -> Reply:
    """Raises `Rejected` (404 `unknown_connection`) where there is neither such a connection nor anything that waits for it."""
    name = asked.path["name"]
    before = destination_states.find(asked.context.table, name)
    if before.is_open:
        connection_store.get(asked.context.table, name)
    destination_states.resume(asked.context.table, asked.context.waiting_records_queue_url, before)
    ended = [_pause(each) for each in before.pauses]
    return Reply({"name": name, "ended": ended, "waiting_record_count": before.records})


def show(state: DestinationState, connection: str | None) -> dict[str, Any]:
    now = clock.now().timestamp()
    last = max(state.pauses, key=lambda pause: pause.until, default=None)
    next_try_at, backlog = state.next_try_at(now), state.backlog
    return {
        "name": state.name,
        "state": "paused" if state.pauses else "waiting",
        "connection": connection,
        "reason": last.reason if last else None,
        "since": last.since if last else None,
        "next_try_at": clock.epoch_to_iso(next_try_at) if next_try_at else None,
        "waiting_record_count": state.records,
        "oldest_since": clock.epoch_to_iso(backlog.since) if backlog else None,
        "oldest_age_s": max(0, int(now - backlog.since)) if backlog else None,
        "pauses": [_pause(each) for each in state.pauses],
    }


def _pause(pause: DestinationPause) -> dict[str, Any]:
    return {
        "object": pause.object,
        "reason": pause.reason,
        "code": pause.code,
        "since": pause.since,
        "until": clock.epoch_to_iso(pause.until),
    }
