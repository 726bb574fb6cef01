"""Undoing the content codings of an answer, as far as the bytes agree with their label (RFC 9110, 8.4.1)."""

from __future__ import annotations

import zlib

# What is asked for with each request. Others are not decoded: a server that uses them was not asked to.
ACCEPTED = "gzip, deflate"
MAX_CODINGS = 5
_GZIP_MAGIC = b"\x1f\x8b"


def decode(body: bytes, codings: str, limit: int) -> tuple[bytes, str]:
    """The body without its codings, and those that could not be undone: empty where it is plain now.

    `codings` is the value of `Content-Encoding`. A body that is labelled gzip and is not is taken as it is. One that cannot be
    decoded to its end stays as it came, since a part of a body must not pass for the whole. More than `limit` bytes
    are never produced: where the body is larger, `limit` + 1 bytes of it are returned.
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
        # In zlib's format by the standard; some servers send the bare stream.
        zlib_format = _inflated(body, zlib.MAX_WBITS, limit)
        return zlib_format if zlib_format is not None else _inflated(body, -zlib.MAX_WBITS, limit)
    return None


def _gunzipped(body: bytes, limit: int) -> bytes | None:
    """All members of a gzip file. Bytes behind the last one are ignored, as gzip itself does."""
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
