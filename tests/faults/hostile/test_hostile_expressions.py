"""No expression blocks or kills the worker that maps records: each ends within its budget of time and memory."""

from __future__ import annotations

import gc
import json
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from portaria.api.rules import route_rules
from portaria.core.errors import Rejected
from portaria.records.mapping import record_mapping
from portaria.records.mapping.record_mapping import Mapping
from tests.faults.hostile import expressions

RESULT = Path("build/faults/hostile_expressions.json")
MAX_MS, MAX_MB = 100.0, 50.0
# The short version measures memory every so many evaluations, because that takes ten times as long as an evaluation.
EVERY = 50


def evaluate(mapping: Mapping, data: dict[str, Any], *, is_partial: bool) -> str:
    """How an evaluation ends."""
    try:
        if is_partial:
            mapping.apply_partial(data)
        else:
            mapping.apply(data)
    except Rejected as rejected:
        return rejected.reason
    return "mapped"


@contextmanager
def no_collector() -> Iterator[None]:
    """As in the worker, whose batch runs without the garbage collector."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def compiled(expression: str) -> tuple[Mapping | None, float]:
    """The mapping of one attribute, None if it cannot be read, and the milliseconds that it takes to compile it."""
    started = time.process_time()
    try:
        mapping = Mapping([("x", expression)])
    except Rejected:
        mapping = None
    return mapping, (time.process_time() - started) * 1_000


def peak_mb(mapping: Mapping, data: dict[str, Any]) -> float:
    tracemalloc.start()
    try:
        evaluate(mapping, data, is_partial=False)
        return tracemalloc.get_traced_memory()[1] / 1_000_000
    finally:
        tracemalloc.stop()


def test_hostile_expressions_end_within_time_and_memory_budget(long: bool) -> None:
    given = expressions.expressions()
    data = expressions.data()
    slowest_ms = slowest_compilation_ms = largest_mb = 0.0
    outcomes: Counter[str] = Counter()
    number = 0
    worst = ""
    with no_collector():
        for expression in given:
            mapping, compilation_ms = compiled(expression)
            slowest_compilation_ms = max(slowest_compilation_ms, compilation_ms)
            if mapping is None:
                outcomes["unreadable"] += 1
                continue
            for name, record in data.items():
                for is_partial in (False, True):
                    started = time.process_time()
                    outcomes[evaluate(mapping, record, is_partial=is_partial)] += 1
                    took_ms = (time.process_time() - started) * 1_000
                    if took_ms > slowest_ms:
                        slowest_ms, worst = took_ms, f"{name}: {expression[:200]}"
                number += 1
                if long or number % EVERY == 0:
                    largest_mb = max(largest_mb, peak_mb(mapping, record))
    refused = sum(bool(route_rules._complaint(expression)) for expression in given)
    max_ms = max(slowest_ms, slowest_compilation_ms)
    result = {
        "expressions": len(given),
        "max_ms": round(max_ms, 1),
        "max_mb": round(largest_mb, 1),
        "refused_at_creation": refused,
        "outcomes": dict(sorted(outcomes.items())),
        "long": long,
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    assert len(given) >= 200
    assert max_ms <= MAX_MS, worst
    assert largest_mb <= MAX_MB
    assert outcomes["mapping_too_costly"] >= 200
    assert refused >= 100


def test_hostile_mapping_of_many_attributes_has_one_budget() -> None:
    # Different ones, because what several of them contain is searched once.
    several = {f"x{number}": expressions.repeated("[*]", start=f"m{number}") + " | [0]" for number in range(200)}
    mapping = record_mapping.mapping_of(several)
    data = {f"m{number}": list(range(1_000)) for number in range(200)}
    started = time.process_time()
    assert evaluate(mapping, data, is_partial=False) == "mapping_too_costly"
    assert (time.process_time() - started) * 1_000 < MAX_MS
