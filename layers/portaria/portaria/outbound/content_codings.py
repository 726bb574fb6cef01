"""Decoding the content codings of a response, as far as the bytes match their label (RFC 9110, 8.4.1)."""

from __future__ import annotations

import zlib

# The codings that each request accepts. Others are not decoded, because the request did not accept them.
ACCEPTED = "gzip, deflate"
MAX_CODINGS = 5
_GZIP_MAGIC = b"\x1f\x8b"


def decode(body: bytes, codings: str, limit: int) -> tuple[bytes, str]:
    """Returns the decoded body, and the codings that could not be decoded (empty where it is plain).

    `codings` is the value of `Content-Encoding`. A body that is labelled gzip but is not stays as it is. A body that cannot be
    decoded completely stays encoded, because a part must not pass for the whole body. At most `limit` + 1 bytes are decoded:
    a result of that length means that the body is larger than `limit`.
    """
    applied = [coding for each in codings.split(",") if (coding := each.strip().lower()) not in ("", "identity")]
    if len(applied) > MAX_CODINGS:
        return body, codings
    while applied:
        plain = _undone(body, applied[-1], limit)
        if plain is None:
            break
        body = plain
        applied.pop()
    return body, ", ".join(applied)


def _undone(body: bytes, coding: str, limit: int) -> bytes | None:
    if not body:
        return body
    if coding in ("gzip", "x-gzip"):
        return _gunzipped(body, limit) if body.startswith(_GZIP_MAGIC) else body
    if coding == "deflate":
        # The standard prescribes zlib's format; some servers send the raw stream.
        zlib_format = _inflated(body, zlib.MAX_WBITS, limit)
        return zlib_format if zlib_format is not None else _inflated(body, -zlib.MAX_WBITS, limit)
    return None


def _gunzipped(body: bytes, limit: int) -> bytes | None:
    """All members of a gzip file. Bytes after the last one are ignored, as gzip itself does."""
    found = b""
    while body.startswith(_GZIP_MAGIC) and len(found) <= limit:
        member = zlib.decompressobj(zlib.MAX_WBITS | 16)
        try:
            found += member.decompress(body, limit + 1 - len(found))
        except zlib.error:
            return None
        if not member.eof:
            return found if len(found) > limit else None
        body = member.unused_data
    return found


def _inflated(body: bytes, window_bits: int, limit: int) -> bytes | None:
    stream = zlib.decompressobj(window_bits)
    try:
        found = stream.decompress(body, limit + 1)
    except zlib.error:
        return None
    return found if len(found) > limit or (stream.eof and not stream.unused_data) else None
