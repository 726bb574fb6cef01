"""The figures of the simulation, to which several tests add."""

from __future__ import annotations

import json
from pathlib import Path

RESULT = Path("build/faults/simulation.json")


def write_result(**figures: int) -> None:
    """Add figures to the result, which the planted bugs share."""
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    old = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    RESULT.write_text(json.dumps({**old, **figures}, indent=2) + "\n")
