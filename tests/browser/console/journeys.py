"""How a browser reaches the states of pages that no link leads to, and what a keyboard can reach."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from playwright.sync_api import Page

from tests.fakes.console.site import Site

RECORD = {
    "name": "Contato Exemplo",
    "first_name": "Contato",
    "custom_fields_values": [{"field_code": "EMAIL", "values": [{"value": "contato@example.com"}]}],
}


def refuse_form(page: Page, site: Site) -> None:
    """A form with an error beside a field."""
    page.goto(site.page("oauth-clients/new"))
    for name, text in {"platform": "kommo", "name": "acme!", "client_id": "c", "client_secret": "s"}.items():
        page.fill(f"#f-{name}", text)
    page.click("form.entry button")
    page.wait_for_selector(".notice.bad")


def show_token(page: Page, site: Site) -> None:
    """A value that is shown once."""
    page.goto(site.page("private-integrations/new"))
    page.fill("#f-name", "Shown once")
    page.check('input[value="connections:list"]')
    page.click("form.entry button")
    page.wait_for_selector("#once-token")


def preview_route(page: Page, site: Site) -> None:
    page.goto(site.page("routes/kommo-contacts/edit"))
    page.fill("#f-record", json.dumps(RECORD, indent=2))
    page.click('button[value="preview"]')
    page.wait_for_selector("#preview-title")


def try_redrive(page: Page, site: Site) -> None:
    """The dry run of a bulk action."""
    page.goto(site.page("dead-letters/redrive_matching?reason=no_dedupe_value"))
    page.click('button[value="try"]')
    page.wait_for_selector('button[value="confirm"]')


def search_receipts(page: Page, site: Site) -> None:
    page.goto(site.page("search?destination=marketo-main"))


def done(page: Page, site: Site) -> None:
    page.goto(site.page("routes/kommo-contacts?done=edit"))


def no_match(page: Page, site: Site) -> None:
    page.goto(site.page("connections?state=removed"))


def refused_filter(page: Page, site: Site) -> None:
    page.goto(site.page("installs?client=not%20a%20client"))


def unknown_thing(page: Page, site: Site) -> None:
    page.goto(site.page("connections/unknown-one"))


def unknown_page(page: Page, site: Site) -> None:
    page.goto(site.page("no-such-page"))


def used_link(page: Page, site: Site) -> None:
    page.goto(site.page("sign-in?link=used"))


def signed_out(page: Page, site: Site) -> None:
    page.goto(site.page("sign-in"))


STATES: Mapping[str, Callable[[Page, Site], None]] = {
    reach.__name__: reach
    for reach in (
        refuse_form, show_token, preview_route, try_redrive, search_receipts, done, no_match, refused_filter, unknown_thing,
        unknown_page, used_link, signed_out,
    )
}  # fmt: skip


def press_to(page: Page, selector: str) -> None:
    """Move the focus with the Tab key until it is on an element."""
    for _ in range(200):
        if page.evaluate("selector => document.activeElement?.matches(selector) ?? false", selector):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"the keyboard does not reach {selector}")


def follow(page: Page, selector: str) -> None:
    """Press Enter on an element that leads to another page."""
    press_to(page, selector)
    with page.expect_navigation():
        page.keyboard.press("Enter")
