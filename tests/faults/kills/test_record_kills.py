"""Function processes killed at random while records go to a destination that fails four times of five, on the local cloud."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.records.contact_changes import email_of, version_of
from bench.records.record_load import Load
from bench.tokens.grants import as_a_worker
from tests.fakes.local_cloud.scenes import wait_for
from tests.fakes.local_cloud.session import LocalCloud, needs_proc, workers

RESULT = Path("build/faults/record_kills.json")
EVENTS, KILLS = 150, 10
# A killed worker's messages stay hidden for the visibility timeout: 725 s in the template, shortened here. A record that is
# answered with 429 after many other failures waits for up to ten minutes, and may do so again.
HIDDEN_S, PATIENCE_S = 45, 3_000.0
# Each fault takes its share of what the ones above it leave, so that each affects a fifth.
FAULTS: tuple[dict[str, Any], ...] = (
    {"kind": "rate_limited", "share": 1 / 5},
    {"kind": "status", "status": 500, "share": 1 / 4},
    {"kind": "slow", "seconds": 25, "share": 1 / 3},
    {"kind": "lost_answer", "share": 1 / 2},
)


@contextlib.contextmanager
def hurried(cloud: LocalCloud) -> Iterator[None]:
    """Records are retried at once, and those of a killed worker become visible soon."""
    with (
        hurried_function(cloud, "ingest_records", "records"),
        hurried_function(cloud, "release_records", "waiting_records"),
    ):
        yield


@contextlib.contextmanager
def hurried_function(cloud: LocalCloud, function: str, queue: str) -> Iterator[None]:
    functions, name, url = cloud.functions, cloud.stack.functions[function], cloud.stack.queues[queue]
    known = functions.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
    version = functions.get_alias(FunctionName=name, Name="live")["FunctionVersion"]
    hidden = cloud.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["VisibilityTimeout"])["Attributes"]
    functions.update_function_configuration(
        FunctionName=name, Environment={"Variables": {**known, "RETRY_AFTER_MINUTES": "0,0,0"}}
    )
    functions.get_waiter("function_updated_v2").wait(FunctionName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    fresh = functions.publish_version(FunctionName=name)["Version"]
    functions.update_alias(FunctionName=name, Name="live", FunctionVersion=fresh)
    cloud.sqs.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": str(HIDDEN_S)})
    try:
        yield
    finally:
        cloud.sqs.set_queue_attributes(QueueUrl=url, Attributes=hidden)
        functions.update_function_configuration(FunctionName=name, Environment={"Variables": known})
        functions.update_alias(FunctionName=name, Name="live", FunctionVersion=version)


@needs_proc
@pytest.mark.enable_socket
def test_records_functions_killed_at_random_lose_no_record(stack: LocalCloud, long: bool) -> None:
    if not long:
        pytest.skip("takes some minutes: make faults")
    stack.control.clear_faults()
    with as_a_worker(stack.stack), hurried(stack):
        load = Load(stack.stack)
        load.connect()
        events = load.draw(EVENTS)
        munchkin = load.munchkin.lower()
        for fault in FAULTS:
            stack.control.set_fault("marketo", account=munchkin, **fault)
        kills: list[int] = []
        ended = threading.Event()
        killer = threading.Thread(target=kill_workers, args=(stack, kills, ended))
        killer.start()
        try:
            load.send(events)
            wait_for(lambda: (load.left(), len(kills)), lambda seen: seen == (0, KILLS), PATIENCE_S)
        finally:
            ended.set()
            killer.join()
        missing, stale = load.look()
        reasons = dead_records(stack, load)
        lost = [email for email in {*missing, *stale} if not reasons.get(email)]
        stack.control.clear_faults()

        redrive(stack, load)
        wait_for(load.left, lambda left: left == 0, PATIENCE_S)
        left = load.look()

    figures = {
        "sent": len(load.newest),
        "applied": len(load.newest) - len({*missing, *stale}),
        "dead_with_reason": len({*missing, *stale}) - len(lost),
        "missing": len(lost),
        "applied_after_redrive": len(load.newest) - len({*left[0], *left[1]}),
        "kills": len(kills),
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(figures, indent=2) + "\n")
    print(f"\nrecord kills: {figures}")
    assert load.refused == 0
    assert lost == []
    assert left == (set(), set())


def kill_workers(cloud: LocalCloud, kills: list[int], ended: threading.Event) -> None:
    chance = random.Random(7)
    while len(kills) < KILLS and not ended.wait(chance.uniform(1, 4)):
        if processes := workers(cloud, "IngestRecords") + workers(cloud, "ReleaseRecords"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(chance.choice(processes), signal.SIGKILL)
                kills.append(1)


def letters(cloud: LocalCloud, load: Load) -> list[dict[str, Any]]:
    """All dead letters of the load's route, with their records."""
    url, found, cursor = f"{cloud.public_url}/admin/v1/dead-letters", [], ""
    while True:
        query = {"route": f"route-{load.name}", "limit": "100"} | ({"cursor": cursor} if cursor else {})
        page = cloud.admin.get(url, params=query).json()
        found += [cloud.admin.get(f"{url}/{each['id']}").json() for each in page["items"]]
        cursor = page["next_cursor"]
        if not cursor:
            return found


def dead_records(cloud: LocalCloud, load: Load) -> dict[str, str]:
    """By e-mail address of each dead letter in the expected version, the reason."""
    found: dict[str, str] = {}
    for letter in letters(cloud, load):
        for record in letter["content"]:
            email = email_of(record["data"])
            if version_of(record["data"]) == load.newest[email]:
                found[email] = letter["reason"]
    return found


def redrive(cloud: LocalCloud, load: Load) -> None:
    cursor = None
    while True:
        wanted = {"route": f"route-{load.name}"} | ({"cursor": cursor} if cursor else {})
        answer = cloud.admin.post(f"{cloud.public_url}/admin/v1/dead-letters/redrive", json=wanted).json()
        assert {letter["outcome"] for letter in answer["letters"]} <= {"redriven"}, answer
        cursor = answer["next_cursor"]
        if not cursor:
            return
