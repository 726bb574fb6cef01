"""How much processor time each part of the local cloud takes while something runs."""

from __future__ import annotations

import contextlib
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field

import psutil

from local import processes
from local.stack import ROOT, Stack

FUNCTION_NAME = "AWS_LAMBDA_FUNCTION_NAME"
BENCHMARK = "benchmark"
# Function processes that ended meanwhile. Only their parent, which waited for them, still has their times.
ENDED = "ended_functions"


@dataclass
class ProcessorTime:
    """Use it as a context manager, also more than once: the times add up.

    `seconds` has the processor time by part: `ministack`, `simulators`, `proxy`, each function by its name in
    `Stack.functions`, and `benchmark` for this process. `cold_starts` counts the processes that started meanwhile, `took_s`
    is the elapsed time.
    """

    stack: Stack
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    cold_starts: Counter[str] = field(default_factory=Counter)
    took_s: float = 0.0

    def __enter__(self) -> ProcessorTime:
        self._started, self._before = time.monotonic(), self._read()
        return self

    def __exit__(self, *error: object) -> None:
        self.took_s += time.monotonic() - self._started
        for key, (part, own_s, ended_s) in self._read().items():
            _, own_before_s, ended_before_s = self._before.get(key, (part, 0.0, 0.0))
            self.seconds[part] += own_s - own_before_s
            self.seconds[ENDED] += ended_s - ended_before_s
            self.cold_starts[part] += key not in self._before

    @property
    def busiest(self) -> list[tuple[str, float]]:
        """The parts with their seconds, the busiest first."""
        return sorted(self.seconds.items(), key=lambda part: -part[1])

    @property
    def processors_used(self) -> float:
        """How many processors were busy on average."""
        return sum(self.seconds.values()) / self.took_s

    def _read(self) -> dict[tuple[int, float], tuple[str, float, float]]:
        """By process: its part, its own processor time, and that of its children that have ended."""
        names = {physical: name for name, physical in self.stack.functions.items()}
        parts = {pid: part for part, pid in self.stack.pids.items()}
        found = {}
        for process in (psutil.Process(), *processes.ours(ROOT).values()):
            with contextlib.suppress(psutil.Error, OSError):
                part = parts.get(process.pid) or names.get(process.environ().get(FUNCTION_NAME, ""), BENCHMARK)
                times = process.cpu_times()
                ended_s = times.children_user + times.children_system if part == "ministack" else 0.0
                found[process.pid, process.create_time()] = (part, times.user + times.system, ended_s)
        return found
