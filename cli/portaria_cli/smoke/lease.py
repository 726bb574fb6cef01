"""One smoke run at a time on a stack, and a record of what each run may have left behind.

The record is one item of the stack's table. A run writes its mark there before it creates anything, and removes the mark when
everything that carries it is gone. A run that was killed leaves its mark, and the next run removes what carries it.
"""

from __future__ import annotations

from portaria.aws.table import Conflict, Item, Table
from portaria.core import clock

KEY = ("SMOKE", "LEASE")
# Longer than the longest single call of a check. A run that was killed holds the next one up for this long at most.
LEASE_S = 90
RENEW_AFTER_S = 20


class Held(Exception):
    """Another run holds the lease for `left_s` more seconds, unless it renews it."""

    def __init__(self, left_s: float) -> None:
        super().__init__("another run holds the lease")
        self.left_s = left_s


class Lost(Exception):
    """Another run has taken the lease."""


class Lease:
    """The lease of the run with this `mark`. `marks` are those of earlier runs that were not cleaned up after."""

    def __init__(self, table: Table, mark: str) -> None:
        self._table = table
        self.mark = mark
        self.marks: list[str] = []
        self._renew_at = 0.0

    def take(self) -> None:
        """Raises `Held`."""
        now = clock.now().timestamp()
        try:
            item = self._table.update(
                *KEY,
                "SET #owner = :mark, #until = :until, marks = list_append(if_not_exists(marks, :none), :mine)",
                condition="attribute_not_exists(pk) OR #until < :now",
                names={"#owner": "owner", "#until": "until"},
                values={
                    ":mark": self.mark,
                    ":mine": [self.mark],
                    ":none": [],
                    ":until": int(now) + LEASE_S,
                    ":now": int(now),
                },
            )
        except Conflict as conflict:
            held = conflict.item or {}
            raise Held(max(1.0, int(held.get("until", 0)) - now + 1)) from None
        self.marks = [mark for mark in item["marks"] if mark != self.mark]
        self._renew_at = now + RENEW_AFTER_S

    def renew(self) -> None:
        """Keep the lease for longer where it is time to. Raises `Lost`."""
        now = clock.now().timestamp()
        if now >= self._renew_at:
            self._set("SET #until = :until", {":until": int(now) + LEASE_S}, {"#until": "until"})
            self._renew_at = now + RENEW_AFTER_S

    def forget(self, mark: str) -> None:
        """Note that nothing carries a mark any more. Raises `Lost`."""
        item = self._table.get(*KEY) or {}
        self._set("SET marks = :left", {":left": [each for each in item.get("marks", []) if each != mark]}, {})

    def end(self) -> None:
        """Give the lease back. The item goes with the last mark."""
        try:
            item = self._table.get(*KEY) or {}
            if item.get("marks"):
                self._set("SET #until = :none", {":none": 0}, {"#until": "until"})
            else:
                self._table.delete(
                    *KEY, condition="#owner = :mark", names={"#owner": "owner"}, values={":mark": self.mark}
                )
        except (Conflict, Lost):
            return

    def _set(self, expression: str, values: Item, names: dict[str, str]) -> None:
        try:
            self._table.update(
                *KEY,
                expression,
                condition="#owner = :owner",
                names={"#owner": "owner"} | names,
                values=values | {":owner": self.mark},
            )
        except Conflict:
            raise Lost from None
