"""Ways in which an HTTP server misbehaves between two requests, and a server that misbehaves in them.

A `Way` says what the server sends in answer to the first request on its first connection. Every later request, on that
connection or on another, is answered correctly, with the token of the account that asked.
"""

from __future__ import annotations

import gzip
import json
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import trustme

# Four of them are longer than the timeout of a request that need not be answered.
PAUSE_S = 0.03


def body_of(account: str) -> bytes:
    return json.dumps({"access_token": f"access-of-{account}", "refresh_token": f"refresh-of-{account}"}).encode()


def answer(account: str, status: str = "200 OK", headers: str = "", body: bytes | None = None) -> bytes:
    body = body_of(account) if body is None else body
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


def raw(head: str, body: bytes = b"") -> bytes:
    """A response with the lines of `head` unchanged, each ended by CRLF."""
    return head.replace("\n", "\r\n").encode("latin-1") + b"\r\n\r\n" + body


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + end


@dataclass(frozen=True)
class Way:
    """`pieces` are what is sent, each after a pause of `PAUSE_S` but the first.

    `harmless`: HTTP allows it, so the first request is answered and the connection is kept. `stray`: a piece after the
    first is an answer that belongs to no request, so what a request at the same moment gets on this connection cannot be
    told apart. `early`: sent before the first request is read. `then`: `keep` the connection, `close` it, `reset` it,
    or `silence`: never answer again on it.
    """

    name: str
    pieces: Callable[[str], tuple[bytes, ...]] = field(repr=False)
    method: str = "POST"
    harmless: bool = False
    stray: bool = False
    early: bool = False
    then: str = "keep"


def _ways() -> list[Way]:
    def way(name: str, *pieces: Callable[[str], bytes] | bytes, **options: Any) -> Way:
        return Way(name, lambda own: tuple(p if isinstance(p, bytes) else p(own) for p in pieces), **options)

    early_hints = raw("HTTP/1.1 103 Early Hints\nLink: </x>; rel=preload")

    def own_chunk(own: str) -> bytes:
        return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(body_of(own))

    def framed(headers: str, after: Callable[[str], bytes] = answer) -> Callable[[str], bytes]:
        """A response whose length is given by `headers`, with the account's body and another response after it."""

        def piece(own: str) -> bytes:
            length = len(body_of(own))
            return raw(f"HTTP/1.1 200 OK\n{headers.format(n=length, half=length // 2)}", body_of(own)) + after(own)

        return piece

    def chunks(text: Callable[[bytes], bytes]) -> Callable[[str], bytes]:
        return lambda own: (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + text(body_of(own)) + b"0\r\n\r\n" + answer(own)
        )

    found = [
        # ----------------------------------------------------------------------------------------- interim responses
        way("103 before the answer", early_hints, answer, harmless=True),
        way("103 and the answer at once", lambda own: early_hints + answer(own), harmless=True),
        way("102 before the answer", raw("HTTP/1.1 102 Processing"), answer, harmless=True),
        way("103 with an empty head", b"HTTP/1.1 103 Early Hints\r\n\r\n", answer, harmless=True),
        way("two interim answers", early_hints, early_hints, answer, harmless=True),
        way("100 that was not asked for", b"HTTP/1.1 100 Continue\r\n\r\n", answer, harmless=True),
        way("100, 102, 103", raw("HTTP/1.1 100 C") + raw("HTTP/1.1 102 P") + early_hints, answer, harmless=True),
        way("199", raw("HTTP/1.1 199 Miscellaneous"), answer, harmless=True),
        way("103 that has a length", raw("HTTP/1.1 103 Early Hints\nContent-Length: 50"), answer),
        way("103 and then nothing", early_hints, then="close"),
        way("103 after the answer", lambda own: answer(own) + early_hints, answer, stray=True),
        way("a hundred interim answers", early_hints * 100, answer),
        way("101 that was not asked for", raw("HTTP/1.1 101 Switching Protocols\nUpgrade: h2c\nConnection: upgrade"), answer),
        way("101 and the answer at once", lambda own: raw("HTTP/1.1 101 Switching Protocols") + answer(own)),
        # ------------------------------------------------------------------------------------- more than one response
        way("two answers at once", lambda own: answer(own) + answer(own)),
        way("a second answer later", answer, answer, stray=True),
        way("a third answer later", answer, answer, answer, stray=True),
        way("a second answer in two pieces", lambda own: answer(own) + answer(own)[:20], lambda own: answer(own)[20:],
            stray=True),
        way("408 on an idle connection", answer, raw("HTTP/1.1 408 Request Timeout\nConnection: close\nContent-Length: 0"),
            stray=True, then="close"),
        way("408 and the connection stays open", answer, raw("HTTP/1.1 408 Request Timeout\nContent-Length: 0"), stray=True),
        way("an answer before its request", answer, early=True, stray=True),
        way("bytes that are no answer", lambda own: answer(own) + b"garbage"),
        way("a line end after the answer", lambda own: answer(own) + b"\r\n"),
        way("a line end later, then an answer", answer, b"\r\n", answer, stray=True),
        way("close announced and not done", lambda own: answer(own, headers="Connection: close\r\n") + answer(own)),
        way("close and keep-alive", lambda own: answer(own, headers="Connection: keep-alive, close\r\n") + answer(own)),
        # ----------------------------------------------------------------------------------------------------- length
        way("a length that is too small", framed("Content-Length: {half}", lambda own: b"")),
        way("a length of nought", framed("Content-Length: 0")),
        way("a length that is too large", framed("Content-Length: 5000", lambda own: b""), then="silence"),
        way("two different lengths", framed("Content-Length: {n}\nContent-Length: {half}")),
        way("the same length twice", framed("Content-Length: {n}\nContent-Length: {n}")),
        way("a list of lengths", framed("Content-Length: {n}, {half}")),
        way("a length with a sign", framed("Content-Length: +{half}")),
        way("a negative length", framed("Content-Length: -1")),
        way("a length in hexadecimal", framed("Content-Length: 0x{half}")),
        way("a length with an underscore", framed("Content-Length: {half}_0")),
        way("a length in other digits", framed("Content-Length: \u00b2")),
        way("an empty length", framed("Content-Length:")),
        way("no length", lambda own: raw("HTTP/1.1 200 OK", body_of(own)), then="silence"),
        way("no length, and another answer", framed("X: y")),
        way("a length and chunks", lambda own: raw("HTTP/1.1 200 OK\nContent-Length: 3\nTransfer-Encoding: chunked",
                                                   chunked(body_of(own)))),
        way("chunks and a length", lambda own: raw("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nContent-Length: 5000",
                                                   chunked(body_of(own)) + answer(own))),
        way("a length hidden by a space", framed("Content-Length : {half}")),
        way("a length on a folded line", framed("X: y\n Content-Length: 0\nContent-Length: {half}")),
        way("a length that is folded", framed("Content-Length:\n {half}")),
        way("HTTP/1.0 and kept", lambda own: answer(own, headers="Connection: keep-alive\r\n").replace(b"1.1", b"1.0", 1)),
        way("HTTP/1.0 and two answers", lambda own: answer(own).replace(b"1.1", b"1.0", 1) + answer(own)),
        # ----------------------------------------------------------------------------------------- responses without a body
        way("HEAD with a body", answer, method="HEAD"),
        way("HEAD with a body later", lambda own: answer(own)[: -len(body_of(own))], body_of, method="HEAD", stray=True),
        way("HEAD with chunks", own_chunk, method="HEAD"),
        way("204 with a body", lambda own: answer(own, "204 No Content")),
        way("204 with a whole answer as body", lambda own: raw("HTTP/1.1 204 No Content", answer(own))),
        way("304 with a body", lambda own: answer(own, "304 Not Modified"), method="GET"),
        way("205 with a body", lambda own: answer(own, "205 Reset Content") + answer(own)),
        # ------------------------------------------------------------------------------------------------------ chunks
        way("trailers", lambda own: own_chunk(own)[:-2] + b"X-Checksum: 1\r\n\r\n", harmless=True),
        way("trailers with a length", lambda own: own_chunk(own)[:-2] + b"Content-Length: 500\r\n\r\n" + answer(own)),
        way("trailers that do not end", lambda own: own_chunk(own)[:-2] + b"X: ", answer, stray=True),
        way("chunks and another answer", lambda own: own_chunk(own) + answer(own)),
        way("chunks without an end", lambda own: own_chunk(own)[:-5], answer, stray=True),
        way("chunks without the last line end", lambda own: own_chunk(own)[:-2], answer, stray=True),
        way("a negative chunk", chunks(lambda body: b"-5\r\n" + body + b"\r\n")),
        way("a chunk with a sign", chunks(lambda body: b"+%x\r\n" % len(body) + body + b"\r\n")),
        way("a chunk with a prefix", chunks(lambda body: b"0x%x\r\n" % len(body) + body + b"\r\n")),
        way("a chunk with an underscore", chunks(lambda body: b"1_0\r\n" + body + b"\r\n")),
        way("a chunk without a size", chunks(lambda body: b"\r\n" + body + b"\r\n")),
        way("a chunk with an endless size", chunks(lambda body: b"f" * 5000 + b"\r\n" + body + b"\r\n")),
        way("a chunk that is too large", chunks(lambda body: b"ffffffffffffffff\r\n" + body + b"\r\n"), then="silence"),
        way("a chunk with a wrong end", chunks(lambda body: b"%x\r\n" % len(body) + body + b"XX")),
        way("a chunk with bare line feeds", chunks(lambda body: b"%x\n" % len(body) + body + b"\n")),
        way("a chunk that is too small", chunks(lambda body: b"%x\r\n" % (len(body) // 2) + body + b"\r\n")),
        way("an unknown transfer coding", lambda own: raw("HTTP/1.1 200 OK\nTransfer-Encoding: xchunked",
                                                          chunked(body_of(own)))),
        way("chunked and identity", lambda own: raw("HTTP/1.1 200 OK\nTransfer-Encoding: chunked, identity",
                                                    chunked(body_of(own)) + answer(own))),
        way("chunked twice", lambda own: raw("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nTransfer-Encoding: chunked",
                                             chunked(body_of(own)) + answer(own))),
        way("chunked after a tab", lambda own: raw("HTTP/1.1 200 OK\nTransfer-Encoding:\x0bchunked",
                                                   chunked(body_of(own)) + answer(own))),
        # -------------------------------------------------------------------------------------------------------- heads
        way("bare line feeds", lambda own: answer(own).replace(b"\r\n", b"\n") + answer(own)),
        way("a bare carriage return", lambda own: answer(own, headers="X: a\rContent-Length: 0\r\n")),
        way("a null byte in the head", lambda own: answer(own, headers="X: a\x00b\r\n")),
        way("a line that is no header", lambda own: answer(own, headers="no header\r\n")),
        way("a head without an end", b"HTTP/1.1 200 OK\r\nX: y\r\n", answer, stray=True),
        way("a head of a megabyte", lambda own: answer(own, headers=f"X: {'y' * 1_000_000}\r\n")),
        way("ten thousand headers", lambda own: answer(own, headers="X: y\r\n" * 10_000)),
        way("a status of two digits", lambda own: answer(own, "20 OK")),
        way("a status of four digits", lambda own: answer(own, "2000 OK")),
        way("a status in letters", lambda own: answer(own, "2OO OK")),
        way("another protocol", lambda own: b"ICY" + answer(own)[8:]),
        way("HTTP/2 in the status line", lambda own: answer(own).replace(b"HTTP/1.1", b"HTTP/2", 1)),
        way("HTTP/0.9", body_of),
        way("a line end before the answer", lambda own: b"\r\n" + answer(own)),
        # --------------------------------------------------------------------------------------- bodies, ends, timeouts
        way("a body labelled gzip that is not", lambda own: answer(own, headers="Content-Encoding: gzip\r\n")),
        way("gzip with bytes behind it", lambda own: answer(
            own, headers="Content-Encoding: gzip\r\n", body=gzip.compress(body_of(own)) + b"rest")),
        way("a body above the limit", lambda own: answer(own, body=body_of(own) + b" " * 300_000)),
        way("a redirect with an answer behind it", lambda own: raw(
            "HTTP/1.1 302 Found\nLocation: /elsewhere\nContent-Length: 0", answer(own))),
        way("closed before the answer", b"", then="close"),
        way("closed within the head", b"HTTP/1.1 200 OK\r\nContent-Le", then="close"),
        way("closed within the body", lambda own: answer(own)[:-10], then="close"),
        way("reset within the body", lambda own: answer(own)[:-10], then="reset"),
        way("closed after the answer", answer, then="close"),
        way("reset after the answer", answer, then="reset"),
        way("too late, after a part", lambda own: answer(own)[:-10], b"", b"", b"", lambda own: answer(own)[-10:], stray=True),
        way("too late, as a whole", b"", b"", b"", b"", answer, stray=True),
        way("silence", b"", then="silence"),
    ]  # fmt: skip
    assert len({each.name for each in found}) == len(found)
    return found


WAYS = _ways()


class MisbehavingServer:
    """An https server for `host`. `misbehave` sets the way of the next connection; `sent` is set when it has been carried out.

    A request names its account in its path: `/{account}`.
    """

    def __init__(self, authority: trustme.CA, host: str) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(host).configure_cert(self._context)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._way: Way | None = None
        self.sent = threading.Event()
        self._ended = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def misbehave(self, way: Way, account: str) -> None:
        self._ended.set()
        self._ended, self.sent = threading.Event(), threading.Event()
        self._way, self._first = way, account

    def close(self) -> None:
        self._ended.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            way, self._way = self._way, None
            arguments = (connection, way, self.sent, self._ended)
            threading.Thread(target=self._one_connection, args=arguments, daemon=True).start()

    def _one_connection(
        self, connection: socket.socket, way: Way | None, sent: threading.Event, ended: threading.Event
    ) -> None:
        connection.settimeout(10)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(OSError), connection, self._context.wrap_socket(connection, server_side=True) as tls:
            if way:
                try:
                    self._misbehave(tls, way, ended)
                finally:
                    sent.set()
                if way.then != "keep":
                    return
            while account := _read_account(tls):
                tls.sendall(answer(account))

    def _misbehave(self, tls: ssl.SSLSocket, way: Way, ended: threading.Event) -> None:
        own = self._first
        if not way.early:
            own = _read_account(tls)
        for number, piece in enumerate(way.pieces(own)):
            if number:
                time.sleep(PAUSE_S)
            tls.sendall(piece)
        if way.then == "silence":
            self.sent.set()
            ended.wait(10)
        elif way.then == "reset":
            tls.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif way.then == "close":
            # The end of TLS is announced, but the peer's announcement is not awaited.
            tls.settimeout(0)
            with suppress(OSError):
                tls.unwrap()


def _read_account(tls: ssl.SSLSocket) -> str:
    """The account that the next request names; empty if the connection has ended or no valid request arrives."""
    data = b""
    while b"\r\n\r\n" not in data:
        received = tls.recv(65536)
        if not received:
            return ""
        data += received
    head, _, body = data.partition(b"\r\n\r\n")
    if length := re.search(rb"(?i)\r\ncontent-length: *(\d+)", head):
        while len(body) < int(length[1]):
            body += tls.recv(65536)
    named = re.match(rb"[A-Z]+ /([A-Za-z0-9-]+) HTTP/1\.1\r\n", head)
    return named[1].decode() if named else ""
