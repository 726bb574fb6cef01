"""The rules for what an OAuth client's hosted pages show, and for the pages that its customers return to."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from portaria.api.validation import Input
from portaria.connections.branding import logos, page_colours
from portaria.connections.branding.logo_rules import MAX_BYTES, UnusableLogo
from portaria.connections.branding.logos import Logo
from portaria.core import return_urls
from portaria.core.callbacks import OAuthClient
from portaria.core.error_roots import Rejected

# Which an OAuth client has as texts, empty where they are not set.
TEXT_FIELDS = ("display_name", "colour", "support_email", "support_url", "privacy_url", "terms_url")
MAX_NAME_LENGTH, MAX_EMAIL_LENGTH, MAX_URL_LENGTH = 60, 254, 500
# Control characters, surrogates, and characters that turn the direction of text or show nothing; and markup.
_NOT_IN_NAMES = re.compile(
    r"[\x00-\x1f\x7f-\xa0\xad\u061c\u115f\u1160\u200b-\u200f\u2028-\u202f\u2060-\u206f\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0"
    r"\ufff0-\uffff<>]"
)
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = rf"(?:{_LABEL}\.){{1,20}}[A-Za-z][A-Za-z0-9-]{{0,61}}[A-Za-z0-9]"
_EMAIL = re.compile(rf"[A-Za-z0-9](?:[A-Za-z0-9._+-]{{0,62}}[A-Za-z0-9_+-])?@{_HOST}")
_PAGE_URL = re.compile(rf"https://{_HOST}(?::[0-9]{{1,5}})?(?:[/?#][!#$%&(-;=?-\[\]_a-z~]*)?")
_MAX_LOGO_TEXT = 4 * (MAX_BYTES // 3 + 1)


def _rule(rule: str) -> PydanticCustomError:
    return PydanticCustomError("rule", "{rule}", {"rule": rule})


def _return_url(text: str) -> str:
    try:
        return_urls.check_registered(text)
    except Rejected as refused:
        raise _rule(refused.detail.removeprefix("return_urls ")) from None
    return text


def _display_name(text: str) -> str:
    if not 1 <= len(text) <= MAX_NAME_LENGTH or text != text.strip() or _NOT_IN_NAMES.search(text):
        raise _rule(
            f"must be 1 to {MAX_NAME_LENGTH} visible characters without < or >, and without spaces around them; this one has "
            f"{len(text)}"
        )
    return text


def _email(text: str) -> str:
    if len(text) > MAX_EMAIL_LENGTH or not _EMAIL.fullmatch(text):
        raise _rule("must be an e-mail address such as help@example.com")
    return text


def _page_url(text: str) -> str:
    """A link that customers open."""
    if len(text) > MAX_URL_LENGTH or not _PAGE_URL.fullmatch(text):
        raise _rule(
            f"must be an https URL of at most {MAX_URL_LENGTH} printable ASCII characters, without user information"
        )
    return text


def _colour(text: str) -> str:
    lowered = text.lower()
    if not page_colours.is_colour(lowered):
        raise _rule("must be a colour such as #0f6b66")
    return lowered


def _read_logo(value: object) -> Logo | str:
    """The checked logo; an empty text removes the present one."""
    if not isinstance(value, str):
        raise _rule("must be text: a PNG or SVG file in base64")
    if not value:
        return value
    if len(value) > _MAX_LOGO_TEXT:
        raise _rule(f"may have at most {MAX_BYTES:,} bytes, and its base64 {_MAX_LOGO_TEXT:,} characters")
    try:
        content = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise _rule("must be a PNG or SVG file in base64") from None
    try:
        return logos.check(content)
    except UnusableLogo as unusable:
        raise _rule(str(unusable)) from None


ReturnUrls = Annotated[list[Annotated[str, AfterValidator(_return_url)]], Field(max_length=return_urls.MAX_ENTRIES)]
DisplayName = Annotated[
    str, AfterValidator(_display_name), WithJsonSchema({"type": "string", "minLength": 1, "maxLength": MAX_NAME_LENGTH})
]
Colour = Annotated[str, AfterValidator(_colour), WithJsonSchema({"type": "string", "pattern": "^#[0-9A-Fa-f]{6}$"})]
Email = Annotated[
    str,
    AfterValidator(_email),
    WithJsonSchema({"type": "string", "format": "email", "maxLength": MAX_EMAIL_LENGTH}),
]
PageUrl = Annotated[
    str, AfterValidator(_page_url), WithJsonSchema({"type": "string", "format": "uri", "maxLength": MAX_URL_LENGTH})
]
LogoText = Annotated[
    Logo | str,
    PlainValidator(_read_logo),
    WithJsonSchema({"type": "string", "contentEncoding": "base64", "maxLength": _MAX_LOGO_TEXT}),
]


class Branding(Input):
    """What the hosted pages show of an OAuth client, and where its customers may be sent back to."""

    return_urls: ReturnUrls | None = Field(
        default=None,
        description="The pages of your application that customers may be sent back to: whole URLs, or prefixes that end with "
        "`/*`.",
    )
    display_name: DisplayName | None = Field(default=None, description="The application's name on the hosted pages.")
    logo: LogoText | None = Field(
        default=None,
        description="The logo: a PNG or SVG file in base64, at most 50 kB. If it is omitted, the stored one is kept; an empty"
        " text removes it.",
    )
    colour: Colour | None = Field(
        default=None, description="The colour of buttons on the hosted pages, such as `#0f6b66`."
    )
    support_email: Email | None = Field(default=None, description="The support address on the hosted pages.")
    support_url: PageUrl | None = Field(default=None, description="The support page that the hosted pages link to.")
    privacy_url: PageUrl | None = Field(default=None, description="The privacy policy that the hosted pages link to.")
    terms_url: PageUrl | None = Field(default=None, description="The terms of service that the hosted pages link to.")


def apply(sent: Branding, client: OAuthClient, old: OAuthClient | None) -> OAuthClient:
    """The client with what was sent. Only the logo is kept from the `old` client where it was not sent."""
    logo = old.logo if old else ""
    if sent.logo is not None:
        logo = sent.logo.version if isinstance(sent.logo, Logo) else ""
    texts = {name: getattr(sent, name) or "" for name in TEXT_FIELDS}
    registered = " ".join(dict.fromkeys(sent.return_urls or ()))
    return client._replace(logo=logo, return_urls=registered, **texts)


def show(client: OAuthClient) -> dict[str, Any]:
    """`logo_url` is on the redirect URI's host, like the install page."""
    logo_url = f"{client.redirect_uri.rstrip('/')}/logo/{client.logo}" if client.logo else ""
    shown = {"return_urls": client.return_urls.split(), "display_name": client.display_name, "logo_url": logo_url}
    return shown | {name: getattr(client, name) for name in TEXT_FIELDS[1:]}


def read_shown(shown: dict[str, Any], client: OAuthClient) -> OAuthClient:
    """A client with what `show` has made of its branding."""
    logo = re.search(r"/logo/([0-9a-f]{16}-[0-9]{1,4}x[0-9]{1,4})$", shown.get("logo_url") or "")
    texts = {name: shown.get(name) or "" for name in TEXT_FIELDS}
    registered = " ".join(shown.get("return_urls") or ())
    return client._replace(return_urls=registered, logo=logo[1] if logo else "", **texts)


def warnings(client: OAuthClient) -> list[str]:
    """Sentences about what customers may find hard to read or to trust."""
    found = []
    if client.colour and (schemes := page_colours.schemes_that_lack_contrast(client.colour)):
        where = " and the ".join(schemes)
        found.append(
            f"colour has less than {page_colours.EDGE_CONTRAST:g}:1 contrast with the page in the {where} scheme: buttons get "
            "an edge in a stronger shade there"
        )
    return found
