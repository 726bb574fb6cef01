"""`python -m bench [NAME ...]`: measure the published figures. Ends with 1 if one misses its limit."""

from __future__ import annotations

import importlib
import sys

from bench.report import console

FIGURES = (
    "cold_answer", "cold_events", "warm_answer", "install_load", "fan_in", "shared_token", "renewal_sweep", "authorise",
    "revocation", "throughput", "record_load", "day", "reservations", "cost",
)  # fmt: skip


def main(names: list[str]) -> int:
    if unknown := set(names) - set(FIGURES):
        console.print(f"There is no {' or '.join(sorted(unknown))}; there are {', '.join(FIGURES)}.")
        return 2
    kept = [importlib.import_module(f"bench.{name}").measure() for name in names or FIGURES]
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
