"""Bugs planted in the delivery of webhooks, one at a time, each of which the simulation must catch."""

from __future__ import annotations

from dataclasses import replace

from tests.simulation.bugs import Bug, planted
from tests.simulation.webhooks import runs
from tests.simulation.webhooks.runs import SHORT, Result

WEBHOOK_BUGS = (
    Bug(
        "a pending delivery is not in the index of due deliveries",
        "portaria.notifications.deliveries",
        "        item |= due_index.attributes(due_partition(delivery.webhook), now + QUEUED_FOR)\n",
        "",
        ("missing",),
    ),
    Bug(
        "a delivery is marked as delivered before it is sent",
        "portaria.notifications.delivery_worker",
        "        try:\n            result = self._attempt(",
        "        deliveries.ended(self.table, delivery, deliveries.DELIVERED)\n"
        "        try:\n            result = self._attempt(",
        ("claimed",),
    ),
    Bug(
        "a failed attempt leaves the delivery out of the index",
        "portaria.notifications.deliveries",
        '        "SET tries = :more, next_at = :next_at, due_at = :due_at, attempts = :attempts",\n',
        '        "SET tries = :more, next_at = :next_at, attempts = :attempts, was_due = :due_at REMOVE due_pk",\n',
        ("missing",),
    ),
    Bug(
        "an endpoint has as many slots as it likes",
        "portaria.notifications.endpoint_gate",
        "        free = [number for number in range(gate.allowed) if gate.slots[number] <= now_ms]\n"
        "        if gate.is_closed() or not free:\n            return None\n",
        "        free = [0]\n        return Slot(0, now_ms)\n",
        ("isolation",),
    ),
    Bug(
        "an endpoint that does not answer holds its workers for 45 s",
        "portaria.notifications.delivery_worker",
        "        timeout_s = schedule.PATIENT_S if is_patient else schedule.QUICK_S\n",
        "        timeout_s = 45.0\n",
        ("isolation",),
    ),
)
MOST_RATIO = 1.5


def faults(beside: Result, alone: Result) -> list[str]:
    """What is wrong with two runs: with the bad endpoints, and without them."""
    found = []
    for result in (beside, alone):
        if result.missing:
            found.append(f"{result.missing} deliveries are missing")
        if result.claimed_but_not_received:
            found.append(f"{result.claimed_but_not_received} deliveries were not received")
        if result.healthy_failed:
            found.append(f"{result.healthy_failed} deliveries to healthy endpoints failed")
    if ratio(beside, alone) > MOST_RATIO:
        found.append(f"healthy endpoints are delayed: {beside.healthy_p99_s} s beside {alone.healthy_p99_s} s alone")
    return found


def ratio(beside: Result, alone: Result) -> float:
    return round(beside.healthy_p99_s / alone.healthy_p99_s, 3)


def seek(bug: Bug) -> list[str]:
    """What the simulation finds; empty if it does not catch the bug."""
    scenario = runs.BURST if bug.scenarios == ("isolation",) else SHORT
    with planted(bug):
        try:
            beside = runs.play(scenario)
            alone = runs.play(replace(scenario, is_alone=True))
        except runs.Endless as endless:
            return [str(endless)]
    return faults(beside, alone)
