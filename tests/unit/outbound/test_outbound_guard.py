"""The guarded HTTP client: what it refuses before a byte is sent, and how it handles every kind of broken response."""

from __future__ import annotations

import gzip
import json
import socket
import ssl
import threading
import time
import traceback
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
import responses
import trustme
import urllib3
from hypothesis import example, given
from hypothesis import strategies as st

from portaria.core import clock
from portaria.core.errors import Rejected, Retryable
from portaria.core.http.messages import Request, Response
from portaria.outbound import http_client, http_exchange, public_addresses
from tests.fakes.internet import ADDRESS, OK, Internet, Server, answering, internet, redirect
from tests.fakes.paths import HOSTILE_URLS as CORPUS

HOST = "acme.kommo.com"
URL = f"https://{HOST}/api/v4/account"
HOSTILE_URLS = [json.loads(line) for line in CORPUS.read_text().splitlines() if line and not line.startswith("#")]


@contextmanager
def no_byte_leaves() -> Iterator[None]:
    """Nothing is resolved or dialled inside this context."""
    with internet() as outside:
        yield
    assert (outside.looked_up, outside.dialled) == ([], [])


# -------------------------------------------------------------------------------------------------------------- refusals


def test_hostile_url_corpus_is_large_and_unique() -> None:
    assert len(HOSTILE_URLS) >= 250
    assert len(set(HOSTILE_URLS)) == len(HOSTILE_URLS)


@pytest.mark.parametrize("url", HOSTILE_URLS, ids=lambda url: ascii(url)[1:61])
def test_http_client_send_hostile_url_is_refused_without_traffic(url: str) -> None:
    with no_byte_leaves(), pytest.raises(Rejected) as refused:
        http_client.send(Request("POST", url, {"Authorization": "Bearer canary"}, b"canary"), allowed_domain=HOST)
    assert refused.value.reason in ("bad_url", "host_not_allowed")
    assert refused.value.field == "url"
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        URL,
        f"https://{HOST}",
        f"https://{HOST}:443/x",
        f"HTTPS://{HOST.upper()}/x",
        f"https://{HOST}/a?b=https://evil.example/#@evil.example",
        f"https://{HOST}//evil.example/",
        f"https://{HOST}/..;/@evil.example",
    ],
)
def test_http_client_send_valid_url_is_sent_to_its_host(url: str) -> None:
    with responses.RequestsMock() as mock:
        mock.add(responses.GET, url)
        http_client.send(Request("GET", url), allowed_domain=HOST)
        assert host_dialled(str(mock.calls[0].request.url)) == (HOST, None if ":443" not in url else 443)


def host_dialled(url: str) -> tuple[str | None, int | None]:
    """The host as urllib3 reads it, which differs from urllib.parse: both must agree on each URL that passes."""
    read = urllib3.util.parse_url(url)
    assert read.host == urlsplit(url).hostname
    return read.host, read.port


PIECES = [
    *("https:", "/", "//", HOST, "evil.example", "@", ":", "443", "\\", "?", "#", "%2e", "%40", ".", "[", "]", "::1"),
    *(";", "\t", "kommo.com", "acme", "&", "\u3002", "x"),
]


@given(st.lists(st.sampled_from(PIECES), max_size=10).map(lambda pieces: "https://" + "".join(pieces)))
@example(f"https://{HOST}/@evil.example")
def test_http_client_check_accepted_url_is_dialled_at_allowed_host(url: str) -> None:
    """Given any URL that the check allows, then the library that dials reads the same host in it."""
    try:
        http_client.check(Request("GET", url), HOST)
    except Rejected:
        return
    prepared = requests.Request("GET", url).prepare()
    host, port = host_dialled(str(prepared.url))
    assert (host, port or 443) == (HOST, 443)


@pytest.mark.parametrize("read_as", [f"https://evil.example/{HOST}", requests.exceptions.InvalidURL("no host")])
def test_http_client_send_url_parsed_differently_by_requests_is_refused(
    monkeypatch: pytest.MonkeyPatch, read_as: str | Exception
) -> None:
    """Given two parsers of one URL that differ, then the request is not sent to either host."""

    def prepare_url(prepared: requests.PreparedRequest, url: str, params: object) -> None:
        if isinstance(read_as, Exception):
            raise read_as
        prepared.url = read_as

    monkeypatch.setattr(requests.PreparedRequest, "prepare_url", prepare_url)
    with no_byte_leaves(), pytest.raises(Rejected, match="bad_url"):
        http_client.send(Request("POST", URL, {"Authorization": "Bearer canary"}, b"canary"), allowed_domain=HOST)


@pytest.mark.parametrize(
    ("host", "domain", "allowed"),
    [
        (HOST, HOST, True),
        (HOST, "*.kommo.com", True),
        ("kommo.com", "*.kommo.com", True),
        ("a.b.kommo.com", "*.kommo.com", True),
        ("evilkommo.com", "*.kommo.com", False),
        ("kommo.com.evil.example", "*.kommo.com", False),
        (".kommo.com", "*.kommo.com", False),
        ("kommo.com.", "*.kommo.com", False),
        ("x.acme.kommo.com", HOST, False),
        ("", "", False),
        ("", "*.", False),
        ("evil.example", "*.", False),
        ("evil.example", "*", False),
        ("127.0.0.1", "127.0.0.1", False),
        ("127.0.0.1", "*.0.0.1", False),
        (f"{HOST}\n", HOST, False),
        (HOST.upper(), HOST, False),
        (f"{'a.' * 130}kommo.com", "*.kommo.com", False),
    ],
)
def test_host_allowed_matches_exact_and_wildcard_domains(host: str, domain: str, allowed: bool) -> None:
    assert http_client.host_allowed(host, domain) is allowed


@pytest.mark.parametrize(
    "name",
    [
        *sorted(http_client.FORBIDDEN_HEADERS), "Host", "HOST", "Cookie", "X-Amz-Security-Token", "X-AMZN-Trace-Id",
        "X-Forwarded-For", "x-forwarded-host", "Transfer-Encoding", "Content-Length", "Proxy-Authorization",
        "X_Forwarded_For", "X_AMZ_DATE", "Transfer_Encoding", "content_length", "X_Real_IP",
    ],
)  # fmt: skip
def test_http_client_send_forbidden_header_is_refused(name: str) -> None:
    with no_byte_leaves(), pytest.raises(Rejected, match="forbidden_header"):
        http_client.send(Request("GET", URL, {name: "canary"}), allowed_domain=HOST)


@pytest.mark.parametrize("name", ["", " ", "a b", "a:", "a\r\nHost", "a\n", "ä", "(a)", "a\x00", "a,b"])
def test_http_client_send_invalid_header_name_is_refused(name: str) -> None:
    with no_byte_leaves(), pytest.raises(Rejected, match="bad_header"):
        http_client.send(Request("GET", URL, {name: "x"}), allowed_domain=HOST)


@pytest.mark.parametrize(
    "value",
    ["a\r\nHost: evil.example", "a\n", "\r", "a\x00b", "\x7f", "ä", "\u2028", "\x1b[0m", "a\r\n\r\nGET / HTTP/1.1"],
)
def test_http_client_send_header_value_with_control_character_is_refused(value: str) -> None:
    with no_byte_leaves(), pytest.raises(Rejected, match="bad_header") as refused:
        http_client.send(Request("GET", URL, {"Authorization": f"canary{value}"}), allowed_domain=HOST)
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize("value", [" canary", "canary ", "\tcanary", " "])
def test_http_client_send_header_value_with_outer_space_is_refused(value: str) -> None:
    """`requests` refuses them as well, but with an error that reads as if the request had been sent."""
    with no_byte_leaves(), pytest.raises(Rejected, match="bad_header"):
        http_client.send(Request("GET", URL, {"Authorization": value}), allowed_domain=HOST)


# ---------------------------------------------------------------------------------------------- responses over real TLS


@pytest.fixture(autouse=True)
def session() -> Iterator[None]:
    """No connection of another test is left, as in a new process."""
    http_exchange.transport.close()
    yield
    http_exchange.transport.close()


@pytest.fixture
def net() -> Iterator[Internet]:
    with internet() as outside:
        yield outside


@pytest.fixture
def server(authority: trustme.CA, net: Internet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    server = Server(authority, HOST)
    net.names[HOST] = [ADDRESS]
    net.routes[ADDRESS] = server.port
    yield server
    http_exchange.transport.close()
    server.close()


def get(**options: Any) -> Response:
    options = {"connect_timeout_s": 2.0, **options}
    request = Request("GET", URL, {"Authorization": "Bearer canary"}, **options)
    return http_client.send(request, allowed_domain=HOST)


@pytest.mark.enable_socket
def test_http_client_send_answer_of_any_status_is_returned(server: Server, net: Internet) -> None:
    server.scripts = [answering(b"HTTP/1.1 503 No\r\nX-Request-ID: 7\r\nContent-Length: 4\r\n\r\nbusy")]
    answer = get()
    assert (answer.status, answer.body) == (503, b"busy")
    assert answer.headers["x-request-id"] == "7"
    assert net.dialled == [(ADDRESS, 443)]
    assert b"\r\nUser-Agent: portaria/1" in server.requests[0]


@pytest.mark.enable_socket
def test_http_client_send_reuses_connection(server: Server, net: Internet) -> None:
    for _ in range(3):
        assert get().body == b"ok"
    assert len(server.requests) == 3
    assert len(net.dialled) == 1


def begun(path: str = "/", **options: Any) -> http_exchange.Exchange:
    request = Request("GET", f"https://{HOST}{path}", {"Authorization": "Bearer canary"}, **options)
    return http_client.begin(request, allowed_domain=HOST)


@pytest.mark.enable_socket
def test_http_client_begin_two_requests_have_a_connection_each(server: Server, net: Internet) -> None:
    """Given a server that answers nothing before both requests have come, then both are answered."""
    both = threading.Barrier(2, timeout=5)

    def script(tls: ssl.SSLSocket) -> bool:
        both.wait()
        tls.sendall(OK)
        return True

    server.scripts = [script]
    for _ in range(2):
        exchanges = [begun("/1"), begun("/2")]
        assert [exchange.response().body for exchange in exchanges] == [b"ok", b"ok"]
    assert sorted(request.split()[1] for request in server.requests) == [b"/1", b"/1", b"/2", b"/2"]
    assert len(net.dialled) == 2


@pytest.mark.enable_socket
def test_exchange_response_that_came_in_time_is_read_after_the_time_is_over(server: Server) -> None:
    exchange = begun(total_timeout_s=0.3)
    time.sleep(0.4)
    assert exchange.response(least_s=1.0).body == b"ok"


@pytest.mark.enable_socket
def test_exchange_response_missing_after_the_time_is_waited_for_no_longer_than_asked(server: Server) -> None:
    server.scripts = [dripping(b"", b"")]
    exchange = begun(total_timeout_s=0.1)
    time.sleep(0.2)
    began = time.monotonic()
    with pytest.raises(Retryable) as lost:
        exchange.response(least_s=0.2)
    assert (lost.value.reason, lost.value.answer_lost) == ("no_answer", True)
    assert time.monotonic() - began < 1.5


@pytest.mark.enable_socket
def test_exchange_closed_unread_leaves_no_connection_for_the_next_request(server: Server, net: Internet) -> None:
    begun().close()
    assert begun().response().body == b"ok"
    assert len(net.dialled) == 2


@pytest.mark.enable_socket
@pytest.mark.parametrize("url", ["http://acme.kommo.com/", "https://evil.example/"])
def test_http_client_begin_request_that_is_not_allowed_is_refused_without_traffic(net: Internet, url: str) -> None:
    with pytest.raises(Rejected):
        http_client.begin(Request("GET", url, {"Authorization": "Bearer canary"}), allowed_domain=HOST)
    assert (net.looked_up, net.dialled) == ([], [])


@pytest.mark.enable_socket
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "location", ["https://evil.example/", f"https://{HOST}/elsewhere", "/elsewhere", "http://127.0.0.1/"]
)
def test_http_client_send_redirect_is_returned_and_not_followed(
    server: Server, net: Internet, status: int, location: str
) -> None:
    server.scripts = [
        answering(f"HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode())
    ]
    answer = get()
    assert (answer.status, answer.headers["location"]) == (status, location)
    assert len(server.requests) == 1
    assert net.dialled == [(ADDRESS, 443)]


@pytest.mark.enable_socket
@pytest.mark.parametrize("size", [0, 999, 1000, 1001, 50_000])
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_http_client_send_answer_over_size_limit_is_refused(server: Server, size: int, framing: str) -> None:
    head = {
        "length": f"Content-Length: {size}\r\n\r\n".encode() + b"x" * size,
        "chunked": b"Transfer-Encoding: chunked\r\n\r\n"
        + (f"{size:x}\r\n".encode() + b"x" * size + b"\r\n" if size else b"")
        + b"0\r\n\r\n",
        "close": b"Connection: close\r\n\r\n" + b"x" * size,
    }[framing]
    server.scripts = [answering(b"HTTP/1.1 200 OK\r\n" + head)]
    if size <= 1000:
        assert get(max_response_bytes=1000).body == b"x" * size
        return
    with pytest.raises(Rejected, match="answer_too_large") as refused:
        get(max_response_bytes=1000)
    assert refused.value.status == 502


@pytest.mark.enable_socket
def test_http_client_send_gzip_bomb_is_refused_with_bounded_memory(server: Server) -> None:
    bomb = gzip.compress(bytes(100_000_000), 1)
    server.scripts = [
        answering(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb) + bomb)
    ]
    tracemalloc.start()
    try:
        with pytest.raises(Rejected, match="answer_too_large"):
            get(max_response_bytes=1_000_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10_000_000


@pytest.mark.enable_socket
def test_http_client_send_gzip_answer_is_decoded(server: Server) -> None:
    body = gzip.compress(b"hello")
    server.scripts = [
        answering(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    ]
    assert get().body == b"hello"


@pytest.mark.enable_socket
@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n123",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        # Truncated heads. `http.client` accepts each of them as a whole response.
        b"HTTP/1.1 202 Accepted",
        b"HTTP/1.1 202 Accepted\r\n",
        b"HTTP/1.1 202 Accepted\r\nContent-Le",
        b"HTTP/1.1 202 Accepted\r\nContent-Length: 1",
        b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n",
        b"HTTP/1.1 204 No Content\r\nDate: x\r\n",
        b"HTTP/1.1 100 Continue\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 Accepted\r\nConnection: close\r\n",
        b"\x00" * 100,
    ],
    ids=lambda answer: ascii(answer)[2:60],
)
def test_http_client_send_truncated_answer_is_a_lost_answer(server: Server, answer: bytes) -> None:
    """Given a request that arrived, when no complete response comes, then the server may have processed it."""
    server.scripts = [answering(answer)]
    with pytest.raises(Retryable) as lost:
        get()
    assert (lost.value.reason, lost.value.answer_lost) == ("no_answer", True)
    assert len(server.requests) == 1
    assert_tells_no_secret(lost.value)


def assert_tells_no_secret(error: Exception) -> None:
    text = "".join(traceback.format_exception(error))
    assert "canary" not in text
    assert HOST in str(error)


@pytest.mark.enable_socket
@pytest.mark.parametrize("before", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345"])
def test_http_client_send_read_timeout_is_a_lost_answer(server: Server, before: bytes) -> None:
    released = threading.Event()

    def silent(tls: ssl.SSLSocket) -> bool:
        tls.sendall(before)
        released.wait(10)
        return False

    server.scripts = [silent]
    with pytest.raises(Retryable) as lost:
        get(read_timeout_s=0.2)
    released.set()
    assert (lost.value.reason, lost.value.answer_lost) == ("no_answer", True)
    assert_tells_no_secret(lost.value)


# The drip ends by itself, so that a test fails instead of hanging if nothing ends it.
DROP_S = 0.02
DROPS = 150


def dripping(before: bytes, drop: bytes) -> Callable[[socket.socket], bool]:
    def script(tls: socket.socket) -> bool:
        tls.sendall(before)
        for _ in range(DROPS):
            time.sleep(DROP_S)
            tls.sendall(drop)
        return False

    return script


@pytest.mark.enable_socket
@pytest.mark.parametrize(
    ("before", "drop"),
    [
        (b"", b"H"),
        (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
        (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", b"x"),
    ],
    ids=["status line", "header", "headers", "body", "chunks", "body without length"],
)
def test_http_client_send_slowly_sent_answer_ends_at_total_timeout(server: Server, before: bytes, drop: bytes) -> None:
    """Given a response whose bytes each arrive in time, when it does not end, then the time for the whole is limited."""
    server.scripts = [dripping(before, drop)]
    began = time.monotonic()
    with pytest.raises(Retryable) as lost:
        get(total_timeout_s=0.25, read_timeout_s=5.0)
    took_s = time.monotonic() - began
    assert (lost.value.reason, lost.value.answer_lost) == ("no_answer", True)
    assert 0.2 < took_s < 1.5
    assert_tells_no_secret(lost.value)


@pytest.mark.enable_socket
def test_http_client_send_slowly_read_request_ends_at_total_timeout(server: Server) -> None:
    def read_slowly(tls: ssl.SSLSocket) -> bytes:
        for _ in range(DROPS // 2):
            time.sleep(2 * DROP_S)
            tls.recv(1000)
        return b""

    server._read = read_slowly  # type: ignore[method-assign]
    began = time.monotonic()
    request = Request("POST", URL, {}, bytes(30_000_000), connect_timeout_s=5.0, total_timeout_s=0.4)
    with pytest.raises(Retryable) as lost:
        http_client.send(request, allowed_domain=HOST)
    assert (lost.value.reason, lost.value.answer_lost) == ("no_answer", True)
    assert time.monotonic() - began < 1.5


@pytest.mark.enable_socket
def test_http_client_send_without_total_timeout_is_limited_by_other_timeouts(server: Server) -> None:
    server.scripts = [dripping(b"", b"H")]
    began = time.monotonic()
    with pytest.raises(Retryable):
        get(connect_timeout_s=0.2, read_timeout_s=0.2)
    assert time.monotonic() - began < 1.5


@pytest.mark.enable_socket
def test_http_client_send_reused_connection_has_its_own_timeout(server: Server) -> None:
    """Given a connection whose last exchange had a short limit, when it is used again, then that limit does not apply."""
    get(total_timeout_s=0.3)
    time.sleep(0.4)
    assert get(total_timeout_s=5.0).body == b"ok"
    assert len(server.requests) == 2


@pytest.mark.enable_socket
def test_http_client_send_tls_error_after_request_is_a_lost_answer(server: Server) -> None:
    """Given a request that arrived, when the response's TLS is garbled, then the server may have processed it."""

    def garble(tls: ssl.SSLSocket) -> bool:
        with socket.socket(fileno=tls.detach()) as raw:
            raw.sendall(b"\x17\x03\x03\x00\x20" + b"\x00" * 32)
        return False

    server.scripts = [garble]
    with pytest.raises(Retryable) as lost:
        get()
    assert len(server.requests) == 1
    assert lost.value.answer_lost is True


@pytest.mark.enable_socket
def test_http_client_send_reused_connection_closed_is_not_retried(server: Server) -> None:
    """Given a kept connection, when the server reads a request and closes, then the request is not sent again silently."""
    replies = [OK, b""]

    def script(tls: ssl.SSLSocket) -> bool:
        reply = replies.pop(0)
        tls.sendall(reply)
        return bool(reply)

    server.scripts = [script]
    get()
    with pytest.raises(Retryable) as lost:
        get()
    assert lost.value.answer_lost is True
    assert len(server.requests) == 2


# ------------------------------------------------------------------------------------------------------- nothing was sent


def assert_not_sent(server: Server | None = None, **options: Any) -> Retryable:
    with pytest.raises(Retryable) as unreached:
        get(**options)
    assert unreached.value.answer_lost is False
    assert_tells_no_secret(unreached.value)
    if server:
        assert server.requests == []
    return unreached.value


@pytest.mark.enable_socket
def test_http_client_send_connection_refused_is_not_sent(net: Internet) -> None:
    assert assert_not_sent().reason == "unreachable"
    assert net.dialled


def closed() -> tuple[str, int]:
    """An address on loopback without a listener."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address: tuple[str, int] = free.getsockname()
    return address


@pytest.mark.enable_socket
def test_http_client_send_name_not_found_is_not_sent(net: Internet) -> None:
    net.names[HOST] = []
    assert assert_not_sent().detail.endswith("its name could not be resolved")
    assert net.dialled == []


@pytest.mark.enable_socket
def test_http_client_send_name_lookup_timeout_is_not_sent(net: Internet, monkeypatch: pytest.MonkeyPatch) -> None:
    """`getaddrinfo` has no timeout of its own."""
    released = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: released.wait(10))
    began = time.monotonic()
    try:
        assert assert_not_sent(connect_timeout_s=0.2).reason == "unreachable"
    finally:
        released.set()
    assert time.monotonic() - began < 2
    assert net.dialled == []


@pytest.mark.enable_socket
def test_http_client_send_connect_timeout_is_not_sent(net: Internet, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_long(*_: object) -> None:
        raise TimeoutError("timed out")

    monkeypatch.setattr(net, "connect", too_long)
    assert assert_not_sent().reason == "unreachable"


@pytest.mark.enable_socket
def test_http_client_send_tls_handshake_timeout_is_not_sent(net: Internet) -> None:
    """Given a server that accepts the connection and stays silent, then no byte of the request was sent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        net.routes[net.elsewhere[0]] = listener.getsockname()[1]
        assert assert_not_sent(connect_timeout_s=0.2).reason == "unreachable"


@pytest.mark.enable_socket
def test_http_client_send_tls_handshake_closed_is_not_sent(net: Internet) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            raw, _ = listener.accept()
            raw.close()

        thread = threading.Thread(target=hang_up, daemon=True)
        thread.start()
        net.routes[net.elsewhere[0]] = listener.getsockname()[1]
        assert assert_not_sent().reason == "unreachable"
        thread.join(5)


@pytest.mark.enable_socket
def test_http_client_send_certificate_of_unknown_authority_is_not_sent(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    assert assert_not_sent(server).reason == "unreachable"


@pytest.mark.enable_socket
def test_http_client_send_certificate_for_another_name_is_not_sent(server: Server, net: Internet) -> None:
    net.names["other.kommo.com"] = [ADDRESS]
    with pytest.raises(Retryable) as unreached:
        http_client.send(Request("GET", "https://other.kommo.com/", {"X": "canary"}), allowed_domain="other.kommo.com")
    assert unreached.value.answer_lost is False
    assert server.requests == []


@pytest.mark.enable_socket
@pytest.mark.parametrize("answer", [b"HTTP/1.1 502 Bad Gateway\r\n\r\n", b"HTTP/1.1 407 Who\r\n\r\n"])
def test_http_client_send_proxy_refuses_connect_is_not_sent(monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def proxy() -> None:
            raw, _ = listener.accept()
            with raw:
                heard.append(raw.recv(65536))
                raw.sendall(answer)

        thread = threading.Thread(target=proxy, daemon=True)
        thread.start()
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{listener.getsockname()[1]}")
        assert_not_sent()
        thread.join(5)
    assert heard[0].startswith(f"CONNECT {HOST}:443 ".encode())
    assert b"canary" not in heard[0]


@pytest.mark.enable_socket
def test_http_client_send_proxy_resolves_the_host_name(
    authority: trustme.CA, server: Server, net: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a proxy on a private address, then it is dialled and asked for the host by name, and TLS is with the host."""
    asked: list[bytes] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(HOST).configure_cert(context)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def proxy() -> None:
            raw, _ = listener.accept()
            with raw:
                asked.append(raw.recv(65536))
                raw.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                with context.wrap_socket(raw, server_side=True) as tls:
                    tls.recv(65536)
                    tls.sendall(OK)

        thread = threading.Thread(target=proxy, daemon=True)
        thread.start()
        net.names["proxy.internal"] = ["10.0.0.7"]
        net.routes["10.0.0.7"] = listener.getsockname()[1]
        monkeypatch.setenv("HTTPS_PROXY", "http://proxy.internal:3128")
        assert get().body == b"ok"
        thread.join(5)
    assert asked[0].startswith(f"CONNECT {HOST}:443 ".encode())
    assert net.looked_up == ["proxy.internal"]
    assert net.dialled == [("10.0.0.7", 3128)]


@pytest.mark.enable_socket
def test_http_client_send_slow_proxy_ends_at_total_timeout(net: Internet, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            raw, _ = listener.accept()
            with raw, suppress(OSError):
                dripping(b"", b"H")(raw)

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        net.names["proxy.internal"] = ["10.0.0.7"]
        net.routes["10.0.0.7"] = listener.getsockname()[1]
        monkeypatch.setenv("HTTPS_PROXY", "http://proxy.internal:3128")
        began = time.monotonic()
        assert_not_sent(total_timeout_s=0.4)
        assert time.monotonic() - began < 1.5
        thread.join(5)


@pytest.mark.enable_socket
def test_http_client_send_proxy_unreachable_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    host, port = closed()
    monkeypatch.setenv("HTTPS_PROXY", f"http://{host}:{port}")
    assert_not_sent()


# ----------------------------------------------------------------------------------------- addresses that may be dialled

PUBLIC = [
    ADDRESS, "1.1.1.1", "8.8.8.8", "52.94.236.248", "100.63.255.255", "100.128.0.0", "172.15.255.255", "172.32.0.0",
    "191.255.255.255", "192.0.1.0", "198.17.255.255", "198.20.0.0", "223.255.255.255", "9.255.255.255", "11.0.0.0",
    "2606:4700:4700::1111", "2a05:d018::1", "2001:4860:4860::8888", "2001:200::1",
    "64:ff9b::808:808", "64:ff9b::5db8:d70e",
]  # fmt: skip
PRIVATE = [
    # unspecified, private, shared, loopback, link-local with its metadata services, and Lambda's runtime
    "0.0.0.0", "0.255.255.255", "10.0.0.1", "10.255.255.255", "100.64.0.0", "100.127.255.255", "127.0.0.1", "127.255.255.254",
    "169.254.169.254", "169.254.170.2", "169.254.170.23", "169.254.76.1", "169.254.79.1", "169.254.100.1", "172.16.0.1",
    "172.31.255.255", "192.168.0.1", "192.168.255.255",
    # protocol assignments, documentation, 6to4 relays, benchmarks, multicast, reserved, broadcast
    "192.0.0.1", "192.0.0.170", "192.0.2.1", "192.88.99.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1",
    "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255",
    "::", "::1", "fe80::1", "fe80::1%eth0", "febf::1", "fec0::1", "fc00::1", "fd00:ec2::254", "fd00:ec2::253", "ff02::1",
    "100::1", "2001:db8::1", "2001:10::1", "2001:20::1", "3fff::1", "5f00::1", "4000::1", "2001::1",
    # IPv4 inside IPv6: mapped, compatible, translated, 6to4, Teredo, NAT64
    "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:10.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "::8.8.8.8",
    "::ffff:0:127.0.0.1", "2002:7f00:1::", "2002:a9fe:a9fe::", "2002:808:808::", "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:0:7f00:1::", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b::a00:1", "64:ff9b:1::808:808",
]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_is_public_public_address_is_true(address: str) -> None:
    assert public_addresses.is_public(address)


@pytest.mark.parametrize("address", PRIVATE)
def test_is_public_private_address_is_false(address: str) -> None:
    assert not public_addresses.is_public(address)


@pytest.mark.enable_socket
@pytest.mark.parametrize(
    "address", ["10.0.0.1", "127.0.0.1", "169.254.169.254", "::1", "fd00:ec2::254", "64:ff9b::7f00:1"]
)
@pytest.mark.parametrize("where", ["alone", "first", "last"])
def test_http_client_send_name_with_private_address_is_refused(net: Internet, address: str, where: str) -> None:
    """Given a host with one address that is not public, then none of its addresses is dialled."""
    net.names[HOST] = {"alone": [address], "first": [address, ADDRESS], "last": [ADDRESS, address]}[where]
    with pytest.raises(Rejected) as refused:
        get()
    assert (refused.value.reason, net.dialled) == ("address_not_allowed", [])
    assert "canary" not in str(refused.value)


@pytest.mark.enable_socket
def test_http_client_send_dials_the_address_that_was_checked(server: Server, net: Internet) -> None:
    """Given a DNS server that changes its response, then it is not asked a second time."""
    answers = iter([[ADDRESS], ["169.254.169.254"], ["169.254.169.254"]])
    looked_up = net.getaddrinfo

    def changing(host: str, *arguments: Any, **options: Any) -> list[Any]:
        net.names[host] = next(answers)
        return looked_up(host, *arguments, **options)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(socket, "getaddrinfo", changing)
        assert get().body == b"ok"
        assert net.looked_up == [HOST]
        assert net.dialled == [(ADDRESS, 443)]
        # The connection was kept, so the name is not looked up again; a new connection checks it again.
        get()
        assert net.looked_up == [HOST]
        http_exchange.transport.close()
        with pytest.raises(Rejected, match="address_not_allowed"):
            get()
    assert net.dialled == [(ADDRESS, 443)]


@pytest.mark.enable_socket
def test_http_client_send_unreachable_address_falls_back_to_next(server: Server, net: Internet) -> None:
    net.names[HOST] = ["1.1.1.1", ADDRESS]
    assert get().body == b"ok"
    assert net.dialled == [("1.1.1.1", 443), (ADDRESS, 443)]


# ------------------------------------------------------------------------------------------------------------- redirects

WILDCARD = "*.kommo.com"
SIBLING = "files.kommo.com"


@pytest.fixture
def sibling(authority: trustme.CA, net: Internet, server: Server) -> Iterator[Server]:
    """Another host below the wildcard, with its own address."""
    sibling = Server(authority, SIBLING)
    net.names[SIBLING] = ["1.0.0.1"]
    net.routes["1.0.0.1"] = sibling.port
    yield sibling
    http_exchange.transport.close()
    sibling.close()


def follow(method: str = "GET", body: bytes | None = None, times: int = 5, domain: str = WILDCARD) -> Response:
    headers = {
        "Authorization": "Bearer canary",
        "X-Api-Key": "canary-key",
        "Accept": "text/csv",
        **({"Content-Type": "application/json"} if body else {}),
    }
    request = Request(method, URL, headers, body, connect_timeout_s=2.0, credential_headers=("x-API-key",))
    return http_client.send(request, allowed_domain=domain, follow_redirects=times)


@pytest.mark.enable_socket
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_http_client_redirect_on_same_host_keeps_credentials(server: Server, net: Internet, status: int) -> None:
    server.scripts = [answering(redirect(status, "/there?a=b")), answering(OK)]
    assert follow(domain=HOST).body == b"ok"
    second = server.requests[1]
    assert second.startswith(b"GET /there?a=b HTTP/1.1\r\n")
    assert b"Authorization: Bearer canary\r\n" in second
    assert b"X-Api-Key: canary-key\r\n" in second
    assert set(net.dialled) == {(ADDRESS, 443)}


@pytest.mark.enable_socket
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_http_client_redirect_to_another_host_of_domain_drops_credentials(
    server: Server, sibling: Server, status: int
) -> None:
    """Given a wildcard, when one of its hosts redirects to another, then the credential is not sent there, nor later back."""
    server.scripts = [answering(redirect(status, f"https://{SIBLING}/there")), answering(OK)]
    sibling.scripts = [answering(redirect(302, f"https://{HOST}/back"))]
    assert follow().body == b"ok"
    assert b"canary" in server.requests[0]
    (there,) = sibling.requests
    for request in (there, server.requests[1]):
        assert b"canary" not in request
        assert b"Accept: text/csv\r\n" in request


@pytest.mark.enable_socket
@pytest.mark.parametrize(
    "location",
    [
        "https://evil.example/",
        "//evil.example/",
        "https:\\\\evil.example/",
        "https://kommo.com.evil.example/",
        f"https://{HOST}@evil.example/",
        f"https://{HOST}:8443/",
        f"http://{HOST}/",
        "http://169.254.169.254/latest/meta-data/",
        "https://169.254.169.254/latest/meta-data/",
        "https://[::1]/",
        "https://[::ffff:169.254.169.254]/",
        "https://[",
        "https://2852039166/",
        "https://localhost/",
        "ftp://files.kommo.com/",
        "file:///etc/passwd",
        "https://evil.example\t.kommo.com/",
        "https://evil.example%2f.kommo.com/",
        "https://\u00e9vil.kommo.com/",
    ],
)
def test_http_client_redirect_outside_allowed_domain_is_refused(server: Server, net: Internet, location: str) -> None:
    server.scripts = [answering(redirect(302, location))]
    with pytest.raises(Rejected) as refused:
        follow()
    assert (refused.value.reason, refused.value.status) == ("redirect_not_allowed", 502)
    assert len(server.requests) == 1
    assert (net.looked_up, net.dialled) == ([HOST], [(ADDRESS, 443)])
    assert "canary" not in str(refused.value)


@pytest.mark.enable_socket
@pytest.mark.parametrize("location", ["https:////evil.example/", "https:/evil.example/", "https:evil.example", "///x"])
def test_http_client_redirect_without_host_stays_on_its_host(server: Server, net: Internet, location: str) -> None:
    server.scripts = [answering(redirect(302, location)), answering(OK)]
    assert follow(domain=HOST).body == b"ok"
    assert set(net.looked_up) == {HOST}
    assert set(net.dialled) == {(ADDRESS, 443)}


@pytest.mark.enable_socket
@pytest.mark.parametrize("times", [0, 5])
def test_http_client_redirect_body_over_size_limit_is_refused(server: Server, times: int) -> None:
    """`requests` reads the whole body to find the redirect's target, even if it does not follow."""
    answer = redirect(302, "/there").replace(b": 0", b": 50000") + bytes(50_000)
    server.scripts = [answering(answer)]
    request = Request("GET", URL, connect_timeout_s=2.0, max_response_bytes=1000)
    with pytest.raises(Rejected, match="answer_too_large"):
        http_client.send(request, allowed_domain=HOST, follow_redirects=times)


@pytest.mark.enable_socket
@pytest.mark.parametrize("location", ["https://[", "https://a:b:c/", "\u00e9", "//"])
def test_http_client_send_redirect_with_invalid_location_is_returned(server: Server, location: str) -> None:
    """`requests` parses the target of the redirect, and failed with its own error."""
    server.scripts = [answering(redirect(302, location))]
    assert get().status == 302


@pytest.mark.enable_socket
def test_http_client_redirect_to_name_with_private_address_is_refused(server: Server, net: Internet) -> None:
    server.scripts = [answering(redirect(302, "https://inside.kommo.com/"))]
    net.names["inside.kommo.com"] = ["169.254.169.254"]
    with pytest.raises(Rejected, match="address_not_allowed"):
        follow()
    assert net.dialled == [(ADDRESS, 443)]


@pytest.mark.enable_socket
@pytest.mark.parametrize(
    ("method", "status", "then"),
    [
        ("POST", 301, "GET"), ("POST", 302, "GET"), ("POST", 303, "GET"), ("PUT", 303, "GET"), ("DELETE", 303, "GET"),
        ("HEAD", 303, "HEAD"), ("POST", 307, "POST"), ("POST", 308, "POST"), ("PUT", 301, "PUT"), ("PATCH", 302, "PATCH"),
    ],
)  # fmt: skip
def test_http_client_redirect_method_and_body_follow_status(
    server: Server, method: str, status: int, then: str
) -> None:
    body = b"" if method == "HEAD" else b'{"a": 1}'
    server.scripts = [answering(redirect(status, "/there")), answering(OK)]
    follow(method, body or None)
    head, _, sent = server.requests[1].partition(b"\r\n\r\n")
    assert head.startswith(f"{then} /there HTTP/1.1".encode())
    assert sent == (body if then == method else b"")
    assert (b"Content-Type" in head) is (bool(body) and then == method)


@pytest.mark.enable_socket
@pytest.mark.parametrize(
    ("method", "status"), [("POST", 307), ("POST", 308), ("PUT", 301), ("PATCH", 302), ("DELETE", 307)]
)
def test_http_client_redirect_with_body_to_another_host_is_refused(
    server: Server, sibling: Server, method: str, status: int
) -> None:
    server.scripts = [answering(redirect(status, f"https://{SIBLING}/"))]
    with pytest.raises(Rejected, match="redirect_not_allowed"):
        follow(method, b"canary-body" if method != "DELETE" else None)
    assert sibling.requests == []


@pytest.mark.enable_socket
def test_http_client_redirect_loop_is_refused(server: Server) -> None:
    server.scripts = [answering(redirect(302, "/round"), then_close=False)]
    with pytest.raises(Rejected, match="too_many_redirects"):
        follow(times=3)
    assert len(server.requests) == 4


@pytest.mark.enable_socket
def test_http_client_redirect_up_to_limit_is_followed(server: Server) -> None:
    answers = [redirect(302, "/1"), redirect(302, "/2"), redirect(302, "/3"), OK]
    server.scripts = [lambda tls: tls.sendall(answers.pop(0))]
    assert follow(times=3).body == b"ok"


@pytest.mark.enable_socket
@pytest.mark.parametrize("head", [b"302 Moved", b"300 Choose\r\nLocation: /there", b"304 Same\r\nLocation: /there"])
def test_http_client_redirect_without_target_is_returned(server: Server, head: bytes) -> None:
    server.scripts = [answering(b"HTTP/1.1 " + head + b"\r\nContent-Length: 0\r\n\r\n")]
    assert follow().status == int(head[:3])
    assert len(server.requests) == 1


@pytest.mark.enable_socket
def test_http_client_redirect_target_unreachable_is_a_lost_answer(server: Server, net: Internet) -> None:
    """Given a POST that was answered by a redirect, when its target is not reached, then the POST itself has arrived."""
    server.scripts = [answering(redirect(303, f"https://{SIBLING}/"))]
    net.names[SIBLING] = ["1.0.0.1"]
    with pytest.raises(Retryable) as lost:
        follow("POST", b"{}")
    assert (lost.value.reason, lost.value.answer_lost) == ("unreachable", True)


@pytest.mark.enable_socket
def test_http_client_redirects_share_the_total_timeout(server: Server) -> None:
    def slowly(tls: ssl.SSLSocket) -> None:
        time.sleep(0.15)
        tls.sendall(redirect(302, "/round"))

    server.scripts = [slowly]
    request = Request("GET", URL, connect_timeout_s=2.0, total_timeout_s=0.5)
    began = time.monotonic()
    with pytest.raises(Retryable, match="no_answer"):
        http_client.send(request, allowed_domain=HOST, follow_redirects=50)
    assert time.monotonic() - began < 1.5


# ----------------------------------------------------------------------------------------------------------- Retry-After


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120), ("0", 0), (" 7 ", 7), ("1.5", 1.5), ("-3", 0), ("86400", 86_400), ("86401", 86_400), ("9999999", 86_400),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 60), ("Wednesday, 21-Oct-26 07:28:00 GMT", 60), ("Wed Oct 21 07:28:00 2026", None),
        ("Wed, 21 Oct 2026 07:26:00 GMT", 0), ("Wed, 21 Oct 2099 07:28:00 GMT", 86_400),
        ("", None), ("soon", None), ("1e9", None), ("inf", None), ("nan", None), ("١٢", None), ("1" * 400, None),
        ("Wed, 99 Oct 2026 07:28:00 GMT", None), ("12, 13", None),
    ],
)  # fmt: skip
def test_retry_after_s_header_is_parsed_and_limited(text: str, seconds: float | None) -> None:
    answer = Response(429, {"retry-after": text, "date": "Wed, 21 Oct 2026 07:27:00 GMT"})
    assert answer.retry_after_s() == seconds


def test_retry_after_s_without_usable_header_is_none() -> None:
    assert Response(429).retry_after_s() is None
    assert Response(429, {"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}).retry_after_s() is None


@pytest.mark.enable_socket
def test_retry_after_s_without_date_header_uses_time_of_receipt(server: Server) -> None:
    until = format_datetime(clock.now() + timedelta(seconds=90), usegmt=True)
    server.scripts = [answering(f"HTTP/1.1 503 No\r\nRetry-After: {until}\r\nContent-Length: 0\r\n\r\n".encode())]
    wait_s = get().retry_after_s()
    assert wait_s is not None
    assert 85 <= wait_s <= 91


# --------------------------------------------------------------------------------------- session state that is not kept


@pytest.mark.enable_socket
def test_http_client_send_does_not_keep_cookies(server: Server) -> None:
    server.scripts = [
        answering(
            b"HTTP/1.1 200 OK\r\nSet-Cookie: session=canary; Path=/; Secure\r\nContent-Length: 0\r\n\r\n",
            then_close=False,
        )
    ]
    get()
    get()
    assert len(server.requests) == 2
    assert all(b"ookie" not in request for request in server.requests)


@pytest.mark.enable_socket
def test_http_client_send_ignores_netrc_file(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a .netrc with a password for the host, then a request is sent with its own headers only."""
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine {HOST} login someone password canary-netrc\n")
    monkeypatch.setenv("NETRC", str(netrc))
    assert requests.utils.get_netrc_auth(URL) == ("someone", "canary-netrc")
    http_client.send(Request("GET", URL), allowed_domain=HOST)
    http_client.send(Request("GET", URL, {"Authorization": "Bearer own"}), allowed_domain=HOST)
    assert b"uthorization" not in server.requests[0]
    assert b"Authorization: Bearer own" in server.requests[1]


@pytest.mark.enable_socket
def test_http_client_send_body_is_sent_unchanged(server: Server) -> None:
    body = bytes(range(256))
    http_client.send(Request("POST", URL, {"Content-Type": "application/json"}, body), allowed_domain=HOST)
    head, _, sent = server.requests[0].partition(b"\r\n\r\n")
    assert sent == body
    assert b"Content-Length: 256" in head


def test_request_and_response_repr_hold_no_content() -> None:
    request = Request("POST", URL, {"Authorization": "canary"}, b"canary")
    answer = Response(200, {"set-cookie": "canary"}, b"canary")
    for thing in (request, answer):
        assert "canary" not in f"{thing!r} {thing} {thing:}"
