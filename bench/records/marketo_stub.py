"""A loopback stand-in for Marketo that checks every limit and counts every id, in a process of its own.

It is reached as a proxy (CONNECT, then TLS), so that clients can request `https://mkto-ingestion-api.adobe.io`. `GET /counts`
without CONNECT answers `{"ids": …, "objects": …, "requests": …, "connections": …, "refused": …}`, and `DELETE /counts` forgets
them.

`PUT /round_trip/0.02` makes the stub as slow as a network with that round-trip time in seconds: one round trip for the TCP
connection, one for the handshake of TLS 1.3, and one for each request. The time that a body takes on the wire and TCP's slow
start, which needs more round trips for the first bodies on a new connection, are not modelled.
"""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from unittest.mock import patch

import orjson
import trustme

from bench.report import BUILD

MAX_BODY_BYTES, MAX_OBJECTS = 1_000_000, 1_000
# What the peer calls, by the REST API's own limit.
MAX_LEADS = 300
HOSTS = ("mkto-ingestion-api.adobe.io", "123-abc-456.mktorest.com")
TOKEN = {"access_token": "canary-token:int", "token_type": "bearer", "expires_in": 3599, "scope": "bench"}


@contextmanager
def dialling(port: int) -> Iterator[str]:
    folder = BUILD / "throughput"
    authority = str(folder / "authority.pem")
    proxy = f"http://127.0.0.1:{port}"
    given = {"HTTPS_PROXY": proxy, "https_proxy": proxy, "REQUESTS_CA_BUNDLE": authority, "SSL_CERT_FILE": authority}
    with patch.dict(os.environ, given):
        yield authority


class Stub:
    def __init__(self, port: int) -> None:
        self.port = port

    def _call(self, method: str, path: str) -> dict[str, int]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        connection.request(method, path)
        told: dict[str, int] = orjson.loads(connection.getresponse().read())
        connection.close()
        return told

    def take_round_trip(self, seconds: float) -> None:
        """How long a round trip to the stub takes from now on, also on connections that exist."""
        self._call("PUT", f"/round_trip/{seconds}")

    def check(self, ids: int) -> dict[str, int]:
        """Check that all ids arrived, once, within the limits. Returns the counts, which the stub forgets."""
        told = self._call("GET", "/counts")
        self._call("DELETE", "/counts")
        if told["ids"] != ids or told["objects"] != ids or told["refused"]:
            raise RuntimeError(f"the stub counted {told}, {ids} were sent")
        return told


class Counts:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.round_trip_s = 0.0
        self.forget()

    def forget(self) -> None:
        self.ids: set[str] = set()
        self.objects = self.requests = self.connections = self.refused = 0

    def travel(self) -> None:
        """Wait for one round trip."""
        if self.round_trip_s:
            time.sleep(self.round_trip_s)

    def take(self, objects: list[dict[str, str]]) -> None:
        with self.lock:
            self.requests += 1
            self.objects += len(objects)
            self.ids.update([each["email"] for each in objects])

    def tell(self) -> bytes:
        names = ("objects", "requests", "connections", "refused")
        return orjson.dumps({"ids": len(self.ids), **{name: getattr(self, name) for name in names}})


def serve(connection: socket.socket, tls: ssl.SSLContext, counts: Counts) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    reader = connection.makefile("rb")
    line, _ = _head(reader)
    if not line.startswith(b"CONNECT "):
        if line.startswith(b"DELETE "):
            counts.forget()
        elif line.startswith(b"PUT /round_trip/"):
            counts.round_trip_s = float(line.split(b" ")[1].rpartition(b"/")[2])
        _answer(connection, 200, counts.tell())
        connection.close()
        return
    counts.connections += 1
    # A client connects to a proxy in no time. Over a network, its TCP connection would take the time that CONNECT takes here.
    counts.travel()
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    counts.travel()
    with tls.wrap_socket(connection, server_side=True) as secure:
        reader = secure.makefile("rb")
        while (request := _head(reader))[0]:
            line, length = request
            body = reader.read(length)
            counts.travel()
            path = line.split(b" ")[1].partition(b"?")[0]
            if path == b"/identity/oauth/token":
                _answer(secure, 200, orjson.dumps(TOKEN))
            elif path == b"/rest/v1/leads.json":
                leads = orjson.loads(body)["input"]
                counts.take(leads)
                said = [{"id": number, "status": "updated"} for number in range(len(leads))]
                _answer(
                    secure, 200 if len(leads) <= MAX_LEADS else 400, orjson.dumps({"success": True, "result": said})
                )
            else:
                persons = orjson.loads(body)["persons"]
                if len(body) > MAX_BODY_BYTES or not 1 <= len(persons) <= MAX_OBJECTS:
                    counts.refused += 1
                    _answer(secure, 400, b'{"error_code":"4000801","message":"Bad request"}')
                    continue
                counts.take(persons)
                _answer(secure, 202, b"", f"X-Request-Id: {counts.requests}\r\n")


def _head(reader: BinaryIO) -> tuple[bytes, int]:
    """A request's first line and its body's length; an empty line at the end of the connection."""
    first, length = reader.readline(), 0
    while (line := reader.readline().strip()) and first:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return first, length


def _answer(connection: socket.socket, status: int, body: bytes, more: str = "") -> None:
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    connection.sendall(head.encode() + body)


def main() -> None:
    """Print the port, then serve until the standard input ends."""
    folder = Path(sys.argv[1])
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / "stub.pem")
    listener = socket.create_server(("127.0.0.1", 0))
    counts = Counts()

    def accept() -> None:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve, args=(connection, tls, counts), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    print(listener.getsockname()[1], flush=True)
    sys.stdin.read()


@contextmanager
def running(folder: Path) -> Iterator[int]:
    """Start the stub; its port. Its authority's certificate is `folder/authority.pem`."""
    folder.mkdir(parents=True, exist_ok=True)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "authority.pem")
    authority.issue_cert(*HOSTS).private_key_and_cert_chain_pem.write_to_path(folder / "stub.pem")
    command = [sys.executable, "-m", "bench.records.marketo_stub", str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        if not process.stdin or not process.stdout:
            raise RuntimeError("the stub has no pipes")
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()
            process.wait(10)


if __name__ == "__main__":
    main()
