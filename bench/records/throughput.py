"""Contacts from SQS-shaped batches to a loopback Marketo stub, one process: our ingestion against the floor and a peer.

The floor decodes the same messages with orjson and posts the same bytes over one kept connection: no mapping, no receipts,
no quota. The peer is marketorestpython's `create_update_leads` with its throttle off, 300 at a time, which is what its endpoint
takes; `peer_ratio` has it do the same job (decode the messages, map each contact in a few lines of Python, upsert), in
`peer_send_ratio` it is given the persons mapped already. AWS is in memory on our side (tests/simulation/aws/cloud.py): the time
that DynamoDB takes is a wait, not work. Rounds alternate; the stub checks that no limit was passed and each id arrived once.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib
import json
import logging
import os
import re
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import orjson

from bench.records import marketo_stub
from bench.report import BUILD, ROOT, conclude, console
from local.simulators.people import make_contacts
from portaria.core import record_messages
from portaria.delivery.pipeline import QueuedMessage
from portaria.outbound import http_client
from tests.fakes.records import ingesting
from tests.fakes.records.contacts import SOURCE
from tests.fakes.records.ingesting import MUNCHKIN, Harness

CONTACTS = 100_000
ROUNDS = 5
# A tenth of them shows how the peer stands.
PEER_CONTACTS = 10_000
SMALL, LARGE = 1_000, 1_000_000
# The large process delivers 25,000 records, the small one ten times 1,000, and so on.
ROUNDS_OF_GROWTH, SMALL_EACH = 40, 10
PEER = BUILD / "peer"
LIMITS = {"growth": 1.10, "late_growth": 1.10, "peak_mib": 512.0}
LEAST = {"floor_ratio": 0.4, "peer_ratio": 5.0}
HOST = "mkto-ingestion-api.adobe.io"
PAGE = 250
BATCH = 40
MAX_PAYLOAD_BYTES = 5_500_000

Batch = list[QueuedMessage]


def batches(count: int, start: int = 0) -> Iterator[Batch]:
    """Messages as backfill_records makes them of Kommo's pages, and as Lambda gets them: 40, and at most 6 MB.

    All are of 250 made-up people, told apart by their ids and addresses, which count from `start`.
    """
    people = make_contacts(1, "acme.kommo.com", PAGE, seed=1, without_email=0.0).contacts
    texts = [_template(each) for each in people]
    head = record_messages.encode(
        {
            "version": record_messages.VERSION,
            "connection": SOURCE,
            "object": "contacts",
            "origin": record_messages.BACKFILL,
        }
        | {"route": "people", "read_at": 1, "request": ""}
    )
    batch: Batch = []
    size = 0
    for first in range(start, start + count, PAGE):
        numbers = range(first, min(first + PAGE, start + count))
        records = [texts[number % PAGE].replace('"@I@"', str(number)).replace("@N@", str(number)) for number in numbers]
        body = f'{head[:-1]},"records":[{",".join(records)}]}}'
        length = len(body.encode())
        if batch and (len(batch) == BATCH or size + length > MAX_PAYLOAD_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(QueuedMessage(f"m{first}", body))
        size += length
    if batch:
        yield batch


def _template(contact: dict[str, Any]) -> str:
    for field in contact["custom_fields_values"] or []:
        if field["field_code"] == "EMAIL":
            field["values"][0]["value"] = "person@N@@example.com"
    return record_messages.encode({"key": "@N@", "updated_at": 1_700_000_000, "data": {**contact, "id": "@I@"}})


def ours(harness: Harness, batch: Batch) -> None:
    outcome = harness.ingest(*batch, bulk=True)
    if outcome.waiting or outcome.counts["DeadLetters"]:
        raise RuntimeError(f"not everything went: {outcome}")


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

    def run(self, batch: Batch) -> None:
        """The same job as ours, as somebody would write it."""
        self.upsert([mapped(one["data"]) for each in batch for one in json.loads(each.body)["records"]])


def mapped(contact: dict[str, Any]) -> dict[str, Any]:
    codes = {field["field_code"]: field["values"][0]["value"] for field in contact["custom_fields_values"] or []}
    companies = contact["_embedded"]["companies"]
    person = {
        "firstName": contact["first_name"] or contact["name"],
        "lastName": contact["last_name"],
        "email": codes.get("EMAIL"),
        "phone": codes.get("PHONE"),
        "company": companies[0].get("name") if companies else None,
    }
    return {name: value for name, value in person.items() if value}


class Stub:
    def __init__(self, port: int) -> None:
        self.port = port

    def _call(self, method: str) -> dict[str, int]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        connection.request(method, "/counts")
        told: dict[str, int] = orjson.loads(connection.getresponse().read())
        connection.close()
        return told

    def check(self, ids: int) -> int:
        """That all ids arrived, once, within the limits; the requests that it took. Forgets them."""
        told = self._call("GET")
        self._call("DELETE")
        if told["ids"] != ids or told["objects"] != ids or told["refused"]:
            raise RuntimeError(f"the stub counted {told}, {ids} were sent")
        return told["requests"]


def timed(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


@contextlib.contextmanager
def dialling(port: int) -> Iterator[str]:
    folder = BUILD / "throughput"
    authority = str(folder / "authority.pem")
    proxy = f"http://127.0.0.1:{port}"
    given = {"HTTPS_PROXY": proxy, "https_proxy": proxy, "REQUESTS_CA_BUNDLE": authority, "SSL_CERT_FILE": authority}
    with patch.dict(os.environ, given):
        yield authority


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
        harness.route("people")
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
        with patch.object(http_client, "send", send):
            pairs = _rounds(harness, given, bodies, floor, stub)
            peers = _against_peer(harness, peer, bodies, stub)
        grown = grow(port)
    figures = {
        "records_per_s": CONTACTS / statistics.median(our_s for our_s, _ in pairs),
        "floor_ratio": statistics.median(floor_s / our_s for our_s, floor_s in pairs),
        "peer_ratio": statistics.median(job for job, _ in peers),
        "peer_send_ratio": statistics.median(send for _, send in peers),
        "requests": requests,
        **grown,
    }
    size = sum(len(delivery.body.encode()) for batch in given for delivery in batch)
    console.print(f"{CONTACTS:,} contacts in {size / 1e6:.0f} MB of messages, {requests} requests")
    for name, value in figures.items():
        console.print(f"  {name:<14}{value:>12,.2f}")
    return conclude("throughput", figures, LIMITS, LEAST)


def _rounds(
    harness: Harness, given: list[Batch], bodies: list[list[bytes]], floor: Floor, stub: Stub
) -> list[tuple[float, float]]:
    pairs = []
    for number in range(ROUNDS + 1):
        again = [[QueuedMessage(f"{number}-{each.id}", each.body) for each in batch] for batch in given]

        def we(again: list[Batch] = again) -> None:
            for batch in again:
                ours(harness, batch)

        def least() -> None:
            for batch, requests in zip(given, bodies, strict=True):
                floor.run(batch, requests)

        taken = {}
        for work in (we, least) if number % 2 else (least, we):
            taken[work] = timed(work)
            stub.check(CONTACTS)
        pairs.append((taken[we], taken[least]))
    return pairs[1:]


def _against_peer(harness: Harness, peer: Peer, bodies: list[list[bytes]], stub: Stub) -> list[tuple[float, float]]:
    """How much longer the peer takes than we do: for the whole job, and for sending what is mapped already."""
    persons = [person for batch in bodies for body in batch for person in orjson.loads(body)["persons"]][:PEER_CONTACTS]
    few = list(batches(PEER_CONTACTS))
    ratios = []
    for number in range(ROUNDS):
        again = [[QueuedMessage(f"peer{number}-{each.id}", each.body) for each in batch] for batch in few]
        job_s = timed(lambda: _each(peer.run, few))
        stub.check(PEER_CONTACTS)
        our_s = timed(lambda again=again: _each(partial(ours, harness), again))  # type: ignore[misc]
        stub.check(PEER_CONTACTS)
        send_s = timed(lambda: peer.upsert(persons))
        stub.check(PEER_CONTACTS)
        ratios.append((job_s / our_s, send_s / our_s))
    return ratios


def _each(work: Callable[[Batch], None], given: list[Batch]) -> None:
    for batch in given:
        work(batch)


def grow(port: int) -> dict[str, float]:
    """Compare a process that delivers 1,000,000 records with one that gets 1,000 at a time; also the peak of its memory.

    The two alternate, so that both meet the same load of the machine. `growth` is the median of their ratios, `late_growth`
    that of the last half against that of the first. Making the messages is not counted.
    """
    stub = Stub(port)
    each = LARGE // ROUNDS_OF_GROWTH

    def delivered(child: Child, count: int, start: int = 0) -> float:
        taken_s = child.deliver(count, start)
        stub.check(count)
        return taken_s / count

    with _child(port) as large, _child(port) as small:
        delivered(small, SMALL)
        ratios = []
        for number in range(ROUNDS_OF_GROWTH):
            large_s = delivered(large, each, number * each)
            ratios.append(large_s / statistics.fmean(delivered(small, SMALL) for _ in range(SMALL_EACH)))
        peak_mib = large.peak_mib()
    early, late = (statistics.median(half) for half in (ratios[: len(ratios) // 2], ratios[len(ratios) // 2 :]))
    return {"growth": statistics.median(ratios), "late_growth": late / early, "peak_mib": peak_mib}


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

    def deliver(self, count: int, start: int) -> float:
        """Deliver `count` records with ids from `start` on; the seconds that it took."""
        return self._ask(f"{count} {start}")

    def peak_mib(self) -> float:
        return self._ask("peak")


@contextlib.contextmanager
def _child(port: int) -> Iterator[Child]:
    command = [sys.executable, "-m", "bench.records.throughput", str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Child(process)
        finally:
            process.kill()


def _serve(port: int) -> None:
    logging.getLogger("portaria").setLevel(logging.CRITICAL)
    send = http_client.send
    with dialling(port), ingesting.harness() as harness, patch.object(http_client, "send", send):
        harness.route("people")
        for number, line in enumerate(sys.stdin):
            if line == "peak\n":
                # `getrusage` reports the parent's peak, which a process has from the moment of its birth.
                status = Path("/proc/self/status").read_text()
                print(int(re.search(r"VmHWM:\s+([0-9]+) kB", status)[1]) / 1024, flush=True)  # type: ignore[index]
                continue
            taken_s = 0.0
            for batch in batches(*map(int, line.split())):
                again = [QueuedMessage(f"{number}-{each.id}", each.body) for each in batch]
                taken_s += timed(lambda again=again: ours(harness, again))  # type: ignore[misc]
            print(taken_s, flush=True)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
