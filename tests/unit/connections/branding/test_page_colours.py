"""The colours of the hosted pages reach the contrast of WCAG 2.2 for every colour that an OAuth client may have."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portaria.connections.branding import page_colours
from portaria.connections.branding.page_colours import CARDS, DARK, LIGHT, contrast
from portaria.core.callbacks import OAuthClient
from portaria.web import branding, render
from tests.fakes.paths import ROOT

COLOURS = st.integers(0, 0xFFFFFF).map(lambda number: f"#{number:06x}")


@pytest.mark.parametrize(
    ("one", "other", "ratio"),
    [
        ("#000000", "#ffffff", 21.0),
        ("#ffffff", "#ffffff", 1.0),
        ("#777777", "#ffffff", 4.48),
        ("#767676", "#ffffff", 4.54),
        ("#ff0000", "#ffffff", 4.0),
        ("#0000ff", "#ffffff", 8.59),
    ],
)
def test_contrast_equals_published_ratios(one: str, other: str, ratio: float) -> None:
    assert contrast(one, other) == pytest.approx(ratio, abs=0.005)
    assert contrast(other, one) == contrast(one, other)


@pytest.mark.parametrize("scheme", [LIGHT, DARK])
@given(colour=COLOURS)
def test_palette_every_colour_reaches_the_contrast_limits(scheme: str, colour: str) -> None:
    card = CARDS[scheme]
    made = page_colours.palette(colour, scheme)
    assert all(page_colours.is_colour(each) for each in made)
    assert made.fill == colour
    assert contrast(made.on_fill, made.fill) >= 4.5
    assert contrast(made.on_fill, made.fill_strong) >= 4.5
    assert contrast(made.fill_edge, card) >= 3.0
    for text in (made.accent, made.accent_strong):
        assert contrast(text, card) >= 4.5
        assert contrast(text, made.tint) >= 4.5
    assert contrast(made.on_accent, made.accent) >= 4.5


@pytest.mark.parametrize(
    ("colour", "schemes"),
    [("#0f6b66", [DARK]), ("#ffd400", [LIGHT]), ("#000000", [DARK]), ("#ffffff", [LIGHT]), ("#7c7c7c", [])],
)
def test_schemes_that_lack_contrast_names_each(colour: str, schemes: list[str]) -> None:
    assert page_colours.schemes_that_lack_contrast(colour) == schemes


def test_cards_are_those_of_the_pages_style() -> None:
    style = (ROOT / "layers/portaria/portaria/web/templates/style.css").read_text()
    light, dark = re.findall(r"--card: (#[0-9a-f]+);", style)
    assert {LIGHT: light.replace("#fff", "#ffffff"), DARK: dark} == CARDS


@given(COLOURS)
def test_palette_style_is_safe_to_put_into_a_page(colour: str) -> None:
    client = OAuthClient("kommo", "x", "c", "https://a.example/x")._replace(colour=colour)
    page = render.refused("en", start_url="start", brand=branding.of(client, "logo/"))
    assert f"--fill: {colour};" in page.body
