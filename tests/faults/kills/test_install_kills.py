"""Function processes killed at random while accounts install, on the local cloud."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.fakes.local_cloud.scenes import Scene, wait_for
from tests.fakes.local_cloud.session import LocalCloud, needs_proc, workers

RESULT = Path("build/faults/install_kills.json")
# A worker killed before it shortened its message's timeout leaves it hidden for the queue's 240 s, and so may the next.
PATIENCE_S = 900.0


@needs_proc
@pytest.mark.long
@pytest.mark.enable_socket
def test_exchange_code_workers_killed_after_exchange_do_not_exchange_again(stack: LocalCloud) -> None:
    """Given workers that wait for the account's data, when they are killed, then others continue with the stored grants."""
    scene = Scene(stack)
    hosts = [scene.account(f"-{number}") for number in range(3)]
    codes = {host: scene.code(host) for host in hosts}
    for host in hosts:
        label = host.partition(".")[0]
        stack.control.set_fault("kommo", "slow", account=label, path="/api/v4/account", seconds=8, count=1)
        assert scene.hook(codes[host], host).status_code == 200
    wait_for(
        lambda: [stack.control.code_state(codes[host])["issued"] for host in hosts], lambda issued: issued == [1, 1, 1]
    )

    for process in workers(stack, "ExchangeCode"):
        os.kill(process, signal.SIGKILL)
    outcomes = wait_for(lambda: ended(scene), lambda found: len(found) == len(hosts))

    assert set(outcomes.values()) == {"connected"}
    assert [stack.control.code_state(codes[host])["calls"] for host in hosts] == [1, 1, 1]
    assert {item["attempt_count"] for item in scene.installs()} == {2}


@needs_proc
@pytest.mark.enable_socket
def test_installs_functions_killed_at_random_lose_no_install(stack: LocalCloud, long: bool) -> None:
    if not long:
        pytest.skip("takes a quarter of an hour: make faults")
    installs, kills_wanted = 200, 15
    scene, chance = Scene(stack), random.Random(7)
    hosts = [scene.account(f"-{number}") for number in range(installs)]
    codes = {host: scene.code(host) for host in hosts}
    accepted: list[str] = []
    kills: list[int] = []

    def kill() -> None:
        while len(kills) < kills_wanted:
            time.sleep(chance.uniform(1, 4))
            # One kill can end more than one worker: MiniStack discards all workers of a function when one has died.
            function = chance.choices(("ExchangeCode", "AcceptInstall"), (4, 1))[0]
            if processes := workers(stack, function):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(chance.choice(processes), signal.SIGKILL)
                    kills.append(1)

    killer = threading.Thread(target=kill)
    killer.start()
    with ThreadPoolExecutor(16) as pool:
        answers = {}
        for host in hosts:
            answers[host] = pool.submit(scene.hook, codes[host], host)
            time.sleep(0.2)
        accepted = [host for host, answer in answers.items() if answer.result().status_code == 200]
    killer.join()
    outcomes = wait_for(lambda: ended(scene), lambda found: set(accepted) <= set(found), PATIENCE_S)

    states = [stack.control.code_state(codes[host]) for host in hosts]
    lost = [host for host in accepted if outcomes[host] not in ("connected", "answer_lost")]
    twice = [state for state in states if state["issued"] > 1]
    flagged = [host for host in accepted if outcomes[host] == "answer_lost"]
    figures = {
        "installs": installs,
        "accepted": len(accepted),
        "kills": len(kills),
        "lost": len(lost),
        "exchanged_twice": len(twice),
        "flagged": len(flagged),
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(figures, indent=2) + "\n")
    print(f"\ninstall kills: {figures}")
    assert len(accepted) >= installs * 0.8
    assert lost == []
    assert twice == []


def ended(scene: Scene) -> dict[str, str]:
    """By host: `connected`, or the reason of the failure."""
    return {
        item["account_host"]: item["reason"] if item["state"] == "failed" else item["state"]
        for item in scene.installs()
        if item["state"] in ("connected", "failed")
    }
