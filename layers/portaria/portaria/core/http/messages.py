"""Outgoing HTTP: the request that a platform builds and the response that it reads. Only `outbound` sends requests."""

from __future__ import annotations

import codecs
import json
import re
from dataclasses import dataclass, field
from typing import Any

# The longest byte order marks first: the one of UTF-32 begins like the one of UTF-16.
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Python's names for encodings that turn plain ASCII into other characters. No API answers in one, so a server that
# declares one could only want its answer to be read differently from how others read it.
_NOT_CHARSETS = frozenset({"utf-7", "idna", "punycode", "unicode-escape", "raw-unicode-escape", "unicode_escape"})


@dataclass(frozen=True)
class Request:
    """An outgoing call that a platform built. URL, headers and body may hold credentials, so none of them is ever printed.

    `connect_timeout_s` and `read_timeout_s` are seconds, the latter between two bytes of the answer; `total_timeout_s`
    bounds the whole exchange, redirects included (None: the two others together). `max_response_bytes` bounds what is
    read of the answer; a longer one is an error, or is cut off there if `truncates_response`. `credential_headers` names those
    that no other host may see if a redirect leads there.
    """

    method: str
    url: str = field(repr=False)
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = field(default=None, repr=False)
    connect_timeout_s: float = 3.0
    read_timeout_s: float = 10.0
    total_timeout_s: float | None = None
    max_response_bytes: int = 10_000_000
    truncates_response: bool = False
    credential_headers: tuple[str, ...] = ()

    @property
    def time_limit_s(self) -> float:
        """The longest that the whole exchange may take, in seconds."""
        if self.total_timeout_s is None:
            return self.connect_timeout_s + self.read_timeout_s
        return self.total_timeout_s


@dataclass(frozen=True)
class Response:
    """An answer. Header names are lower case. The body may hold credentials and is not printed."""

    status: int
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)

    def charset(self) -> str:
        """The charset that `Content-Type` declares, by Python's name for it; empty if it declares none that is known."""
        parameters = self.headers.get("content-type", "").split(";")[1:]
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip().lower() == "charset":
                try:
                    known = codecs.lookup(value.strip().strip("\"'")).name
                except (LookupError, ValueError):
                    return ""
                return "" if known in _NOT_CHARSETS else known
        return ""

    def text(self) -> str:
        """The body, decoded by its byte order mark, else by the declared charset, else as UTF-8; without the mark.

        A declared charset that does not fit the bytes is ignored. Raises `UnicodeDecodeError` if UTF-8 does not fit either.
        """
        for mark, charset in _BYTE_ORDER_MARKS:
            if self.body.startswith(mark):
                return self.body[len(mark) :].decode(charset)
        try:
            return self.body.decode(self.charset() or "utf-8")
        except (LookupError, UnicodeError):
            return self.body.decode()

    def json(self) -> Any:
        """The body as JSON, decoded as `text` does. Raises `ValueError`, and `RecursionError` for deep nesting."""
        return json.loads(self.text())

    def retry_after_s(self) -> float | None:
        """The wait that `Retry-After` asks for, in seconds from 0 to a day, or None if it asks for none that can be read.

        A point in time is measured from the answer's own `Date`, which `http_client` adds where it is missing.
        https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3
        """
        text = self.headers.get("retry-after", "").strip()
        if re.fullmatch(r"-?[0-9]{1,15}(\.[0-9]{1,9})?", text):
            wait_s = float(text)
        else:
            # Imported here: the package `email` takes a fifth of a small function's cold start.
            from email.utils import parsedate_to_datetime  # noqa: PLC0415

            try:
                until, sent = (parsedate_to_datetime(date) for date in (text, self.headers.get("date", "")))
                wait_s = (until - sent).total_seconds()
            except (ValueError, TypeError, OverflowError):
                return None
        return min(max(wait_s, 0.0), 86_400.0)
