"""Function processes killed at random while accounts install, on the local cloud."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.stack.conftest import LocalCloud, stack
from tests.stack.scenes import Scene, wait_for

__all__ = ["stack"]

RESULT = Path("build/faults/install_kills.json")
# A worker killed before it shortened its message's time leaves it hidden for the queue's whole 240 s.
PATIENCE_S = 600.0


def workers(cloud: LocalCloud) -> list[int]:
    """The processes in which the functions of an install run: children of this stack's MiniStack."""
    found = []
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            try:
                parent = int((directory / "stat").read_text().rpartition(")")[2].split()[1])
                command = (directory / "cmdline").read_bytes().decode(errors="replace")
            except (FileNotFoundError, ProcessLookupError):
                continue
            ours = parent == cloud.stack.pids["ministack"] and "ministack-lambda" in command
            if ours and ("ExchangeCode" in command or "AcceptInstall" in command):
                found.append(int(directory.name))
    return found


@pytest.mark.enable_socket
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to find the functions' processes")
def test_killed_functions_lose_no_install(stack: LocalCloud, long: bool) -> None:
    installs, per_second = (200, 5.0) if long else (15, 3.0)
    scene, chance = Scene(stack), random.Random(7)
    hosts = [scene.account(f"-{number}") for number in range(installs)]
    codes = {host: scene.code(host) for host in hosts}
    accepted: list[str] = []
    kills = 0
    arriving = threading.Event()

    def kill() -> None:
        nonlocal kills
        while not arriving.wait(chance.uniform(0.5, 2.0)):
            if processes := workers(stack):
                try:
                    os.kill(chance.choice(processes), signal.SIGKILL)
                except ProcessLookupError:
                    continue
                kills += 1

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        for host in hosts:
            started = time.monotonic()
            if scene.hook(codes[host], host).status_code == 200:
                accepted.append(host)
            time.sleep(max(0.0, 1 / per_second - (time.monotonic() - started)))
        # The killing goes on until half of them are through, so that workers die in the middle of their work too.
        wait_for(lambda: len(ended(scene)), lambda count: count >= installs // 2, PATIENCE_S)
    finally:
        arriving.set()
        killer.join()
    outcomes = wait_for(lambda: ended(scene), lambda found: set(accepted) <= set(found), PATIENCE_S)

    states = [stack.control.code_state(codes[host]) for host in hosts]
    lost = [host for host in accepted if outcomes[host] not in ("connected", "answer_lost")]
    twice = [state for state in states if state["issued"] > 1]
    figures = {
        "installs": installs,
        "accepted": len(accepted),
        "kills": kills,
        "lost": len(lost),
        "exchanged_twice": len(twice),
        "flagged": sum(outcome == "answer_lost" for outcome in outcomes.values()),
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(figures, indent=2) + "\n")
    print(f"\ninstall kills: {figures}")
    assert kills >= installs // 10
    assert len(accepted) >= installs // 2
    assert lost == []
    assert twice == []


def ended(scene: Scene) -> dict[str, str]:
    """By host: `connected`, or the reason of the failure."""
    return {
        item["account_host"]: item["reason"] if item["state"] == "failed" else item["state"]
        for item in scene.installs()
        if item["state"] in ("connected", "failed")
    }
