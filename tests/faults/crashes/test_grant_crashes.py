"""The crash matrix of grants in use: refresh, rotation and reconnect, with a crash around every outgoing call."""

from __future__ import annotations

import json
import random
from pathlib import Path

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
WORKERS = 2
# Calls after which the platform has issued tokens that are not stored yet: the lost-answer window.
WINDOW = {
    "refresh": ("crash_after refresh", "crash_before secretsmanager.put_secret_value"),
    "rotation": (),
    "reconnect": (
        "crash_after exchange", "crash_before secretsmanager.create_secret",
        "crash_after refresh", "crash_before secretsmanager.put_secret_value",
    ),
}  # fmt: skip


def die(scenario: str, number: int, when: str) -> End:
    """Play a scenario in which the process crashes at this call. Raises `Violation`."""
    plan = {number: when} if number else {}
    schedule = scenarios.begin(scenario, "strict", random.Random(0), workers=WORKERS, plan=plan)
    try:
        return judge(schedule)
    finally:
        schedule.end()


def test_grants_killed_at_any_call_are_never_lost() -> None:
    parts: dict[str, dict[str, int]] = {}
    lost: list[str] = []
    outside: list[str] = []
    with simulating():
        for part, names in PARTS.items():
            figures = {"cases": 0, "lost": 0, "flagged": 0}
            for scenario in names:
                whole = die(scenario, 0, "")
                for number, call in enumerate(whole.seen, start=1):
                    for when in ("crash_before", "crash_after"):
                        figures["cases"] += 1
                        case = f"{scenario}: {when} call {number}, {call}"
                        try:
                            end = die(scenario, number, when)
                        except Violation as violation:
                            figures["lost"] += 1
                            lost.append(f"{case}: {violation}")
                            continue
                        if end.flagged > whole.flagged:
                            figures["flagged"] += 1
                            if not f"{when} {call}".startswith(WINDOW[part]):
                                outside.append(case)
            parts[part] = figures
    sums = {name: sum(figures[name] for figures in parts.values()) for name in ("cases", "lost", "flagged")}
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps({**sums, "parts": parts}, indent=2) + "\n")
    print(f"\ngrant crashes: {sums}, {parts}")

    assert lost == []
    assert outside == []
    assert parts["rotation"]["flagged"] == 0
    # Both ends of the window occurred, or the matrix has missed it.
    assert parts["refresh"]["flagged"] >= 2
    assert sums["cases"] >= 300
