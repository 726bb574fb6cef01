"""The one gate through which credentials leave: https only, to the allowed domain only, no redirects, bounded answers."""

from __future__ import annotations

import re
import ssl
from functools import cache
from urllib.parse import urlsplit

import requests
import urllib3

from portaria.contract import Rejected, Request, Response, Retryable

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


def send(request: Request, *, allowed_domain: str) -> Response:
    """Carry a platform's request and bring its answer, whatever the status; a redirect is an answer and is not followed.

    Raises `Rejected` where the request may not leave (nothing was sent) and `Retryable` where no whole answer came:
    with `answer_lost` false nothing had been sent, with true the other side may have acted on it.
    """
    check(request, allowed_domain)
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
    except (requests.exceptions.ConnectTimeout, requests.exceptions.ProxyError) as error:
        raise Retryable("unreachable", f"{allowed_domain} was not reached: {type(error).__name__}") from None
    except requests.exceptions.ConnectionError as error:
        if _never_sent(error):
            raise Retryable("unreachable", f"{allowed_domain} was not reached: {type(error).__name__}") from None
        raise Retryable(
            "no_answer", f"{allowed_domain} gave no answer: {type(error).__name__}", answer_lost=True
        ) from None
    except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError) as error:
        raise Retryable(
            "no_answer", f"{allowed_domain} gave no answer: {type(error).__name__}", answer_lost=True
        ) from None
    if len(body) > request.max_response_bytes:
        raise Rejected(
            "answer_too_large", f"{allowed_domain} answered more than {request.max_response_bytes} bytes", status=502
        )
    return Response(answer.status_code, {name.lower(): value for name, value in answer.headers.items()}, body)


def _never_sent(error: requests.exceptions.ConnectionError) -> bool:
    """Whether no connection came about, or one whose certificate was refused. TLS can also break after the request."""
    cause = error.args[0] if error.args else None
    reason = getattr(cause, "reason", cause)
    if isinstance(reason, urllib3.exceptions.SSLError):
        return bool(reason.args) and isinstance(reason.args[0], ssl.SSLCertVerificationError)
    return isinstance(reason, urllib3.exceptions.NewConnectionError)


@cache
def _session() -> requests.Session:
    """One session a process, for its kept connections; no library retries (the queues retry), no cookies, no .netrc."""
    session = requests.Session()
    session.auth = _no_netrc
    session.cookies.set_policy(_NoCookies())
    return session


def _no_netrc(prepared: requests.PreparedRequest) -> requests.PreparedRequest:
    return prepared


class _NoCookies(requests.cookies.cookielib.DefaultCookiePolicy):  # type: ignore[name-defined,misc]
    def set_ok(self, cookie: object, request: object) -> bool:
        return False
