"""Pictures of every page, for people to look at: `make console-screenshots` writes them to build/screenshots."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page

from tests.browser.console.journeys import STATES
from tests.fakes.console.site import Site
from tests.fakes.paths import ROOT

FOLDER = ROOT / "build" / "screenshots"
SIZES = {"desktop": {"width": 1280, "height": 800}, "phone": {"width": 390, "height": 844}}


@pytest.mark.long
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_console_screenshots_of_every_page(
    sign_in: Callable[..., Page], site: Site, paths: dict[str, str], size: str, scheme: str
) -> None:
    folder = FOLDER / f"{size}-{scheme}"
    folder.mkdir(parents=True, exist_ok=True)
    page = sign_in(viewport=SIZES[size], color_scheme=scheme)
    for shape, path in paths.items():
        page.goto(site.page(path))
        page.screenshot(path=folder / f"{name_of(shape)}.png", full_page=True)
    for name, reach in STATES.items():
        reach(page, site)
        page.screenshot(path=folder / f"state-{name}.png", full_page=True)
    assert len(list(folder.glob("*.png"))) >= len(paths) + len(STATES)


def name_of(shape: str) -> str:
    return re.sub(r"[^a-z0-9_-]+", "-", shape.replace("*", "one")).strip("-")
