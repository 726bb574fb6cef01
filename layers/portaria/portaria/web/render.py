"""The pages: start, result, refused and rejected of an install, the invalid sign-on link, and the API reference.

Each function returns a whole answer in one of three languages: status, headers and HTML. The pages load nothing from
elsewhere, except the platform's own button script on the start page, and all links of ours are relative, so they work under
any stage or path.

A page is given the `Brand` of its OAuth client: who asks for access, in the client's own colours.

Cross-Origin-Opener-Policy is `same-origin-allow-popups` on every page but those of an install in a popup window. In its popup
mode the platform's button opens the consent page in a second window, and that window tells the start page where to go by
`window.opener.postMessage`: with `same-origin` the opener would be cut off and the install would end in a window that knows
nothing. `unsafe-none` would keep that working too, but would also leave a handle with any site that opened our page, and
Kommo's script acts on a `{"url": …}` message from any sender (https://developers.kommo.com/docs/button-on-site). With
this value only windows that we opened can talk to us. It is the same on all pages because moving between two values cuts the
windows off.
An install that the team's application opened in a popup window ends with a message to that window, so its pages have `unsafe-
none`, no button of the platform, and an origin that the OAuth client registered as the only receiver.
"""

from __future__ import annotations

import re
import secrets
import tomllib
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from portaria.web.branding import NO_BRAND, Brand
from portaria.webhooks.customer_return import CustomerReturn

HERE = Path(__file__).parent
LANGUAGES = {"pt": "pt-BR", "es": "es", "en": "en"}
Texts = dict[str, dict[str, str]]
# Of every page, the console's too. Each page adds its policies.
PAGE_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Strict-Transport-Security": "max-age=63072000",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Robots-Tag": "noindex",
}

# For each reason: what the customer can do (`next.…`) and, where the operator has something to do, which note
# (`operator.…`). The reason itself has the text `reason.…`.
_REJECTIONS: dict[str, tuple[str, str | None]] = {
    "missing_code": ("start_again", None),
    "code_repeated": ("start_again", None),
    "code_too_long": ("start_again", None),
    "bad_code": ("start_again", None),
    "bad_referer": ("start_again", "bad_referer"),
    "domain_not_registered": ("tell_operator", "domain_not_registered"),
    "missing_state": ("start_again", None),
    "bad_state": ("start_again", None),
    "unknown_state": ("start_again", None),
    "expired_state": ("promptly", None),
    "used_state": ("check_first", None),
    "foreign_state": ("same_browser", None),
    "unknown_platform": ("tell_operator", "unknown_address"),
    "unknown_client": ("tell_operator", "unknown_address"),
    "unknown_install": ("start_again", None),
    "unavailable": ("reload", "unavailable"),
    "missing_link": ("ask_for_link", "link"),
    "unknown_link": ("ask_for_link", "link"),
    "expired_link": ("ask_for_link", "link"),
    "used_link": ("ask_for_link", "link"),
    "foreign_origin": ("ask_for_link", "link"),
    "bad_form": ("ask_for_link", "link"),
}
_FAILURES: dict[str, tuple[str, str | None]] = {
    "code_expired": ("promptly", "code_expired"),
    "code_used": ("check_first", None),
    "answer_lost": ("start_again", None),
    "wrong_redirect_uri": ("tell_operator", "wrong_redirect_uri"),
    "wrong_client": ("tell_operator", "wrong_client"),
    "invalid_account": ("check_account", None),
    "account_mismatch": ("start_again", "account_mismatch"),
    "bad_code": ("start_again", None),
    "platform_refused": ("start_again", "platform_refused"),
    "code_refused": ("check_first", None),
    "bad_scopes": ("tell_operator", "bad_scopes"),
    "wrong_token_url": ("tell_operator", "wrong_token_url"),
    "client_changed": ("start_again", None),
    "domain_not_registered": ("tell_operator", "domain_not_registered"),
    "api_domains_missing": ("tell_operator", "domain_not_registered"),
    "connection_gone": ("ask_for_link", "connection_gone"),
    "other_account": ("other_account", "link"),
}
_OTHER: tuple[str, str | None] = ("start_again", None)
# The same for a sign-on link; the reason has the text `sign_on.…`.
_SIGN_ON = {
    "unknown_link": ("sign_on_again", "sign_on"),
    "expired_link": ("sign_on_again", "sign_on"),
    "used_link": ("sign_on_again", "sign_on"),
    "altered_link": ("sign_on_again", "sign_on"),
    "unavailable": ("sign_on_reload", "sign_on_unavailable"),
}

_LONGEST_ACCEPT_LANGUAGE = 1_000
_LANGUAGE_RANGE = re.compile(r"([a-z]{1,8}|\*)(?:-[a-z0-9]{1,8})*\s*(?:;\s*q\s*=\s*([01](?:\.[0-9]{0,3})?))?", re.ASCII)


@dataclass(frozen=True)
class Page:
    status: int
    headers: dict[str, str]
    body: str


def language_of(accept_language: str | None) -> str:
    """`pt`, `es` or `en`: the best match for Accept-Language (RFC 9110, 12.5.4), English if there is none.

    Broken parts of the header are passed over, and only its first thousand characters are read.
    """
    best, best_weight = "en", 0.0
    for part in (accept_language or "")[:_LONGEST_ACCEPT_LANGUAGE].lower().split(","):
        wanted = _LANGUAGE_RANGE.fullmatch(part.strip())
        if wanted and wanted[1] in LANGUAGES:
            weight = min(float(wanted[2] or 1), 1.0)
            if weight > best_weight:
                best, best_weight = wanted[1], weight
    return best


def start(
    language: str,
    *,
    brand: Brand,
    consent_url: str,
    button: dict[str, str],
    allows: list[str] | None = None,
    in_popup: bool = False,
) -> Page:
    """The install page: who asks for what, what will happen, the platform's button, and a link to its consent page.

    `button` holds the attributes of the platform's button script, `src` among them; empty where it has none. Both it and
    `consent_url` must be https. They carry the one-time state, so the page is made for one browser. `allows` says in words what
    the scopes allow.
    """
    for url in (consent_url, button.get("src", "https://")):
        if not url.startswith("https://"):
            raise ValueError("consent_url and the button's src must begin with https://")
    nonce = secrets.token_urlsafe(16)
    policy = {}
    if button:
        # Kommo's script builds its button with style attributes, by innerHTML. Its error callback would need eval, which
        # stays forbidden: start.js hears of a refusal in another way.
        vendor = urlsplit(button["src"]).netloc
        policy = {"script-src": f"'nonce-{nonce}' https://{vendor}", "style-src-attr": "'unsafe-inline'"}
    return _page(
        "start.html",
        language,
        nonce=nonce,
        policy=policy,
        brand=brand,
        in_popup=in_popup,
        allows=allows or [],
        consent_url=consent_url,
        site=(urlsplit(consent_url).hostname or "").removeprefix("www."),
        button=button,
    )


def result(
    language: str,
    *,
    install: str,
    state: str,
    start_url: str,
    reason: str = "",
    account: str = "",
    brand: Brand = NO_BRAND,
    popup_return: CustomerReturn | None = None,
) -> Page:
    """The result page: connecting, connected or failed. While connecting, it polls its own URL for JSON.

    `state` is the install's (`received`, `exchanging`, `connected`, `failed`); one that is not known counts as connecting.
    `start_url` must be relative; any other is left out. With `popup_return`, the page tells the window that opened it how the
    install ended, and closes.
    """
    nonce = secrets.token_urlsafe(16)
    connecting = state not in ("connected", "failed")
    own_script = {"script-src": f"'nonce-{nonce}'"}
    scripts = {
        **own_script,
        "connect-src": "'self'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    return _page(
        "result.html",
        language,
        nonce=nonce,
        policy=scripts if connecting else own_script if popup_return else {},
        brand=brand,
        in_popup=popup_return is not None,
        popup_return=popup_return,
        vary="Accept-Language, Accept",
        install=install,
        state="connecting" if connecting else state,
        reason=reason,
        account=account,
        start_url=_relative(start_url),
        advice=_FAILURES.get(reason, _OTHER),
        known=reason in _FAILURES,
        failures=_FAILURES if connecting else {},
        other=_OTHER,
    )


def claim(language: str, *, state: str, brand: Brand = NO_BRAND) -> Page:
    """The page of a claim link: one button, whose form goes to this page's own address."""
    return _page("claim.html", language, policy={"form-action": "'self'"}, brand=brand, form_state=state)


def claimed(language: str, *, brand: Brand = NO_BRAND) -> Page:
    """The page after a claim was confirmed."""
    return _page("claimed.html", language, brand=brand)


def refused(
    language: str, *, start_url: str, brand: Brand = NO_BRAND, popup_return: CustomerReturn | None = None
) -> Page:
    """The page after the customer refused consent. With `popup_return` as `result`."""
    nonce = secrets.token_urlsafe(16)
    return _page(
        "refused.html",
        language,
        nonce=nonce,
        policy={"script-src": f"'nonce-{nonce}'"} if popup_return else {},
        brand=brand,
        in_popup=popup_return is not None,
        popup_return=popup_return,
        start_url=_relative(start_url),
    )


def rejected(
    language: str, *, reason: str, detail: str, start_url: str | None, status: int = 400, brand: Brand = NO_BRAND
) -> Page:
    """The page for invalid input: what is wrong, and what the customer and the operator must do.

    `detail` is an English sentence for the operator. `start_url` must be relative; None or any other shows no link.
    """
    return _page(
        "rejected.html",
        language,
        status=status,
        brand=brand,
        reason=reason,
        detail=detail,
        start_url=_relative(start_url),
        advice=_REJECTIONS.get(reason) or _FAILURES.get(reason, _OTHER),
        known=reason in _REJECTIONS or reason in _FAILURES,
    )


def reference(
    language: str,
    *,
    chrome: dict[str, Markup],
    groups: list[dict[str, Any]],
    scopes: list[tuple[str, str, bool]],
    problems: list[tuple[str, Markup]],
) -> Page:
    """The API reference: `chrome` has the page's texts, `groups` the operations, and the others what each scope and each
    problem type means."""
    return _page(
        "reference.html",
        language,
        chrome=chrome,
        groups=groups,
        scopes=scopes,
        problems=problems,
        languages=LANGUAGES,
    )


def sign_on_failed(language: str, *, reason: str, status: int) -> Page:
    """The page of an invalid sign-on link: the reason, and how to get a new link."""
    return _page(
        "sign_on.html",
        language,
        status=status,
        reason=reason,
        advice=_SIGN_ON.get(reason, _SIGN_ON["altered_link"]),
        known=reason in _SIGN_ON,
    )


def _page(
    template: str,
    language: str,
    *,
    nonce: str = "",
    policy: dict[str, str] | None = None,
    vary: str = "Accept-Language",
    status: int = 200,
    brand: Brand = NO_BRAND,
    in_popup: bool = False,
    **values: object,
) -> Page:
    language = language if language in LANGUAGES else "en"
    nonce = nonce or secrets.token_urlsafe(16)
    directives = {
        "default-src": "'none'",
        "style-src": f"'nonce-{nonce}'",
        # The icon in the tab, and the client's logo.
        "img-src": "data: 'self'" if brand.logo_url else "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        **(policy or {}),
    }
    text = partial(_text, language)
    name = Markup("<bdi>{}</bdi>").format(brand.name) if brand.name else text("page.unnamed")
    body = (
        environment(HERE / "templates")
        .get_template(template)
        .render(t=text, lang=LANGUAGES[language], nonce=nonce, brand=brand, client=name, **values)
    )
    headers = {
        **PAGE_HEADERS,
        "Content-Language": LANGUAGES[language],
        "Vary": vary,
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in directives.items()),
        "Referrer-Policy": "no-referrer",  # the URL may hold the authorization code
        "Cross-Origin-Opener-Policy": "unsafe-none" if in_popup else "same-origin-allow-popups",
    }
    return Page(status, headers, body)


def _relative(url: str | None) -> str | None:
    """The URL if it can only lead to this host, beside or below the page, else None."""
    if not url or not re.fullmatch(r"[A-Za-z0-9._~%/?=&-]+", url) or url.startswith("/"):
        return None
    return url


def _text(language: str, key: str, **values: object) -> Markup:
    """The sentence for `key`, with `values` escaped into its braces."""
    return escape(_texts()[key][language]).format(**values)


@cache
def _texts() -> Texts:
    return read_texts(HERE / "texts.toml")


def read_texts(file: Path) -> Texts:
    """The texts of a file by `group.name`, each by language."""
    groups = tomllib.loads(file.read_text("utf-8"))
    return {f"{group}.{name}": texts for group, entries in groups.items() for name, texts in entries.items()}


@cache
def environment(folder: Path) -> Environment:
    """The templates of a folder. Every value is escaped, and one that is missing is an error."""
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
