"""Destinations that are paused, or that records wait for."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field

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
    """A time during which nothing is sent to a destination."""

    object: str | None = Field(description="The object that is not sent. Null if nothing is sent.")
    reason: Literal["quota", "stopped", "busy", "no_answer"] = Field(
        description="`quota` (until the destination's day ends), `stopped` (until a person acts), `busy` (a wait that the "
        "destination requested) or `no_answer` (the destination does not answer in time).",
    )
    host: str | None = Field(
        description="The host that does not answer, if all of its destinations wait. Otherwise null."
    )
    code: str | None = Field(description="The destination's own code.")
    since: Time | None = Field(description="When the pause began.")
    until: Time = Field(description="When one request is tried again.")


class Destination(Output):
    """A destination that is paused or has waiting records."""

    name: str = Field(description="The destination's name, which is the connection's.")
    state: Literal["paused", "waiting"] = Field(
        description="`paused`, or `waiting` (records wait for a retry or for their turn)."
    )
    connection: str | None = Field(description="The connection's state. Null if there is no connection of this name.")
    reason: str | None = Field(description="The reason of the pause that ends last. Null without a pause.")
    host: str | None = Field(
        description="The host that does not answer, if it is the pause of a host and its destinations. Otherwise null."
    )
    since: Time | None = Field(description="When the pause that ends last began. Null without a pause.")
    next_try_at: Time | None = Field(
        description="When waiting records are tried next. Null if they are being sent, or will be within a minute."
    )
    waiting_record_count: int = Field(description="About how many records wait.")
    oldest_since: Time | None = Field(description="Since when the oldest record waits.")
    oldest_age_s: int | None = Field(description="How many seconds the oldest record has waited.")
    pauses: list[DestinationPauseEntry] = Field(description="The pauses that apply now.")


class ResumedDestination(Output):
    """What a resumption did."""

    name: str = Field(description="The destination's name.")
    ended: list[DestinationPauseEntry] = Field(description="The pauses that were ended. Empty if there were none.")
    waiting_record_count: int = Field(description="About how many waiting records are tried now.")


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
        "host": last.host if last else None,
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
        "host": pause.host,
        "code": pause.code,
        "since": pause.since,
        "until": clock.epoch_to_iso(pause.until),
    }
