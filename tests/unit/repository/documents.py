"""Markdown as the tests of the documents read it: prose, inline code and heading anchors."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)


def prose(text: str) -> str:
    return _FENCE.sub("", text)


def inline_code(path: Path) -> set[str]:
    """Inline code outside of code blocks and of headings, because the headings of dated decisions stay unchanged."""
    return set(re.findall(r"`([^`\n]+)`", re.sub(r"^#.*$", "", prose(path.read_text()), flags=re.MULTILINE)))


@cache
def anchors(path: Path) -> frozenset[str]:
    """The anchors that GitHub creates for a document's headings."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *$", prose(path.read_text()), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        count = 1
        unique = anchor
        while unique in found:
            unique = f"{anchor}-{count}"
            count += 1
        found.add(unique)
    return frozenset(found)
