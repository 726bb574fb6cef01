"""Pauses of hosts that do not answer, so that one platform does not use up the workers of all destinations.

    pk PARKED#host:{host}   sk LOST#{minute}   the time that workers lost in this minute, in total and by destination
                            sk PAUSE           nothing is sent to the host until a time; in the listing `LIST`

A request that fails after `SLOW_S` has lost time in which its worker could have served other destinations. All workers add
that time to one item a minute. A destination that loses much is paused (`destination_pause`). The host is paused if many
destinations lose time: pauses of a few are enough otherwise, so a few silent destinations never pause the others.

When a pause has passed, one request at a time tries the host: `claim_probe` prolongs the pause with a condition on its end, so
one worker wins and all others still see a pause. A fast answer, whatever it says, removes the pause. A failure doubles it. If
the worker dies, the pause passes after `PROBE_S`, and the next request is the probe.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from portaria.aws.table import Conflict, Item, Table
from portaria.core import clock

# A request that takes longer has lost its worker's time. Shorter than the timeout of a connection attempt.
SLOW_S = 2.0
# What a destination, and so many destinations of a host together, may lose in one minute. One timeout is less.
DESTINATION_LOST_S = 25.0
HOST_LOST_S, HOST_DESTINATIONS = 50.0, 4
# The first pause of a host and the longest one. A destination's own pauses are longer, so that others try the host first.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 15.0, 120.0
FIRST_DESTINATION_PAUSE_S, LONGEST_DESTINATION_PAUSE_S = 60.0, 300.0
# Longer than most requests, their token's log-in included. After a later failure, a second probe may run at the same time.
PROBE_S = 30.0
KEPT_FOR = timedelta(days=1)
PAUSE = "PAUSE"
# Not the list of paused destinations, whose readers expect a destination in each item.
LIST = "PARKED_HOSTS"
_OF = "d:"


@dataclass(frozen=True)
class HostPause:
    """Nothing is sent to a host before `until` (epoch seconds). `for_s` is the planned length, `since` is ISO 8601."""

    host: str
    until: int
    for_s: int
    since: str


@dataclass(frozen=True)
class LostTime:
    """The seconds that requests to a host lost in the current minute, by destination."""

    by_destination: dict[str, float]

    @property
    def pauses_host(self) -> bool:
        return len(self.by_destination) >= HOST_DESTINATIONS and sum(self.by_destination.values()) >= HOST_LOST_S

    def pauses_destination(self, name: str) -> bool:
        return self.by_destination.get(name, 0.0) >= DESTINATION_LOST_S


def partition(host: str) -> str:
    """Not the partition of a destination, because a connection's name has no colon."""
    return f"PARKED#host:{host}"


def add_lost(table: Table, host: str, destination: str, lost_s: float) -> LostTime:
    """Add the time that a request lost, in one write. Raises what AWS raises."""
    now = clock.now()
    item = table.update(
        partition(host),
        f"LOST#{int(now.timestamp()) // 60}",
        "ADD #destination :ms SET expires_at = :expires_at",
        names={"#destination": f"{_OF}{destination}"},
        values={":ms": int(lost_s * 1_000), ":expires_at": int((now + KEPT_FOR).timestamp())},
    )
    return LostTime({name[len(_OF) :]: int(ms) / 1_000 for name, ms in item.items() if name.startswith(_OF)})


def read(table: Table, host: str) -> HostPause | None:
    """The pause of a host, also one that has passed; strongly consistent."""
    item = table.get(partition(host), PAUSE)
    return parse(item) if item else None


def list_all(table: Table) -> list[HostPause]:
    """Return the pauses of all hosts, including expired ones. The read is eventually consistent. Raises what AWS raises."""
    return [parse(item) for item in table.query_all(LIST, index="listing")]


def parse(item: Item) -> HostPause:
    return HostPause(item["host"], int(item["until"]), int(item["for_s"]), item["since"])


def closed_until(table: Table, host: str) -> int:
    """When the pause of a host ends (epoch seconds), or 0. Nothing is known of the empty host."""
    pause = read(table, host) if host else None
    return pause.until if pause else 0


def begin(table: Table, host: str) -> HostPause | None:
    """Pause a host; None if it is paused already, or is being probed. Raises what AWS raises."""
    now = clock.now()
    pause = HostPause(host, int(now.timestamp() + FIRST_PAUSE_S), int(FIRST_PAUSE_S), clock.to_iso(now))
    item: Item = {
        "pk": partition(host), "sk": PAUSE, "list_pk": LIST, "list_sk": host, "host": host, "until": pause.until,
        "for_s": pause.for_s, "since": pause.since, "expires_at": _expires_at(pause.until),
    }  # fmt: skip
    try:
        table.put(item, condition="attribute_not_exists(pk)")
    except Conflict:
        return None
    return pause


def claim_probe(table: Table, pause: HostPause) -> HostPause | None:
    """Become the only one that tries the host after its pause; None if another worker has, or has changed the pause."""
    until = int(clock.now().timestamp() + PROBE_S)
    return _prolong(table, pause, until, pause.for_s)


def fail_probe(table: Table, claimed: HostPause) -> HostPause | None:
    """Pause the host again, twice as long as before. Raises what AWS raises."""
    for_s = int(min(2 * claimed.for_s, LONGEST_PAUSE_S))
    return _prolong(table, claimed, int(clock.now().timestamp() + for_s), for_s)


def give_back_probe(table: Table, claimed: HostPause) -> None:
    """Let the next request be the probe, because none was sent. Raises what AWS raises."""
    _prolong(table, claimed, int(clock.now().timestamp()), claimed.for_s)


def end(table: Table, claimed: HostPause) -> None:
    """Remove a pause, unless it has changed. Raises what AWS raises."""
    with suppress(Conflict):
        table.delete(
            partition(claimed.host),
            PAUSE,
            condition="attribute_not_exists(pk) OR #until = :until",
            names={"#until": "until"},
            values={":until": claimed.until},
        )


def lift(table: Table, host: str) -> None:
    """Let a pause be over now, so that the next request tries the host. Raises what AWS raises."""
    pause = read(table, host) if host else None
    if pause and pause.until > clock.now().timestamp():
        _prolong(table, pause, int(clock.now().timestamp()), pause.for_s)


def _prolong(table: Table, pause: HostPause, until: int, for_s: int) -> HostPause | None:
    try:
        item = table.update(
            partition(pause.host),
            PAUSE,
            # The listing's keys too: a version before there was the listing may have begun the pause.
            "SET #until = :until, for_s = :for_s, expires_at = :expires_at, list_pk = :list, list_sk = :host",
            condition="#until = :before",
            names={"#until": "until"},
            values={
                ":until": until,
                ":for_s": for_s,
                ":before": pause.until,
                ":expires_at": _expires_at(until),
                ":list": LIST,
                ":host": pause.host,
            },
        )
    except Conflict:
        return None
    return parse(item)


def _expires_at(until: int) -> int:
    return until + int(KEPT_FOR.total_seconds())
