"""The cold start of every function, from the start of its process to its first answer, against a plain function.

Both run under AWS's runtime client (`make invoke`) with the libraries' layer, on the local cloud. The plain function is what
Powertools' documentation shows for the same trigger: a resolver for an API, a batch processor for a queue, and one read from
the table. `cold_answer` and `cold_events` measure the webhook functions against a function without Powertools.
"""

from __future__ import annotations

import compileall
import json
import py_compile
import shutil
import statistics
from dataclasses import replace
from pathlib import Path

from bench.report import BUILD, conclude, console, row, table
from bench.tokens.grants import running_stack
from local.functions import invoke
from local.functions.execution_environment import ExecutionEnvironment, Function
from local.stack import Stack

PAIRS = 7
LIMITS = {"worst_ratio": 0.8}
PLAIN = Path(__file__).parent / "plain_functions"
LIBRARIES = "LibrariesLayer"


def trigger(event: bytes) -> str:
    """Which of the plain functions has the trigger of a sample event."""
    content = json.loads(event)
    if "Records" in content:
        return "queue"
    return "api" if "requestContext" in content else "schedule"


def plain_functions() -> Path:
    """The plain functions, compiled as a deployment's are."""
    folder = BUILD / "plain_functions"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(PLAIN, folder, ignore=shutil.ignore_patterns("__pycache__"))
    if not compileall.compile_dir(folder, quiet=1, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH):
        raise RuntimeError(f"{folder} does not compile")
    return folder


def cold_ms(stack: Stack, function: Function, event: bytes) -> float:
    """Initialization and first invocation, whatever the function answers."""
    with ExecutionEnvironment(function, invoke.aws_environment(stack, function)) as environment:
        report = environment.invoke(event)
    if report.init_s is None or "Runtime." in report.payload.decode("utf-8", "replace"):
        raise RuntimeError(f"{function.name} did not start: {report.payload!r}\n{report.log[-2_000:]}")
    return (report.init_s + report.duration_s) * 1_000


def measure() -> bool:
    folder, ratios, medians = plain_functions(), {}, {}
    shown = table("Cold start to the first answer: ours", "ms")
    compared = table("Ratio of a pair: ours to plain", "")
    with running_stack() as stack:
        deployed = invoke.functions(stack)
        libraries = next(
            layer for function in deployed.values() for layer in function.layers if layer.name == LIBRARIES
        )
        for name, function in deployed.items():
            event = invoke.events_of(name)[0].read_bytes()
            plain = replace(
                function, code=folder / trigger(event), handler="handler.handler", layers=(libraries,), memory_mb=1_024,
                timeout_s=60.0,
            )  # fmt: skip
            sides, pairs = (function, plain), []
            with console.status(f"{name}: {PAIRS} pairs of fresh processes ..."):
                for number in range(PAIRS + 1):
                    order = sides if number % 2 else sides[::-1]
                    took = {side.code: cold_ms(stack, side, event) for side in order}
                    pairs.append((took[function.code], took[plain.code]))
            # The first pair warms the disk cache.
            measured = pairs[1:]
            label = invoke.folder_of(name)
            ratios[label] = [ours / other for ours, other in measured]
            medians[label] = statistics.median(ours for ours, _ in measured)
            row(shown, label, [ours for ours, _ in measured])
            row(compared, label, ratios[label], 2)
    console.print(shown)
    console.print(compared)
    figures = {f"{label}_ratio": statistics.median(values) for label, values in ratios.items()}
    figures |= {f"{label}_ms": value for label, value in medians.items()}
    layer = sum(file.stat().st_size for file in libraries.rglob("*") if file.is_file())
    return conclude(
        "cold_functions",
        {"worst_ratio": max(statistics.median(v) for v in ratios.values()), "layer_mb": layer / 1e6, **figures},
        LIMITS,
    )
