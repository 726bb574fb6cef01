"""The overview: what arrived, what is about to end, and what is stuck, in one answer of bounded cost.

Counts are those that `count_states` has stored. Destinations are read as they are now, up to `MAX_DESTINATIONS`; alarms and
ages of queues come from CloudWatch.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from pydantic import Field

from portaria.api.operation import ApiRequest, Reply
from portaria.api.resources.delivery.destinations import Destination
from portaria.api.resources.delivery.destinations import show as show_destination
from portaria.api.schemas import Output, Time
from portaria.aws.table import Table, run_concurrently
from portaria.connections import connection_store
from portaria.core import clock
from portaria.core.item_keys import INSTALL_STATES
from portaria.delivery import backlogs, destination_pause, destination_states
from portaria.overview import stored_counts
from portaria.overview.stored_counts import Count
from portaria.records import receipts

Content = dict[str, Any]
# How many destinations are shown, and how many are counted.
SHOWN_DESTINATIONS, MAX_DESTINATIONS = 5, 100
# States that a receipt in the table can have.
RECEIPT_STATES = tuple(state for state in receipts.STATES if state != receipts.QUEUED)


class NamedCount(Output):
    """How many there are of one state or reason."""

    name: str = Field(description="The state or the reason.")
    total_count: int = Field(description="How many there are.")


class InstallBar(Output):
    """The installs of an hour or a day, by their state now."""

    since: Time = Field(description="The beginning of the hour or the day (UTC).")
    connected_count: int = Field(description="How many are connected.")
    failed_count: int = Field(description="How many failed.")
    in_progress_count: int = Field(description="How many are received or being exchanged.")


class InstallWindow(Output):
    """The installs that arrived in a time."""

    window: Literal["24h", "7d"] = Field(
        description="`24h` (this hour and the 23 before it) or `7d` (today and the six days before it, in UTC)."
    )
    since: Time = Field(
        description="The beginning of the first hour or day. `since` of the listing gives the same installs."
    )
    received_count: int = Field(description="How many arrived.")
    states: list[NamedCount] = Field(description="How many of them are in each state now.")
    failures: list[NamedCount] = Field(description="How many failed for each reason, the most frequent first.")
    bars: list[InstallBar] = Field(description="The same by hour or day, the oldest first.")


class GrantEnd(Output):
    """A connection whose grant ends, unless it is renewed."""

    connection: str = Field(description="The name of the connection.")
    platform: str = Field(description="The platform.")
    label: str | None = Field(description="The name of the account, if the platform returned one.")
    ends_at: Time = Field(description="When the grant ends.")
    cause: Literal["refused", "unused"] = Field(
        description="`refused` (the platform refuses to renew it now) or `unused` (the life of a token that is not renewed)."
    )


class QuotaUse(Output):
    """What a subscription has used of its daily quota."""

    subscription: str = Field(description="The platform's id of the subscription.")
    connection: str = Field(description="The name of one connection of the subscription.")
    used_count: int = Field(description="How many objects were reserved today.")
    quota_count: int = Field(description="How many objects a day has.")


class QueueWait(Output):
    """How long the oldest message of a queue has waited."""

    name: str = Field(description="The name of the queue.")
    oldest_age_s: int | None = Field(
        description="The age in seconds. Null if SQS has published none lately, because the queue was empty for hours."
    )


class ActiveAlarm(Output):
    """An alarm that is on."""

    name: str = Field(description="The name of the alarm in the template.")
    description: str = Field(description="What it means, and the section of the operations guide.")
    since: Time = Field(description="Since when it is on.")
    url: str = Field(description="Its page at CloudWatch.")


class PartCount(Output):
    """When a part of the overview was counted."""

    name: Literal["connections", "installs", "receipts", "dead_letters", "quotas"] = Field(description="The part.")
    counted_at: Time = Field(
        description="When it was counted: every five minutes, or every half hour at least if there is very much."
    )
    next_count_at: Time = Field(
        description="When it is counted again. A time that is long past says that no counts are made."
    )
    is_complete: bool = Field(description="Whether all were counted. If not, the counts are minimums.")


class OverviewOutput(Output):
    """What arrived, what is about to end, and what is stuck."""

    parts: list[PartCount] = Field(
        description="When each part was counted. A part that is missing has not been counted yet; its lists are empty."
    )
    installs: list[InstallWindow] = Field(description="The installs of the last 24 hours and of the last 7 days.")
    connections: list[NamedCount] = Field(description="How many connections are in each state.")
    grants: list[GrantEnd] = Field(description="The ten grants that end soonest, of all connections.")
    receipts_since: Time | None = Field(description="The beginning of the 24 hours of which receipts are counted.")
    receipts: list[NamedCount] = Field(description="How many receipts of the last 24 hours are in each state.")
    dead_letters: list[NamedCount] = Field(
        description="How many dead letters there are for each reason, without redriven ones; the most frequent first."
    )
    quotas: list[QuotaUse] = Field(description="The use of daily quotas, by subscription.")
    quotas_reset_at: Time | None = Field(description="When the quotas' day ends.")
    destinations: list[Destination] = Field(
        description="Up to five destinations that are paused or have waiting records; paused ones first."
    )
    destination_count: int = Field(description="How many such destinations there are, at most 100.")
    queues: list[QueueWait] | None = Field(description="The queues. Null if CloudWatch did not answer.")
    alarms: list[ActiveAlarm] | None = Field(
        description="The alarms that are on, the newest first. Null if CloudWatch did not answer."
    )


def show(asked: ApiRequest) -> Reply:
    table, status = asked.context.table, asked.context.stack_status
    counts = stored_counts.load(table)
    alarms, ages = status.alarms(), status.queue_ages()
    return Reply(
        _counted(counts)
        | _closed_destinations(table)
        | {
            "queues": None if ages is None else [vars(age) for age in ages],
            "alarms": None if alarms is None else [vars(alarm) for alarm in alarms],
        }
    )


def _counted(counts: dict[str, Count]) -> Content:
    content = {part: count.content for part, count in counts.items()}
    connections = content.get(stored_counts.CONNECTIONS, {})
    quotas = content.get(stored_counts.QUOTAS, {})
    return {
        "parts": [
            {
                "name": part,
                "counted_at": count.counted_at,
                "next_count_at": clock.to_iso(count.next_at),
                "is_complete": count.is_complete,
            }
            for part, count in sorted(counts.items())
        ],
        "installs": [_window(each) for each in content.get(stored_counts.INSTALLS, {}).get("windows", [])],
        "connections": _states(connections, connection_store.STATES),
        "grants": [each | {"label": each["label"] or None} for each in connections.get("grants", [])],
        "receipts_since": content.get(stored_counts.RECEIPTS, {}).get("since"),
        "receipts": _states(content.get(stored_counts.RECEIPTS, {}), RECEIPT_STATES),
        "dead_letters": _named(content.get(stored_counts.DEAD_LETTERS, {}).get("reasons", {})),
        "quotas": quotas.get("used", []),
        "quotas_reset_at": quotas.get("resets_at"),
    }


def _window(stored: Content) -> Content:
    return {
        "window": stored["window"],
        "since": stored["since"],
        "received_count": sum(stored["states"].values()),
        "states": _states(stored, INSTALL_STATES),
        "failures": _named(stored["failures"]),
        "bars": [_bar(each) for each in stored["bars"]],
    }


def _bar(stored: Content) -> Content:
    states = stored["states"]
    connected, failed = states.get("connected", 0), states.get("failed", 0)
    return {
        "since": stored["since"],
        "connected_count": connected,
        "failed_count": failed,
        "in_progress_count": sum(states.values()) - connected - failed,
    }


def _states(stored: Content, states: tuple[str, ...]) -> list[Content]:
    """Every state, also those of which there are none; empty if nothing was counted yet."""
    found = stored.get("states")
    return [] if found is None else [{"name": state, "total_count": found.get(state, 0)} for state in states]


def _named(counts: dict[str, int]) -> list[Content]:
    return [{"name": name, "total_count": count} for name, count in sorted(counts.items(), key=lambda each: -each[1])]


def _closed_destinations(table: Table) -> Content:
    """Destinations that are paused or have waiting records, from two pages of the index."""
    paused, _ = table.query(
        destination_pause.LIST, index="listing", limit=MAX_DESTINATIONS, attributes=("destination",)
    )
    waiting, _ = table.query(backlogs.LISTING, index="listing", limit=MAX_DESTINATIONS, attributes=("destination",))
    names = list(dict.fromkeys(item["destination"] for item in [*paused, *waiting]))[:MAX_DESTINATIONS]
    states = run_concurrently(partial(destination_states.find, table), names[: 2 * SHOWN_DESTINATIONS])
    found = [state for state in states if not state.is_open]
    # Pauses that have passed and empty backlogs are still in the index for a moment.
    count = len(names) - (len(states) - len(found))
    found.sort(key=lambda state: not state.pauses)
    items = table.get_many(connection_store.key(state.name) for state in found[:SHOWN_DESTINATIONS])
    known = {item["name"]: str(item["state"]) for item in items.values()}
    shown = [show_destination(state, known.get(state.name)) for state in found[:SHOWN_DESTINATIONS]]
    return {"destinations": shown, "destination_count": count}
