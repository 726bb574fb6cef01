"""Bugs planted in reconciliations and in the request budget, one at a time. A simulation must catch each."""

from __future__ import annotations

import sys

from tests.simulation.bugs import Bug, planted
from tests.simulation.reconciliations import runs

BUDGET, SLOTS = "portaria.connections.request_budget", "portaria.outbound.request_slots"
READING, SCHEDULE = "portaria.sources.reconciliation", "portaria.records.reconciliation_schedule"
# By the kind of run that shows it: see `runs.Run`.
SATURATED, DYING, IDLE = ("saturated",), ("dying",), ("idle",)

RECONCILIATION_BUGS = (
    Bug(
        "the start advances although no slot was free",
        READING,
        "            self._wait(exhausted)\n",
        '            self._move_on(item, item["cursor"], None, int(clock.now().timestamp()), item.get("changed_at"), 0)\n',
        SATURATED,
    ),
    Bug(
        "a reconciliation that gets no slot is forgotten",
        READING,
        '                "SET due_at = :due_at",\n                condition="due_at > :due_at AND settled_at < :queued_at",\n',
        '                "SET old_due_at = :due_at REMOVE due_pk",\n                condition="settled_at < :queued_at",\n',
        SATURATED,
    ),
    Bug(
        "an interval that grows without bound",
        SCHEDULE,
        "        return min(self.least * (1 << min(doublings, 16)), self.most)\n",
        "        return self.least * (1 << min(doublings, 16))\n",
        IDLE,
    ),
    Bug(
        "the start of a reading is when it ends, without an overlap",
        READING,
        '        since, cursor = item["since"] - OVERLAP_S, item["cursor"]\n',
        '        asked_at += 30\n        since, cursor = item["since"], item["cursor"]\n',
        IDLE,
    ),
    Bug(
        "no lane of their own for reconciliations",
        SLOTS,
        "        rules: tuple[LaneRule, ...] = self.value\n",
        "        rules: tuple[LaneRule, ...] = self.value[:1]\n",
        SATURATED,
    ),
    Bug(
        "every priority claims slots as far ahead as it wants",
        SLOTS,
        "        rules: tuple[LaneRule, ...] = self.value\n",
        "        rules: tuple[LaneRule, ...] = (LaneRule(SHARED, 60.0),)\n",
        SATURATED,
    ),
    Bug(
        "a counter that must be returned: slots that passed unused stay claimed",
        BUDGET,
        '            condition="attribute_not_exists(#lane) OR #lane < :first OR #lane > :impossible",\n',
        '            condition="attribute_not_exists(#lane) OR (#lane > :impossible AND #lane > :first)",\n',
        IDLE,
    ),
    Bug(
        "a wrong clock blocks the budget",
        BUDGET,
        '            condition="attribute_not_exists(#lane) OR #lane < :first OR #lane > :impossible",\n',
        '            condition="attribute_not_exists(#lane) OR #lane < :first OR (#lane < :first AND #lane < :impossible)",\n',
        IDLE,
    ),
    Bug(
        "an idle counter is set without a condition",
        BUDGET,
        '            condition="attribute_not_exists(#lane) OR #lane < :first OR #lane > :impossible",\n',
        '            condition="attribute_not_exists(#lane) OR :first < :impossible",\n',
        SATURATED,
    ),
    Bug(
        "a request is sent before its slot begins",
        BUDGET,
        "    left_s = moment - clock.now().timestamp()\n",
        "    left_s = moment - clock.now().timestamp() - 0.5\n",
        SATURATED,
    ),
)
KINDS = ("saturated", "dying", "idle")


def seek(bug: Bug, limit: int) -> str:
    """The message of the first run that fails, of at most this many; empty if none does."""
    (kind,) = bug.scenarios
    with planted(bug):
        for number in range(limit):
            _, broken = runs.attempt_all([3 * number + KINDS.index(kind)])
            if broken:
                return broken[0]
    return ""


def main() -> None:
    for bug in RECONCILIATION_BUGS:
        if not any(word in bug.name for word in sys.argv[1:] or [""]):
            continue
        print(f"{bug.name}: {seek(bug, 4) or 'MISSED'}", flush=True)


if __name__ == "__main__":
    main()
