"""The Markdown that the texts of the API reference use: `code` and **strong**, in one paragraph."""

from __future__ import annotations

import re

from markupsafe import Markup, escape


def render(text: str) -> Markup:
    """A text as HTML. Everything except the two marks is escaped."""
    html = str(escape(text))
    # Code first, so that marks inside it stay as they are.
    pieces = re.split(r"`([^`]+)`", html)
    for number, piece in enumerate(pieces):
        if number % 2:
            pieces[number] = f"<code>{piece}</code>"
        else:
            pieces[number] = re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", piece)
    return Markup("".join(pieces))  # noqa: S704 - escaped above
