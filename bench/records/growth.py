"""How the cost of a record grows with the number of records that a process has delivered. A part of `throughput`."""

from __future__ import annotations

import contextlib
import logging
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bench.records import marketo_stub
from bench.records.contact_batches import BATCH, PAGE, PEOPLE, batches, ours
from portaria.delivery.pipeline import QueuedMessage
from portaria.outbound import http_client
from tests.fakes import outgoing
from tests.fakes.records import ingesting

LARGE = 1_000_000
# The records of a turn: two batches that are nearly as large as Lambda's, or ten batches of 1,000. A turn takes a fifth of a
# second, so that other work of the machine disturbs both processes.
TURN = 10_000
MESSAGES_OF_1000 = 1_000 // PAGE


class Growth(NamedTuple):
    """`ratios` are of the cost of a record, and `late` is the last half of them in ratio to the first half."""

    ratios: list[float]
    late: float
    peak_mib: float


def grow(port: int) -> Growth:
    """Compare a process that delivers 1,000,000 records in full batches with one that has batches of 1,000.

    The cost is processor time, so that other work of the machine does not count. The processes alternate with equal numbers of
    records, and each begins half of the turns. The second one gets the same contacts in each turn. Making the messages is not
    counted. `peak_mib` is the memory of the first.
    """
    stub = marketo_stub.Stub(port)

    def cost_s(child: Child, messages: int, start: int) -> float:
        taken_s = child.deliver(TURN, start, messages)
        stub.check(TURN)
        return taken_s

    with _child(port) as large, _child(port) as small:
        cost_s(small, MESSAGES_OF_1000, 0)
        ratios = []
        for number in range(LARGE // TURN):
            turns = [(large, BATCH, number * TURN), (small, MESSAGES_OF_1000, 0)]
            taken_s = {}
            for child, messages, start in turns if number % 2 else reversed(turns):
                taken_s[child] = cost_s(child, messages, start)
            ratios.append(taken_s[large] / taken_s[small])
        peak_mib = large.peak_mib()
    early, late = (statistics.median(half) for half in (ratios[: len(ratios) // 2], ratios[len(ratios) // 2 :]))
    return Growth(ratios, late / early, peak_mib)


class Child:
    """A process of its own that delivers as many records as it is asked for, with one pipeline and one table."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def _ask(self, line: str) -> float:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the process that delivers ended with {self.process.wait()}")
        return float(answer)

    def deliver(self, count: int, start: int, messages: int) -> float:
        """Deliver `count` records with ids from `start` on, in batches of so many messages; the processor's seconds."""
        return self._ask(f"{count} {start} {messages}")

    def peak_mib(self) -> float:
        return self._ask("peak")


@contextlib.contextmanager
def _child(port: int) -> Iterator[Child]:
    command = [sys.executable, "-m", "bench.records.growth", str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Child(process)
        finally:
            process.kill()


def _serve(port: int) -> None:
    logging.getLogger("portaria").setLevel(logging.CRITICAL)
    send, begin = http_client.send, http_client.begin
    with marketo_stub.dialling(port), ingesting.harness() as harness, outgoing.answering(send, begin):
        harness.route(PEOPLE)
        for number, line in enumerate(sys.stdin):
            if line == "peak\n":
                # `getrusage` reports the parent's peak, which a process has from the moment of its birth.
                status = Path("/proc/self/status").read_text()
                print(int(re.search(r"VmHWM:\s+([0-9]+) kB", status)[1]) / 1024, flush=True)  # type: ignore[index]
                continue
            taken_s = 0.0
            count, start, messages = map(int, line.split())
            for batch in batches(count, start, messages=messages):
                again = [QueuedMessage(f"{number}-{each.id}", each.body) for each in batch]
                began_s = time.process_time()
                ours(harness, again)
                taken_s += time.process_time() - began_s
            print(taken_s, flush=True)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
