"""HTTP/1.1 over TLS: a transport for `requests` whose connections are reused only while nothing unexpected has come on them.

h11 parses the responses; this module connects, bounds the time, and decides which connections are kept. A connection is closed
after a response that was not read to its end, that is framed in an unusual way, or that is followed by any other byte, and
before a request if unread bytes have arrived. Bytes that a server sends after that check could be read as the response to the
next request, so a connection is reused for the same owner only.

A host's addresses are looked up once, all of them must be public, and one of them is connected to: the name's addresses cannot
change between the check and the connection. Behind a proxy (`HTTPS_PROXY`) the proxy resolves and checks names.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import certifi
import h11
import requests
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict
from requests.utils import get_environ_proxies, select_proxy

from portaria.outbound import public_addresses

# Kept connections of one process, and for how long each may be idle: below the idle time-outs of common load balancers.
MAX_KEPT = 10
MAX_IDLE_S = 55.0
MAX_HEAD_BYTES = 65_536
MAX_INTERIM_ANSWERS = 20
_CHUNK = 65_536
_UNUSUAL_LINE_END = re.compile(rb"(?<!\r)\n|\n[ \t]")


class NotSent(requests.exceptions.ConnectionError):
    """The connection failed, so nothing was sent. The only argument is the kind of the cause."""


class ProxyError(ConnectionError):
    """The proxy does not answer, or refuses to connect."""


class NoAnswer(requests.exceptions.ConnectionError):
    """The request may have arrived, and no complete response came. The only argument is the kind of the cause."""


class Limits(NamedTuple):
    """The time limits of one exchange. `ends_at` is by `time.monotonic`; the connection is kept for the account `owner`."""

    connect_s: float
    read_s: float
    ends_at: float
    owner: str = ""

    def step_s(self, step_s: float) -> float:
        """The time-out of one step: its own, but no more than the remaining time of the exchange. Raises `TimeoutError`."""
        left_s = self.ends_at - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the exchange has had all its time")
        return min(left_s, step_s)


class Transport(BaseAdapter):
    """Keeps a process's connections. Follows no redirect, retries nothing, keeps no cookie, reads no .netrc."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: list[_Connection] = []
        self._lock = threading.Lock()
        self._tls: dict[str, ssl.SSLContext] = {}

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = True,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> requests.Response:
        """Send a request; the body of its response is read through `raw`. `timeout` is a `Limits`.

        Raises `NotSent`, `NoAnswer`, and `Rejected` for a host whose addresses are not public.
        """
        return self.begin(request, timeout).answer(timeout)

    def begin(self, request: requests.PreparedRequest, limits: Limits) -> SentRequest:
        """Send a request without waiting for its response. Raises as `send`."""
        host = urlsplit(request.url or "").hostname or ""
        connection = self._take(limits.owner, host) or self._dial(limits, host, request.url or "")
        try:
            connection.begin(request, host, limits)
        except h11.LocalProtocolError as error:
            connection.close()
            raise NotSent(type(error).__name__) from error
        except (OSError, h11.ProtocolError) as error:
            connection.close()
            raise NoAnswer(type(error).__name__) from error
        return SentRequest(self, connection, request)

    def close(self) -> None:
        """Close every kept connection."""
        with self._lock:
            kept, self._kept = self._kept, []
        for connection in kept:
            connection.close()

    def keep(self, connection: _Connection) -> None:
        """Keep a connection whose response has been read to its end, if it can be reused."""
        if not connection.is_reusable():
            connection.close()
            return
        connection.idle_since = time.monotonic()
        with self._lock:
            self._kept.append(connection)
            surplus = self._kept[:-MAX_KEPT]
            del self._kept[:-MAX_KEPT]
        for other in surplus:
            other.close()

    def _take(self, owner: str, host: str) -> _Connection | None:
        while True:
            with self._lock:
                mine = [one for one in self._kept if (one.owner, one.host) == (owner, host)]
                if not mine:
                    return None
                connection = mine[-1]
                self._kept.remove(connection)
            if time.monotonic() - connection.idle_since < MAX_IDLE_S and connection.is_silent():
                return connection
            connection.close()

    def _dial(self, limits: Limits, host: str, url: str) -> _Connection:
        try:
            proxy = select_proxy(url, get_environ_proxies(url))
            if proxy:
                sock = _through_proxy(proxy, host, limits)
            else:
                sock = _connect(public_addresses.resolve_public(host, 443, limits.step_s(limits.connect_s)), limits)
            try:
                sock.settimeout(limits.step_s(limits.connect_s))
                tls = self._context().wrap_socket(sock, server_hostname=host)
            except BaseException:
                sock.close()
                raise
        except (OSError, h11.ProtocolError) as error:
            raise NotSent(type(error).__name__) from error
        connection = _Connection(tls, limits.owner, host)
        if not connection.is_silent():
            connection.close()
            raise NotSent("bytes came before the request")
        return connection

    def _context(self) -> ssl.SSLContext:
        trusted = os.environ.get("REQUESTS_CA_BUNDLE") or certifi.where()
        context = self._tls.get(trusted)
        if context is None:
            context = self._tls[trusted] = ssl.create_default_context(cafile=trusted)
            context.set_alpn_protocols(["http/1.1"])
        return context


class SentRequest:
    """A request whose response has not been read. Call either `answer` or `close`."""

    def __init__(self, transport: Transport, connection: _Connection, request: requests.PreparedRequest) -> None:
        self._transport = transport
        self._connection = connection
        self._request = request

    def answer(self, limits: Limits) -> requests.Response:
        """Wait for the head of the response; the body is read through `raw`. Raises `NoAnswer`."""
        try:
            head = self._connection.head(limits)
        except (OSError, h11.ProtocolError) as error:
            self._connection.close()
            raise NoAnswer(type(error).__name__) from error
        response = requests.Response()
        response.status_code = head.status_code
        response.reason = head.reason.decode("latin-1")
        response.headers = CaseInsensitiveDict(_joined(head.headers))
        response.raw = Body(self._transport, self._connection, limits)
        response.request = self._request
        response.url = self._request.url or ""
        return response

    def close(self) -> None:
        """Close the connection without reading the response."""
        self._connection.close()


class Body:
    """The body of a response, still encoded as the server sent it."""

    def __init__(self, transport: Transport, connection: _Connection, limits: Limits) -> None:
        self._transport = transport
        self._connection: _Connection | None = connection
        self._limits = limits

    def read(self, amount: int, decode_content: bool = False) -> bytes:
        """At most `amount` bytes, fewer only at the end. Raises `NoAnswer`. Nothing is decoded."""
        found = bytearray()
        while self._connection and len(found) < amount:
            try:
                part = self._connection.read(self._limits)
            except (OSError, h11.ProtocolError) as error:
                self.close()
                raise NoAnswer(type(error).__name__) from error
            if part is None:
                connection, self._connection = self._connection, None
                self._transport.keep(connection)
            else:
                found += part
        return bytes(found[:amount])

    def close(self) -> None:
        """Close the connection if its response was not read to its end."""
        if self._connection:
            self._connection.close()
            self._connection = None


class _Connection:
    """One connection to `host`, for one request at a time. Raises `OSError` and `h11.ProtocolError`."""

    def __init__(self, sock: ssl.SSLSocket | socket.socket, owner: str, host: str) -> None:
        self.owner = owner
        self.host = host
        self.idle_since = 0.0
        self._sock = sock
        self._http = h11.Connection(h11.CLIENT, MAX_HEAD_BYTES)
        self._unusual = False

    def begin(self, request: requests.PreparedRequest, host: str, limits: Limits) -> None:
        """Send a request."""
        headers = [("Host", host), *request.headers.items()]
        if self._http.our_state is h11.DONE:
            self._http.start_next_cycle()
        head = h11.Request(method=request.method or "", target=request.path_url, headers=headers)
        body = request.body.encode() if isinstance(request.body, str) else request.body or b""
        data = [
            self._http.send(head),
            self._http.send(h11.Data(body)) if body else b"",
            self._http.send(h11.EndOfMessage()),
        ]
        try:
            self._write(b"".join(part or b"" for part in data), limits)
        except TimeoutError:
            raise
        except OSError:
            # A server may refuse a request before it has read all of it, and its response may have arrived.
            self._unusual = True

    def head(self, limits: Limits) -> h11.Response:
        """The final response's head. Interim responses are skipped (RFC 9110, 15.2); h11 refuses an unrequested 101."""
        read = bytearray()
        for _ in range(MAX_INTERIM_ANSWERS + 1):
            event = self._event(limits, read)
            if isinstance(event, h11.Response):
                rest = len(self._http.trailing_data[0])
                names = {name for name, _ in event.headers}
                # RFC 9112, 2.2, 5.2 and 6.3: recipients differ in how they parse these.
                self._unusual |= bool(_UNUSUAL_LINE_END.search(read, 0, len(read) - rest))
                self._unusual |= {b"content-length", b"transfer-encoding"} <= names
                return event
            if not isinstance(event, h11.InformationalResponse):
                break
        raise h11.RemoteProtocolError("no answer, or too many interim answers")

    def read(self, limits: Limits) -> bytes | None:
        """The next part of the body; None at its end."""
        event = self._event(limits)
        if isinstance(event, h11.Data):
            return bytes(event.data)
        if isinstance(event, h11.EndOfMessage):
            return None
        raise h11.RemoteProtocolError("the connection ended within the answer")

    def is_reusable(self) -> bool:
        """Whether the last exchange is complete, was framed in the usual way, and no byte followed it."""
        ended = (self._http.our_state, self._http.their_state) == (h11.DONE, h11.DONE)
        return ended and not self._unusual and self._http.trailing_data == (b"", False)

    def is_silent(self) -> bool:
        """Whether the connection is open and has no unread byte. Does not wait."""
        try:
            self._sock.settimeout(0)
            self._sock.recv(1)
        except (ssl.SSLWantReadError, BlockingIOError):
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        with suppress(OSError):
            self._sock.close()

    def _event(self, limits: Limits, read: bytearray | None = None) -> Any:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._sock.settimeout(limits.step_s(limits.read_s))
            data = self._sock.recv(_CHUNK)
            if read is not None:
                read += data
            self._http.receive_data(data)
        return event

    def _write(self, data: bytes, limits: Limits) -> None:
        left = memoryview(data)
        while left:
            self._sock.settimeout(limits.step_s(limits.read_s))
            left = left[self._sock.send(left) :]


def _connect(found: list[Any], limits: Limits) -> socket.socket:
    """Connect to the first address that answers. `found` is what `getaddrinfo` returned."""
    *others, last = found
    for address in others:
        with suppress(OSError):
            return _connect_to(address, limits)
    return _connect_to(last, limits)


def _connect_to(address: Any, limits: Limits) -> socket.socket:
    family, kind, protocol, _, where = address
    sock = socket.socket(family, kind, protocol)
    try:
        # Nagle's algorithm could delay the last bytes of a request by 40 ms.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(limits.step_s(limits.connect_s))
        sock.connect(where)
    except BaseException:
        sock.close()
        raise
    return sock


def _through_proxy(proxy: str, host: str, limits: Limits) -> socket.socket:
    """Connect to a host through an HTTP proxy, by CONNECT (RFC 9110, 9.3.6). Raises `OSError` where that fails."""
    parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if parts.scheme != "http" or not parts.hostname:
        raise ProxyError("HTTPS_PROXY must be an http:// URL")
    found = public_addresses.resolve(parts.hostname, parts.port or 80, limits.step_s(limits.connect_s))
    sock = _connect(found, limits)
    try:
        target = f"{host}:443"
        headers = [("Host", target)]
        if parts.username:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            headers.append(("Proxy-Authorization", f"Basic {b64encode(pair.encode()).decode()}"))
        tunnel = h11.Connection(h11.CLIENT, MAX_HEAD_BYTES)
        sock.sendall(tunnel.send(h11.Request(method="CONNECT", target=target, headers=headers)) or b"")
        while not isinstance(event := tunnel.next_event(), h11.Response):
            if event is h11.NEED_DATA:
                sock.settimeout(limits.step_s(limits.connect_s))
                tunnel.receive_data(sock.recv(_CHUNK))
            elif not isinstance(event, h11.InformationalResponse):
                raise ProxyError("the proxy did not answer")
        if not 200 <= event.status_code < 300 or tunnel.trailing_data[0]:
            raise ProxyError("the proxy did not connect")
    except BaseException:
        sock.close()
        raise
    return sock


def _joined(headers: Any) -> Iterator[tuple[str, str]]:
    """Headers by name, the values of one name joined (RFC 9110, 5.3)."""
    found: dict[str, list[str]] = {}
    for name, value in headers:
        found.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
    return ((name, ", ".join(values)) for name, values in found.items())
