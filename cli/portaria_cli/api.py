"""Requests to the API. A refusal becomes one sentence for the person who reads it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Protocol
from urllib.parse import quote, urlencode, urlsplit
from uuid import uuid4

from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.exceptions import (
    BotoCoreError,
    ConnectionClosedError,
    HTTPClientError,
    ReadTimeoutError,
    ResponseStreamingError,
)
from botocore.httpsession import URLLib3Session
from botocore.utils import get_environ_proxies

from portaria_cli.errors import Document, NotDone, reason_of

# The function has 20 s, and API Gateway waits 29 s.
TIMEOUT_S = (5.0, 35.0)
# How long a repeated request waits for the first one, which may still be running.
PATIENCE_S = 40.0
GATEWAY_TIMED_OUT = 504
# The API's own limit.
MAX_PAGE = 100


class Caller(Protocol):
    """The caller: an AWS principal or a private integration."""

    @property
    def prefix(self) -> str: ...

    def sign(self, request: AWSRequest) -> None: ...

    def advice(self, status: int, reason: str, said: str) -> str:
        """What to do about a 401 or 403 with the text that the API `said`, or an empty text."""


@dataclass(frozen=True)
class Api:
    """The API at `url` (with its stage), as `caller`. `timeout_s` is for connecting and for an answer."""

    url: str
    caller: Caller
    timeout_s: tuple[float, float] = TIMEOUT_S

    def get(self, *path: str) -> Document:
        return self._call("GET", path)[0]

    def get_with_etag(self, *path: str) -> tuple[Document, str]:
        found, headers = self._call("GET", path)
        return found, headers.get("ETag", "")

    def find(self, *path: str) -> Document | None:
        """The resource at a path, or None."""
        try:
            return self.get(*path)
        except NotDone as refused:
            if refused.status == 404 and refused.reason.startswith("unknown_"):
                return None
            raise

    def create(self, *path: str, body: Document) -> Document:
        """POST with an Idempotency-Key. If the answer is lost, the request is sent once more with the same key."""
        headers = {"Idempotency-Key": uuid4().hex}
        try:
            return self._call("POST", path, body=body, headers=headers)[0]
        except NotDone as lost:
            if not lost.answer_lost:
                raise
        waits_until = monotonic() + PATIENCE_S
        while True:
            try:
                return self._call("POST", path, body=body, headers=headers)[0]
            except NotDone as refused:
                if refused.reason != "request_in_progress" or monotonic() > waits_until:
                    raise _after_a_lost_answer(refused) from None
                sleep(refused.retry_after_s or 1)

    def post(self, *path: str, body: Document) -> Document:
        return self._call("POST", path, body=body)[0]

    def put(self, *path: str, body: Document, etag: str = "") -> Document:
        """Replace a resource. With an `etag`, the API refuses if the resource has changed since it was read."""
        return self._call("PUT", path, body=body, headers={"If-Match": etag} if etag else {})[0]

    def patch(self, *path: str, body: Document, etag: str) -> Document:
        """Edit a resource. The API refuses if the resource has changed since its `etag` was read."""
        return self._call("PATCH", path, body=body, headers={"If-Match": etag} if etag else {})[0]

    def delete(self, *path: str) -> Document:
        return self._call("DELETE", path)[0]

    def list(self, *path: str, most: int | None = None, **filters: str) -> Iterator[Document]:
        """Every item of a listing, or the first `most`."""
        for page in self.pages(*path, most=most, **filters):
            yield from page["items"]

    def pages(
        self, *path: str, most: int | None = None, cursor: str | None = None, **filters: str
    ) -> Iterator[Document]:
        """A listing page by page, from `cursor` on, until it ends or `most` items were read."""
        count = 0
        while True:
            size = MAX_PAGE if most is None else min(MAX_PAGE, most - count)
            query = {**filters, "limit": str(size)} | ({"cursor": cursor} if cursor else {})
            page, _ = self._call("GET", path, query=query)
            yield page
            count += len(page["items"])
            cursor = page["next_cursor"]
            if not cursor or (most is not None and count >= most):
                return

    def _call(
        self,
        method: str,
        path: tuple[str, ...],
        *,
        query: dict[str, str] | None = None,
        body: Document | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[Document, Mapping[str, str]]:
        url = "/".join((f"{self.url}{self.caller.prefix}", *(quote(step, safe="") for step in path)))
        request = AWSRequest(
            method=method,
            url=url + (f"?{urlencode(query, quote_via=quote)}" if query else ""),
            data=None if body is None else json.dumps(body).encode(),
            headers={"Accept": "application/json", "Content-Type": "application/json", **(headers or {})},
        )
        self.caller.sign(request)
        session = URLLib3Session(timeout=self.timeout_s, proxies=get_environ_proxies(url))
        host = urlsplit(url).netloc
        try:
            answer = session.send(request.prepare())
        except (ReadTimeoutError, ConnectionClosedError, ResponseStreamingError) as error:
            raise NotDone(_lost(host, type(error).__name__, method), exit_code=3, answer_lost=True) from None
        except (HTTPClientError, BotoCoreError) as error:
            raise NotDone(
                f"{host} could not be reached ({type(error).__name__}): check the URL, the network and the proxy",
                exit_code=3,
            ) from None
        return self._read(answer, method), answer.headers

    def _read(self, answer: AWSResponse, method: str) -> Document:
        try:
            content = json.loads(answer.text) if answer.text else {}
        except ValueError:
            content = {}
        if not isinstance(content, dict):
            content = {}
        status = answer.status_code
        if status < 300:
            return content
        reason, wait_s = reason_of(content), _wait_s(answer.headers)
        # API Gateway uses both spellings.
        said = str(content.get("message") or content.get("Message") or "")
        answer_lost = status == GATEWAY_TIMED_OUT and not reason
        if answer_lost:
            sentence = _lost(urlsplit(self.url).netloc, "it timed out", method)
        elif "detail" in content:
            sentence = "; ".join(str(error.get("detail")) for error in content.get("errors", [])) or str(
                content["detail"]
            )
            if status in (401, 403) and (advice := self.caller.advice(status, reason, sentence)):
                sentence += f"; {advice}"
            if wait_s:
                sentence += f"; try again in {wait_s:.0f} s"
        elif status in (401, 403):
            sentence = self.caller.advice(status, "", said)
        else:
            sentence = f"the API answered {status}" + (f": {said}" if said else "")
        raise NotDone(sentence, status=status, problem=content, answer_lost=answer_lost, retry_after_s=wait_s)


def _wait_s(headers: Mapping[str, str]) -> float | None:
    text = str(headers.get("Retry-After", ""))
    return float(text) if text.isascii() and text.isdigit() else None


def _lost(host: str, error: str, method: str) -> str:
    unknown = "" if method == "GET" else ": it may have been done, so check before you repeat it"
    return f"no response from {host} ({error}){unknown}"


def _after_a_lost_answer(refused: NotDone) -> NotDone:
    """A refusal of a repeated request."""
    if refused.status != 409:
        return refused
    sentence = f"{refused} (the first response was lost: this may be what it created)"
    return NotDone(sentence, status=refused.status, problem=refused.problem)
