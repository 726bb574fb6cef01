"""What the hosted pages show of an OAuth client: name, logo, colours and links."""

from __future__ import annotations

import re
from dataclasses import dataclass

from portaria.connections.branding import page_colours
from portaria.connections.branding.page_colours import DARK, LIGHT
from portaria.core.callbacks import OAuthClient

# A logo that is so much wider than high is taken for the name itself.
WORDMARK_RATIO = 2.5
LOGO_VERSION = re.compile(r"[0-9a-f]{16}-([0-9]{1,4})x([0-9]{1,4})", re.ASCII)


@dataclass(frozen=True)
class Brand:
    """`name` is empty where the client has none: its own name is a part of URLs and means nothing to customers.

    `logo_url` is relative to the page, with the picture's size. `style` is CSS for both colour schemes.
    """

    name: str = ""
    logo_url: str = ""
    logo_size: tuple[int, int] = (0, 0)
    style: str = ""
    support_url: str = ""
    support_email: str = ""
    privacy_url: str = ""
    terms_url: str = ""

    @property
    def is_wordmark(self) -> bool:
        width, height = self.logo_size
        return bool(self.logo_url) and width >= WORDMARK_RATIO * height

    @property
    def support_link(self) -> str:
        return self.support_url or (f"mailto:{self.support_email}" if self.support_email else "")

    @property
    def has_links(self) -> bool:
        return bool(self.support_link or self.privacy_url or self.terms_url)


NO_BRAND = Brand()


def of(client: OAuthClient | None, logo_base_url: str) -> Brand:
    """`logo_base_url` is the relative URL below which the client's logos are, `logo/` on the start page."""
    if client is None:
        return NO_BRAND
    size = LOGO_VERSION.fullmatch(client.logo)
    return Brand(
        name=client.display_name,
        logo_url=f"{logo_base_url}{client.logo}" if size else "",
        logo_size=(int(size[1]), int(size[2])) if size else (0, 0),
        style=_style(client.colour),
        support_url=client.support_url,
        support_email=client.support_email,
        privacy_url=client.privacy_url,
        terms_url=client.terms_url,
    )


def _style(colour: str) -> str:
    if not page_colours.is_colour(colour):
        return ""
    return f"{_variables(colour, LIGHT)}\n@media (prefers-color-scheme: dark) {{ {_variables(colour, DARK)} }}"


def _variables(colour: str, scheme: str) -> str:
    made = page_colours.palette(colour, scheme)
    pairs = (f"--{name.replace('_', '-')}: {value};" for name, value in made._asdict().items())
    return f":root {{ {' '.join(pairs)} }}"
