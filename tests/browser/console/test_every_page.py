"""Every page of the console in Chromium: accessibility in both colour schemes, and the width of a phone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Page

from tests.browser.console.journeys import STATES
from tests.fakes.console.site import Site

PHONE = {"width": 390, "height": 844}
CONTRAST = {"runOnly": {"type": "rule", "values": ["color-contrast"]}}
# A page of its own, a listing, a thing with what belongs to it, and forms.
SHORT = (
    "overview",
    "dead-letters",
    "connections/kommo-acme-1001",
    "private-integrations/new",
    "routes/kommo-contacts/edit",
)
axe = Axe()


def violations(page: Page, name: str, options: dict[str, Any] | None = None) -> list[str]:
    # Otherwise the response has the elements of every rule that the page keeps.
    found = axe.run(page, options={"resultTypes": ["violations"], **(options or {})}).response["violations"]
    return [f"{name}: {each['id']} {[node['html'][:120] for node in each['nodes'][:3]]}" for each in found]


@pytest.mark.long
@pytest.mark.parametrize("viewport", [None, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_console_pages_and_states_have_no_axe_violation(
    sign_in: Callable[..., Page], site: Site, paths: dict[str, str], scheme: str, viewport: dict[str, int] | None
) -> None:
    page = sign_in(color_scheme=scheme, **({"viewport": viewport} if viewport else {}))
    found = []
    for shape, path in paths.items():
        page.goto(site.page(path))
        found += violations(page, shape)
    for name, reach in STATES.items():
        reach(page, site)
        found += violations(page, name)
    assert found == []


def test_console_pages_of_each_sort_are_accessible_in_both_schemes(sign_in: Callable[..., Page], site: Site) -> None:
    """One page of each sort. `make faults` looks at all of them."""
    page = sign_in()
    found = []
    for path in SHORT:
        page.emulate_media(color_scheme="light")
        page.goto(site.page(path))
        found += violations(page, path)
        page.emulate_media(color_scheme="dark")
        found += violations(page, f"{path} (dark)", CONTRAST)
    assert found == []


def test_console_pages_fit_a_phone_without_horizontal_scrolling(
    request: pytest.FixtureRequest, sign_in: Callable[..., Page], site: Site, long: bool
) -> None:
    """The short version looks at one page of each sort, and need not find all of them."""
    paths: dict[str, str] = request.getfixturevalue("paths") if long else {path: path for path in SHORT}
    page = sign_in(viewport=PHONE)
    wide = []
    for shape, path in paths.items():
        page.goto(site.page(path), wait_until="domcontentloaded")
        width = page.evaluate("document.documentElement.scrollWidth")
        if width > PHONE["width"]:
            wide.append(f"{shape}: {width}")
    for name, reach in STATES.items() if long else ():
        reach(page, site)
        width = page.evaluate("document.documentElement.scrollWidth")
        if width > PHONE["width"]:
            wide.append(f"{name}: {width}")
    assert wide == []
