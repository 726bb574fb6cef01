"""Whole journeys with the keyboard alone."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.browser.console.journeys import follow, press_to
from tests.fakes.console.site import Site
from tests.fakes.records import dead_letters
from tests.fakes.records.dead_letters import letter


def test_console_keyboard_creates_rotates_and_deletes_an_integration(sign_in: Callable[..., Page], site: Site) -> None:
    page = sign_in(permissions=["clipboard-read", "clipboard-write"])
    follow(page, 'nav.side a[href$="/private-integrations"]')
    follow(page, 'a[href$="/private-integrations/new"]')
    press_to(page, "#f-name")
    page.keyboard.type("Keyboard")
    press_to(page, 'input[value="connections:list"]')
    page.keyboard.press("Space")
    page.keyboard.press("Enter")
    page.wait_for_selector("#once-token")
    token = page.input_value("#once-token")
    press_to(page, ".once button")
    page.keyboard.press("Enter")
    page.wait_for_function("token => navigator.clipboard.readText().then(text => text === token)", arg=token)
    id_ = token[9:19]
    for action, text in (("rotate", "#once-token"), ("delete", "p.notice.good")):
        page.goto(site.page(f"private-integrations/{id_}"))
        follow(page, f'a[href$="/{action}"]')
        follow(page, "form.entry button")
        page.wait_for_selector(text)
    assert site.browser.manage.call("GET", f"/private-integrations/{id_}").status == 404


def test_console_keyboard_redrives_dead_letters_by_filter(sign_in: Callable[..., Page], site: Site) -> None:
    stack = site.scenery.cloud
    dead_letters.put(
        stack, *(letter(f"keyboard-{number}", route="kommo-contacts", reason="keyboard") for number in (1, 2))
    )
    page = sign_in()
    follow(page, 'nav.side a[href$="/dead-letters"]')
    press_to(page, "#f-reason")
    page.keyboard.type("keyboard")
    with page.expect_navigation():
        page.keyboard.press("Enter")
    follow(page, 'a[href*="/redrive_matching"]')
    assert page.input_value("#f-reason") == "keyboard"
    follow(page, 'button[value="try"]')
    expect(page.locator("tbody tr")).to_have_count(2)
    assert dead_letters.state(stack, "keyboard-1") == "open"
    follow(page, 'button[value="confirm"]')
    expect(page.locator(".badge.good")).to_have_count(2)
    assert [dead_letters.state(stack, f"keyboard-{number}") for number in (1, 2)] == ["redriven", "redriven"]
    stack.receive("records")


def test_console_keyboard_skips_the_navigation(sign_in: Callable[..., Page]) -> None:
    page = sign_in()
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#content")).to_be_focused()


def test_console_error_has_the_focus_and_leads_to_its_field(sign_in: Callable[..., Page], site: Site) -> None:
    page = sign_in()
    page.goto(site.page("oauth-clients/new"))
    for name, text in {"platform": "kommo", "name": "acme!", "client_id": "c", "client_secret": "s"}.items():
        page.fill(f"#f-{name}", text)
    page.keyboard.press("Enter")
    notice = page.locator(".notice.bad")
    expect(notice).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#f-name")).to_have_attribute("aria-invalid", "true")
    assert page.evaluate("document.querySelector('#f-name:target') !== null")
