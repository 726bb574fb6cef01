"""The console with JavaScript off: nothing is missing, every form has its button, and actions work to their end."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page

from tests.browser.console.journeys import try_redrive
from tests.fakes.console.site import Site
from tests.fakes.records import dead_letters
from tests.fakes.records.dead_letters import letter


def test_console_without_script_creates_an_integration_and_signs_out(sign_in: Callable[..., Page], site: Site) -> None:
    page = sign_in(java_script_enabled=False)
    page.goto(site.page("private-integrations/new"))
    page.fill("#f-name", "Without script")
    page.check('input[value="connections:list"]')
    page.click("form.entry button")
    assert page.input_value("#once-token").startswith("portaria_")
    page.goto(site.page("audit"))
    assert "create_private_integration" in page.inner_text("main")
    page.click(".who button")
    page.wait_for_url("**/sign-in")


def test_console_without_script_edits_redrives_and_changes_the_language(
    sign_in: Callable[..., Page], site: Site
) -> None:
    stack = site.scenery.cloud
    dead_letters.put(stack, letter("without-script", route="kommo-contacts"))
    page = sign_in(java_script_enabled=False)
    page.goto(site.page("connections/erp/tags"))
    page.fill("#f-tags", "plan = pro")
    page.click("form.entry button")
    page.wait_for_selector("p.notice.good")
    assert site.browser.manage.call("GET", "/connections/erp").content["tags"] == {"plan": "pro"}
    page.goto(site.page("dead-letters/without-script/redrive"))
    page.click("form.entry button")
    assert dead_letters.state(stack, "without-script") == "redriven"
    try_redrive(page, site)
    page.click('button[value="pt"]')
    assert page.get_attribute("html", "lang") == "pt-BR"


@pytest.mark.long
def test_console_without_script_shows_every_page_and_can_send_every_form(
    sign_in: Callable[..., Page], site: Site, paths: dict[str, str]
) -> None:
    page = sign_in(java_script_enabled=False)
    lacking = []
    for shape, path in paths.items():
        page.goto(site.page(path), wait_until="domcontentloaded")
        forms = page.locator("form")
        buttons = page.locator("form:has(button:not([type=button]))")
        if not page.locator("main h1").is_visible() or forms.count() != buttons.count():
            lacking.append(shape)
    assert lacking == []
