"""A fake of `http_client` for tests that answer its requests: one function answers `send` and `begin`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from portaria.core.errors import AnswerLost
from portaria.core.http.messages import Request, Response
from portaria.outbound import http_client

Send = Callable[..., Response]


class SentRequest:
    """A fake of `http_exchange.Exchange`. `read` returns the response or raises its error."""

    def __init__(self, read: Callable[[], Response], close: Callable[[], None] = lambda: None) -> None:
        self._read = read
        self.close = close

    def response(self, *, least_s: float = 0.0) -> Response:
        return self._read()


@contextmanager
def answering(send: Send, begin: Callable[..., Any] | None = None) -> Iterator[None]:
    """Answer requests with `send`. Without `begin`, `send` is called when a request begins, and its result is read later."""

    def at_once(request: Request, *, allowed_domain: str, owner: str = "") -> SentRequest:
        try:
            response = send(request, allowed_domain=allowed_domain, owner=owner)
        except AnswerLost as lost:
            return SentRequest(_raising(lost))
        return SentRequest(lambda: response)

    with patch.object(http_client, "send", send), patch.object(http_client, "begin", begin or at_once):
        yield


def _raising(error: Exception) -> Callable[[], Response]:
    def read() -> Response:
        raise error

    return read
