"""The cold start of every function, from the start of its process to its first answer, against a plain function.

Both run under AWS's runtime client (`make invoke`) with the libraries' layer, on the local cloud. The plain function is what
Powertools' documentation shows for the same trigger: a resolver for an API, a batch processor for a queue, and one read from
the table. `cold_answer` and `cold_events` measure the webhook functions against a function without Powertools.

Time is the goal. Processor time is shown beside it, because other work on the machine changes it less.
"""

from __future__ import annotations

import compileall
import json
import py_compile
import resource
import shutil
import statistics
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from bench.report import BUILD, conclude, console, row, table
from bench.tokens.grants import running_stack
from local.functions import invoke
from local.functions.execution_environment import ExecutionEnvironment, Function
from local.stack import Stack

PAIRS = 5
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


class Start(NamedTuple):
    """Initialization and first invocation: `ms` as time, `cpu_ms` as processor time of the process."""

    ms: float
    cpu_ms: float


def cold_start(stack: Stack, function: Function, event: bytes) -> Start:
    """One cold start, whatever the function answers."""
    before = _children_cpu_s()
    with ExecutionEnvironment(function, invoke.aws_environment(stack, function)) as environment:
        report = environment.invoke(event)
    if report.init_s is None or "Runtime." in report.payload.decode("utf-8", "replace"):
        raise RuntimeError(f"{function.name} did not start: {report.payload!r}\n{report.log[-2_000:]}")
    # The process has ended with its environment.
    return Start((report.init_s + report.duration_s) * 1_000, (_children_cpu_s() - before) * 1_000)


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure() -> bool:
    folder = plain_functions()
    ratios: dict[str, list[float]] = {}
    cpu_ratios: dict[str, list[float]] = {}
    medians: dict[str, float] = {}
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
                    took = {side.code: cold_start(stack, side, event) for side in order}
                    pairs.append((took[function.code], took[plain.code]))
            # The first pair warms the disk cache.
            measured = pairs[1:]
            label = invoke.folder_of(name)
            ratios[label] = [ours.ms / other.ms for ours, other in measured]
            cpu_ratios[label] = [ours.cpu_ms / other.cpu_ms for ours, other in measured]
            medians[label] = statistics.median(ours.ms for ours, _ in measured)
            row(shown, label, [ours.ms for ours, _ in measured])
            row(compared, label, ratios[label], 2)
            row(compared, f"{label}, processor time", cpu_ratios[label], 2)
    console.print(shown)
    console.print(compared)
    figures = {f"{label}_ratio": statistics.median(values) for label, values in ratios.items()}
    worst = max(figures.values())
    cpu_figures = {f"{label}_cpu_ratio": statistics.median(values) for label, values in cpu_ratios.items()}
    figures |= {"worst_cpu_ratio": max(cpu_figures.values()), **cpu_figures}
    figures |= {f"{label}_ms": value for label, value in medians.items()}
    layer = sum(file.stat().st_size for file in libraries.rglob("*") if file.is_file())
    return conclude("cold_functions", {"worst_ratio": worst, "layer_mb": layer / 1e6, **figures}, LIMITS)
