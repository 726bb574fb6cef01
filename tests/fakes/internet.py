"""The internet as a socket sees it: names have the addresses that a test gives them, and every dial is written down.

An address leads to a port of this machine where the test routes it there, and is refused otherwise, so a test can say
that nothing but what it allowed was ever dialled. `Server` is an https server to route one to.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trustme

# A public address that is not in use here.
ADDRESS = "93.184.215.14"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

Script = Callable[[ssl.SSLSocket], object]


class Internet:
    """`names` gives a name its addresses, `elsewhere` those of every other name; `routes` leads an address to a local port."""

    def __init__(self) -> None:
        self.names: dict[str, list[str]] = {}
        self.elsewhere = ["198.41.0.4"]
        self.routes: dict[str, int] = {}
        self.looked_up: list[str] = []
        self.dialled: list[tuple[str, int]] = []

    def getaddrinfo(self, host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        self.looked_up.append(host)
        found: list[Any] = []
        for address in self.names.get(host, self.elsewhere):
            version = ipaddress.ip_address(address).version
            family, rest = (socket.AF_INET6, (0, 0)) if version == 6 else (socket.AF_INET, ())
            found.append((family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port, *rest)))
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return found

    def connect(self, sock: socket.socket, address: tuple[Any, ...]) -> None:
        self.dialled.append((address[0], address[1]))
        local_port = self.routes.get(address[0])
        if local_port is None:
            raise ConnectionRefusedError("nobody listens here")
        _real_connect(sock, ("127.0.0.1", local_port))


_real_connect = socket.socket.connect


@contextmanager
def internet() -> Iterator[Internet]:
    fake = Internet()

    def connect(sock: socket.socket, address: tuple[Any, ...]) -> None:
        fake.connect(sock, address)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(socket, "getaddrinfo", fake.getaddrinfo)
        patched.setattr(socket.socket, "connect", connect)
        yield fake


class Server:
    """An https server on loopback. Each connection is handed to the next of `scripts`, the last one for ever."""

    def __init__(self, authority: trustme.CA, *hosts: str) -> None:
        self.scripts: list[Script] = [lambda tls: tls.sendall(OK)]
        self.requests: list[bytes] = []
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(*hosts).configure_cert(self._context)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                raw, _ = self._listener.accept()
            except OSError:
                return
            raw.settimeout(10)
            threading.Thread(target=self._accept, args=(raw,), daemon=True).start()

    def _accept(self, raw: socket.socket) -> None:
        with raw:
            try:
                tls = self._context.wrap_socket(raw, server_side=True)
            except OSError:
                return
            with tls:
                self._one_connection(tls)

    def _one_connection(self, tls: ssl.SSLSocket) -> None:
        script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        try:
            while request := self._read(tls):
                self.requests.append(request)
                if script(tls) is False:
                    return
        except OSError:
            return

    @staticmethod
    def _read(tls: ssl.SSLSocket) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            received = tls.recv(65536)
            if not received:
                return b""
            data += received
        head, _, body = data.partition(b"\r\n\r\n")
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                while len(body) < int(line.split(b":")[1]):
                    body += tls.recv(65536)
        return head + b"\r\n\r\n" + body

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)


def answering(text: bytes, *, then_close: bool = True) -> Script:
    """Announces that it closes; otherwise the next request might use a connection that is about to end."""
    said = text.replace(b"\r\n", b"\r\nConnection: close\r\n", 1) if then_close else text

    def script(tls: ssl.SSLSocket) -> bool:
        tls.sendall(said)
        return not then_close

    return script


def redirect(status: int, location: str) -> bytes:
    return f"HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()
