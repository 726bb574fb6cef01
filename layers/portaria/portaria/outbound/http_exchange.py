"""One exchange of the outbound HTTP client: a checked request is sent by `http_transport`, and its response is read.

`http_client` imports this module with the first request, because `requests` takes a third of many functions' cold start.
"""

from __future__ import annotations

from email.utils import format_datetime
from urllib.parse import urlsplit

import requests
from requests.structures import CaseInsensitiveDict
from requests.utils import get_environ_proxies, select_proxy

from portaria.core import clock
from portaria.core.errors import AnswerLost, AnswerTooLarge, Rejected, Unreachable
from portaria.core.http.messages import Request, Response
from portaria.outbound import content_codings, public_addresses
from portaria.outbound.http_transport import Limits, NoAnswer, NotSent, Transport

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


def exchange(
    request: Request, prepared: requests.PreparedRequest, ends_at: float, owner: str, *, redirected: bool
) -> Response:
    """Send one request and read its response. If `redirected`, the other side has already processed the first request.

    Raises `Retryable` and `AnswerTooLarge` as `http_client.send` does.
    """
    host = urlsplit(request.url).hostname or ""
    limits = Limits(request.connect_timeout_s, request.read_timeout_s, ends_at, owner)
    try:
        with transport.send(prepared, timeout=limits) as answer:
            body = answer.raw.read(request.max_response_bytes + 1, decode_content=False)
    except (NotSent, requests.exceptions.ConnectTimeout, requests.exceptions.ProxyError) as error:
        cause = str(error) if isinstance(error, NotSent) else type(error).__name__
        cause = "its name could not be resolved" if cause == "gaierror" else cause
        raise Unreachable(f"{host} was not reached: {cause}", answer_lost=redirected) from None
    except requests.exceptions.RequestException as error:
        cause = str(error) if isinstance(error, NoAnswer) else type(error).__name__
        raise AnswerLost(f"{host} gave no answer: {cause}") from None
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
