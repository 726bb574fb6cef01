"""Sessions and forms as an attacker or a forgetful person meets them, with a real browser's cookies and origins."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Browser as Chromium
from playwright.sync_api import Page, Route, expect

from portaria.web.console.guard import COOKIE
from tests.fakes.console.site import Site

NEW = "private-integrations/new"


def names(site: Site) -> set[str]:
    found = site.browser.manage.call("GET", "/private-integrations?limit=100").content["items"]
    return {each["name"] for each in found}


def expect_signed_out(page: Page) -> None:
    expect(page.locator("h1")).to_have_text("Sign in to the console")
    expect(page.locator("pre")).to_have_text("portaria console")


def fill(page: Page, site: Site, name: str) -> None:
    page.goto(site.page(NEW))
    page.fill("#f-name", name)
    page.check('input[value="connections:list"]')


def test_session_cookie_is_hidden_from_script_and_other_sites(sign_in: Callable[..., Page]) -> None:
    page = sign_in()
    (cookie,) = [each for each in page.context.cookies() if each["name"] == COOKIE]
    assert (cookie["httpOnly"], cookie["secure"], cookie["sameSite"], cookie["path"]) == (True, True, "Strict", "/")
    assert COOKIE not in page.evaluate("document.cookie")


def test_session_unused_for_an_hour_asks_to_sign_in(sign_in: Callable[..., Page], site: Site) -> None:
    page = sign_in()
    fill(page, site, "Too late")
    site.scenery.clock.advance(minutes=61)
    page.click("form.entry button")
    expect_signed_out(page)
    assert "Too late" not in names(site)


def test_session_revoked_in_another_browser_ends_at_once(sign_in: Callable[..., Page], site: Site) -> None:
    revoked, other = sign_in(user_agent="The browser to revoke"), sign_in()
    other.goto(site.page("sessions"))
    row = other.locator("tr", has_text="The browser to revoke").first
    row.locator('a[href$="/revoke"]').click()
    other.click("form.entry button")
    expect(other.locator("p.notice.good")).to_be_visible()
    revoked.goto(site.page("connections"))
    expect_signed_out(revoked)
    other.goto(site.page("connections"))
    expect(other.locator("h1")).to_have_text("Connections")


def test_page_stolen_without_the_cookie_opens_and_changes_nothing(sign_in: Callable[..., Page], site: Site) -> None:
    """Someone has the page's address, its text with the form's token, and the used link."""
    page = sign_in()
    fill(page, site, "Stolen")
    text = page.content()
    thief = page.context.browser.new_context(ignore_https_errors=True).new_page()  # type: ignore[union-attr]
    thief.goto(site.page("connections"))
    expect_signed_out(thief)

    def show_stolen(route: Route) -> None:
        route.fulfill(body=text, content_type="text/html")

    thief.route(f"**/{NEW}", lambda route: show_stolen(route) if route.request.method == "GET" else route.continue_())
    thief.goto(site.page(NEW))
    thief.fill("#f-name", "Stolen")
    thief.click("form.entry button")
    expect_signed_out(thief)
    assert "Stolen" not in names(site)
    thief.context.close()


def test_link_opened_twice_explains_itself(sign_in: Callable[..., Page], site: Site) -> None:
    page = sign_in()
    link = site.link()
    page.goto(link)
    page.wait_for_url("**/overview")
    answer = page.goto(link)
    assert answer is not None
    assert answer.status == 403
    expect(page.locator("h1")).to_be_visible()


@pytest.mark.parametrize("token", ["", "A" * 43])
def test_form_with_forged_token_is_refused_with_an_explanation(
    sign_in: Callable[..., Page], site: Site, token: str
) -> None:
    page = sign_in()
    fill(page, site, "Forged")
    page.evaluate("token => { document.querySelector('form.entry [name=csrf_token]').value = token }", token)
    page.click("form.entry button")
    expect(page.locator("main")).to_contain_text("reload the page")
    assert "Forged" not in names(site)


def send_from(page: Page, site: Site, origin: str, fields: dict[str, str]) -> None:
    """Send a form to the console from a page of another origin."""
    inputs = "".join(f'<input type="hidden" name="{name}" value="{value}">' for name, value in fields.items())
    form = f'<form method="post" action="{site.page(NEW)}">{inputs}<button>Win</button></form>'
    site.others["/evil"] = f'<!doctype html><title>Evil</title><link rel="icon" href="data:,">{form}'
    page.goto(f"{origin}/evil")
    page.click("button")


def test_form_of_another_site_arrives_without_the_session(sign_in: Callable[..., Page], site: Site) -> None:
    """It even knows the token: `SameSite=Strict` keeps the cookie away."""
    page = sign_in()
    page.goto(site.page(NEW))
    token = page.input_value("form.entry [name=csrf_token]")
    fields = {"csrf_token": token, "name": "Other site", "scopes": "connections:list"}
    send_from(page, site, site.elsewhere, fields)
    expect_signed_out(page)
    assert "Other site" not in names(site)


def test_form_of_another_origin_of_the_same_site_is_refused(sign_in: Callable[..., Page], site: Site) -> None:
    """Another port is the same site, so the cookie arrives. The origin is not the console's."""
    page = sign_in()
    page.goto(site.page(NEW))
    token = page.input_value("form.entry [name=csrf_token]")
    fields = {"csrf_token": token, "name": "Other origin", "scopes": "connections:list"}
    another_port = "https://localhost:1"
    page.route(f"{another_port}/**", lambda route: route.fulfill(body=site.others["/evil"], content_type="text/html"))
    send_from(page, site, another_port, fields)
    expect(page.locator("main")).to_contain_text("reload the page")
    assert "Other origin" not in names(site)


def test_console_in_a_frame_of_another_site_is_not_shown(browser: Chromium, site: Site) -> None:
    context = browser.new_context(ignore_https_errors=True)
    page = context.new_page()
    frame = f'<iframe src="{site.page("sign-in")}"></iframe>'
    site.others["/frame"] = f"<!doctype html><title>Frame</title>{frame}"
    with page.expect_console_message(lambda message: "frame-ancestors 'none'" in message.text):
        page.goto(f"{site.elsewhere}/frame")
    page.frames[1].wait_for_load_state()
    assert "portaria console" not in page.frames[1].content()
    context.close()


def test_second_tab_with_a_stale_etag_explains_and_keeps_the_input(sign_in: Callable[..., Page], site: Site) -> None:
    first = sign_in()
    second = first.context.new_page()
    for page in (first, second):
        page.goto(site.page("oauth-clients/kommo/acme/edit"))
    first.fill("#f-display_name", "Saved first")
    first.click("form.entry button")
    expect(first.locator("p.notice.good")).to_be_visible()
    second.fill("#f-display_name", "Typed second")
    second.fill("#f-support_url", "https://example.com/help")
    second.click("form.entry button")
    expect(second.locator(".notice.bad")).to_contain_text("changed")
    assert second.input_value("#f-display_name") == "Typed second"
    assert second.input_value("#f-support_url") == "https://example.com/help"
    shown = site.browser.manage.call("GET", "/oauth-clients/kommo/acme").content
    assert (shown["display_name"], shown["support_url"]) == ("Saved first", None)
    # A person who has compared both sends it again.
    second.click("form.entry button")
    expect(second.locator("p.notice.good")).to_be_visible()
    assert site.browser.manage.call("GET", "/oauth-clients/kommo/acme").content["display_name"] == "Typed second"
