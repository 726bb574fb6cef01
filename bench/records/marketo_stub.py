"""A loopback stand-in for Marketo that checks every limit and counts every id, in a process of its own.

It is reached as a proxy (CONNECT, then TLS), so whoever measures dials `https://mkto-ingestion-api.adobe.io`. `GET /counts`
without CONNECT answers `{"ids": …, "objects": …, "requests": …, "refused": …}`, `DELETE /counts` forgets them.
"""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import subprocess
import sys
import threading
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


class Counts:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.forget()

    def forget(self) -> None:
        self.ids: set[str] = set()
        self.objects = self.requests = self.refused = 0

    def take(self, objects: list[dict[str, str]]) -> None:
        with self.lock:
            self.requests += 1
            self.objects += len(objects)
            self.ids.update([each["email"] for each in objects])

    def tell(self) -> bytes:
        told = {"ids": len(self.ids), "objects": self.objects, "requests": self.requests, "refused": self.refused}
        return orjson.dumps(told)


def serve(connection: socket.socket, tls: ssl.SSLContext, counts: Counts) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    reader = connection.makefile("rb")
    line, _ = _head(reader)
    if not line.startswith(b"CONNECT "):
        if line.startswith(b"DELETE "):
            counts.forget()
        _answer(connection, 200, counts.tell())
        connection.close()
        return
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    with tls.wrap_socket(connection, server_side=True) as secure:
        reader = secure.makefile("rb")
        while (request := _head(reader))[0]:
            line, length = request
            body = reader.read(length)
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
