"""A flood of forged install webhooks must not delay real installs: `build/faults/hook_flood.json`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from portaria.installs import hook_sources
from tests.simulation import hook_floods
from tests.simulation.hook_floods import LONG, SHORT, Result, Scenario

RESULT = Path("build/faults/hook_flood.json")


def play(name: str, *, long: bool) -> tuple[Scenario, Result]:
    scenario = (LONG if long else SHORT)[name]
    result = hook_floods.play(scenario)
    print(f"\n{name}: {result}")
    write(name, scenario, result)
    return scenario, result


def write(name: str, scenario: Scenario, result: Result) -> None:
    """Each scenario's figures, and those of all scenarios at the top."""
    old: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    figures = {"addresses": scenario.addresses, "seconds": scenario.flood_s, **vars(result)}
    scenarios = {**old.get("scenarios", {}), name: figures}
    whole = {
        "forged_per_s": min(each["forged_per_s"] for each in scenarios.values()),
        **{
            key: sum(each[key] for each in scenarios.values())
            for key in ("real_installs", "connected_within_120_s", "lost")
        },
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps({**whole, "scenarios": scenarios}, indent=2) + "\n")


@pytest.mark.parametrize("name", SHORT)
def test_hook_flood_real_installs_connect_within_two_minutes(name: str, long: bool) -> None:
    """Given forged webhooks whose hosts refuse, are silent or missing, then each real install connects in time."""
    scenario, result = play(name, long=long)
    assert result.forged == scenario.forged_per_s * scenario.flood_s
    assert result.refused == 0
    assert result.lost == 0
    assert result.connected_within_120_s == result.real_installs > 10
    assert result.most_in_flight < 12_000


@pytest.mark.parametrize("host", ["refuses", "silent", "missing", "hangs"])
def test_hook_flood_of_one_host_kind_real_installs_connect(host: str) -> None:
    result = hook_floods.play(replace(SHORT["many"], hosts=(host,), flood_s=5.0))
    assert (result.lost, result.connected_within_120_s) == (0, result.real_installs)


def test_hook_flood_simulation_without_defences_finds_late_installs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulation can fail: without the defences, five codes are exchanged at once and no address is suspect."""
    settings = hook_floods.read_settings() | {"unproven_exchanges": (5, 1)}
    monkeypatch.setattr(hook_floods, "read_settings", lambda: settings)
    monkeypatch.setattr(hook_sources, "SUSPECT_AT", 1_000_000)
    result = hook_floods.play(replace(SHORT["one"], hosts=("silent",), flood_s=8.0))
    assert result.connected_within_120_s < result.real_installs
