"""One exchange of the outbound HTTP client: a checked request is sent by `http_transport`, and its response is read.

`http_client` imports this module with the first request, because `requests` takes a third of many functions' cold start.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import format_datetime
from urllib.parse import urlsplit

import requests
from requests.structures import CaseInsensitiveDict
from requests.utils import get_environ_proxies, select_proxy

from portaria.core import clock
from portaria.core.errors import AnswerLost, AnswerTooLarge, Rejected, Unreachable
from portaria.core.http.messages import Request, Response
from portaria.outbound import content_codings, public_addresses
from portaria.outbound.http_transport import Limits, NoAnswer, NotSent, SentRequest, Transport

USER_AGENT = "portaria/1 (+integration backend)"
LOOK_UP_S = 3.0

_DEFAULT_HEADERS = {"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": content_codings.ACCEPTED}

# One for each process, because it keeps connections.
transport = Transport()


def check_public(url: str) -> None:
    """See `http_client.check_public`. Raises `Rejected`."""
    if select_proxy(url, get_environ_proxies(url)):
        return
    try:
        public_addresses.resolve_public(urlsplit(url).hostname or "", 443, LOOK_UP_S)
    except (OSError, TimeoutError):
        raise Rejected("host_not_found", "the host's name could not be resolved", field="url") from None


def prepare(request: Request) -> requests.PreparedRequest:
    """Raises `Rejected` where `requests` cannot read the URL, or reads another host in it than the one that was checked."""
    headers = CaseInsensitiveDict(_DEFAULT_HEADERS)
    headers.update(request.headers)
    try:
        prepared = requests.Request(request.method, request.url, headers, data=request.body).prepare()
        same_host = urlsplit(prepared.url or "").hostname == urlsplit(request.url).hostname
    except (requests.exceptions.RequestException, ValueError):
        same_host = False
    if not same_host:
        raise Rejected("bad_url", "the URL is not valid", field="url")
    return prepared


class Exchange:
    """A request that was sent, and whose response has not been read. Call either `response` or `close`."""

    def __init__(self, request: Request, sent: SentRequest, limits: Limits, *, redirected: bool) -> None:
        self._request = request
        self._sent = sent
        self._limits = limits
        self._redirected = redirected

    def response(self, *, least_s: float = 0.0) -> Response:
        """Wait for the response, for `least_s` even if the request's time is over. Raises `AnswerLost` and `AnswerTooLarge`.

        The time counts from `begin`. A caller that did something else meanwhile needs `least_s` to read a response that came.
        """
        request, host = self._request, urlsplit(self._request.url).hostname or ""
        limits = self._limits._replace(ends_at=max(self._limits.ends_at, time.monotonic() + least_s))
        with _errors_of(host, redirected=self._redirected), self._sent.answer(limits) as answer:
            body = answer.raw.read(request.max_response_bytes + 1, decode_content=False)
        found = {name.lower(): value for name, value in answer.headers.items()}
        if request.truncates_response and len(body) > request.max_response_bytes:
            found.setdefault("date", format_datetime(clock.now(), usegmt=True))
            return Response(answer.status_code, found, body[: request.max_response_bytes])
        if len(body) <= request.max_response_bytes and (codings := found.pop("content-encoding", "")):
            body, left = content_codings.decode(body, codings, request.max_response_bytes)
            if left:
                found["content-encoding"] = left
        if len(body) > request.max_response_bytes:
            detail = f"{host} answered with more than {request.max_response_bytes:,} bytes"
            raise AnswerTooLarge(detail)
        found.setdefault("date", format_datetime(clock.now(), usegmt=True))
        return Response(answer.status_code, found, body)

    def close(self) -> None:
        """Give up the response."""
        self._sent.close()


def begin(
    request: Request, prepared: requests.PreparedRequest, ends_at: float, owner: str, *, redirected: bool
) -> Exchange:
    """Send one request without waiting for its response. If `redirected`, the other side has already processed the first one.

    Raises `Retryable` as `http_client.send` does.
    """
    limits = Limits(request.connect_timeout_s, request.read_timeout_s, ends_at, owner)
    with _errors_of(urlsplit(request.url).hostname or "", redirected=redirected):
        sent = transport.begin(prepared, limits)
    return Exchange(request, sent, limits, redirected=redirected)


@contextmanager
def _errors_of(host: str, *, redirected: bool) -> Iterator[None]:
    """Raise `Unreachable` and `AnswerLost` for the transport's errors."""
    try:
        yield
    except (NotSent, requests.exceptions.ConnectTimeout, requests.exceptions.ProxyError) as error:
        cause = str(error) if isinstance(error, NotSent) else type(error).__name__
        cause = "its name could not be resolved" if cause == "gaierror" else cause
        raise Unreachable(f"{host} was not reached: {cause}", answer_lost=redirected) from None
    except requests.exceptions.RequestException as error:
        cause = str(error) if isinstance(error, NoAnswer) else type(error).__name__
        raise AnswerLost(f"{host} gave no answer: {cause}") from None
