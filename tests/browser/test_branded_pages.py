"""The pages with an OAuth client's brand, and the way back to the team's application."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import BrowserContext, Page, expect

from portaria.core.callbacks import OAuthClient
from portaria.web import branding, render
from tests.browser.conftest import INSTALL, LOGO, Site

Context = Callable[..., BrowserContext]
CLIENT = OAuthClient(
    "kommo", "bb3", "c-1", "https://a.example/bb3", display_name="Aurora Sync", logo=LOGO.version, colour="#7c3aed",
    support_email="help@example.com", privacy_url="https://www.example.com/privacy", terms_url="https://www.example.com/terms",
)  # fmt: skip
# Too light for a light page, and too dark for a dark one.
COLOURS = ["#ffd400", "#0b1f4b"]
CONNECTED = f"install={INSTALL}&status=connected"


@pytest.fixture
def branded(site: Site) -> Site:
    site.install.brand = branding.of(CLIENT, "logo/")
    site.install.return_url = f"{site.application}/done"
    return site


def open_popup(page: Page, site: Site) -> Page:
    page.goto(f"{site.application}/connect")
    with page.expect_popup() as popup:
        page.get_by_role("link", name="Connect Kommo").click()
    return popup.value


def wait_until_closed(popup: Page) -> None:
    """Also where the window was closed before this call: no event comes then."""
    if not popup.is_closed():
        popup.wait_for_event("close")


# -------------------------------------------------------------------------------------------------------------- the brand


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("colour", COLOURS)
def test_branded_pages_have_no_axe_violations(open_context: Context, branded: Site, colour: str, scheme: str) -> None:
    branded.install.brand = branding.of(CLIENT._replace(colour=colour), "logo/")
    branded.install.return_url = ""
    page = open_context(color_scheme=scheme, reduced_motion="reduce", viewport={"width": 390, "height": 844}).new_page()
    for name, state in (("start", "received"), ("refused", "received"), (f"result/{INSTALL}", "failed")):
        branded.install.state, branded.install.reason = state, "wrong_client" if state == "failed" else ""
        page.goto(branded.page(name))
        found = Axe().run(page, options={"resultTypes": ["violations"]})
        assert found.response["violations"] == [], found.generate_report()


def test_start_page_with_brand_shows_logo_and_name_on_a_phone(open_context: Context, branded: Site) -> None:
    page = open_context(viewport={"width": 320, "height": 640}).new_page()
    page.goto(branded.page("start"))
    assert page.locator(".masthead img").evaluate("(image) => image.complete && image.naturalWidth > 0")
    expect(page.locator(".masthead")).to_contain_text("Aurora Sync")
    expect(page.get_by_role("link", name="Privacy")).to_have_attribute("href", "https://www.example.com/privacy")
    assert page.evaluate("document.documentElement.scrollWidth") == 320


# ----------------------------------------------------------------------------------------------- back to the application


def test_result_page_install_over_returns_to_application(page: Page, branded: Site) -> None:
    page.clock.install()
    page.goto(branded.result)
    branded.install.state = "connected"
    page.clock.run_for(5_000)
    page.wait_for_url(f"{branded.application}/done?{CONNECTED}")


@pytest.mark.parametrize("state", ["connected", "failed"])
def test_result_page_without_javascript_returns_to_application(
    open_context: Context, branded: Site, state: str
) -> None:
    page = open_context(java_script_enabled=False).new_page()
    page.goto(branded.result)
    branded.install.state = state
    page.wait_for_url(
        f"{branded.application}/done?install={INSTALL}&status={state}"
    )  # within the 5 seconds that it says


def test_popup_install_connected_tells_application_and_closes(page: Page, branded: Site) -> None:
    popup = open_popup(page, branded)
    expect(popup.get_by_role("heading", level=1)).to_have_text(render._texts()["connecting.title"]["en"])
    branded.install.state = "connected"
    wait_until_closed(popup)
    expect(page.locator("#connect")).to_have_text("Connected")
    assert page.url == f"{branded.application}/connect"


def test_popup_install_over_before_the_page_was_loaded_tells_application(page: Page, branded: Site) -> None:
    branded.install.state = "connected"
    open_popup(page, branded)
    expect(page.locator("#connect")).to_have_text("Connected")


def test_popup_message_does_not_reach_another_origin(open_context: Context, branded: Site) -> None:
    """Given an opener whose origin is not the registered one, then it hears nothing."""
    branded.install.state, branded.install.return_url = "connected", "https://app.example.com/done"
    context = open_context()
    context.route(
        "https://app.example.com/**", lambda route: route.fulfill(body="<title>Team</title>", content_type="text/html")
    )
    page = context.new_page()
    page.goto(f"{branded.application}/connect")
    page.evaluate("window.heard = []; window.addEventListener('message', (event) => window.heard.push(event.data))")
    with page.expect_popup() as popup:
        page.get_by_role("link", name="Connect Kommo").click()
    wait_until_closed(popup.value)
    assert page.evaluate("window.heard") == []
    expect(page.locator("#connect")).to_have_text("Connect Kommo")


def test_popup_page_without_an_opener_returns_to_application_itself(page: Page, branded: Site) -> None:
    branded.install.state = "connected"
    page.goto(f"{branded.result}?display=popup")
    page.wait_for_url(f"{branded.application}/done?{CONNECTED}")


def test_popup_refusal_tells_application_and_closes(page: Page, branded: Site) -> None:
    page.goto(f"{branded.application}/connect")
    page.evaluate("window.heard = []; window.addEventListener('message', (event) => window.heard.push(event.data))")
    with page.expect_popup() as popup:
        page.evaluate("(url) => { window.open(url); }", f"{branded.page('refused')}?display=popup")
    wait_until_closed(popup.value)
    assert page.evaluate("window.heard") == [{"type": "portaria.install", "status": "refused"}]


def test_popup_page_content_security_policy_is_not_violated(page: Page, branded: Site) -> None:
    """The fixture fails a test whose page had an error in its console."""
    response = page.goto(f"{branded.result}?display=popup")
    assert response is not None
    assert re.search(r"script-src 'nonce-[\w-]+'", response.headers["content-security-policy"])
    expect(page.get_by_role("heading", level=1)).to_be_visible()
