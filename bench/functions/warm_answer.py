"""CPU per call in a warm process, against a plain boto3 function; both keep their TLS connection to the stub."""

from __future__ import annotations

import statistics

from bench.functions import interpreters
from bench.report import conclude, console, row, table

# Many short pairs: the speed of a shared machine changes within a second, and each pair is measured at one speed.
PAIRS = 31
CALLS = 150
LIMITS = {"ratio": 0.2}


def measure() -> bool:
    sides = interpreters.prepare()
    ours: list[float] = []
    plain: list[float] = []
    with interpreters.aws() as environment, console.status(f"{PAIRS} pairs of processes, {CALLS} calls each ..."):
        for number in range(PAIRS):
            # The first of a pair changes.
            for side in (sides.accept_install, sides.plain_sample)[:: 1 if number % 2 else -1]:
                into = ours if side is sides.accept_install else plain
                into.append(interpreters.run(side, environment, CALLS).call_ms)
    shown = table("Warm answer: CPU per call", "ms")
    row(shown, "accept_install", ours, 2)
    row(shown, "plain boto3 sample", plain, 2)
    console.print(shown)
    ratios = [one / other for one, other in zip(ours, plain, strict=True)]
    shown = table("Ratio of a pair", "accept_install to the plain sample")
    row(shown, "ratio", ratios, 2)
    console.print(shown)
    return conclude("warm_answer", {"ratio": statistics.median(ratios)}, LIMITS)
