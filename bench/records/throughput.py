"""Contacts from SQS-shaped batches to a loopback Marketo stub, one process: our ingestion against the floor and a peer.

The floor decodes the same messages with orjson and posts the same bytes over one kept connection: no mapping, no receipts,
no quota. It runs as any Python program does, with the garbage collector on; `floor_ratio_without_gc` is without it, as our
batches run. The peer is marketorestpython's `create_update_leads` with its throttle off, 300 at a time, which is what its
endpoint takes. It does the same job: it decodes the messages, maps each contact in plain Python, and upserts. `peer_ratio` is
for the default mapping, `peer_ratio_mapped` for one of 20 attributes (`mapped_contacts`). In `peer_send_ratio` the persons are
mapped already. AWS is in memory on our side (tests/simulation/aws/cloud.py): the time that DynamoDB takes is a wait, not work.

Each ratio is the median of pairs that were measured one after the other, in alternating order; `_q1` and `_q3` are their
quartiles. The stub checks that no limit was passed and each id arrived once.
"""

from __future__ import annotations

import gc
import http.client
import importlib
import json
import logging
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import patch

import orjson

from bench.records import growth, mapped_contacts, marketo_stub
from bench.records.contact_batches import PEOPLE, Batch, batches, delivered_again, each_of, ours
from bench.records.marketo_stub import Stub, dialling
from bench.report import BUILD, ROOT, conclude, console, row, table
from portaria.outbound import http_client
from tests.fakes.records import ingesting
from tests.fakes.records.ingesting import MUNCHKIN, Harness

CONTACTS = 100_000
ROUNDS = 9
# A tenth of them shows how the peer stands.
PEER_CONTACTS, PEER_ROUNDS = 10_000, 15
PEER = BUILD / "peer"
LIMITS = {"growth": 1.05, "late_growth": 1.10, "peak_mib": 512.0}
LEAST = {"floor_ratio": 0.6, "peer_ratio": 6.0, "peer_ratio_mapped": 4.0}
# The routes, and what each of them maps, in plain Python.
MAPPED = "people-mapped"
PLAIN: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    PEOPLE: mapped_contacts.by_default,
    MAPPED: mapped_contacts.by_mapping,
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


class Peer:
    """marketorestpython, which comes as source alone, in a folder of its own."""

    def __init__(self) -> None:
        if not (PEER / "marketorestpython").is_dir():
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
            lock = ROOT / "bench" / "records" / "peer.txt"
            subprocess.run([*pip, "--require-hashes", "--target", str(PEER), "-r", str(lock)], check=True)
        sys.path.append(str(PEER))
        importlib.import_module("marketorestpython.helper.http_lib").time.sleep = lambda seconds: None
        module: Any = importlib.import_module("marketorestpython.client")
        self.client = module.MarketoClient("123-abc-456", "id", "secret")

    def upsert(self, persons: list[dict[str, Any]]) -> None:
        for start in range(0, len(persons), marketo_stub.MAX_LEADS):
            leads = persons[start : start + marketo_stub.MAX_LEADS]
            self.client.execute(method="create_update_leads", leads=leads, lookupField="email")

    def run(self, batch: Batch, mapped: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """The same job as ours, as a Python programmer would write it."""
        self.upsert([mapped(one["data"]) for each in batch for one in json.loads(each.body)["records"]])


def timed(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measure() -> bool:
    logging.getLogger("portaria").setLevel(logging.CRITICAL)
    send, peer = http_client.send, Peer()
    with (
        marketo_stub.running(BUILD / "throughput") as port,
        dialling(port) as authority,
        ingesting.harness() as harness,
    ):
        stub = Stub(port)
        floor = Floor(port, authority)
        harness.route(PEOPLE)
        harness.route(MAPPED, mapping=mapped_contacts.MAPPING)
        sent: list[bytes] = []

        def sending(request: Any, **named: Any) -> Any:
            if request.body and request.url.endswith("/persons"):
                sent.append(request.body)
            return send(request, **named)

        with patch.object(http_client, "send", sending):
            given = list(batches(CONTACTS))
            bodies: list[list[bytes]] = []
            for batch in given:
                sent.clear()
                ours(harness, batch)
                bodies.append(list(sent))
            requests = stub.check(CONTACTS)
            persons = _check_peer(harness, sent, stub)
        with patch.object(http_client, "send", send):
            pairs = _rounds(harness, given, bodies, floor, stub)
            peers = _against_peer(harness, peer, persons, stub)
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


def _check_peer(harness: Harness, sent: list[bytes], stub: Stub) -> list[dict[str, Any]]:
    """That the peer maps what we map; the persons of the default mapping."""
    persons: dict[str, list[dict[str, Any]]] = {}
    for route, mapped in PLAIN.items():
        sent.clear()
        few = list(batches(PEER_CONTACTS, route=route))
        each_of(partial(ours, harness), delivered_again(few, "check"))
        stub.check(PEER_CONTACTS)
        persons[route] = [person for body in sent for person in orjson.loads(body)["persons"]]
        expected = [mapped(one["data"]) for batch in few for each in batch for one in json.loads(each.body)["records"]]
        if persons[route] != expected:
            raise RuntimeError(f"the peer maps other persons than {route}")
    return persons[PEOPLE]


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


def _against_peer(harness: Harness, peer: Peer, persons: list[dict[str, Any]], stub: Stub) -> dict[str, list[float]]:
    """How much longer the peer takes than we do: for the whole job with each mapping, and for sending mapped persons."""
    few = {route: list(batches(PEER_CONTACTS, route=route)) for route in PLAIN}
    ratios: dict[str, list[float]] = {"peer_ratio": [], "peer_ratio_mapped": [], "peer_send_ratio": []}
    for number in range(PEER_ROUNDS):

        def measured(works: dict[str, Callable[[], None]], number: int = number) -> dict[str, float]:
            taken = {}
            for name in sorted(works, reverse=bool(number % 2)):
                taken[name] = timed(works[name])
                stub.check(PEER_CONTACTS)
            return taken

        for route, figure in ((PEOPLE, "peer_ratio"), (MAPPED, "peer_ratio_mapped")):
            again = delivered_again(few[route], f"peer{number}")
            job = partial(each_of, partial(peer.run, mapped=PLAIN[route]), few[route])
            taken = measured({"ours": partial(each_of, partial(ours, harness), again), "peer": job})
            ratios[figure].append(taken["peer"] / taken["ours"])
        again = delivered_again(few[PEOPLE], f"send{number}")
        taken = measured(
            {"ours": partial(each_of, partial(ours, harness), again), "peer": partial(peer.upsert, persons)}
        )
        ratios["peer_send_ratio"].append(taken["peer"] / taken["ours"])
    return ratios
