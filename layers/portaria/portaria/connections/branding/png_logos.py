"""PNG logos: what is stored is the picture alone, rebuilt from its checked chunks. https://www.w3.org/TR/png-3/"""

from __future__ import annotations

import re
import struct
import zlib

from portaria.connections.branding.logo_rules import UnusableLogo, check_size

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# What a picture needs and what says how its colours look. Texts, times, EXIF data and animations are left out.
_KEPT = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"gAMA", b"cHRM", b"sRGB"}
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_CHUNK = struct.Struct(">I4s")
_HEADER = struct.Struct(">IIBBBBB")


def clean(content: bytes) -> tuple[bytes, int, int]:
    """The picture without metadata, its width and its height. Raises `UnusableLogo`."""
    kept: list[bytes] = [SIGNATURE]
    pixels = b""
    header: tuple[int, ...] | None = None
    place, kind = len(SIGNATURE), b""
    while kind != b"IEND":
        if len(content) < place + 12:
            raise UnusableLogo("is a PNG file that is cut off")
        length, kind = _CHUNK.unpack_from(content, place)
        end = place + 12 + length
        chunk, data = content[place:end], content[place + 8 : end - 4]
        if len(content) < end or not re.fullmatch(rb"[A-Za-z]{4}", kind):
            raise UnusableLogo("is a PNG file that is cut off or damaged")
        if zlib.crc32(kind + data) != int.from_bytes(chunk[-4:]):
            raise UnusableLogo("is a PNG file that is damaged: a checksum does not match")
        if (kind == b"IHDR") != (header is None):
            raise UnusableLogo("is a PNG file whose header is missing or repeated")
        if kind == b"IHDR":
            header = _read_header(data)
        elif kind == b"IDAT":
            pixels += data
        elif kind[:1].isupper() and kind not in _KEPT:
            raise UnusableLogo("is a PNG file with a chunk that no picture needs")
        if kind in _KEPT:
            kept.append(chunk)
        place = end
    if place != len(content):
        raise UnusableLogo("is a PNG file with something behind its end")
    if header is None:
        raise UnusableLogo("is a PNG file without a header")
    _check_pixels(pixels, header)
    return b"".join(kept), header[0], header[1]


def _read_header(data: bytes) -> tuple[int, ...]:
    if len(data) != _HEADER.size:
        raise UnusableLogo("is a PNG file with a wrong header")
    header = _HEADER.unpack(data)
    width, height, depth, colour, compression, filtering, interlace = header
    check_size(width, height)
    if depth not in _DEPTHS.get(colour, ()) or compression or filtering or interlace not in (0, 1):
        raise UnusableLogo("is a PNG file with a wrong header")
    return header


def _check_pixels(pixels: bytes, header: tuple[int, ...]) -> None:
    """The data must hold this picture's rows: not less, and not a multiple of them that fills a browser's memory."""
    width, height, depth, colour = header[:4]
    row = 1 + (width * depth * _CHANNELS[colour] + 7) // 8
    # Interlaced pictures have up to seven passes, whose rows have a filter byte each.
    most = row * height if not header[6] else (row + 8) * height * 2
    unpacked = zlib.decompressobj()
    try:
        length = len(unpacked.decompress(pixels, most + 1))
    except zlib.error:
        raise UnusableLogo("is a PNG file whose picture cannot be read") from None
    if length > most or (length != most and not header[6]) or unpacked.unused_data:
        raise UnusableLogo("is a PNG file whose picture does not have the size of its header")
