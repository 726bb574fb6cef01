"""Responses whose body is compressed, or only labelled so (case: a plain refusal labelled gzip lost its status)."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portaria.outbound import content_codings

PLAIN = b'{"error":"invalid_grant"}' * 20
GZIP = gzip.compress(PLAIN, mtime=0)
RAW_DEFLATE = zlib.compress(PLAIN)[2:-4]
LIMIT = 10_000


@pytest.mark.parametrize(
    ("codings", "body"),
    [
        ("gzip", GZIP),
        ("GZip", GZIP),
        ("x-gzip", GZIP),
        ("gzip, identity", GZIP),
        ("identity, gzip", GZIP),
        ("identity", PLAIN),
        ("", PLAIN),
        (",", PLAIN),
        ("deflate", zlib.compress(PLAIN)),
        ("deflate", RAW_DEFLATE),
        ("deflate, gzip", gzip.compress(zlib.compress(PLAIN), mtime=0)),
        ("gzip, gzip", gzip.compress(GZIP, mtime=0)),
        # Labelled gzip without being so, or with fewer layers than the label says.
        ("gzip", PLAIN),
        ("gzip, gzip", GZIP),
        # Several members, and bytes after the last one.
        ("gzip", gzip.compress(PLAIN[:100], mtime=0) + gzip.compress(PLAIN[100:], mtime=0)),
        ("gzip", GZIP + b"\x00" * 100),
    ],
)
def test_decode_compressed_or_mislabelled_body_returns_plain_body(codings: str, body: bytes) -> None:
    assert content_codings.decode(body, codings, LIMIT) == (PLAIN, "")


@pytest.mark.parametrize("codings", ["gzip", "x-gzip", "deflate", "br", "gzip, br"])
def test_decode_empty_body_returns_empty_body(codings: str) -> None:
    assert content_codings.decode(b"", codings, LIMIT)[0] == b""


@pytest.mark.parametrize(
    ("codings", "body", "left"),
    [
        ("br", b"\x0b\x02\x80", "br"),
        ("zstd", b"\x28\xb5\x2f\xfd", "zstd"),
        ("gzip", GZIP[:-10], "gzip"),
        ("gzip", GZIP[:12] + b"\xff" * 20, "gzip"),
        ("gzip", b"\x1f\x8b", "gzip"),
        ("deflate", zlib.compress(PLAIN)[:-6], "deflate"),
        ("deflate", PLAIN, "deflate"),
        ("br, gzip", gzip.compress(b"\x0b\x02\x80", mtime=0), "br"),
        ("gzip, gzip, gzip, gzip, gzip, gzip", GZIP, "gzip, gzip, gzip, gzip, gzip, gzip"),
    ],
)
def test_decode_incomplete_body_is_returned_unchanged_with_its_coding(codings: str, body: bytes, left: str) -> None:
    """Given a body that cannot be decoded completely, then it stays unchanged, and its coding is still named."""
    found, still_applied = content_codings.decode(body, codings, LIMIT)
    assert still_applied == left
    assert found == (b"\x0b\x02\x80" if codings == "br, gzip" else body)


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress])
@pytest.mark.parametrize("size", [LIMIT, LIMIT + 1, 50_000_000])
def test_decode_output_is_limited(compress: object, size: int) -> None:
    codings = "gzip" if compress is gzip.compress else "deflate"
    found, _ = content_codings.decode(compress(bytes(size)), codings, LIMIT)  # type: ignore[operator]
    assert len(found) == min(size, LIMIT + 1)


@given(
    st.binary(max_size=300), st.lists(st.sampled_from(["gzip", "deflate", "br", "identity", "", "x-gzip"]), max_size=7)
)
def test_decode_arbitrary_body_never_raises(body: bytes, codings: list[str]) -> None:
    content_codings.decode(body, ", ".join(codings), LIMIT)
    content_codings.decode(b"\x1f\x8b" + body, ", ".join(codings), LIMIT)
    content_codings.decode(b"\x78\x9c" + body, ", ".join(codings), LIMIT)
