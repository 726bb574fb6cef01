"""Time as slots of one request each, so that requests never exceed a platform's limit a second.

With a limit of 7 a second, a slot lasts 1/6 s: any window of one second touches at most seven slots, wherever it begins, so a
request may be sent at any time inside its slot. Slots are numbered from the epoch, which is the same for every process.

Slots are divided into lanes by their number, in a cycle of twelve: ten slots are shared by all priorities, one is reserved for
backfills and one for reconciliations. The reserved ones are what keeps both from starving.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from enum import Enum

CYCLE = 12


@dataclass(frozen=True)
class Lane:
    """The slots whose number modulo `CYCLE` is one of `positions`, which ascend. They are counted from the epoch."""

    name: str
    positions: tuple[int, ...]

    def slot(self, index: int) -> int:
        """The number of the slot with this index in the lane."""
        cycles, position = divmod(index, len(self.positions))
        return cycles * CYCLE + self.positions[position]

    def first(self, slot: int) -> int:
        """The index of the lane's first slot that is not before this one."""
        cycles, position = divmod(slot, CYCLE)
        return cycles * len(self.positions) + bisect_left(self.positions, position)

    def last(self, slot: int) -> int:
        """The index of the lane's last slot that is not after this one."""
        cycles, position = divmod(slot, CYCLE)
        return cycles * len(self.positions) + bisect_right(self.positions, position) - 1


SHARED = Lane("shared", (0, 1, 2, 3, 4, 6, 7, 8, 9, 10))
FOR_BACKFILLS = Lane("backfill", (5,))
FOR_RECONCILIATIONS = Lane("reconciliation", (11,))


@dataclass(frozen=True)
class LaneRule:
    """A priority may claim a slot of this lane that begins at most `ahead_s` from now; None: within one cycle."""

    lane: Lane
    ahead_s: float | None = None


class Priority(Enum):
    """The priority of a request, highest first.

    How far ahead a priority may claim shared slots is what makes it a priority: a request waits at most for the requests of
    lower priorities that were claimed before it came, which is their `ahead_s`. Backfills and reconciliations also have a lane
    of their own, whose next slot comes within a cycle, however many other requests there are.
    """

    EXCHANGE = (LaneRule(SHARED, 5.0),)
    # Less than what a lease leaves beside the refresh itself.
    REFRESH = (LaneRule(SHARED, 2.5),)
    # An exchange that may be forged: its arrival proves nothing.
    UNPROVEN_EXCHANGE = (LaneRule(SHARED, 2.0),)
    CALL = (LaneRule(SHARED, 1.0),)
    BACKFILL = (LaneRule(SHARED, 0.4), LaneRule(FOR_BACKFILLS))
    RECONCILIATION = (LaneRule(SHARED, 0.2), LaneRule(FOR_RECONCILIATIONS))

    @property
    def rules(self) -> tuple[LaneRule, ...]:
        """The lanes of an address, in the order in which they are tried."""
        rules: tuple[LaneRule, ...] = self.value
        return rules

    @property
    def account_rules(self) -> tuple[LaneRule, ...]:
        """The lanes of an account. Empty for requests that are not limited for each account: those send few."""
        if self.is_reading or self is Priority.CALL:
            return (LaneRule(SHARED, 1.0), *self.rules[1:])
        return ()

    @property
    def is_reading(self) -> bool:
        return self in (Priority.BACKFILL, Priority.RECONCILIATION)
