"""Mapped records are put together into full requests. Pure functions without I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import orjson

from portaria.records.mapping.record_mapping import OutgoingRecord, RejectedRecord


class Chunk(list[OutgoingRecord]):
    """The records of one request, and `text`: their objects as JSON, with commas between them. A part of it is a plain list."""

    def __init__(self, outgoing: Iterable[OutgoingRecord], text: bytes) -> None:
        super().__init__(outgoing)
        self.text = text


def encoded(piece: list[OutgoingRecord]) -> bytes:
    """The objects of records as JSON, with commas between them. Raises `orjson.JSONEncodeError`."""
    return piece.text if isinstance(piece, Chunk) else orjson.dumps([one.attributes for one in piece])[1:-1]


def fill(
    outgoing: list[OutgoingRecord], *, frame_bytes: int, max_objects: int, max_bytes: int
) -> Iterator[Chunk | RejectedRecord]:
    """Cut records into requests, which are as full as the limits allow; `frame_bytes` is the size of the body around them.

    A record that alone exceeds the limit, or cannot be encoded as JSON, is refused. Each request is encoded when it is taken,
    so that this can happen while the last one is on its way.
    """
    room = max_bytes - frame_bytes
    for start in range(0, len(outgoing), max_objects):
        block = outgoing[start : start + max_objects]
        try:
            text = encoded(block)
        except orjson.JSONEncodeError:
            text = None
        if text is None or len(text) > room:
            yield from _fill_by_size(outgoing[start:], max_objects, room)
            return
        yield Chunk(block, text)


def _fill_by_size(outgoing: list[OutgoingRecord], max_objects: int, room: int) -> Iterator[Chunk | RejectedRecord]:
    """Add records one by one: each takes longer than many together, but its own size is known."""
    chunk: list[OutgoingRecord] = []
    texts: list[bytes] = []
    size = 0
    for one in outgoing:
        try:
            text = orjson.dumps(one.attributes)
        except orjson.JSONEncodeError:
            detail = "an attribute cannot be written as JSON"
            yield from one.rejected("bad_value", detail)
            continue
        length = len(text)
        if length > room:
            detail = f"the record has {length} bytes in a request; {room} are allowed"
            yield from one.rejected("record_too_large", detail)
            continue
        if chunk and (len(chunk) == max_objects or size + 1 + length > room):
            yield Chunk(chunk, b",".join(texts))
            chunk, texts, size = [], [], 0
        size += length + (1 if chunk else 0)
        chunk.append(one)
        texts.append(text)
    if chunk:
        yield Chunk(chunk, b",".join(texts))
