"""The logos of OAuth clients: checked when they come, and stored in items of their own.

The install webhook reads a client's item and must not wait for its logo.
"""

from __future__ import annotations

import base64
import hashlib
from typing import NamedTuple

from portaria.aws.table import Table
from portaria.connections.branding import png_logos, svg_logos
from portaria.connections.branding.logo_rules import MAX_BYTES, UnusableLogo
from portaria.core import clock
from portaria.core.item_keys import oauth_client_logo_key

PNG, SVG = "image/png", "image/svg+xml"


class Logo(NamedTuple):
    """`version` changes with the content: the first 16 characters of its SHA-256, and its width and height. It is in the URL,
    so that browsers may keep a logo for ever."""

    content: bytes
    content_type: str
    width: int
    height: int

    @property
    def version(self) -> str:
        return f"{hashlib.sha256(self.content).hexdigest()[:16]}-{self.width}x{self.height}"


def check(content: bytes) -> Logo:
    """The logo in a file, whose type its first bytes say. Raises `UnusableLogo`."""
    if len(content) > MAX_BYTES:
        raise UnusableLogo(f"may have at most {MAX_BYTES:,} bytes; this one has {len(content):,}")
    if content.startswith(png_logos.SIGNATURE):
        picture, width, height = png_logos.clean(content)
        return Logo(picture, PNG, width, height)
    if content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        drawing, wide, high = svg_logos.clean(content)
        if len(drawing) > MAX_BYTES:
            raise UnusableLogo(f"may have at most {MAX_BYTES:,} bytes; as it is stored, this one has {len(drawing):,}")
        return Logo(drawing, SVG, round(wide), round(high))
    raise UnusableLogo("must be a PNG or SVG file")


def store(table: Table, platform: str, client: str, logo: Logo) -> None:
    """A logo is stored before the client's item that names it, and the former one is deleted after that."""
    pk, sk = oauth_client_logo_key(platform, client, logo.version)
    table.put(
        {
            "pk": pk,
            "sk": sk,
            "content": base64.b64encode(logo.content).decode(),
            "content_type": logo.content_type,
            "version": logo.version,
            "updated_at": clock.to_iso(clock.now()),
        }
    )


def delete_others(table: Table, platform: str, client: str, *, kept: str = "") -> None:
    """Delete a client's logos but the version that is `kept`, with those that an interrupted change left behind."""
    pk, _ = oauth_client_logo_key(platform, client, "")
    for item in table.query_all(pk, sk_prefix="LOGO#"):
        if item["sk"] != oauth_client_logo_key(platform, client, kept)[1]:
            table.delete(item["pk"], item["sk"])
