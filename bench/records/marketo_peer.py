"""Our ingestion against marketorestpython, on loopback and over a modelled network. A part of `throughput`.

The peer is marketorestpython's `create_update_leads` with its throttle off, 300 leads at a time, which is what its endpoint
takes. It does the same job: it decodes the messages, maps each contact in plain Python, and upserts. It opens a connection for
each request, because it calls `requests.post`.

- `peer_ratio` and `peer_ratio_mapped` (a mapping of 20 attributes, `mapped_contacts`) are over a network whose round trip takes
  `ROUND_TRIP_S`. This is a choice: about what lies between two cloud regions of one continent. It is the same for both sides.
  Slow start is not modelled, which favours the peer. Our connection is open already, as in a warm worker.
- `peer_ratio_far` is `peer_ratio` with the round trip between São Paulo and Virginia, `FAR_ROUND_TRIP_S`.
- `peer_ratio_loopback` and `peer_ratio_mapped_loopback` are without a network: a comparison of the processor's work. In
  `peer_send_ratio_loopback` the persons are mapped already.
- `peer_ratio_with_aws` and `peer_ratio_mapped_with_aws` are over the network, and each of our calls of AWS, which are in memory
  otherwise, waits `AWS_CALL_S`. The peer makes no such calls: it keeps no receipts, marks and quota.

The stub is reached through a proxy, for which urllib3 leaves Nagle's algorithm on: together with delayed acknowledgements, most
requests would wait for 40 ms. Without a proxy urllib3 switches it off, so it is off here too.
https://github.com/urllib3/urllib3/issues/2936
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import orjson
import requests.sessions
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection

from bench.records import mapped_contacts, marketo_stub
from bench.records.contact_batches import PEOPLE, Batch, batches, delivered_again, each_of, ours
from bench.records.marketo_stub import Stub
from bench.report import BUILD, ROOT
from tests.fakes.records.ingesting import Harness

CONTACTS = 10_000
LOOPBACK_PAIRS, NETWORK_PAIRS = 15, 9
FAR_PAIRS = 3
# Averages that were published in 2017: 19.6 ms between Ireland and Frankfurt, 19.5 between California and Oregon, 119.5 between
# São Paulo and Virginia. https://acomputerscientistlearnsaws.blogspot.com/2017/04/aws-regions.html
ROUND_TRIP_S, FAR_ROUND_TRIP_S = 0.020, 0.120
# A choice: AWS describes DynamoDB's latency as "single-digit millisecond".
AWS_CALL_S = 0.005
FOLDER = BUILD / "peer"
# The routes, and what each of them maps, in plain Python.
MAPPED = "people-mapped"
PLAIN: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    PEOPLE: mapped_contacts.by_default,
    MAPPED: mapped_contacts.by_mapping,
}


class _AdapterWithoutNagle(HTTPAdapter):
    def proxy_manager_for(self, proxy: str, **named: Any) -> Any:
        return super().proxy_manager_for(proxy, socket_options=HTTPConnection.default_socket_options, **named)


class Peer:
    """marketorestpython, which comes as source alone, in a folder of its own."""

    def __init__(self) -> None:
        if not (FOLDER / "marketorestpython").is_dir():
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
            lock = ROOT / "bench" / "records" / "peer.txt"
            subprocess.run([*pip, "--require-hashes", "--target", str(FOLDER), "-r", str(lock)], check=True)
        sys.path.append(str(FOLDER))
        throttle: Any = importlib.import_module("marketorestpython.helper.http_lib")
        throttle.time = SimpleNamespace(time=time.time, sleep=lambda seconds: None)
        module: Any = importlib.import_module("marketorestpython.client")
        self.client = module.MarketoClient("123-abc-456", "id", "secret")

    def upsert(self, persons: list[dict[str, Any]]) -> None:
        with patch.object(requests.sessions, "HTTPAdapter", _AdapterWithoutNagle):
            for start in range(0, len(persons), marketo_stub.MAX_LEADS):
                leads = persons[start : start + marketo_stub.MAX_LEADS]
                self.client.execute(method="create_update_leads", leads=leads, lookupField="email")

    def run(self, batch: Batch, mapped: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """The same job as ours, as a Python programmer would write it."""
        self.upsert([mapped(one["data"]) for each in batch for one in json.loads(each.body)["records"]])


def check_same_persons(harness: Harness, sent: list[bytes], stub: Stub) -> list[dict[str, Any]]:
    """Check that the peer maps what we map; the persons of the default mapping. `sent` gets the bodies of our requests."""
    persons: dict[str, list[dict[str, Any]]] = {}
    for route, mapped in PLAIN.items():
        sent.clear()
        few = list(batches(CONTACTS, route=route))
        each_of(partial(ours, harness), delivered_again(few, "check"))
        stub.check(CONTACTS)
        persons[route] = [person for body in sent for person in orjson.loads(body)["persons"]]
        expected = [mapped(one["data"]) for batch in few for each in batch for one in json.loads(each.body)["records"]]
        if persons[route] != expected:
            raise RuntimeError(f"the peer maps other persons than {route}")
    return persons[PEOPLE]


def against_peer(harness: Harness, peer: Peer, persons: list[dict[str, Any]], stub: Stub) -> dict[str, list[float]]:
    """Return the ratios of the peer's time to ours, by figure. `persons` has the persons of the default mapping."""
    comparison = Comparison(harness, peer, persons, stub)
    comparison.pair(PEOPLE)  # The peer gets its token.
    for _ in range(LOOPBACK_PAIRS):
        comparison.measure("peer_ratio_loopback", PEOPLE)
        comparison.measure("peer_ratio_mapped_loopback", MAPPED)
        comparison.measure("peer_send_ratio_loopback", "")
    stub.take_round_trip(ROUND_TRIP_S)
    for _ in range(NETWORK_PAIRS):
        comparison.measure("peer_ratio", PEOPLE)
        comparison.measure("peer_ratio_mapped", MAPPED)
        with _waiting_for_aws(harness):
            comparison.measure("peer_ratio_with_aws", PEOPLE)
            comparison.measure("peer_ratio_mapped_with_aws", MAPPED)
    stub.take_round_trip(FAR_ROUND_TRIP_S)
    for _ in range(FAR_PAIRS):
        comparison.measure("peer_ratio_far", PEOPLE)
    stub.take_round_trip(0)
    return comparison.ratios


class Comparison:
    """Measures pairs one after the other, in alternating order. `ratios` has the ratios of each figure."""

    def __init__(self, harness: Harness, peer: Peer, persons: list[dict[str, Any]], stub: Stub) -> None:
        self.ratios: dict[str, list[float]] = {}
        self._harness = harness
        self._peer = peer
        self._persons = persons
        self._stub = stub
        self._few = {route: list(batches(CONTACTS, route=route)) for route in PLAIN}
        self._pairs = 0

    def measure(self, figure: str, route: str) -> None:
        self.ratios.setdefault(figure, []).append(self.pair(route))

    def pair(self, route: str) -> float:
        """The peer's time in ratio to ours: for the whole job, or without a route for sending mapped persons."""
        self._pairs += 1
        few = self._few[route or PEOPLE]
        works = [partial(each_of, partial(ours, self._harness), delivered_again(few, f"peer{self._pairs}"))]
        if route:
            works.append(partial(each_of, partial(self._peer.run, mapped=PLAIN[route]), few))
        else:
            works.append(partial(self._peer.upsert, self._persons))
        taken_s = {}
        for place in (0, 1) if self._pairs % 2 else (1, 0):
            began = time.perf_counter()
            works[place]()
            taken_s[place] = time.perf_counter() - began
            self._stub.check(CONTACTS)
        return taken_s[1] / taken_s[0]


@contextmanager
def _waiting_for_aws(harness: Harness) -> Iterator[None]:
    def carry(name: str, call: Callable[[], Any]) -> Any:
        time.sleep(AWS_CALL_S)
        return call()

    with patch.object(harness.cloud, "carry", carry):
        yield
