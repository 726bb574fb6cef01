"""From starting a fresh interpreter to the answer to a widget hook, against a plain boto3 function.

Both are compiled alike, talk to the same stub over TLS and read the authorities that they read in production, plus the stub's:
boto3 about 130, accept_install five; `same_bundle_ratio` is with boto3's for both. accept_install does its whole path: it reads
the OAuth client from DynamoDB, then sends to SQS. The plain sample only sends. `cpu_ratio` is of processor time, which other
work on the machine changes less than time.
"""

from __future__ import annotations

import statistics

from bench.functions import interpreters
from bench.functions.interpreters import Run, Side
from bench.report import conclude, console, row, table

PAIRS = 15
LIMITS = {"cpu_ratio": 0.18, "ratio": 0.30, "memory_ratio": 0.6}


def measure() -> bool:
    sides = interpreters.prepare()
    with interpreters.aws() as environment:

        def pairs(one: Side, other: Side) -> list[tuple[Run, Run]]:
            """Run both in turn, the first of a pair changing; a pair before them warms the disk cache."""
            done = []
            for number in range(PAIRS + 1):
                order = (one, other) if number % 2 else (other, one)
                runs = {side: interpreters.run(side, environment) for side in order}
                done.append((runs[one], runs[other]))
            return done[1:]

        with console.status(f"3 times {PAIRS} pairs of fresh interpreters ..."):
            against_plain = pairs(sides.accept_install, sides.plain_sample)
            same_bundle = pairs(sides.same_bundle, sides.plain_sample)
            against_uncompiled = pairs(sides.accept_install, sides.uncompiled)

    shown = table("Cold answer", "ms")
    row(shown, "accept_install", [ours.answer_ms for ours, _ in against_plain])
    row(shown, "plain boto3 sample", [plain.answer_ms for _, plain in against_plain])
    row(shown, "with boto3's authorities", [ours.answer_ms for ours, _ in same_bundle])
    row(shown, "without bytecode", [uncompiled.answer_ms for _, uncompiled in against_uncompiled])
    console.print(shown)
    shown = table("Peak memory", "MB")
    row(shown, "accept_install", [ours.peak_mb for ours, _ in against_plain], 1)
    row(shown, "plain boto3 sample", [plain.peak_mb for _, plain in against_plain], 1)
    console.print(shown)
    ratios = {
        "ratio": [ours.answer_ms / plain.answer_ms for ours, plain in against_plain],
        "cpu_ratio": [ours.cpu_ms / plain.cpu_ms for ours, plain in against_plain],
        "memory_ratio": [ours.peak_mb / plain.peak_mb for ours, plain in against_plain],
        "same_bundle_ratio": [ours.answer_ms / plain.answer_ms for ours, plain in same_bundle],
        "pyc_ratio": [compiled.answer_ms / bare.answer_ms for compiled, bare in against_uncompiled],
    }
    shown = table("Ratios of a pair", "pyc_ratio: with bytecode to without")
    for name, values in ratios.items():
        row(shown, name, values, 2)
    console.print(shown)
    return conclude("cold_answer", {name: statistics.median(values) for name, values in ratios.items()}, LIMITS)
