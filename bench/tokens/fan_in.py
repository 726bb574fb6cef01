"""1,000 callers in four processes ask for one expired single-use token at the same moment: how often the provider is asked.

This is measured for access tokens that live 30 s, 60 s, five minutes, an hour and a day. Then the same again while a fifth
process holds the lease and is killed with its request under way. The provider gives the same answer once more to a refresh
token whose answer was lost (`replay`), so that it can be seen that nobody is left without.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from typing import Any

from bench.report import ROOT, conclude, console, row, table
from bench.tokens.grants import Grants, as_a_worker, environment, running_stack
from local.__main__ import step
from local.stack import Stack
from portaria.connections import connection_store
from portaria.core.entities import Connection

LAYER = ROOT / "layers" / "portaria"
PROCESSES = 4
CALLERS = 1_000
LIVES = {"30_s": 30, "60_s": 60, "5_min": 300, "1_h": 3_600, "24_h": 86_400}
LIMITS = {
    **{f"not_served_{life}": 0.0 for life in LIVES},
    **{f"provider_calls_{life}": 1.0 for life in LIVES},
    "provider_calls_holder_killed": 2.0,
    "not_served_holder_killed": 0.0,
}


def measure() -> bool:
    with running_stack() as stack, as_a_worker(stack) as key:
        figures, waits = run(stack, key)
    shown = table("Fan-in", "ms")
    for name, values in waits.items():
        row(shown, name, values)
    console.print(shown)
    return conclude("fan_in", figures, LIMITS)


def run(stack: Stack, key: str, callers: int = CALLERS) -> tuple[dict[str, float], dict[str, list[float]]]:
    figures: dict[str, float] = {"callers": callers}
    waits: dict[str, list[float]] = {}
    all_failed: dict[str, Counter[str]] = {}
    for life, seconds in LIVES.items():
        grants = Grants(stack, life_s=seconds)
        with step(f"{callers} callers in {PROCESSES} processes, tokens that live {life.replace('_', ' ')}"):
            served, all_failed[life], waits[life] = crowd(stack, key, grants.expired_connection(), callers)
        figures |= {
            f"served_{life}": served,
            f"not_served_{life}": callers - served,
            f"provider_calls_{life}": grants.renewals(),
            f"wait_p50_ms_{life}": statistics.median(waits[life]),
            f"wait_p99_ms_{life}": percentile_99(waits[life]),
        }
    killed = Grants(stack, "replay")
    with step("The same, with the holder killed"):
        served, all_failed["the holder is killed"], waits["the holder is killed"] = holder_killed(
            stack, key, killed, callers
        )
    for life, failed in all_failed.items():
        if failed:
            console.print(f"[red]Not served ({life}): {dict(failed)}[/]")
    figures |= {
        "served_holder_killed": served,
        "not_served_holder_killed": callers - served,
        "provider_calls_holder_killed": killed.renewals(),
        "wait_p99_ms_holder_killed": percentile_99(waits["the holder is killed"]),
    }
    return figures, waits


def crowd(stack: Stack, key: str, connection: Connection, callers: int) -> tuple[int, Counter[str], list[float]]:
    """Let all ask at once: how many were served with one and the same token, why others failed, and each one's wait."""
    processes = [start(stack, key, connection, callers // PROCESSES) for _ in range(PROCESSES)]
    return collect(processes)


def holder_killed(stack: Stack, key: str, grants: Grants, callers: int) -> tuple[int, Counter[str], list[float]]:
    connection = grants.expired_connection()
    # The holder's request reaches the provider, whose answer takes longer than the holder lives.
    grants.control.set_fault("oauth2", "slow", account=grants.name, path="/token", seconds=3, count=1)
    holder = start(stack, key, connection, 1)
    crowd_processes = [start(stack, key, connection, callers // PROCESSES) for _ in range(PROCESSES)]
    go(holder)
    item = wait_for_lease(grants, connection)
    result = collect(crowd_processes, kill=holder)
    assert connection_store.get_item(grants.table, connection.name)["fence"] == item["fence"] + 1
    grants.control.clear_faults()
    return result


def wait_for_lease(grants: Grants, connection: Connection) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        item = connection_store.get_item(grants.table, connection.name)
        if "lease_until" in item:
            return item
        time.sleep(0.02)
    raise TimeoutError("the holder took no lease")


def start(stack: Stack, key: str, connection: Connection, callers: int) -> subprocess.Popen[str]:
    """A process that is ready to ask."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "bench.tokens.callers",
            stack.table,
            stack.stack_name,
            key,
            connection.name,
            str(callers),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment(stack), "PYTHONPATH": str(LAYER)},
    )
    assert process.stdout
    ready = process.stdout.readline().strip()
    assert ready == "ready", ready
    return process


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.write("go\n")
    process.stdin.flush()


def collect(
    processes: list[subprocess.Popen[str]], kill: subprocess.Popen[str] | None = None
) -> tuple[int, Counter[str], list[float]]:
    for process in processes:
        go(process)
    if kill:
        # While its request waits for the provider, with everyone else waiting for it.
        time.sleep(0.5)
        kill.kill()
        kill.communicate()
    failed: Counter[str] = Counter()
    waits: list[float] = []
    tokens: set[str] = set()
    for process in processes:
        answer = json.loads(process.communicate(timeout=300)[0])
        failed.update(answer["failed"])
        waits += answer["waits_ms"]
        tokens.update(answer["tokens"])
    assert len(tokens) <= 1, "callers got different tokens"
    return len(waits), failed, waits


def percentile_99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[98]
