"""The one gate through which credentials leave: https only, to the allowed domain only, bounded in size and time.

The host's addresses are looked up once, all of them must be on the public internet, and one of them is what is dialled:
no name can lead inwards, or change its mind between the check and the call. Behind a proxy (`HTTPS_PROXY`) names are
resolved by the proxy, and the check of their addresses is the proxy's. A redirect is an answer unless the caller wants it
followed, and then every hop passes the same checks.
"""

from __future__ import annotations

import http.client
import ipaddress
import logging
import re
import socket
import ssl
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import replace as with_changes
from email.utils import format_datetime
from functools import cache
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.util.ssl_ import create_urllib3_context

from portaria import clock
from portaria.contract import Rejected, Request, Response, Retryable

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

# At DEBUG it writes down every URL, and there are platforms that want a credential in it.
logging.getLogger("urllib3").setLevel(logging.INFO)

# The reason where no connection came about, so that nothing was sent.
UNREACHABLE = "unreachable"

USER_AGENT = "portaria/1 (+integration backend)"
FORBIDDEN_HEADERS = frozenset(
    {
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "te",
        "trailer",
        "upgrade",
        "expect",
        "cookie",
        "proxy-authorization",
        "proxy-authenticate",
        "via",
        "forwarded",
    }
)
FORBIDDEN_PREFIXES = ("x-amz-", "x-amzn-", "x-forwarded-")

# What is not on the public internet. Python's own `is_global` says something else in each version.
# https://www.iana.org/assignments/iana-ipv4-special-registry, https://www.iana.org/assignments/iana-ipv6-special-registry
_NOT_PUBLIC = tuple(
    ipaddress.ip_network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24"),
        *("203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        # Protocol assignments (Teredo and ORCHID among them), documentation, 6to4.
        *("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"),
    )
)
# Global unicast: loopback, mapped, link-local, unique local and multicast addresses are all outside.
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
# An IPv4 address as a network without IPv4 sees it: its gateway leads to what stands in the last four bytes.
# https://docs.aws.amazon.com/vpc/latest/userguide/nat-gateway-nat64-dns64.html
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")

_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_INTERIM_ANSWERS = 20
_REPEATABLE = ("GET", "HEAD", "OPTIONS")

_PRINTABLE = re.compile(r"[\x21-\x7e]+")
_HEADER_VALUE = re.compile(r"([\x21-\x7e]([\x20-\x7e\t]*[\x21-\x7e])?)?")
_HOST = re.compile(r"(?=.{1,253}\Z)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]")


def host_allowed(host: str, allowed_domain: str) -> bool:
    """Whether a host is the allowed domain; `*.example.com` also covers `example.com` and every name below it."""
    if not _HOST.fullmatch(host):
        return False
    if allowed_domain.startswith("*."):
        return host == allowed_domain[2:] or host.endswith(allowed_domain[1:])
    return host == allowed_domain


def check(request: Request, allowed_domain: str) -> None:
    """Raises `Rejected` for a request that must not leave; nothing has been sent then."""
    if not request.url.isascii() or re.search(r"[\x00-\x20\x7f\\]", request.url):
        raise Rejected("bad_url", "the URL may hold only printable ASCII, without spaces or backslashes", field="url")
    try:
        parts = urlsplit(request.url)
        port = parts.port
    except ValueError:
        raise Rejected("bad_url", "the URL cannot be read", field="url") from None
    if parts.scheme != "https" or "@" in parts.netloc or port not in (None, 443):
        raise Rejected("bad_url", "the URL must be https, without user and with no port but 443", field="url")
    # urlsplit lower-cases the host; the one that is dialled is compared, not the text in the URL.
    if parts.netloc.lower().removesuffix(":443") != parts.hostname or not host_allowed(
        parts.hostname or "", allowed_domain
    ):
        raise Rejected("host_not_allowed", f"this connection may only talk to {allowed_domain}", field="url")
    for name, value in request.headers.items():
        lowered = name.lower()
        if lowered in FORBIDDEN_HEADERS or lowered.startswith(FORBIDDEN_PREFIXES):
            raise Rejected("forbidden_header", f"the header {lowered} may not be set", field="headers")
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) or not _HEADER_VALUE.fullmatch(value):
            raise Rejected(
                "bad_header", f"the header {name!r} holds characters that HTTP does not allow", field="headers"
            )


def is_public(address: str) -> bool:
    """Whether an address, as a name server gave it, is one of the public internet."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        if ip in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
        if ip not in _GLOBAL_UNICAST:
            return False
    return not any(ip in network for network in _NOT_PUBLIC)


def send(request: Request, *, allowed_domain: str, follow_redirects: int = 0) -> Response:
    """Carry a platform's request and bring its answer, whatever the status.

    A redirect is an answer, unless up to `follow_redirects` are to be followed: each is checked as the request was; to another
    host of the domain go neither credentials nor a body. A 303, and a 301 or 302 that answers a POST, is followed with a GET.

    Raises `Rejected` where the request may not leave (nothing was sent; of a redirect: nothing was sent there) or the answer
    is too large, and `Retryable` where no whole answer came in time: with `answer_lost` false nothing had been sent, with
    true the other side may have acted on it.
    """
    check(request, allowed_domain)
    total_s = request.total_timeout_s
    if total_s is None:
        total_s = request.connect_timeout_s + request.read_timeout_s
    before = _ends_at.set(time.monotonic() + total_s)
    try:
        response = _exchange(request, allowed_domain)
        for _ in range(follow_redirects):
            onward = _redirected(request, response, allowed_domain)
            if onward is None:
                return response
            request = onward
            response = _exchange(request, allowed_domain, redirected=True)
    finally:
        _ends_at.reset(before)
    if follow_redirects and _redirected(request, response, allowed_domain):
        raise Rejected(
            "too_many_redirects", f"{allowed_domain} redirected more than {follow_redirects} times", status=502
        )
    return response


def _redirected(request: Request, response: Response, allowed_domain: str) -> Request | None:
    """The request that a redirect asks for, or None where the response is none. Raises `Rejected` where it may not leave."""
    location = response.headers.get("location")
    if response.status not in _REDIRECTS or not location:
        return None
    if not _PRINTABLE.fullmatch(location):
        # `urljoin` would take line ends and tabs out, and make a good URL of a bad one.
        raise _redirect_refused(allowed_domain, "the URL may hold only printable ASCII")
    try:
        url = urljoin(request.url, location)
        same_host = urlsplit(url).hostname == urlsplit(request.url).hostname
    except ValueError:
        raise _redirect_refused(allowed_domain, "the URL cannot be read") from None
    method, body, headers = request.method, request.body, request.headers
    if (response.status == 303 and method != "HEAD") or (response.status in (301, 302) and method == "POST"):
        method, body = "GET", None
        headers = {name: value for name, value in headers.items() if not name.lower().startswith("content-")}
    if not same_host:
        if body is not None or method not in _REPEATABLE:
            raise _redirect_refused(allowed_domain, f"a {method} is not sent again to another host")
        kept_back = {"authorization", "cookie", *(name.lower() for name in request.credential_headers)}
        headers = {name: value for name, value in headers.items() if name.lower() not in kept_back}
    onward = with_changes(request, method=method, url=url, headers=headers, body=body)
    try:
        check(onward, allowed_domain)
    except Rejected as refused:
        raise _redirect_refused(allowed_domain, refused.detail) from None
    return onward


def _redirect_refused(allowed_domain: str, why: str) -> Rejected:
    return Rejected(
        "redirect_not_allowed", f"{allowed_domain} redirected to where the call may not go: {why}", status=502
    )


def _exchange(request: Request, allowed_domain: str, *, redirected: bool = False) -> Response:
    """One request and its answer. After a redirect the other side has acted on the first request, whatever comes now."""
    try:
        answer = _session().request(
            request.method,
            request.url,
            data=request.body,
            headers={"User-Agent": USER_AGENT, **request.headers},
            timeout=(request.connect_timeout_s, request.read_timeout_s),
            allow_redirects=False,
            stream=True,
        )
        with answer:
            body = answer.raw.read(request.max_response_bytes + 1, decode_content=True)
    except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
        if cause := _never_sent(error):
            raise Retryable(UNREACHABLE, f"{allowed_domain} was not reached: {cause}", answer_lost=redirected) from None
        raise Retryable(
            "no_answer", f"{allowed_domain} gave no answer: {type(error).__name__}", answer_lost=True
        ) from None
    if len(body) > request.max_response_bytes:
        raise Rejected(
            "answer_too_large", f"{allowed_domain} answered more than {request.max_response_bytes} bytes", status=502
        )
    headers = {name.lower(): value for name, value in answer.headers.items()}
    headers.setdefault("date", format_datetime(clock.now(), usegmt=True))
    return Response(answer.status_code, headers, body)


def _never_sent(error: Exception) -> str:
    """What kept a connection from coming about, its certificate included; empty where the request may have left."""
    if isinstance(error, requests.exceptions.ConnectTimeout | requests.exceptions.ProxyError):
        return type(error).__name__
    cause = error.args[0] if error.args else None
    reason = getattr(cause, "reason", cause)
    if isinstance(reason, _NotConnected):
        return reason.cause
    return type(reason).__name__ if isinstance(reason, urllib3.exceptions.NewConnectionError) else ""


# ------------------------------------------------------------------------------------------------------------ connections

# When the exchange that this thread is in must be over, by `time.monotonic`.
_ends_at: ContextVar[float] = ContextVar("_ends_at", default=float("inf"))


def _time_allowed_s(idle_s: float | None) -> float:
    """What one step may take: its own time-out, and no more than is left to the exchange."""
    left_s = _ends_at.get() - time.monotonic()
    if left_s <= 0:
        raise TimeoutError("the exchange has had all its time")
    return left_s if idle_s is None else min(left_s, idle_s)


class _NotConnected(urllib3.exceptions.NewConnectionError):
    """Whatever went wrong before the first byte of a request could leave; `cause` is its kind."""

    def __init__(self, connection: _Connection, cause: str) -> None:
        super().__init__(connection, cause)
        self.cause = cause


class _BoundedSocket(socket.socket):
    """A socket whose reads end with the exchange, though each byte should come in time. A proxy's tunnel is opened on it."""

    idle_s: float | None = None

    def settimeout(self, value: float | None) -> None:
        self.idle_s = value
        super().settimeout(value)

    def recv_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> int:
        super().settimeout(_time_allowed_s(self.idle_s))
        return super().recv_into(buffer, nbytes, flags)


class _BoundedTlsSocket(ssl.SSLSocket):
    """The same for what comes and goes over TLS. A handshake is one step to `ssl`, so a time-out bounds the whole of it."""

    idle_s: float | None = None

    def settimeout(self, value: float | None) -> None:
        self.idle_s = value
        super().settimeout(value)

    def recv_into(self, buffer: WriteableBuffer, nbytes: int | None = None, flags: int = 0) -> int:
        super().settimeout(_time_allowed_s(self.idle_s))
        return super().recv_into(buffer, nbytes, flags)

    def send(self, data: ReadableBuffer, flags: int = 0) -> int:
        super().settimeout(_time_allowed_s(self.idle_s))
        return super().send(data, flags)


class _WholeHeads(http.client.HTTPResponse):
    """An answer whose head must end: `http.client` takes one that breaks off for a short one, and a lost answer for a 202."""

    def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self._sock = sock

    def begin(self, *arguments: Any, **options: Any) -> None:
        stream = self.fp
        self.fp = _WholeLines(stream)  # type: ignore[assignment]
        try:
            super().begin(*arguments, **options)
        finally:
            if self.fp is not None:
                self.fp = stream
        if self.headers.get("transfer-encoding") is not None and self.headers.get("content-length") is not None:
            raise http.client.HTTPException("the answer has a length and a transfer coding")

    def _read_status(self) -> tuple[str, int, str]:
        """The status of the final answer. Interim answers are skipped (RFC 9110, 15.2); 101 was not asked for, so it is an error."""
        for _ in range(_MAX_INTERIM_ANSWERS):
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if status == 101:
                raise http.client.HTTPException("the protocol was switched unasked")
            if not 100 <= status < 200:
                return version, status, reason
            http.client.parse_headers(self.fp)
        raise http.client.HTTPException("too many interim answers")

    def _close_conn(self) -> None:
        """At the end of the answer. A connection on which more has come is not used again."""
        if isinstance(self._sock, ssl.SSLSocket) and _more_has_come(self._sock, self.fp):
            with suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)
        super()._close_conn()  # type: ignore[misc]


def _more_has_come(sock: socket.socket, stream: Any) -> bool:
    """Whether a connection has ended, or holds bytes behind the answer that was read. Does not wait."""
    before = sock.gettimeout()
    try:
        sock.settimeout(0)
        stream.peek(1)
    except ssl.SSLWantReadError:
        return False
    except (OSError, ValueError, AttributeError):
        return True
    finally:
        with suppress(OSError):
            sock.settimeout(before)
    return True


class _WholeLines:
    """What a head is read from. A line without its end, shorter than what was asked for, is where the connection ended."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def readline(self, limit: int = -1) -> bytes:
        line = self._stream.readline(limit)
        if not line.endswith(b"\n") and len(line) != limit:
            raise http.client.RemoteDisconnected("the connection ended within the answer's head")
        return line

    def close(self) -> None:
        self._stream.close()


class _Connection(urllib3.connection.HTTPSConnection):
    response_class = _WholeHeads

    def __init__(self, host: str, port: int | None = None, **options: Any) -> None:
        super().__init__(host, port, **options)
        self.ssl_context = create_urllib3_context()
        self.ssl_context.sslsocket_class = _BoundedTlsSocket

    def connect(self) -> None:
        try:
            super().connect()
        except (OSError, http.client.HTTPException) as error:
            raise _NotConnected(self, type(error).__name__) from error

    def _new_conn(self) -> socket.socket:
        if self.proxy:
            unbounded = super()._new_conn()
            timeout = unbounded.gettimeout()
            bounded = _BoundedSocket(fileno=unbounded.detach())
            # urllib3 leaves Nagle's algorithm on towards a proxy: a request's last bytes would wait 40 ms to be sent.
            bounded.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            bounded.settimeout(timeout)
            return bounded
        *others, last = _look_up(self.host, self.port, _time_allowed_s(self.timeout))
        for address in others:
            with suppress(OSError):
                return self._dial(address)
        return self._dial(last)

    def _dial(self, address: Any) -> socket.socket:
        """Connect to one address, as `getaddrinfo` gave it: the name is not looked up again."""
        family, kind, protocol, _, where = address
        sock = socket.socket(family, kind, protocol)
        try:
            for option in self.socket_options or ():
                sock.setsockopt(*option)
            sock.settimeout(_time_allowed_s(self.timeout))
            sock.connect(where)
        except BaseException:
            sock.close()
            raise
        return sock


def _look_up(host: str, port: int, timeout_s: float) -> list[Any]:
    """Every address of a host, one at least, as `getaddrinfo` gives them. Raises `Rejected` where any is not public.

    The look-up has a thread of its own: `getaddrinfo` knows no time-out, and cannot be interrupted.
    """
    answer: Future[list[Any]] = Future()

    def ask() -> None:
        try:
            family = urllib3.util.connection.allowed_gai_family()
            answer.set_result(socket.getaddrinfo(host, port, family, socket.SOCK_STREAM))
        except Exception as error:  # noqa: BLE001 - raised again where it is waited for
            answer.set_exception(error)

    threading.Thread(target=ask, daemon=True).start()
    found = answer.result(timeout_s)
    if not found:
        raise socket.gaierror(socket.EAI_NONAME, "the name has no address")
    if not all(is_public(str(address[0])) for *_, address in found):
        raise Rejected("address_not_allowed", f"{host} leads to an address outside the public internet", field="url")
    return found


class _Pool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _Connection


class _Adapter(HTTPAdapter):
    """Has every connection made by `_Connection`, through a proxy as well."""

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = {"https": _Pool}

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **options)
        manager.pool_classes_by_scheme = {"https": _Pool}
        return manager


class _Session(requests.Session):
    """Follows no redirect, and does not look where one would lead: `requests` reads its whole body for that."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        return None


@cache
def _session() -> requests.Session:
    """One session a process, for its kept connections; no library retries (the queues retry), no cookies, no .netrc."""
    session = _Session()
    session.adapters.clear()
    session.mount("https://", _Adapter())
    session.auth = _no_netrc
    session.cookies.set_policy(_NoCookies())
    return session


def _no_netrc(prepared: requests.PreparedRequest) -> requests.PreparedRequest:
    return prepared


class _NoCookies(requests.cookies.cookielib.DefaultCookiePolicy):  # type: ignore[name-defined,misc]
    def set_ok(self, cookie: object, request: object) -> bool:
        return False


def forget_connections() -> None:
    """Close every kept connection."""
    _session().close()
