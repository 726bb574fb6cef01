"""The gate to the outside: what it refuses before a byte is sent, and what it makes of every kind of broken answer."""

from __future__ import annotations

import gzip
import json
import socket
import ssl
import threading
import traceback
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import requests
import responses
import trustme
import urllib3
from hypothesis import example, given
from hypothesis import strategies as st

from portaria import egress
from portaria.contract import Rejected, Request, Response, Retryable

HOST = "acme.kommo.com"
URL = f"https://{HOST}/api/v4/account"
CORPUS = Path(__file__).parent / "hostile_urls.txt"
HOSTILE_URLS = [json.loads(line) for line in CORPUS.read_text().splitlines() if line and not line.startswith("#")]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

Script = Callable[[ssl.SSLSocket], object]


def no_byte_leaves() -> Any:
    """Nothing is resolved or dialled while this holds."""
    return patch.object(
        urllib3.util.connection, "create_connection", side_effect=AssertionError("something was dialled")
    )


# ------------------------------------------------------------------------------------------------------- what is refused


def test_the_corpus_is_large_and_has_no_twins() -> None:
    assert len(HOSTILE_URLS) >= 250
    assert len(set(HOSTILE_URLS)) == len(HOSTILE_URLS)


@pytest.mark.parametrize("url", HOSTILE_URLS, ids=lambda url: ascii(url)[1:61])
def test_a_hostile_url_is_refused_before_anything_is_sent(url: str) -> None:
    with no_byte_leaves(), pytest.raises(Rejected) as refused:
        egress.send(Request("POST", url, {"Authorization": "Bearer canary"}, b"canary"), allowed_domain=HOST)
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
def test_an_honest_url_is_sent_to_its_host(url: str) -> None:
    with responses.RequestsMock() as mock:
        mock.add(responses.GET, url)
        egress.send(Request("GET", url), allowed_domain=HOST)
        assert host_dialled(str(mock.calls[0].request.url)) == (HOST, None if ":443" not in url else 443)


def host_dialled(url: str) -> tuple[str | None, int | None]:
    """As urllib3 reads the URL when it dials, which is not how urllib.parse does."""
    read = urllib3.util.parse_url(url)
    return read.host, read.port


PIECES = [
    *("https:", "/", "//", HOST, "evil.example", "@", ":", "443", "\\", "?", "#", "%2e", "%40", ".", "[", "]", "::1"),
    *(";", "\t", "kommo.com", "acme", "&", "\u3002", "x"),
]


@given(st.lists(st.sampled_from(PIECES), max_size=10).map(lambda pieces: "https://" + "".join(pieces)))
@example(f"https://{HOST}/@evil.example")
def test_whatever_passes_is_dialled_at_the_allowed_host(url: str) -> None:
    """Given any URL, when the check lets it pass, then the library that dials reads the same host in it."""
    try:
        egress.check(Request("GET", url), HOST)
    except Rejected:
        return
    prepared = requests.Request("GET", url).prepare()
    host, port = host_dialled(str(prepared.url))
    assert (host, port or 443) == (HOST, 443)


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
def test_which_hosts_a_domain_covers(host: str, domain: str, allowed: bool) -> None:
    assert egress.host_allowed(host, domain) is allowed


@pytest.mark.parametrize(
    "name",
    [
        *sorted(egress.FORBIDDEN_HEADERS), "Host", "HOST", "Cookie", "X-Amz-Security-Token", "X-AMZN-Trace-Id",
        "X-Forwarded-For", "x-forwarded-host", "Transfer-Encoding", "Content-Length", "Proxy-Authorization",
    ],
)  # fmt: skip
def test_a_forbidden_header_is_refused(name: str) -> None:
    with no_byte_leaves(), pytest.raises(Rejected, match="forbidden_header"):
        egress.send(Request("GET", URL, {name: "canary"}), allowed_domain=HOST)


@pytest.mark.parametrize("name", ["", " ", "a b", "a:", "a\r\nHost", "a\n", "ä", "(a)", "a\x00", "a,b"])
def test_a_header_name_that_http_does_not_know_is_refused(name: str) -> None:
    with no_byte_leaves(), pytest.raises(Rejected, match="bad_header"):
        egress.send(Request("GET", URL, {name: "x"}), allowed_domain=HOST)


@pytest.mark.parametrize(
    "value",
    ["a\r\nHost: evil.example", "a\n", "\r", "a\x00b", "\x7f", "ä", "\u2028", "\x1b[0m", "a\r\n\r\nGET / HTTP/1.1"],
)
def test_a_header_value_that_could_begin_another_header_is_refused(value: str) -> None:
    with no_byte_leaves(), pytest.raises(Rejected, match="bad_header") as refused:
        egress.send(Request("GET", URL, {"Authorization": f"canary{value}"}), allowed_domain=HOST)
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize("value", [" canary", "canary ", "\tcanary", " "])
def test_a_header_value_with_spaces_around_it_is_refused_not_called_a_lost_answer(value: str) -> None:
    """`requests` refuses them as well, but in a way that reads as if the request had left."""
    with no_byte_leaves(), pytest.raises(Rejected, match="bad_header"):
        egress.send(Request("GET", URL, {"Authorization": value}), allowed_domain=HOST)


# ----------------------------------------------------------------------------------------------- answers, over real TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


class Server:
    """An https server for HOST on loopback. Each connection is handed to the next of `scripts`, the last one for ever."""

    def __init__(self, authority: trustme.CA) -> None:
        self.scripts: list[Script] = [lambda tls: tls.sendall(OK)]
        self.requests: list[bytes] = []
        self.dialled: list[tuple[str, int]] = []
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(HOST).configure_cert(self._context)
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
            with raw:
                try:
                    tls = self._context.wrap_socket(raw, server_side=True)
                except OSError:
                    continue
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

    def create_connection(self, address: tuple[str, int], *args: Any, **options: Any) -> socket.socket:
        """What urllib3 calls to dial: every name leads here."""
        self.dialled.append(address)
        timeout = args[0] if args else options.get("timeout")
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout if isinstance(timeout, float) else 5)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)


@pytest.fixture(autouse=True)
def session() -> Iterator[None]:
    """One `requests` session a test, as if its process had just started."""
    egress._session.cache_clear()
    yield
    egress._session().close()
    egress._session.cache_clear()


@pytest.fixture
def server(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    server = Server(authority)
    monkeypatch.setattr(urllib3.util.connection, "create_connection", server.create_connection)
    yield server
    egress._session().close()
    server.close()


def answering(text: bytes, *, then_close: bool = True) -> Script:
    def script(tls: ssl.SSLSocket) -> bool:
        tls.sendall(text)
        return not then_close

    return script


def get(**options: Any) -> Response:
    request = Request("GET", URL, {"Authorization": "Bearer canary"}, connect_timeout_s=2.0, **options)
    return egress.send(request, allowed_domain=HOST)


@pytest.mark.enable_socket
def test_an_answer_is_brought_whatever_its_status(server: Server) -> None:
    server.scripts = [answering(b"HTTP/1.1 503 No\r\nX-Request-ID: 7\r\nContent-Length: 4\r\n\r\nbusy")]
    answer = get()
    assert (answer.status, answer.body) == (503, b"busy")
    assert answer.headers["x-request-id"] == "7"
    assert server.dialled == [(HOST, 443)]
    assert b"\r\nUser-Agent: portaria/1" in server.requests[0]


@pytest.mark.enable_socket
def test_a_connection_is_kept_for_the_next_request(server: Server) -> None:
    for _ in range(3):
        assert get().body == b"ok"
    assert len(server.requests) == 3
    assert len(server.dialled) == 1


@pytest.mark.enable_socket
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "location", ["https://evil.example/", f"https://{HOST}/elsewhere", "/elsewhere", "http://127.0.0.1/"]
)
def test_a_redirect_is_an_answer_and_is_not_followed(server: Server, status: int, location: str) -> None:
    server.scripts = [
        answering(f"HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode())
    ]
    answer = get()
    assert (answer.status, answer.headers["location"]) == (status, location)
    assert len(server.requests) == 1
    assert server.dialled == [(HOST, 443)]


@pytest.mark.enable_socket
@pytest.mark.parametrize("size", [0, 999, 1000, 1001, 50_000])
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_an_answer_may_have_so_many_bytes(server: Server, size: int, framing: str) -> None:
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
def test_a_compressed_bomb_is_bounded(server: Server) -> None:
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
def test_a_compressed_answer_is_read(server: Server) -> None:
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
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"\x00" * 100,
    ],
    ids=lambda answer: ascii(answer)[2:60],
)
def test_an_answer_that_breaks_off_is_a_lost_answer(server: Server, answer: bytes) -> None:
    """Given a request that arrived, when no whole answer comes, then the other side may have acted on it."""
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
def test_an_answer_that_does_not_come_in_time_is_a_lost_answer(server: Server, before: bytes) -> None:
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


@pytest.mark.enable_socket
def test_tls_that_breaks_after_the_request_is_a_lost_answer(server: Server) -> None:
    """Given a request that arrived, when the answer's TLS is garbled, then the other side may have acted on it all the same."""

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
def test_a_kept_connection_that_was_closed_is_not_silently_tried_again(server: Server) -> None:
    """Given a kept connection, when its other side takes a request and closes, then it is not sent twice behind our back."""
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


# -------------------------------------------------------------------------------------------------- nothing has been sent


def assert_not_sent(server: Server | None = None) -> Retryable:
    with pytest.raises(Retryable) as unreached:
        get()
    assert unreached.value.answer_lost is False
    assert_tells_no_secret(unreached.value)
    if server:
        assert server.requests == []
    return unreached.value


@pytest.mark.enable_socket
def test_a_refused_connection_sent_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        urllib3.util.connection, "create_connection", lambda *_, **__: socket.create_connection(closed())
    )
    assert_not_sent()


def closed() -> tuple[str, int]:
    """An address on loopback that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address: tuple[str, int] = free.getsockname()
    return address


def test_a_name_that_is_not_found_sent_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_found(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(urllib3.util.connection, "create_connection", not_found)
    assert_not_sent()


def test_a_connection_that_takes_too_long_sent_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_long(*_: object, **__: object) -> None:
        raise TimeoutError("timed out")

    monkeypatch.setattr(urllib3.util.connection, "create_connection", too_long)
    assert assert_not_sent().reason == "unreachable"


@pytest.mark.enable_socket
def test_a_certificate_of_an_unknown_authority_gets_nothing(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    assert assert_not_sent(server).reason == "unreachable"


@pytest.mark.enable_socket
def test_a_certificate_for_another_name_gets_nothing(server: Server) -> None:
    with pytest.raises(Retryable) as unreached:
        egress.send(Request("GET", "https://other.kommo.com/", {"X": "canary"}), allowed_domain="other.kommo.com")
    assert unreached.value.answer_lost is False
    assert server.requests == []


@pytest.mark.enable_socket
@pytest.mark.parametrize("answer", [b"HTTP/1.1 502 Bad Gateway\r\n\r\n", b"HTTP/1.1 407 Who\r\n\r\n"])
def test_a_proxy_that_does_not_connect_sent_nothing(monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
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
def test_a_proxy_that_is_not_there_sent_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    host, port = closed()
    monkeypatch.setenv("HTTPS_PROXY", f"http://{host}:{port}")
    assert_not_sent()


# ------------------------------------------------------------------------------------- what a session does not remember


@pytest.mark.enable_socket
def test_cookies_are_not_kept(server: Server) -> None:
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
    assert len(egress._session().cookies) == 0


@pytest.mark.enable_socket
def test_a_netrc_file_is_not_read(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a .netrc with a password for the host, then a request goes out with its own headers only."""
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine {HOST} login someone password canary-netrc\n")
    monkeypatch.setenv("NETRC", str(netrc))
    assert requests.utils.get_netrc_auth(URL) == ("someone", "canary-netrc")
    egress.send(Request("GET", URL), allowed_domain=HOST)
    egress.send(Request("GET", URL, {"Authorization": "Bearer own"}), allowed_domain=HOST)
    assert b"uthorization" not in server.requests[0]
    assert b"Authorization: Bearer own" in server.requests[1]


@pytest.mark.enable_socket
def test_a_body_goes_out_as_it_is(server: Server) -> None:
    body = bytes(range(256))
    egress.send(Request("POST", URL, {"Content-Type": "application/json"}, body), allowed_domain=HOST)
    head, _, sent = server.requests[0].partition(b"\r\n\r\n")
    assert sent == body
    assert b"Content-Length: 256" in head


def test_a_request_and_its_answer_are_not_printed() -> None:
    request = Request("POST", URL, {"Authorization": "canary"}, b"canary")
    answer = Response(200, {"set-cookie": "canary"}, b"canary")
    for thing in (request, answer):
        assert "canary" not in f"{thing!r} {thing} {thing:}"
