"""The crash matrix of grants in use: refresh, rotation and reconnect, with a crash around every outgoing call."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from portaria.connections.credential_stores.protocol import SECRETS_MANAGER, STORES, TABLE
from tests.simulation import scenarios
from tests.simulation.oracle import End, judge
from tests.simulation.schedule import Violation, simulating

RESULT = Path("build/faults/grant_crashes.json")
# The operations, by the scenario that runs them. Refresh tokens work once, so the platform forgives nothing.
PARTS = {
    "refresh": ("one_renewal", "two_days"),
    "rotation": ("fresh_rotation", "rotation", "rotation_at_once", "expired_rotation", "bad_rotation"),
    "reconnect": ("revocation", "reinstall", "departure_and_return"),
}
SHORT_PARTS_IN_TABLE = {"refresh": ("one_renewal",), "rotation": ("fresh_rotation", "rotation_at_once")}
WORKERS = 2
# Calls after which the platform has issued tokens that are not stored yet: the lost-answer window.
ADD = dict(zip((SECRETS_MANAGER, TABLE), ("secretsmanager.put_secret_value", "dynamodb.put_item"), strict=True))
CREATE = dict(zip((SECRETS_MANAGER, TABLE), ("secretsmanager.create_secret", "dynamodb.put_item"), strict=True))


def window(store: str, part: str) -> tuple[str, ...]:
    return {
        "refresh": ("crash_after refresh", f"crash_before {ADD[store]}"),
        "rotation": (),
        "reconnect": (
            "crash_after exchange", f"crash_before {CREATE[store]}",
            "crash_after refresh", f"crash_before {ADD[store]}",
        ),
    }[part]  # fmt: skip


def die(store: str, scenario: str, number: int, when: str) -> End:
    """Play a scenario in which the process crashes at this call. Raises `Violation`."""
    plan = {number: when} if number else {}
    schedule = scenarios.begin(scenario, "strict", random.Random(0), store=store, workers=WORKERS, plan=plan)
    try:
        return judge(schedule)
    finally:
        schedule.end()


@pytest.mark.parametrize("store", STORES)
def test_grants_killed_at_any_call_are_never_lost(store: str, long: bool) -> None:
    parts: dict[str, dict[str, int]] = {}
    lost: list[str] = []
    outside: list[str] = []
    with simulating():
        for part, names in (PARTS if long or store == SECRETS_MANAGER else SHORT_PARTS_IN_TABLE).items():
            figures = {"cases": 0, "lost": 0, "flagged": 0}
            for scenario in names:
                whole = die(store, scenario, 0, "")
                for number, call in enumerate(whole.seen, start=1):
                    for when in ("crash_before", "crash_after"):
                        figures["cases"] += 1
                        case = f"{scenario}: {when} call {number}, {call}"
                        try:
                            end = die(store, scenario, number, when)
                        except Violation as violation:
                            figures["lost"] += 1
                            lost.append(f"{case}: {violation}")
                            continue
                        if end.flagged > whole.flagged:
                            figures["flagged"] += 1
                            if not f"{when} {call}".startswith(window(store, part)):
                                outside.append(case)
            parts[part] = figures
    sums = {name: sum(figures[name] for figures in parts.values()) for name in ("cases", "lost", "flagged")}
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    old = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    result: dict[str, object] = {**sums, "parts": parts}
    RESULT.write_text(json.dumps({**old, **(result if store == SECRETS_MANAGER else {store: result})}, indent=2) + "\n")
    print(f"\ngrant crashes, {store}: {sums}, {parts}")

    assert lost == []
    assert outside == []
    assert parts["rotation"]["flagged"] == 0
    # Both ends of the window occurred, or the matrix has missed it.
    assert parts["refresh"]["flagged"] >= 2
    assert sums["cases"] >= (300 if long or store == SECRETS_MANAGER else 100)
