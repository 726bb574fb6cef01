"""The figures of the simulation, to which several tests add."""

from __future__ import annotations

import json
from pathlib import Path

from portaria.connections.credential_stores.protocol import SECRETS_MANAGER

RESULT = Path("build/faults/simulation.json")


def write_result(store: str = SECRETS_MANAGER, **figures: int) -> None:
    """Add figures to the result, which the planted bugs share. Those of the table are named so (`table_lost`)."""
    if store != SECRETS_MANAGER:
        figures = {f"{store}_{name}": figure for name, figure in figures.items()}
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    old = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    RESULT.write_text(json.dumps({**old, **figures}, indent=2) + "\n")
