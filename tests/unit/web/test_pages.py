"""The pages as text: language, headers, escaping and complete sentences. tests/browser tests how they look."""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from functools import partial
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portaria.core.callbacks import OAuthClient, Secret
from portaria.platforms.kommo import install as kommo
from portaria.web import branding, render
from portaria.web.branding import NO_BRAND, Brand
from portaria.web.render import Page, language_of
from portaria.webhooks.customer_return import CustomerReturn

INSTALL = "mfzwizltoq2dkobvhe3tmnzygq"
REJECTIONS = [
    "missing_code",
    "code_repeated",
    "code_too_long",
    "bad_code",
    "bad_referer",
    "missing_state",
    "bad_state",
    "unknown_state",
    "expired_state",
    "used_state",
    "foreign_state",
    "unknown_platform",
    "unknown_client",
    "unknown_install",
    "unavailable",
    "missing_link",
    "unknown_link",
    "expired_link",
    "used_link",
    "foreign_origin",
    "bad_form",
]
FAILURES = [
    "code_expired",
    "code_used",
    "answer_lost",
    "wrong_redirect_uri",
    "wrong_client",
    "invalid_account",
    "account_mismatch",
    "bad_code",
    "platform_refused",
    "code_refused",
    "bad_scopes",
    "wrong_token_url",
    "client_changed",
    "domain_not_registered",
    "api_domains_missing",
    "connection_gone",
    "other_account",
]
LOGO = "0123456789abcdef-480x120"
CLIENT = OAuthClient(
    "kommo", "bb3", "c-1", "https://api.example.com/install/kommo/bb3", display_name="Aurora Sync", logo=LOGO, colour="#7c3aed",
    support_email="help@example.com", privacy_url="https://www.example.com/privacy", terms_url="https://www.example.com/terms",
)  # fmt: skip
BRAND = branding.of(CLIENT, "logo/")
POPUP = CustomerReturn("https://app.example.com", "https://app.example.com/done?install=x&status=connected")
SIGN_ON = ["unknown_link", "expired_link", "used_link", "altered_link", "unavailable"]


def start_page(language: str = "en", label: str = "Aurora Sync", client_id: str = "c-1", state: str = "s-1") -> Page:
    return render.start(
        language,
        brand=Brand(label),
        consent_url=kommo.consent_url(client_id, Secret(state)),
        button=kommo.button(client_id, Secret(state), language),
    )


def result_page(state: str, language: str = "en", install: str = INSTALL, reason: str = "", account: str = "") -> Page:
    return render.result(language, install=install, state=state, start_url="../start", reason=reason, account=account)


def rejected_page(reason: str, language: str = "en", detail: str = "field x", start_url: str | None = "start") -> Page:
    return render.rejected(language, reason=reason, detail=detail, start_url=start_url)


def sign_on_page(reason: str, language: str = "en") -> Page:
    return render.sign_on_failed(language, reason=reason, status=503 if reason == "unavailable" else 404)


PAGES: dict[str, Callable[[str], Page]] = {
    "start": start_page,
    "start without a button": lambda language: render.start(
        language,
        brand=BRAND,
        consent_url="https://login.example.com/authorize",
        button={},
        allows=["See contacts"],
    ),
    "connecting": lambda language: result_page("received", language),
    "connected": lambda language: result_page("connected", language, account="aurora.kommo.com"),
    "refused": lambda language: render.refused(language, start_url="start"),
    "refused in a popup": lambda language: render.refused(language, start_url="start", brand=BRAND, popup_return=POPUP),
    **{
        f"{state} in a popup": lambda language, state=state: render.result(  # type: ignore[misc]
            language, install=INSTALL, state=state, start_url="../start", brand=BRAND, popup_return=POPUP
        )
        for state in ("received", "connected", "failed")
    },
    "rejected, with a brand": lambda language: render.rejected(
        language, reason="wrong_client", detail="x", start_url="start", brand=BRAND
    ),
    "claim": lambda language: render.claim(language, brand=BRAND, state="s-1"),
    "claim without a brand": lambda language: render.claim(language, state="s-1"),
    "claimed without a brand": render.claimed,
    "claimed": lambda language: render.claimed(language, brand=BRAND),
    **{f"failed {reason}": partial(result_page, "failed", reason=reason) for reason in FAILURES},
    **{f"rejected {reason}": partial(rejected_page, reason) for reason in REJECTIONS},
    "rejected for something else": lambda language: rejected_page("from_widget_repeated", language),
    **{f"sign-on {reason}": partial(sign_on_page, reason) for reason in SIGN_ON},
    "sign-on for something else": partial(sign_on_page, "comet"),
}
every_page = pytest.mark.parametrize("make", PAGES.values(), ids=PAGES.keys())
every_language = pytest.mark.parametrize("language", ["pt", "es", "en"])


class Outline(HTMLParser):
    """The elements of a page with the names of their attributes, and all attribute values by name."""

    def __init__(self, page: Page) -> None:
        super().__init__()
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.values: list[tuple[str, str, str]] = []
        self.text = ""
        self.feed(page.body)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(name for name, _ in attrs)))
        self.values += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, name: str, tag: str | None = None) -> list[str]:
        return [value for element, attribute, value in self.values if attribute == name and tag in (None, element)]


def policy(page: Page) -> dict[str, str]:
    directives = (directive.split(" ", 1) for directive in page.headers["Content-Security-Policy"].split("; "))
    return {name: value for name, value in directives}


# ------------------------------------------------------------------------------------------------------------- language


@pytest.mark.parametrize(
    ("header", "language"),
    [
        (None, "en"),
        ("", "en"),
        ("pt-BR,pt;q=0.9,en;q=0.8", "pt"),
        ("PT-br", "pt"),
        ("pt-PT", "pt"),
        ("es-419,es;q=0.9", "es"),
        ("en-GB", "en"),
        ("en;q=0.5, es;q=0.8, pt;q=0.7", "es"),
        ("de-DE, fr;q=0.9, pt;q=0.1", "pt"),
        ("de", "en"),
        ("*", "en"),
        ("pt;q=0, es;q=0.2", "es"),
        ("pt;q=0", "en"),
        ("es;q=0.5, pt;q=0.5", "es"),
        ("pt ; q = 0.9 , es", "es"),
        ("pt;q=nan, es;q=0.1", "es"),
        ("pt;q=2, es;q=0.1", "es"),
        ("ptx", "en"),
        ("pt_BR, es", "es"),
        (", ,;q=1,es", "es"),
    ],
)
def test_language_of_accept_language_selects_best_match(header: str | None, language: str) -> None:
    assert language_of(header) == language


@settings(deadline=None)
@given(st.text() | st.from_regex(r"((pt|es|en|de|\*)(-[A-Z]{2})?(;q=[0-9.]{0,6})?[, ;]*)*", fullmatch=True))
def test_language_of_arbitrary_header_is_a_supported_language(header: str) -> None:
    assert language_of(header) in {"pt", "es", "en"}


def test_language_of_huge_header_is_english() -> None:
    assert language_of("x-" * 50_000 + ",pt") == "en"


@every_page
@pytest.mark.parametrize(("language", "lang"), [("pt", "pt-BR"), ("es", "es"), ("en", "en"), ("xx", "en")])
def test_page_declares_its_language(make: Callable[[str], Page], language: str, lang: str) -> None:
    page = make(language)
    assert f'<html lang="{lang}">' in page.body
    assert page.headers["Content-Language"] == lang


# -------------------------------------------------------------------------------------------------------------- headers


@every_page
def test_page_has_security_headers(make: Callable[[str], Page]) -> None:
    page = make("en")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert page.headers["Vary"].startswith("Accept-Language")
    assert page.headers["Cache-Control"] == "no-store"
    assert page.headers["Referrer-Policy"] == "no-referrer"
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    assert page.headers["Strict-Transport-Security"].startswith("max-age=")
    assert page.headers["Cross-Origin-Opener-Policy"] in ("same-origin-allow-popups", "unsafe-none")
    assert "geolocation=()" in page.headers["Permissions-Policy"]


@every_page
def test_page_content_security_policy_allows_only_what_it_needs(make: Callable[[str], Page]) -> None:
    page = make("en")
    rules = policy(page)
    for directive in ("default-src", "base-uri", "frame-ancestors"):
        assert rules[directive] == "'none'"
    # Only a page with a form may send one, and only to this host.
    assert rules["form-action"] == ("'self'" if "<form" in page.body else "'none'")
    (nonce,) = re.findall(r"'nonce-([A-Za-z0-9_-]{22})'", rules["style-src"])
    outline = Outline(page)
    assert set(outline.all("nonce")) == {nonce}
    assert not [name for _, name, _ in outline.values if name == "style" or name.startswith("on")]
    assert ("script" in {tag for tag, _ in outline.elements}) == ("script-src" in rules)
    assert "unsafe-inline" not in rules.get("script-src", "") + rules["style-src"]
    assert "unsafe-eval" not in page.headers["Content-Security-Policy"]


def test_page_content_security_policy_allows_platform_only_on_start_page() -> None:
    assert "https://www.kommo.com" in policy(start_page())["script-src"].split()
    assert policy(start_page())["style-src-attr"] == "'unsafe-inline'"
    for name, make in PAGES.items():
        if name != "start":
            assert "https:" not in make("en").headers["Content-Security-Policy"], name


def test_page_keeps_its_opener_only_in_a_popup_of_the_application() -> None:
    for name, make in PAGES.items():
        policy_of_opener = make("en").headers["Cross-Origin-Opener-Policy"]
        assert policy_of_opener == ("unsafe-none" if "popup" in name else "same-origin-allow-popups"), name


def test_popup_page_sends_its_message_to_the_registered_origin_only() -> None:
    for page in (PAGES["refused in a popup"]("en"), PAGES["connected in a popup"]("en")):
        assert Outline(page).all("data-origin", "script") == ["https://app.example.com"]
        assert "postMessage(message, origin)" in page.body
        assert '"*"' not in page.body


def test_page_loads_images_of_this_site_only_for_a_logo() -> None:
    for make in PAGES.values():
        page = make("en")
        assert policy(page)["img-src"] == ("data: 'self'" if Outline(page).all("src", "img") else "data:")


@every_language
def test_page_with_brand_shows_name_logo_and_links(language: str) -> None:
    outline = Outline(PAGES["start without a button"](language))
    assert outline.all("src", "img") == [f"logo/{LOGO}"]
    # The logo is wide enough to be the name itself.
    assert outline.all("alt", "img") == ["Aurora Sync"]
    assert "Aurora Sync" in outline.text
    for url in ("mailto:help@example.com", "https://www.example.com/privacy", "https://www.example.com/terms"):
        assert url in outline.all("href", "a")
    assert "--fill: #7c3aed" in PAGES["start without a button"](language).body


@every_language
def test_start_page_without_display_name_shows_no_name_of_a_url(language: str) -> None:
    unnamed = CLIENT._replace(display_name="", logo="", colour="")
    page = render.start(
        language, brand=branding.of(unnamed, "logo/"), consent_url="https://login.example.com/authorize", button={}
    )
    assert "bb3" not in page.body
    assert "c-1" not in page.body
    assert render._texts()["page.unnamed"][language] in Outline(page).text


def test_brand_square_logo_stands_beside_the_name() -> None:
    square = branding.of(CLIENT._replace(logo="0123456789abcdef-64x64"), "logo/")
    outline = Outline(render.refused("en", start_url="start", brand=square))
    assert outline.all("alt", "img") == [""]
    assert "Aurora Sync" in outline.text


@pytest.mark.parametrize(
    "logo", ["", "x", "../../evil", "0123456789abcdef", 'a" onerror="x', "0123456789abcdef-64x64x"]
)
def test_brand_unknown_logo_version_shows_no_logo(logo: str) -> None:
    assert branding.of(CLIENT._replace(logo=logo), "logo/").logo_url == ""


@pytest.mark.parametrize("colour", ["red", "#fff", "#12345g", "#123456;}body{display:none", "url(x)"])
def test_brand_text_that_is_no_colour_makes_no_style(colour: str) -> None:
    assert branding.of(CLIENT._replace(colour=colour), "logo/").style == ""


def test_result_page_allows_requests_only_while_connecting() -> None:
    assert policy(result_page("exchanging"))["connect-src"] == "'self'"
    assert "connect-src" not in policy(result_page("connected"))
    assert "connect-src" not in policy(PAGES["connected in a popup"]("en"))
    assert "Accept" in result_page("received").headers["Vary"].split(", ")


def test_start_page_nonce_is_never_repeated() -> None:
    assert len({policy(start_page())["style-src"] for _ in range(50)}) == 50


# ------------------------------------------------------------------------------------------------------------- escaping

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</style></template></noscript></title><b>",
    "{{ 7 * 7 }}{% raw %}{0.__class__}{client}%(x)s",
    "a\u202eb\u0000\ud7ff\r\nSet-Cookie: x=1",
    "&lt;&amp;&#60;",
    "x" * 5_000,
)


@pytest.mark.parametrize("text", HOSTILE)
@every_language
def test_page_text_from_outside_is_escaped(text: str, language: str) -> None:
    plain = "plain"
    button = {"src": "https://www.kommo.com/auth/button.js", "data-state": text, "data-title": text}
    consent = "https://www.kommo.com/oauth?state="
    cases: list[Callable[[str], Page]] = [
        lambda value: render.start(language, brand=Brand(value), consent_url=consent, button=button),
        lambda value: render.start(language, brand=Brand("c"), consent_url=consent + value, button={}),
        lambda value: render.start(
            language, brand=Brand("c"), consent_url=consent, button={**button, "data-state": value}
        ),
        lambda value: result_page("received", language, install=value, account=value),
        lambda value: result_page("connected", language, account=value),
        lambda value: result_page("failed", language, install=value, reason=value, account=value),
        lambda value: rejected_page(value, language, detail=value),
        lambda value: sign_on_page(value, language),
    ]
    for make in cases:
        hostile, harmless = make(text), make(plain)
        assert Outline(hostile).elements == Outline(harmless).elements
        assert hostile.headers.keys() == harmless.headers.keys()
        assert not any("\n" in value or "\r" in value for value in hostile.headers.values())


def test_start_page_client_label_is_shown_as_written() -> None:
    assert "Łódź & Søn <3" in Outline(start_page(label="Łódź & Søn <3")).text


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "//evil.example",
        "/start",
        "https://evil.example/",
        "x\n",
        'a"b',
        "\\\\evil",
        " start",
        "",
    ],
)
def test_page_start_url_not_relative_is_omitted(url: str) -> None:
    for page in (
        render.refused("en", start_url=url),
        render.result("en", install=INSTALL, state="failed", start_url=url),
        rejected_page("missing_code", start_url=url),
    ):
        assert Outline(page).all("href", "a") == []


@every_page
def test_page_links_are_relative_or_of_the_platform(make: Callable[[str], Page]) -> None:
    outline = Outline(make("en"))
    for url in outline.all("href", "a") + outline.all("src") + outline.all("href", "link"):
        outside = url.startswith(
            (
                *("https://www.kommo.com/", "https://login.example.com/", "data:image/svg+xml,"),
                *("mailto:help@example.com", "https://www.example.com/", "https://app.example.com/done?"),
            )
        )
        assert outside or (not url.startswith("/") and ":" not in url), url


@pytest.mark.parametrize("url", ["http://www.kommo.com/oauth", "javascript:alert(1)", ""])
def test_start_page_consent_url_not_https_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="https"):
        render.start("en", brand=NO_BRAND, consent_url=url, button={})
    with pytest.raises(ValueError, match="https"):
        render.start("en", brand=NO_BRAND, consent_url="https://a.example", button={"src": url})


# ------------------------------------------------------------------------------------------------------------ sentences


def test_page_texts_exist_in_three_languages_with_same_placeholders() -> None:
    for key, texts in render._texts().items():
        assert texts.keys() == {"pt", "es", "en"}, key
        assert all(text.strip() == text and text for text in texts.values()), key
        blanks = {
            tuple(sorted({name for _, name, _, _ in string.Formatter().parse(text) if name})) for text in texts.values()
        }
        assert len(blanks) == 1, key


def test_page_texts_are_all_used(monkeypatch: pytest.MonkeyPatch) -> None:
    used: set[str] = set()
    text = render._text

    def note(language: str, key: str, **values: object) -> object:
        used.add(key)
        return text(language, key, **values)

    monkeypatch.setattr(render, "_text", note)
    for make in PAGES.values():
        make("en")
    assert used == set(render._texts())


@pytest.mark.parametrize("reason", FAILURES)
@every_language
def test_result_page_failure_shows_reason_and_start_link(reason: str, language: str) -> None:
    page = result_page("failed", language, reason=reason)
    text = Outline(page).text
    assert render._texts()[f"reason.{reason}"][language] in text
    assert reason in text
    assert INSTALL in text
    assert Outline(page).all("href", "a") == ["../start"]


@pytest.mark.parametrize("reason", REJECTIONS)
@every_language
def test_rejected_page_shows_reason_detail_and_start_link(reason: str, language: str) -> None:
    page = rejected_page(reason, language, detail="code may have 2000 characters")
    text = Outline(page).text
    assert render._texts()[f"reason.{reason}"][language] in text
    assert "code may have 2000 characters" in text
    assert "start" in Outline(page).all("href", "a")


@pytest.mark.parametrize("reason", SIGN_ON)
@every_language
def test_sign_on_page_failure_shows_reason_and_retry_link_only_when_unavailable(reason: str, language: str) -> None:
    page = sign_on_page(reason, language)
    text = Outline(page).text
    assert render._texts()[f"sign_on.{reason}"][language] in text
    assert reason in text
    # The page cannot create another link, so only a failure on our side offers another try.
    assert Outline(page).all("href", "a") == ([""] if reason == "unavailable" else [])


@pytest.mark.parametrize("reason", ["wrong_redirect_uri", "wrong_client"])
def test_result_page_operator_failure_shows_operator_text(reason: str) -> None:
    page = result_page("failed", reason=reason)
    assert ("details", ("open",)) in Outline(page).elements
    assert render._texts()[f"operator.{reason}"]["en"] in Outline(page).text


def test_page_unknown_reason_shows_general_text() -> None:
    for page in (result_page("failed", reason="comet"), rejected_page("comet")):
        assert render._texts()["reason.other"]["en"] in Outline(page).text
        assert "comet" in Outline(page).text


def test_rejected_page_unavailable_links_to_itself() -> None:
    page = render.rejected("en", reason="unavailable", detail="", start_url=None, status=503)
    assert page.status == 503
    assert Outline(page).all("href", "a") == [""]


@pytest.mark.parametrize("state", ["received", "exchanging", "", "something new"])
def test_result_page_unknown_state_is_connecting(state: str) -> None:
    page = result_page(state)
    assert 'http-equiv="refresh"' in page.body
    assert Outline(page).all("data-state", "main") == ["connecting"]


@pytest.mark.parametrize("state", ["connected", "failed"])
def test_result_page_final_state_does_not_refresh(state: str) -> None:
    page = result_page(state)
    assert "refresh" not in page.body
    assert "<script" not in page.body


def test_result_page_connecting_has_a_template_for_every_outcome() -> None:
    reasons = Outline(result_page("received")).all("data-reason", "template")
    assert set(reasons) == {*FAILURES, ""}
