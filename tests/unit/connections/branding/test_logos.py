"""Logos: what is stored is a picture alone, whatever was sent."""

from __future__ import annotations

import struct
import zlib
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portaria.connections.branding import logos
from portaria.connections.branding.logo_rules import UnusableLogo
from portaria.connections.branding.png_logos import SIGNATURE

SVG = "http://www.w3.org/2000/svg"


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def header(width: int = 32, height: int = 16, depth: int = 8, colour: int = 6, rest: bytes = b"\0\0\0") -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBB", width, height, depth, colour) + rest)


ROWS = b"\0" + b"\x10\x20\x30\xff" * 32
PIXELS = chunk(b"IDAT", zlib.compress(ROWS * 16))
END = chunk(b"IEND", b"")
PNG = SIGNATURE + header() + PIXELS + END


def svg(inner: str = "", *, attributes: str = 'width="64" height="64"', before: str = "") -> bytes:
    return f'{before}<svg xmlns="{SVG}" xmlns:xlink="http://www.w3.org/1999/xlink" {attributes}>{inner}</svg>'.encode()


class TestPng:
    def test_png_is_stored_as_it_is(self) -> None:
        logo = logos.check(PNG)
        assert logo == (PNG, "image/png", 32, 16)
        assert logo.version.endswith("-32x16")

    def test_png_metadata_is_left_out(self) -> None:
        noisy = SIGNATURE + header() + chunk(b"tEXt", b"Author\0Ana") + chunk(b"eXIf", b"gps") + PIXELS + END
        assert logos.check(noisy).content == PNG

    def test_png_animation_becomes_its_picture(self) -> None:
        animated = SIGNATURE + header() + chunk(b"acTL", b"\0" * 8) + PIXELS + chunk(b"fdAT", b"\0" * 9) + END
        assert logos.check(animated).content == PNG

    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            (PNG[:-3], "cut off"),
            (PNG[:20], "cut off"),
            (SIGNATURE, "cut off"),
            (PNG + b"<script>alert(1)</script>", "behind its end"),
            (PNG + PNG, "behind its end"),
            (PNG.replace(b"\x10\x20", b"\x10\x20")[:40] + b"\xff" + PNG[41:], "damaged"),
            (SIGNATURE + PIXELS + END, "header"),
            (SIGNATURE + header() + header() + PIXELS + END, "header"),
            (SIGNATURE + chunk(b"IHDR", b"\0" * 12) + PIXELS + END, "header"),
            (SIGNATURE + header(depth=3) + PIXELS + END, "header"),
            (SIGNATURE + header(rest=b"\1\0\0") + PIXELS + END, "header"),
            (SIGNATURE + header() + END, "picture cannot be read|size of its header"),
            (SIGNATURE + header() + chunk(b"IDAT", b"no zlib") + END, "cannot be read"),
            (SIGNATURE + header() + chunk(b"IDAT", zlib.compress(ROWS * 15)) + END, "size of its header"),
            (SIGNATURE + header() + chunk(b"IDAT", zlib.compress(ROWS * 17)) + END, "size of its header"),
            (SIGNATURE + header() + chunk(b"IDAT", zlib.compress(b"\0" * 9_000_000)) + END, "size of its header"),
            (SIGNATURE + header(width=30_000, height=30_000) + PIXELS + END, "16 to 1,024 pixels"),
            (SIGNATURE + header(width=15) + PIXELS + END, "16 to 1,024 pixels"),
            (SIGNATURE + header(width=1_024, height=16) + PIXELS + END, "12 times"),
            (SIGNATURE + header() + chunk(b"ABCD", b"") + PIXELS + END, "no picture needs"),
            (SIGNATURE + header() + chunk(b"ID T", b"") + PIXELS + END, "damaged"),
        ],
    )
    def test_png_that_is_not_one_picture_is_refused(self, content: bytes, problem: str) -> None:
        with pytest.raises(UnusableLogo, match=problem):
            logos.check(content)

    def test_png_interlaced_is_accepted(self) -> None:
        passes = b"".join(
            b"\0" * (1 + 4 * width) * rows
            for width, rows in ((4, 2), (4, 2), (8, 2), (8, 4), (16, 4), (16, 8), (32, 8))
        )
        content = SIGNATURE + header(rest=b"\0\0\1") + chunk(b"IDAT", zlib.compress(passes)) + END
        assert logos.check(content).content == content


class TestSvg:
    @pytest.mark.parametrize(
        "inner",
        [
            '<path d="M0 0L10 10z" fill="#0f6b66"/>',
            '<g transform="translate(1 2) scale(.5)"><circle cx="1" cy="2" r="3"/></g>',
            '<defs><linearGradient id="a"><stop offset="0" stop-color="red"/></linearGradient></defs><rect fill="url(#a)"/>',
            '<linearGradient id="b" xlink:href="#a"/>',
            '<clipPath id="c"><rect width="5" height="5"/></clipPath><g clip-path="url(#c)"/>',
            "<style>/* names */ .st0{fill:#123456;stroke:none} .a, .b { opacity: .5 }</style><path class='st0'/>",
            '<path style="fill:#fff;-inkscape-font-specification:Sans;font-size:12px"/>',
            "<title>Aurora</title><desc>A triangle</desc>",
        ],
    )
    def test_svg_drawing_is_accepted_and_stays_well_formed(self, inner: str) -> None:
        logo = logos.check(svg(inner))
        root = ElementTree.fromstring(logo.content)
        assert root.tag == f"{{{SVG}}}svg"
        assert (logo.content_type, logo.width, logo.height) == ("image/svg+xml", 64, 64)
        assert logos.check(logo.content) == logo

    def test_svg_of_a_drawing_program_loses_what_is_not_svg(self) -> None:
        content = (
            f'<?xml version="1.0" encoding="UTF-8"?><!-- Inkscape --><svg xmlns="{SVG}" viewBox="0 0 480 120" '
            'xmlns:inkscape="http://www.inkscape.org/namespaces/inkscape" inkscape:version="1.3" data-name="Layer 1">'
            "<inkscape:view><script>alert(1)</script></inkscape:view><metadata><x>y</x></metadata><path d='M0 0'/></svg>"
        ).encode()
        logo = logos.check(content)
        assert logo.content == f'<svg xmlns="{SVG}" viewBox="0 0 480 120"><path d="M0 0"></path></svg>'.encode()
        assert (logo.width, logo.height) == (480, 120)

    @pytest.mark.parametrize(
        "inner",
        [
            "<script>alert(1)</script>",
            '<script href="https://evil.example/x.js"/>',
            "<foreignObject><div xmlns='http://www.w3.org/1999/xhtml'>x</div></foreignObject>",
            '<image href="https://evil.example/x.png"/>',
            '<image href="data:image/png;base64,AAAA"/>',
            '<use href="#a"/>',
            '<use href="https://evil.example/x.svg#a"/>',
            '<a href="javascript:alert(1)"><path d="M0 0"/></a>',
            "<animate attributeName='href' to='javascript:alert(1)'/>",
            "<set attributeName='onmouseover' to='alert(1)'/>",
            "<animateTransform attributeName='transform'/>",
            "<filter id='f'><feImage href='https://evil.example/'/></filter>",
            "<pattern id='p'/>",
            "<symbol id='s'/>",
            "<text>Aurora</text>",
            "<svg/>",
            "<iframe/>",
            "<unknown/>",
            '<path onload="alert(1)"/>',
            '<path onclick="alert(1)"/>',
            '<path ONMOUSEOVER="alert(1)"/>',
            '<path href="#a"/>',
            '<path xlink:href="javascript:alert(1)"/>',
            '<linearGradient xlink:href="https://evil.example/#a"/>',
            '<linearGradient href="data:text/html,x"/>',
            '<path xlink:actuate="onLoad"/>',
            '<path fill="url(https://evil.example/#a)"/>',
            "<path fill='url(\"//evil.example/#a\")'/>",
            '<path fill="URL(//evil.example)"/>',
            '<path fill="url(#a) url(//evil.example)"/>',
            '<path fill="u\\72l(//evil.example)"/>',
            '<path fill="image(//evil.example)"/>',
            '<path style="background:url(//evil.example)"/>',
            '<path style="fill:url(//evil.example/x)"/>',
            '<path style="fill:expression(alert(1))"/>',
            '<path style="behavior:url(x.htc)"/>',
            '<path style="position:fixed"/>',
            "<style>@import url(//evil.example/x.css);</style>",
            "<style>@font-face{src:url(//evil.example/x)}</style>",
            "<style>.a{fill:url(//evil.example/x)}</style>",
            "<style>.a{background-image:url(//evil.example/x)}</style>",
            "<style>.a{fill:red}} @import 'x';</style>",
            "<style>@media print{.a{fill:red}}</style>",
            "<style>.a{fill:red}/* </style>",
            "<style><![CDATA[</style><script>alert(1)</script>]]></style>",
            "<style>.a:hover{fill:red}</style>",
            "<style>\\40 import 'x'</style>",
            "text",
            "<g>text</g>",
        ],
    )
    def test_svg_with_something_active_is_refused(self, inner: str) -> None:
        with pytest.raises(UnusableLogo):
            logos.check(svg(inner))

    @pytest.mark.parametrize(
        "content",
        [
            svg(
                before='<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd">'
            ),
            svg("&a;", before='<!DOCTYPE svg [<!ENTITY a "b">]>'),
            svg("&x;", before='<!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]>'),
            svg(before='<?xml-stylesheet href="https://evil.example/x.css"?>'),
            svg("&x;"),
            b"<svg><path/></svg>",
            f'<html xmlns="http://www.w3.org/1999/xhtml"><svg xmlns="{SVG}" width="64" height="64"/></html>'.encode(),
            svg() + b"<script/>",
            svg("<g>"),
            svg("<g>" * 50 + "</g>" * 50),
            svg("<g/>" * 3_000),
            svg(attributes=""),
            svg(attributes='width="100%" height="100%"'),
            svg(attributes='width="9999" height="64"'),
            svg(attributes='width="64" height="5"'),
            svg(attributes='viewBox="0 0 NaN 64"'),
            svg(attributes='width="64" height="64" onload="alert(1)"'),
            svg().decode().encode("utf-16"),
            b"<",
            b"<svg",
        ],
    )
    def test_svg_document_that_is_not_a_drawing_is_refused(self, content: bytes) -> None:
        with pytest.raises(UnusableLogo):
            logos.check(content)

    def test_svg_text_is_escaped_when_it_is_written(self) -> None:
        logo = logos.check(svg("<title>&lt;script&gt;alert(1)&lt;/script&gt; &amp; more</title>"))
        assert b"<script>" not in logo.content


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"GIF89a",
        b"\xff\xd8\xff\xe0JFIF",
        b"RIFF....WEBP",
        b"%PDF-1.7",
        b"BM",
        b"\x00\x00\x01\x00",
        b"alert(1)",
        b"\x89PNG",
    ],
)
def test_logo_of_another_type_is_refused(content: bytes) -> None:
    with pytest.raises(UnusableLogo, match="must be a PNG or SVG file"):
        logos.check(content)


def test_logo_above_the_limit_is_refused_before_it_is_read() -> None:
    with pytest.raises(UnusableLogo, match="50,000 bytes"):
        logos.check(SIGNATURE + b"x" * 50_000)


@given(st.binary(max_size=300), st.integers(0, len(PNG)))
def test_logo_any_damage_is_refused_or_a_picture(noise: bytes, place: int) -> None:
    for content in (PNG[:place] + noise + PNG[place + len(noise) :], svg()[:place] + noise + svg()[place:]):
        try:
            logo = logos.check(content)
        except UnusableLogo:
            continue
        assert logo.content_type in ("image/png", "image/svg+xml")
        assert b"<script" not in logo.content
