"""The outbound HTTP client, the only way out for a credential: over https, to the allowed domain, with limits on size and time.

This module checks requests. `http_exchange` sends them, and `http_transport` connects and checks the addresses of the host.
A redirect is a response unless the caller wants it followed; then every hop passes the same checks.
"""

from __future__ import annotations

import re
import time
from dataclasses import replace as with_changes
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from portaria.core.errors import RedirectRefused, Rejected, TooManyRedirects
from portaria.core.http.messages import Request, Response

if TYPE_CHECKING:
    from portaria.outbound.http_exchange import Exchange

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
        # Headers in which proxies name the client.
        "client-ip",
        "cf-connecting-ip",
        "fastly-client-ip",
        "true-client-ip",
        "x-client-ip",
        "x-cluster-client-ip",
        "x-forwarded",
        "x-originating-ip",
        "x-real-ip",
        "x-remote-addr",
        "x-remote-ip",
    }
)
FORBIDDEN_PREFIXES = ("x-amz-", "x-amzn-", "x-forwarded-")

_REDIRECTS = (301, 302, 303, 307, 308)
_REPEATABLE = ("GET", "HEAD", "OPTIONS")

_PRINTABLE = re.compile(r"[\x21-\x7e]+")
_HEADER_VALUE = re.compile(r"([\x21-\x7e]([\x20-\x7e\t]*[\x21-\x7e])?)?")
_HOST = re.compile(r"(?=.{1,253}\Z)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]")


def canonical(header_name: str) -> str:
    """A header's name as servers may read it: many map hyphens to underscores (RFC 3875, 4.1.18), and case is ignored."""
    return header_name.lower().replace("_", "-")


def host_allowed(host: str, allowed_domain: str) -> bool:
    """Whether a host is the allowed domain; `*.example.com` also covers `example.com` and every name below it."""
    if not _HOST.fullmatch(host):
        return False
    if allowed_domain.startswith("*."):
        return host == allowed_domain[2:] or host.endswith(allowed_domain[1:])
    return host == allowed_domain


def check(request: Request, allowed_domain: str) -> None:
    """Raises `Rejected` for a request that must not be sent."""
    if not request.url.isascii() or re.search(r"[\x00-\x20\x7f\\]", request.url):
        raise Rejected("bad_url", "the URL must be printable ASCII without spaces and backslashes", field="url")
    try:
        parts = urlsplit(request.url)
        port = parts.port
    except ValueError:
        raise Rejected("bad_url", "the URL is not valid", field="url") from None
    if parts.scheme != "https" or "@" in parts.netloc or port not in (None, 443):
        raise Rejected(
            "bad_url",
            "the URL must begin with https:// and may have neither a user nor a port other than 443",
            field="url",
        )
    # urlsplit converts the host to lower case. The host that is connected to is compared, not the text in the URL.
    if parts.netloc.lower().removesuffix(":443") != parts.hostname or not host_allowed(
        parts.hostname or "", allowed_domain
    ):
        raise Rejected(
            "host_not_allowed", f"the host is outside this connection's allowed_domain: {allowed_domain}", field="url"
        )
    for name, value in request.headers.items():
        if canonical(name) in FORBIDDEN_HEADERS or canonical(name).startswith(FORBIDDEN_PREFIXES):
            raise Rejected("forbidden_header", f"the header {name.lower()} may not be set", field="headers")
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) or not _HEADER_VALUE.fullmatch(value):
            raise Rejected(
                "bad_header", f"the header {name!r} has characters that HTTP does not allow", field="headers"
            )


def check_public(url: str) -> None:
    """Look up the host of a URL. Raises `Rejected` where it has no address, or one that is not public.

    Behind a proxy, which resolves names itself, nothing is looked up. Each connection checks the addresses again.
    """
    from portaria.outbound import http_exchange  # noqa: PLC0415

    http_exchange.check_public(url)


def send(request: Request, *, allowed_domain: str, follow_redirects: int = 0, owner: str = "") -> Response:
    """Send a platform's request and return its response, of any status.

    `owner` names the account that the request is made for: a kept connection is used for requests of one owner only.

    A redirect is a response, unless up to `follow_redirects` are to be followed. Each is checked as the request was. Neither
    credentials nor a body are sent to another host of the domain. A 303, and a 301 or 302 after a POST, is followed with a GET.

    Raises `Rejected` where the request may not be sent, and `AnswerUnusable` where it was sent and its response is too large or
    redirects to where the request may not be sent. Raises `Retryable` where no complete response came in time: with
    `answer_lost` false nothing was sent, with true the other side may have processed it.
    """
    check(request, allowed_domain)
    ends_at = time.monotonic() + request.time_limit_s
    response = _begin(request, ends_at, owner).response()
    for _ in range(follow_redirects):
        onward = _redirected(request, response, allowed_domain)
        if onward is None:
            return response
        request = onward
        response = _begin(request, ends_at, owner, redirected=True).response()
    if follow_redirects and _redirected(request, response, allowed_domain):
        detail = f"{_host(request)} redirected more than {follow_redirects} times"
        raise TooManyRedirects(detail)
    return response


def begin(request: Request, *, allowed_domain: str, owner: str = "") -> Exchange:
    """Send a platform's request without waiting for its response. A redirect is a response.

    Raises as `send`; `Exchange.response` returns the response or raises what concerns it. Several requests can wait for their
    responses at the same time, each on a connection of its own.
    """
    check(request, allowed_domain)
    return _begin(request, time.monotonic() + request.time_limit_s, owner)


def _redirected(request: Request, response: Response, allowed_domain: str) -> Request | None:
    """The request for a redirect, or None where the response is no redirect. Raises `RedirectRefused` if it may not be sent."""
    location = response.headers.get("location")
    if response.status not in _REDIRECTS or not location:
        return None
    if not _PRINTABLE.fullmatch(location):
        # `urljoin` removes line ends and tabs, which would turn an invalid URL into a valid one.
        raise _redirect_refused(_host(request), "the URL must be printable ASCII")
    try:
        url = urljoin(request.url, location)
        same_host = urlsplit(url).hostname == urlsplit(request.url).hostname
    except ValueError:
        raise _redirect_refused(_host(request), "the URL is not valid") from None
    method, body, headers = request.method, request.body, request.headers
    if (response.status == 303 and method != "HEAD") or (response.status in (301, 302) and method == "POST"):
        method, body = "GET", None
        headers = {name: value for name, value in headers.items() if not name.lower().startswith("content-")}
    if not same_host:
        if body is not None or method not in _REPEATABLE:
            raise _redirect_refused(_host(request), f"a {method} is not sent again to another host")
        kept_back = {"authorization", "cookie", *(name.lower() for name in request.credential_headers)}
        headers = {name: value for name, value in headers.items() if name.lower() not in kept_back}
    onward = with_changes(request, method=method, url=url, headers=headers, body=body)
    try:
        check(onward, allowed_domain)
    except Rejected as refused:
        raise _redirect_refused(_host(request), refused.detail) from None
    return onward


def _redirect_refused(host: str, why: str) -> Rejected:
    return RedirectRefused(f"{host} redirected to a URL that is not allowed: {why}")


def _host(request: Request) -> str:
    """The host of a request, for messages: a domain with a wildcard names no host."""
    return urlsplit(request.url).hostname or ""


def _begin(request: Request, ends_at: float, owner: str, *, redirected: bool = False) -> Exchange:
    """Send one request. If `redirected`, the other side has already processed the first request."""
    # `requests` is imported with the first request that is sent, because most functions start without sending one.
    from portaria.outbound import http_exchange  # noqa: PLC0415

    try:
        prepared = http_exchange.prepare(request)
    except Rejected as refused:
        if not redirected:
            raise
        raise _redirect_refused(_host(request), refused.detail) from None
    return http_exchange.begin(request, prepared, ends_at, owner, redirected=redirected)
