"""One endpoint's share of the workers, and whether it is tried at all.

A slot is a lease on one of the endpoint's concurrent attempts. An endpoint has `SLOTS` of them while it answers quickly, fewer
while it is slow, and one while it fails or has never answered, so one endpoint cannot occupy all workers. After
`CLOSE_AFTER` failures in a row the endpoint is closed: its deliveries stay in the index of due deliveries, and a single one is
attempted when `closed_until_ms` has passed. A success opens it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from portaria.aws.table import Conflict, Item, Table
from portaria.core import clock

SK = "GATE"
SLOTS = 4
SLOW_SLOTS = 2
CLOSE_AFTER = 3
# The pauses after the third failure in a row, the fourth, and so on; the last one repeats.
PAUSES_S = (5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 600.0)
# A worker that has not released its slot after this time, in addition to its attempt's, is dead.
LEASE_SLACK_S = 15.0
_TRIES = 5


@dataclass(frozen=True)
class Gate:
    """`failures` are those in a row, `failing_since` (ISO 8601) is when the first of them was.

    `slots` has the end of each slot's lease in epoch milliseconds, 0 for a free one.
    """

    failures: int = 0
    failing_since: str = ""
    closed_until_ms: int = 0
    is_slow: bool = False
    is_proven: bool = False
    last_success_at: str = ""
    slots: tuple[int, ...] = (0,) * SLOTS

    @property
    def is_failing(self) -> bool:
        """Whether only one delivery may be attempted, to find out whether the endpoint works again."""
        return self.failures >= CLOSE_AFTER

    @property
    def allowed(self) -> int:
        """How many attempts may run at the same time."""
        if self.failures or not self.is_proven:
            return 1
        return SLOW_SLOTS if self.is_slow else SLOTS

    def is_closed(self) -> bool:
        return self.closed_until_ms > _now_ms()


@dataclass(frozen=True)
class Slot:
    number: int
    until_ms: int


def key(webhook_id: str) -> tuple[str, str]:
    return f"WEBHOOK#{webhook_id}", SK


def read(item: Item | None) -> Gate:
    item = item or {}
    return Gate(
        failures=int(item.get("failures", 0)),
        failing_since=item.get("failing_since", ""),
        closed_until_ms=int(item.get("closed_until_ms", 0)),
        is_slow=bool(item.get("is_slow", False)),
        is_proven=bool(item.get("is_proven", False)),
        last_success_at=item.get("last_success_at", ""),
        slots=tuple(int(item.get(_slot(number), 0)) for number in range(SLOTS)),
    )


def find(table: Table, webhook_id: str) -> Gate:
    return read(table.get(*key(webhook_id)))


def take(table: Table, webhook_id: str, gate: Gate, attempt_s: float) -> Slot | None:
    """A slot for an attempt of so many seconds; None if the endpoint is closed or has no free slot. `gate` was just read."""
    for _ in range(_TRIES):
        now_ms = _now_ms()
        free = [number for number in range(gate.allowed) if gate.slots[number] <= now_ms]
        if gate.is_closed() or not free:
            return None
        # A few milliseconds more or less tell two leases of one slot apart.
        until_ms = now_ms + int((attempt_s + LEASE_SLACK_S) * 1_000) + random.randrange(1_000)  # noqa: S311
        number = random.choice(free)  # noqa: S311 - spreads writes
        name = _slot(number)
        try:
            table.update(
                *key(webhook_id),
                f"SET {name} = :until",
                condition=f"(attribute_not_exists({name}) OR {name} <= :now) AND "
                "(attribute_not_exists(closed_until_ms) OR closed_until_ms <= :now)",
                values={":until": until_ms, ":now": now_ms},
            )
        except Conflict as conflict:
            gate = read(conflict.item)
            continue
        return Slot(number, until_ms)
    return None


def succeeded(table: Table, webhook_id: str, slot: Slot, *, is_slow: bool) -> None:
    """Return the slot after a success, which ends a row of failures."""
    _release(
        table,
        webhook_id,
        slot,
        "SET is_proven = :yes, is_slow = :slow, last_success_at = :now "
        f"REMOVE {_slot(slot.number)}, failures, failing_since, closed_until_ms",
        {":yes": True, ":slow": is_slow, ":now": clock.to_iso(clock.now())},
    )


def failed(table: Table, webhook_id: str, slot: Slot, *, is_slow: bool) -> Gate:
    """Return the slot after a failure; the gate as it is then."""
    item = _release(
        table,
        webhook_id,
        slot,
        "SET failures = if_not_exists(failures, :none) + :one, failing_since = if_not_exists(failing_since, :now), "
        f"is_slow = :slow REMOVE {_slot(slot.number)}",
        {":none": 0, ":one": 1, ":now": clock.to_iso(clock.now()), ":slow": is_slow},
    )
    gate = read(item)
    if item is None or not gate.is_failing:
        return gate
    pause_s = PAUSES_S[min(gate.failures - CLOSE_AFTER, len(PAUSES_S) - 1)] * random.uniform(0.8, 1.2)  # noqa: S311
    return read(
        table.update(
            *key(webhook_id),
            "SET closed_until_ms = :until",
            values={":until": _now_ms() + int(pause_s * 1_000)},
        )
    )


def give_back(table: Table, webhook_id: str, slot: Slot) -> None:
    """Return the slot of an attempt that was not made."""
    _release(table, webhook_id, slot, f"REMOVE {_slot(slot.number)}", {})


def reset(table: Table, webhook_id: str) -> None:
    """Forget an endpoint's failures: its owner enabled it again or gave it another URL."""
    table.update(*key(webhook_id), "REMOVE failures, failing_since, closed_until_ms, is_slow, is_proven")


def forget(table: Table, webhook_id: str) -> None:
    table.delete(*key(webhook_id))


def _release(table: Table, webhook_id: str, slot: Slot, expression: str, values: Item) -> Item | None:
    """None where the lease had ended and another worker has the slot."""
    try:
        return table.update(
            *key(webhook_id),
            expression,
            condition=f"{_slot(slot.number)} = :mine",
            values=values | {":mine": slot.until_ms},
        )
    except Conflict:
        return None


def _slot(number: int) -> str:
    return f"slot_{number}"


def _now_ms() -> int:
    return int(clock.now().timestamp() * 1_000)
