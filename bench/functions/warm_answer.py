"""CPU per call in a warm process, against a plain boto3 function; both keep their TLS connection to the stub."""

from __future__ import annotations

import statistics

from bench.functions import interpreters
from bench.report import conclude, console, row, table

PAIRS = 7
CALLS = 400
LIMITS = {"ratio": 0.5}


def measure() -> bool:
    sides = interpreters.prepare()
    ours, plain = [], []
    with interpreters.aws() as environment, console.status(f"{PAIRS} pairs of processes, {CALLS} calls each ..."):
        for _ in range(PAIRS):
            ours.append(interpreters.run(sides.accept_install, environment, CALLS).call_ms)
            plain.append(interpreters.run(sides.plain_sample, environment, CALLS).call_ms)
    shown = table("Warm answer: CPU per call", "ms")
    row(shown, "accept_install", ours, 2)
    row(shown, "plain boto3 sample", plain, 2)
    console.print(shown)
    ratio = statistics.median(one / other for one, other in zip(ours, plain, strict=True))
    return conclude("warm_answer", {"ratio": ratio}, LIMITS)
