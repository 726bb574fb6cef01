"""The install pages in a browser: progress of the install, keyboard, screen reader, small screens."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import BrowserContext, Page, Request, Route, expect

from portaria.web import render
from tests.browser.conftest import CLIENT_ID, INSTALL, STATE, Site, Watch

TEXTS = render._texts()
NAMES = [
    "start",
    f"result/{INSTALL}",
    "refused",
    "rejected/bad_referer",
    "rejected/unavailable",
    "rejected/unknown_client",
    "sign_on/used_link",
    "sign_on/unavailable",
]
LOCALES = {"pt": "pt-BR", "es": "es-MX", "en": "en-GB"}

Context = Callable[..., BrowserContext]


def said(key: str, language: str = "en", **values: str) -> str:
    return TEXTS[key][language].format(**values)


def heading(page: Page, key: str, language: str = "en") -> None:
    expect(page.get_by_role("heading", level=1)).to_have_text(said(key, language))


# ------------------------------------------------------------------------------------------------ progress of an install


def test_result_page_connecting_becomes_connected_without_reload(page: Page, site: Site) -> None:
    page.goto(site.result)
    heading(page, "connecting.title")
    page.evaluate("window.stillTheSamePage = true")

    site.install.state = "exchanging"
    site.install.account = "aurora.kommo.com"
    expect(page.get_by_text("aurora.kommo.com")).to_be_visible()
    site.install.state = "connected"

    heading(page, "connected.title")
    expect(page.get_by_role("status")).to_contain_text(said("connected.lead"))
    expect(page).to_have_title(said("connected.title"))
    assert page.evaluate("window.stillTheSamePage")
    assert site.install.loaded == 1


@pytest.mark.parametrize(
    ("language", "reasons"), [("en", render._FAILURES), ("pt", ["code_expired"]), ("es", ["wrong_redirect_uri"])]
)
def test_result_page_connecting_becomes_failed_with_reason_and_start_link(
    open_context: Context, site: Site, language: str, reasons: Iterable[str]
) -> None:
    page = open_context(locale=LOCALES[language]).new_page()
    page.clock.install()
    for reason in reasons:
        site.install.state, site.install.reason = "received", ""
        page.goto(site.result)
        heading(page, "connecting.title", language)

        site.install.state, site.install.reason = "failed", reason
        page.clock.run_for(1_000)

        heading(page, "failed.title", language)
        expect(page.get_by_role("status")).to_contain_text(said(f"reason.{reason}", language))
        link = page.get_by_role("link", name=said("page.start_again", language))
        link.click()
        expect(page).to_have_url(site.page("start"))


def test_result_page_updated_by_script_equals_reloaded_page(page: Page, site: Site) -> None:
    page.goto(site.result)
    site.install.state, site.install.reason, site.install.account = "failed", "wrong_client", "aurora.kommo.com"
    heading(page, "failed.title")
    followed = page.locator("main").inner_text()
    page.reload()
    assert page.locator("main").inner_text() == followed


def test_result_page_unknown_reason_is_shown_as_text(page: Page, site: Site) -> None:
    page.goto(site.result)
    site.install.state, site.install.reason = "failed", "<img src=x>"
    heading(page, "failed.title")
    expect(page.get_by_role("status")).to_contain_text(said("reason.other"))
    page.get_by_text(said("page.details")).click()
    expect(page.get_by_text("<img src=x>", exact=True)).to_be_visible()


def test_result_page_polls_less_often_and_stops_when_connected(page: Page, site: Site) -> None:
    page.clock.install()
    page.add_init_script(
        "window.waits = []; const real = window.setTimeout;"
        "window.setTimeout = (call, wait, ...rest) => { window.waits.push(wait); return real(call, wait, ...rest); }"
    )
    page.goto(site.result)

    def waits() -> list[float]:
        kept: list[float] = page.evaluate("window.waits.filter((wait) => wait <= 5000)")
        return kept

    for asked in range(1, 9):
        page.clock.run_for(5_000)
        page.wait_for_function("(count) => window.waits.filter((wait) => wait <= 5000).length > count", arg=asked)
        assert site.install.asked == asked
    assert waits() == [1_000, 1_000, 1_500, 2_250, 3_375, 5_000, 5_000, 5_000, 5_000]

    site.install.state = "connected"
    page.clock.run_for(5_000)
    heading(page, "connected.title")
    page.clock.run_for(600_000)
    assert site.install.asked == 9


def test_result_page_after_a_minute_says_that_it_may_be_closed(page: Page, site: Site) -> None:
    page.clock.install()
    page.goto(site.result)
    status = page.get_by_role("status")
    page.clock.run_for(59_000)
    expect(status).not_to_contain_text(said("connecting.long"))
    page.clock.run_for(2_000)
    expect(status).to_contain_text(said("connecting.long"))

    site.install.state = "connected"
    page.clock.run_for(5_000)
    heading(page, "connected.title")
    expect(status).not_to_contain_text(said("connecting.long"))


def test_result_page_after_half_an_hour_stops_polling(page: Page, site: Site) -> None:
    page.clock.install()
    page.goto(site.result)
    page.clock.fast_forward(31 * 60_000)
    expect(page.get_by_role("status")).to_contain_text(said("connecting.stopped"))
    asked = site.install.asked
    page.clock.run_for(60_000)
    page.evaluate("fetch(location.href, {headers: {Accept: 'application/json'}})")  # as the page would have done
    assert site.install.asked == asked + 1


def test_result_page_unreadable_answers_are_ignored(open_context: Context, site: Site, watch: Watch) -> None:
    page = open_context().new_page()
    page.clock.install()
    page.goto(site.result)
    site.install.answers = [503, 404]
    site.install.state = "connected"
    for asked in (1, 2, 3):
        with page.expect_response(site.result):
            page.clock.run_for(5_000)
        assert site.install.asked == asked
    heading(page, "connected.title")
    # Chromium logs them; the page itself has no error.
    assert [text for text in watch.complaints if "Failed to load resource" not in text] == []
    watch.complaints.clear()


def test_result_page_unknown_state_stays_connecting(page: Page, site: Site) -> None:
    page.clock.install()
    site.install.state = "meditating"
    page.goto(site.result)
    with page.expect_response(site.result):
        page.clock.run_for(1_000)
    heading(page, "connecting.title")


def test_result_page_without_javascript_reloads_itself(open_context: Context, site: Site) -> None:
    page = open_context(java_script_enabled=False).new_page()
    page.goto(site.result)
    heading(page, "connecting.title")
    expect(page.locator("main noscript p")).to_be_visible()
    site.install.state = "connected"
    page.wait_for_event("load")  # after the 5 seconds that it says
    heading(page, "connected.title")
    assert site.install.asked == 0


# ------------------------------------------------------------------------------------------------------------ start page


def consent_window(message: str) -> Callable[[Route], None]:
    """A stand-in for Kommo's consent page in a second window: it reports the outcome to its opener, and closes."""
    script = f"window.opener.postMessage({message}, '*'); window.close();"
    return lambda route: route.fulfill(body=f"<title>Kommo</title><script>{script}</script>", content_type="text/html")


def test_start_page_consent_in_popup_redirects_to_result(page: Page, site: Site, watch: Watch) -> None:
    watch.consent = consent_window(f"{{url: '{site.result}'}}")
    page.goto(site.page("start"))
    with page.expect_popup() as popup:
        page.get_by_role("button", name="Connect to Kommo").click()
    page.wait_for_url(site.result)
    heading(page, "connecting.title")
    if not popup.value.is_closed():
        popup.value.wait_for_event("close")


def test_start_page_refusal_in_popup_is_announced(page: Page, site: Site, watch: Watch) -> None:
    watch.consent = consent_window(f"{{client_id: '{CLIENT_ID}', error: 'access_denied'}}")
    page.goto(site.page("start"))
    page.get_by_role("button", name="Connect to Kommo").click()
    expect(page.get_by_role("status")).to_have_text(said("start.refused"))


def test_start_page_opened_by_another_window_is_isolated_from_it(open_context: Context, site: Site) -> None:
    other = open_context().new_page()
    other.goto(site.elsewhere)
    with other.expect_popup() as popup:
        other.evaluate("(url) => { window.ours = window.open(url); }", site.page("start"))
    start = popup.value
    start.wait_for_load_state()
    assert start.evaluate("window.opener") is None
    assert other.evaluate("window.ours.closed")


def test_start_page_plain_link_opens_consent_in_same_window_without_referrer(
    page: Page, site: Site, watch: Watch
) -> None:
    seen: list[Request] = []

    def consent(route: Route) -> None:
        seen.append(route.request)
        route.fulfill(body="<title>Kommo</title>", content_type="text/html")

    watch.consent = consent
    page.goto(site.page("start"))
    page.get_by_role("link", name="Continue to kommo.com").click()
    page.wait_for_url("https://www.kommo.com/oauth?**")
    (request,) = seen
    assert f"state={STATE}" in request.url
    assert "referer" not in request.headers


def test_start_page_is_usable_by_keyboard(page: Page, site: Site, watch: Watch) -> None:
    watch.consent = consent_window(f"{{url: '{site.result}'}}")
    page.goto(site.page("start"))
    button = page.get_by_role("button", name="Connect to Kommo")
    expect(button).to_be_visible()
    page.keyboard.press("Tab")
    expect(button).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Continue to kommo.com")).to_be_focused()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    page.wait_for_url(site.result)


@pytest.mark.parametrize("scripts", [True, False], ids=["button.js does not come", "no JavaScript"])
def test_start_page_without_kommo_button_shows_link(
    open_context: Context, site: Site, watch: Watch, scripts: bool
) -> None:
    watch.button = None
    page = open_context(java_script_enabled=scripts).new_page()
    page.goto(site.page("start"))
    expect(page.get_by_role("link", name="Continue to kommo.com")).to_be_visible()
    expect(page.get_by_text(said("start.without_window"))).to_be_hidden()
    watch.complaints = [text for text in watch.complaints if "net::ERR_FAILED" not in text]


def test_start_page_kommo_button_fits_dark_scheme(open_context: Context, site: Site) -> None:
    page = open_context(color_scheme="dark").new_page()
    page.goto(site.page("start"))
    expect(page.get_by_role("button", name="Connect to Kommo")).to_have_css("background-color", "rgb(255, 255, 255)")


# ---------------------------------------------------------- all pages, in one window, which takes longer to open than a page


PAGES = [*((name, "received") for name in NAMES), (NAMES[1], "connected"), (NAMES[1], "failed")]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_have_no_axe_violations(open_context: Context, site: Site, scheme: str) -> None:
    page = open_context(color_scheme=scheme, reduced_motion="reduce").new_page()
    for name, state in PAGES:
        site.install.state, site.install.account = state, "aurora.kommo.com"
        site.install.reason = "wrong_redirect_uri" if state == "failed" else ""
        page.goto(site.page(name))
        for closed in page.locator("details:not([open]) > summary").all():
            closed.click()
        found = Axe().run(page, options={"resultTypes": ["violations"]})
        assert found.response["violations"] == [], f"{name} {state}: {found.generate_report()}"


@pytest.mark.parametrize("language", LOCALES)
def test_pages_fit_320_pixel_width(open_context: Context, site: Site, language: str) -> None:
    site.install.account = "a-very-long-account-name-that-fills-the-whole-of-the-sixty-three.kommo.com"
    site.install.reason = "an_unforeseen_and_quite_long_reason_without_a_space_in_it"
    page = open_context(locale=LOCALES[language], viewport={"width": 320, "height": 640}).new_page()
    widths = {}
    for name, state in PAGES:
        site.install.state = state
        page.goto(site.page(name))
        for closed in page.locator("details:not([open]) > summary").all():
            closed.click()
        widths[name, state] = page.evaluate("document.documentElement.scrollWidth")
    assert widths == dict.fromkeys(PAGES, 320)


def test_pages_fit_with_text_at_200_percent(open_context: Context, site: Site) -> None:
    page = open_context(viewport={"width": 640, "height": 640}).new_page()
    widths = {}
    for name in NAMES:
        page.goto(site.page(name))
        page.evaluate("document.documentElement.style.fontSize = '200%'")
        widths[name] = page.evaluate("document.documentElement.scrollWidth")
    assert widths == dict.fromkeys(NAMES, 640)


def test_pages_focused_element_has_visible_outline(page: Page, site: Site) -> None:
    for name, count in (("start", 2), ("refused", 1), ("rejected/bad_referer", 2)):
        page.goto(site.page(name))
        expect(page.get_by_role("link").first).to_be_visible()
        for _ in range(count):
            page.keyboard.press("Tab")
            width = page.evaluate("parseFloat(getComputedStyle(document.activeElement).outlineWidth)")
            style = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert (width, style) == (3, "solid"), name


def test_pages_touch_targets_are_at_least_24_pixels_high(open_context: Context, site: Site) -> None:
    # An install in progress has no controls; a failed one has a link and details.
    site.install.state, site.install.reason = "failed", "code_expired"
    page = open_context(viewport={"width": 390, "height": 844}, has_touch=True).new_page()
    for name in NAMES:
        page.goto(site.page(name))
        expect(page.locator("a, summary, [role=button]").first).to_be_visible()
        found = page.locator("a:visible, summary:visible, [role=button]:visible").all()
        assert found, name
        for target in found:
            box = target.bounding_box()
            assert box is not None
            assert box["height"] >= 24, name  # WCAG 2.2, 2.5.8


def test_result_page_reduced_motion_stops_animation(open_context: Context, site: Site) -> None:
    for motion, animation in (("no-preference", "pass"), ("reduce", "none")):
        page = open_context(reduced_motion=motion).new_page()
        page.goto(site.result)
        expect(page.locator(".dots circle").first).to_have_css("animation-name", animation)


def test_pages_dark_and_light_schemes_differ(open_context: Context, site: Site) -> None:
    colours = set()
    for scheme in ("light", "dark"):
        page = open_context(color_scheme=scheme).new_page()
        page.goto(site.page("refused"))
        colours.add(page.evaluate("getComputedStyle(document.querySelector('main')).backgroundColor"))
    assert len(colours) == 2


def test_rejected_page_retry_link_keeps_query(page: Page, site: Site) -> None:
    url = site.page("rejected/unavailable") + "?code=abc&state=def"
    page.goto(url)
    with page.expect_navigation():
        page.get_by_role("link", name=said("page.reload")).click()
    assert page.url == url


def test_page_content_security_policy_blocks_injected_script(page: Page, site: Site, watch: Watch) -> None:
    page.goto(site.page("refused"))
    page.evaluate(
        "() => { const script = document.createElement('script'); script.textContent = 'window.broken = true';"
        "document.body.append(script); }"
    )
    assert page.evaluate("window.broken") is None
    assert re.search("Content Security Policy", watch.complaints[0])
    watch.complaints.clear()
