"""The colours of the hosted pages, made of an OAuth client's `colour`, with the contrast that WCAG 2.2 asks for.

A colour is never refused for its contrast: black or white text on it always reaches 4.58:1 (the square root of 21). Where it is
too close to the page, its edge and the texts in it are moved towards black or white until they reach the limit.

https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

# Text (WCAG 2.2, 1.4.3) and the edge of a control (1.4.11).
TEXT_CONTRAST, EDGE_CONTRAST = 4.5, 3.0
LIGHT, DARK = "light", "dark"
# As in web/templates/style.css: what text and buttons stand on.
CARDS = {LIGHT: "#ffffff", DARK: "#17201f"}
BLACK, WHITE = "#000000", "#ffffff"
_HEX = re.compile(r"#[0-9a-f]{6}")
_STEPS = 50


class Palette(NamedTuple):
    """The colours of one scheme, by the names of their CSS variables.

    `fill` is a button's, `on_fill` its text, `fill_edge` its border and `fill_strong` its fill under the pointer. `accent` is
    for links and drawings, `accent_strong` the same under the pointer, and `on_accent` for signs on it. `tint` is a pale area.
    """

    fill: str
    on_fill: str
    fill_edge: str
    fill_strong: str
    accent: str
    accent_strong: str
    on_accent: str
    tint: str


def is_colour(text: str) -> bool:
    return bool(_HEX.fullmatch(text))


def contrast(one: str, other: str) -> float:
    """From 1 to 21."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def text_on(colour: str) -> str:
    """Black or white, whichever has more contrast."""
    return max((WHITE, BLACK), key=lambda text: contrast(text, colour))


def palette(colour: str, scheme: str) -> Palette:
    """The palette of a colour (`#rrggbb`) for `light` or `dark`. Every text and edge in it reaches its contrast."""
    card = CARDS[scheme]
    away = BLACK if scheme == LIGHT else WHITE
    on_fill = text_on(colour)
    accent = _moved(colour, away, lambda tried: contrast(tried, card) >= TEXT_CONTRAST)
    tint = mix(card, accent, 0.1 if scheme == LIGHT else 0.16)
    accent = _moved(accent, away, lambda tried: contrast(tried, tint) >= TEXT_CONTRAST)
    return Palette(
        fill=colour,
        on_fill=on_fill,
        fill_edge=_moved(colour, away, lambda tried: contrast(tried, card) >= EDGE_CONTRAST),
        # Away from the text's colour, so that the contrast only grows.
        fill_strong=mix(colour, BLACK if on_fill == WHITE else WHITE, 0.14),
        accent=accent,
        accent_strong=mix(accent, away, 0.25),
        on_accent=text_on(accent),
        tint=tint,
    )


def schemes_that_lack_contrast(colour: str) -> list[str]:
    """The schemes in which a button of this colour has too little contrast with the page and so gets an edge."""
    return [scheme for scheme, card in CARDS.items() if contrast(colour, card) < EDGE_CONTRAST]


def mix(one: str, other: str, share: float) -> str:
    """`one` with a share of `other`, from 0 to 1."""
    pairs = zip(_channels(one), _channels(other), strict=True)
    return "#" + "".join(f"{round(first + (second - first) * share):02x}" for first, second in pairs)


def _moved(colour: str, towards: str, is_enough: Callable[[str], bool]) -> str:
    for step in range(_STEPS):
        tried = mix(colour, towards, step / _STEPS)
        if is_enough(tried):
            return tried
    return towards


def _channels(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _luminance(colour: str) -> float:
    red, green, blue = (
        share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4
        for share in (channel / 255 for channel in _channels(colour))
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
