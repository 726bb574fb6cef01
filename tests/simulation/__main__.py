"""`python -m tests.simulation --mode strict --seed 123`: play one schedule again and show what happens in it."""

from __future__ import annotations

import argparse
import sys

from portaria.connections.credential_stores.protocol import SECRETS_MANAGER, STORES
from tests.simulation.platform import MODES
from tests.simulation.runner import Case, play
from tests.simulation.scenarios import SCENARIOS
from tests.simulation.schedule import Violation, simulating


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--mode", choices=MODES, required=True)
    parser.add_argument("--store", choices=STORES, default=SECRETS_MANAGER)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--scenario", choices=list(SCENARIOS), default="")
    parser.add_argument("--fault", action="append", default=[], metavar="CALL:FAULT")
    parser.add_argument("--no-faults", action="store_true")
    given = parser.parse_args()
    plan = None
    if given.fault or given.no_faults:
        plan = tuple((int(call), fault) for call, _, fault in (text.partition(":") for text in given.fault))
    trace: list[str] = []
    with simulating():
        try:
            end = play(Case(given.mode, given.seed, given.scenario, plan, given.store), trace)
            verdict = f"kept everything it must; {end.flagged} flagged, {end.faults} faults, {end.calls} calls"
        except Violation as violation:
            verdict = f"VIOLATION: {violation}"
    print("\n".join(trace))
    print(verdict)
    return 1 if verdict.startswith("VIOLATION") else 0


if __name__ == "__main__":
    sys.exit(main())
