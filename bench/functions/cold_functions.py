"""The cold start of every function, from the start of its process to its first answer, against a plain function.

Both run under AWS's runtime client (`make invoke`) with the libraries' layer, on the local cloud. The plain function
follows Powertools' documentation for the same trigger: it has a resolver for an API or a batch processor for a queue, and reads
one item of the table. The sample event of `manage` tests a credential at a platform, so its plain function sends that request
too. `manage_beside_one_read` compares `manage` with the plain function that does not. `cold_answer` and `cold_events` measure
the webhook functions against a function without Powertools.

`make bench NAME=cold_functions FUNCTIONS="manage console"` measures these functions only.

The goal is for processor time, which other work on the machine changes by a few percent, and time by a half.
"""

from __future__ import annotations

import compileall
import json
import os
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
LIMITS = {"worst_cpu_ratio": 0.8}
PLAIN = Path(__file__).parent / "plain_functions"
LIBRARIES = "LibrariesLayer"
# Functions whose sample event makes them send a request to a platform, and the plain function that sends it, too.
SENDS_REQUEST, SENDING = ("manage",), "api_call"


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


class Comparison(NamedTuple):
    """One of our functions beside a plain one. Without `is_goal`, the plain function does less, and the ratio is only shown."""

    label: str
    function: Function
    event: bytes
    plain: Function
    is_goal: bool = True


def comparisons(deployed: dict[str, Function]) -> list[Comparison]:
    folder, libraries = plain_functions(), libraries_of(deployed)
    chosen = os.environ.get("FUNCTIONS", "").split()
    found = []
    for name, function in deployed.items():
        label, event = invoke.folder_of(name), invoke.events_of(name)[0].read_bytes()
        if chosen and label not in chosen:
            continue
        plain = replace(function, handler="handler.handler", layers=(libraries,), memory_mb=1_024, timeout_s=60.0)
        same_work = replace(plain, code=folder / (SENDING if label in SENDS_REQUEST else trigger(event)))
        found.append(Comparison(label, function, event, same_work))
        if label in SENDS_REQUEST:
            without = replace(plain, code=folder / trigger(event))
            found.append(Comparison(f"{label}_beside_one_read", function, event, without, is_goal=False))
    return found


def libraries_of(deployed: dict[str, Function]) -> Path:
    return next(layer for function in deployed.values() for layer in function.layers if layer.name == LIBRARIES)


def measure() -> bool:
    figures: dict[str, float] = {}
    goals: dict[str, list[float]] = {"ratio": [], "cpu_ratio": []}
    shown = table("Cold start to the first answer: ours", "ms")
    compared = table("Ratio of a pair: ours to plain", "")
    with running_stack() as stack:
        deployed = invoke.functions(stack)
        for one in comparisons(deployed):
            with console.status(f"{one.label}: {PAIRS} pairs of fresh processes ..."):
                pairs = measure_pairs(stack, one)
            ratios = {
                "ratio": [ours.ms / plain.ms for ours, plain in pairs],
                "cpu_ratio": [ours.cpu_ms / plain.cpu_ms for ours, plain in pairs],
            }
            row(shown, one.label, [ours.ms for ours, _ in pairs])
            row(compared, one.label, ratios["ratio"], 2)
            row(compared, f"{one.label}, processor time", ratios["cpu_ratio"], 2)
            figures[f"{one.label}_ms"] = statistics.median(ours.ms for ours, _ in pairs)
            for kind, values in ratios.items():
                figures[f"{one.label}_{kind}"] = statistics.median(values)
                if one.is_goal:
                    goals[kind].append(statistics.median(values))
        layer = sum(file.stat().st_size for file in libraries_of(deployed).rglob("*") if file.is_file())
    console.print(shown)
    console.print(compared)
    worst = {f"worst_{kind}": max(values) for kind, values in goals.items()}
    return conclude("cold_functions", {**worst, "layer_mb": layer / 1e6, **figures}, LIMITS)


def measure_pairs(stack: Stack, one: Comparison) -> list[tuple[Start, Start]]:
    """Our starts and the plain function's, the first of a pair changing. A pair before them warms the disk cache."""
    sides, pairs = (one.function, one.plain), []
    for number in range(PAIRS + 1):
        order = sides if number % 2 else sides[::-1]
        took = {side.code: cold_start(stack, side, one.event) for side in order}
        pairs.append((took[one.function.code], took[one.plain.code]))
    return pairs[1:]
