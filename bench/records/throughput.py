"""Contacts from SQS-shaped batches to a loopback Marketo stub, one process: our ingestion against the floor and a peer.

The floor decodes the same messages with orjson and posts the same bytes over one kept connection: no mapping, no receipts,
no quota. It runs as any Python program does, with the garbage collector on; `floor_ratio_without_gc` is without it, as our
batches run. `marketo_peer` has the peer, and `growth` the comparison of a long run with a short one. AWS is in memory on our
side (tests/simulation/aws/cloud.py): the time that DynamoDB takes is a wait, not work, and only `peer_ratio_with_aws` has it.

Each ratio is the median of pairs that were measured one after the other, in alternating order; `_q1` and `_q3` are their
quartiles. The stub checks that no limit was passed and each id arrived once.
"""

from __future__ import annotations

import gc
import http.client
import logging
import ssl
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import orjson

from bench.records import growth, mapped_contacts, marketo_peer, marketo_stub
from bench.records.contact_batches import PEOPLE, Batch, batches, delivered_again, each_of, ours
from bench.records.marketo_stub import Stub, dialling
from bench.report import BUILD, conclude, console, row, table
from portaria.outbound import http_client
from tests.fakes import outgoing
from tests.fakes.records import ingesting
from tests.fakes.records.ingesting import MUNCHKIN, Harness

CONTACTS = 100_000
ROUNDS = 9
LIMITS = {"growth": 1.05, "late_growth": 1.10, "peak_mib": 512.0}
LEAST = {
    "floor_ratio": 0.6,
    "peer_ratio": 6.0,
    "peer_ratio_mapped": 4.0,
    # Not goals, but a little less than what was measured, so that a slower pipeline is noticed.
    "peer_ratio_loopback": 1.7,
    "peer_ratio_mapped_loopback": 1.2,
}
HOST = "mkto-ingestion-api.adobe.io"


class Floor:
    def __init__(self, port: int, authority: str) -> None:
        self.connection = http.client.HTTPSConnection(
            "127.0.0.1", port, context=ssl.create_default_context(cafile=authority)
        )
        self.connection.set_tunnel(HOST, 443)

    def run(self, batch: Batch, requests: list[bytes]) -> None:
        for delivery in batch:
            orjson.loads(delivery.body)
        for body in requests:
            headers = {"Content-Type": "application/json", "X-Mkto-User-Token": "canary-token:int"}
            self.connection.request("POST", f"/subscriptions/{MUNCHKIN}/persons", body, headers)
            answer = self.connection.getresponse()
            answer.read()
            if answer.status != 202:
                raise RuntimeError(f"the stub answered {answer.status}")


def timed(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measure() -> bool:
    logging.getLogger("portaria").setLevel(logging.CRITICAL)
    send, begin, peer = http_client.send, http_client.begin, marketo_peer.Peer()
    with (
        marketo_stub.running(BUILD / "throughput") as port,
        dialling(port) as authority,
        ingesting.harness() as harness,
    ):
        stub = Stub(port)
        floor = Floor(port, authority)
        harness.route(PEOPLE)
        harness.route(marketo_peer.MAPPED, mapping=mapped_contacts.MAPPING)
        sent: list[bytes] = []

        def beginning(request: Any, **named: Any) -> Any:
            sent.append(request.body)
            return begin(request, **named)

        with outgoing.answering(send, beginning):
            given = list(batches(CONTACTS))
            bodies: list[list[bytes]] = []
            for batch in given:
                sent.clear()
                ours(harness, batch)
                bodies.append(list(sent))
            requests = stub.check(CONTACTS)["requests"]
            persons = marketo_peer.check_same_persons(harness, sent, stub)
        with outgoing.answering(send, begin):
            pairs = _rounds(harness, given, bodies, floor, stub)
            peers = marketo_peer.against_peer(harness, peer, persons, stub)
        grown = growth.grow(port)
    ratios = {
        "floor_ratio": [floor_s / our_s for our_s, floor_s, _ in pairs],
        "floor_ratio_without_gc": [floor_s / our_s for our_s, _, floor_s in pairs],
        **peers,
        "growth": grown.ratios,
    }
    figures = {"records_per_s": CONTACTS / statistics.median(our_s for our_s, _, _ in pairs), "requests": requests}
    shown = table("Speed of records, in ratio to others", "ratio")
    for name, values in ratios.items():
        row(shown, name, values, digits=2)
        low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
        figures |= {name: middle, f"{name}_q1": low, f"{name}_q3": high}
    figures |= {"late_growth": grown.late, "peak_mib": grown.peak_mib}
    size = sum(len(delivery.body.encode()) for batch in given for delivery in batch)
    console.print(f"{CONTACTS:,} contacts in {size / 1e6:.0f} MB of messages, {requests} requests")
    console.print(shown)
    for name in ("records_per_s", "late_growth", "peak_mib"):
        console.print(f"  {name:<14}{figures[name]:>12,.2f}")
    return conclude("throughput", figures, LIMITS, LEAST)


def _rounds(
    harness: Harness, given: list[Batch], bodies: list[list[bytes]], floor: Floor, stub: Stub
) -> list[tuple[float, float, float]]:
    """The seconds that we, the floor, and the floor without garbage collection take."""
    rounds = []
    for number in range(ROUNDS + 1):
        again = delivered_again(given, number)

        def least() -> None:
            for batch, requests in zip(given, bodies, strict=True):
                floor.run(batch, requests)

        def least_without_gc() -> None:
            gc.disable()
            try:
                least()
            finally:
                gc.enable()

        works: list[Callable[[], None]] = [
            partial(each_of, partial(ours, harness), again),
            least,
            least_without_gc,
        ]
        taken = {}
        for place in (0, 1, 2) if number % 2 else (2, 1, 0):
            taken[place] = timed(works[place])
            stub.check(CONTACTS)
        rounds.append((taken[0], taken[1], taken[2]))
    return rounds[1:]
