"""Chromium at the console of a stack that has something of everything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser as Chromium
from playwright.sync_api import ConsoleMessage, Page

from tests.fakes.console import page_list
from tests.fakes.console.site import Site, serving


@pytest.fixture(scope="package")
def site() -> Iterator[Site]:
    with serving() as site:
        yield site


@pytest.fixture(scope="package")
def paths(site: Site) -> dict[str, str]:
    """The path of a page of each shape."""
    site.browser.sign_in()
    return page_list.find_all(site.browser)


@pytest.fixture
def sign_in(browser: Chromium, site: Site) -> Iterator[Callable[..., Page]]:
    """Opens a link in a browser of its own. At the end no page may have logged an error, such as a policy violation."""
    contexts, complaints = [], []

    def hear(message: ConsoleMessage) -> None:
        # Chromium logs each page whose status is an error.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            complaints.append(f"{message.text} {message.location['url']}")

    def make(**options: Any) -> Page:
        # Contrasts are not measured in the middle of a transition.
        standard = {"locale": "en-GB", "ignore_https_errors": True, "reduced_motion": "reduce"}
        context = browser.new_context(**{**standard, **options})
        context.set_default_timeout(20_000)
        context.on("console", hear)
        context.on("weberror", lambda error: complaints.append(str(error.error)))
        contexts.append(context)
        page = context.new_page()
        page.goto(site.link())
        page.wait_for_url("**/overview")
        return page

    yield make
    for context in contexts:
        context.close()
    assert complaints == []
