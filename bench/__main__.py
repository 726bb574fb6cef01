"""`python -m bench [NAME ...]`: measure the published figures. Exits with 1 if a figure misses its limit."""

from __future__ import annotations

import importlib
import sys

from bench.report import console

# The module of each benchmark, in the order in which they run.
BENCHMARKS = {
    name: f"bench.{folder}{name}"
    for folder, names in (
        ("functions.", ("cold_answer", "cold_events", "warm_answer", "cold_functions")),
        ("", ("install_load",)),
        ("tokens.", ("fan_in", "shared_token", "renewal_sweep")),
        ("functions.", ("authorise",)),
        ("tokens.", ("revocation",)),
        ("records.", ("throughput", "record_load", "day", "reservations")),
        ("", ("reconciliation", "cost", "fleet")),
        ("web.", ("console",)),
    )
    for name in names
}


def main(names: list[str]) -> int:
    if unknown := set(names) - set(BENCHMARKS):
        console.print(f"There is no {' or '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}.")
        return 2
    kept = [importlib.import_module(BENCHMARKS[name]).measure() for name in names or BENCHMARKS]
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
