"""What the console's script does on an open page."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from playwright.sync_api import Page

from tests.fakes.console.scenery import NOW, add_install
from tests.fakes.console.site import Site


def test_console_refresh_of_the_overview_keeps_the_page(sign_in: Callable[..., Page], site: Site) -> None:
    page = sign_in()
    page.clock.install()
    page.goto(site.page("overview"))
    page.evaluate("window.stillTheSamePage = true")
    add_install(site.scenery.cloud, 9_001, "failed", NOW + timedelta(hours=4), account_host="refreshed.kommo.com")
    page.clock.run_for(16_000)
    page.wait_for_selector("text=refreshed.kommo.com")
    assert page.evaluate("window.stillTheSamePage")


def test_console_refresh_keeps_the_focus_on_a_link(sign_in: Callable[..., Page], site: Site) -> None:
    page = sign_in()
    page.clock.install()
    page.goto(site.page("overview"))
    link = page.locator("[data-refresh] a").first
    link.focus()
    href = link.get_attribute("href")
    add_install(
        site.scenery.cloud, 9_002, "failed", NOW + timedelta(hours=5), account_host="behind-the-focus.kommo.com"
    )
    page.clock.run_for(16_000)
    page.wait_for_selector("text=behind-the-focus.kommo.com")
    assert page.evaluate("document.activeElement.getAttribute('href')") == href


def test_console_refresh_after_the_session_has_ended_asks_to_sign_in(sign_in: Callable[..., Page], site: Site) -> None:
    page = sign_in()
    page.clock.install()
    page.goto(site.page("overview"))
    page.context.clear_cookies()
    page.clock.run_for(16_000)
    page.wait_for_selector("text=portaria console")
