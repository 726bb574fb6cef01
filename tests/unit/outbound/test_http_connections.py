"""Which connections are kept and for whom, how unusual responses are handled, and how a proxy is used."""

from __future__ import annotations

import gzip
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trustme

from portaria.core.errors import Retryable
from portaria.core.http.messages import Request, Response
from portaria.outbound import http_client, http_exchange, http_transport
from tests.fakes.internet import ADDRESS, OK, Internet, Server, answering, internet

pytestmark = pytest.mark.enable_socket

HOST = "acme.kommo.com"


@pytest.fixture
def net(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Internet]:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    http_exchange.transport.close()
    with internet() as outside:
        yield outside
        http_exchange.transport.close()


@pytest.fixture
def server(authority: trustme.CA, net: Internet) -> Iterator[Server]:
    server = Server(authority, HOST)
    net.names[HOST] = [ADDRESS]
    net.routes[ADDRESS] = server.port
    yield server
    http_exchange.transport.close()
    server.close()


def get(owner: str = "one", host: str = HOST, method: str = "GET", body: bytes | None = None) -> Response:
    request = Request(method, f"https://{host}/x", {}, body, connect_timeout_s=2.0, read_timeout_s=2.0)
    return http_client.send(request, allowed_domain=host, owner=owner)


# -------------------------------------------------------------------------------------------------------------- keep-alive


def test_http_connection_same_owner_is_reused(server: Server, net: Internet) -> None:
    for _ in range(3):
        assert get("one").body == b"ok"
    assert len(net.dialled) == 1


def test_http_connection_another_owner_is_not_shared(authority: trustme.CA, net: Internet) -> None:
    """Given two owners of one host, when each sends a request, then each has its own connection, and keeps it."""
    servers = [Server(authority, HOST), Server(authority, HOST)]
    for owner in ("one", "two", "one", "two"):
        net.names[HOST] = [f"1.1.1.{owner == 'two':d}"]
        net.routes = {"1.1.1.0": servers[0].port, "1.1.1.1": servers[1].port}
        assert get(owner).body == b"ok"
    http_exchange.transport.close()
    assert net.dialled == [("1.1.1.0", 443), ("1.1.1.1", 443)]
    assert [len(each.requests) for each in servers] == [2, 2]
    for each in servers:
        each.close()


def test_http_connection_idle_too_long_is_not_reused(
    server: Server, net: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    get()
    monkeypatch.setattr(http_transport, "MAX_IDLE_S", -1.0)
    get()
    assert len(net.dialled) == 2


def test_http_connections_beyond_limit_close_the_oldest(authority: trustme.CA, net: Internet) -> None:
    servers = []
    count = http_transport.MAX_KEPT + 1
    for number in range(count):
        host = f"host{number}.kommo.com"
        servers.append(Server(authority, host))
        net.names[host] = [f"1.1.2.{number}"]
        net.routes[f"1.1.2.{number}"] = servers[-1].port
        get(host=host)
    net.dialled.clear()
    for number in reversed(range(count)):
        get(host=f"host{number}.kommo.com")
    http_exchange.transport.close()
    for each in servers:
        each.close()
    assert net.dialled == [("1.1.2.0", 443)]


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
        OK + b"\r\n",
    ],
)
def test_http_connection_unusual_answer_is_read_and_connection_closed(
    server: Server, net: Internet, head: bytes
) -> None:
    answers = [head, OK]

    def script(tls: ssl.SSLSocket) -> bool:
        tls.sendall(answers.pop(0))
        return bool(answers) and tls.recv(1) != b""

    server.scripts = [script]
    assert get().body == b"ok"
    assert get().body == b"ok"
    assert len(net.dialled) == 2


# --------------------------------------------------------------------------------------------------------------- responses


@pytest.mark.parametrize(
    "interim",
    [
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n",
        b"HTTP/1.1 102 Processing\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n",
        b"HTTP/1.1 199 Other\r\nX: y\r\n\r\n" * http_transport.MAX_INTERIM_ANSWERS,
    ],
)
def test_http_connection_interim_answers_are_skipped(server: Server, net: Internet, interim: bytes) -> None:
    server.scripts = [lambda tls: tls.sendall(interim + OK)]
    for _ in range(2):
        answer = get(method="POST", body=b"refresh_token=x")
        assert (answer.status, answer.body) == (200, b"ok")
    assert len(net.dialled) == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n" + OK,
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * (http_transport.MAX_INTERIM_ANSWERS + 1) + OK,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000 + b"\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/2 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ],
)
def test_http_connection_malformed_answer_is_a_lost_answer(server: Server, answer: bytes) -> None:
    server.scripts = [lambda tls: tls.sendall(answer)]
    with pytest.raises(Retryable) as lost:
        get()
    assert (lost.value.reason, lost.value.answer_lost) == ("no_answer", True)


def test_http_connection_answer_before_request_is_complete_is_returned(server: Server) -> None:
    """Given a server that refuses a large request after its head and closes, then its response is returned."""

    def refuse(tls: ssl.SSLSocket) -> bytes:
        tls.recv(1000)
        tls.sendall(b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        with suppress(OSError):
            while tls.recv(65536):
                pass
        return b""

    server._read = refuse  # type: ignore[method-assign]
    assert get(method="POST", body=bytes(3_000_000)).status == 413


@pytest.mark.parametrize(
    ("coding", "body", "shown", "left"),
    [
        ("gzip", b'{"error":"invalid_grant"}', b'{"error":"invalid_grant"}', None),
        ("gzip, identity", gzip.compress(b"ok", mtime=0), b"ok", None),
        ("br", b"\x0b\x02\x80", b"\x0b\x02\x80", "br"),
        ("gzip", gzip.compress(b"ok" * 50, mtime=0)[:-9], gzip.compress(b"ok" * 50, mtime=0)[:-9], "gzip"),
    ],
)
def test_http_connection_mislabelled_body_keeps_status(
    server: Server, coding: str, body: bytes, shown: bytes, left: str | None
) -> None:
    head = f"HTTP/1.1 400 Bad Request\r\nContent-Encoding: {coding}\r\nContent-Length: {len(body)}\r\n\r\n"
    server.scripts = [answering(head.encode() + body)]
    answer = get()
    assert (answer.status, answer.body, answer.headers.get("content-encoding")) == (400, shown, left)


def test_http_connection_repeated_headers_are_joined(server: Server) -> None:
    server.scripts = [answering(b"HTTP/1.1 200 OK\r\nVary: A\r\nContent-Length: 0\r\nVARY: b\r\n\r\n")]
    assert get().headers["vary"] == "A, b"


# ------------------------------------------------------------------------------------------------------------------ proxy


@pytest.fixture
def proxy(authority: trustme.CA, net: Internet, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    proxy = Proxy(authority)
    net.names["proxy.internal"] = ["10.0.0.7"]
    net.routes["10.0.0.7"] = proxy.port
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.internal:3128")
    yield proxy
    http_exchange.transport.close()
    proxy.close()


class Proxy:
    """Answers CONNECT with `answer`, then plays the host."""

    answer = b"HTTP/1.1 200 Connection established\r\n\r\n"

    def __init__(self, authority: trustme.CA) -> None:
        self.asked: list[bytes] = []
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(HOST).configure_cert(self._context)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                raw, _ = self._listener.accept()
                raw.settimeout(5)
                with raw, suppress(OSError):
                    self.asked.append(raw.recv(65536))
                    raw.sendall(self.answer)
                    with self._context.wrap_socket(raw, server_side=True) as tls:
                        while tls.recv(65536):
                            tls.sendall(OK)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)


def test_http_connection_through_proxy_is_reused(proxy: Proxy, net: Internet) -> None:
    for _ in range(3):
        assert get().body == b"ok"
    assert net.dialled == [("10.0.0.7", 3128)]
    assert proxy.asked == [b"CONNECT acme.kommo.com:443 HTTP/1.1\r\nHost: acme.kommo.com:443\r\n\r\n"]


def test_http_connection_proxy_credentials_are_sent_to_proxy_only(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://user:p%40ss@proxy.internal:3128")
    assert get().body == b"ok"
    assert b"\r\nProxy-Authorization: Basic dXNlcjpwQHNz\r\n" in proxy.asked[0]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 301 Moved\r\nLocation: https://evil.example/\r\nContent-Length: 0\r\n\r\n",
        b"nonsense\r\n\r\n",
    ],
)
def test_http_connection_invalid_proxy_answer_is_not_sent(proxy: Proxy, answer: bytes) -> None:
    proxy.answer = answer
    with pytest.raises(Retryable) as unreached:
        get()
    assert (unreached.value.reason, unreached.value.answer_lost) == ("unreachable", False)


@pytest.mark.parametrize("url", ["socks5://proxy.internal:1080", "https://proxy.internal:3128", "http://"])
def test_http_connection_unsupported_proxy_scheme_is_not_dialled(
    proxy: Proxy, net: Internet, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", url)
    with pytest.raises(Retryable, match=r"unreachable: .* was not reached: ProxyError"):
        get()
    assert net.dialled == []


def test_http_connection_no_proxy_host_is_dialled_directly(
    proxy: Proxy, server: Server, net: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", HOST)
    assert get().body == b"ok"
    assert net.dialled == [(ADDRESS, 443)]
