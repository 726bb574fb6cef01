"""Every page of the console that links lead to, one of each shape, and the shapes that its tables define.

A shape is a path without the ids in it: `connections/*/rotate`. New pages are found because a page links to them; a page of the
tables that no link leads to is missing from the scenery, which a test reports.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from portaria.web.console.resource_pages import NEW
from portaria.web.console.sections import BY_NAME, SECTIONS
from tests.fakes.api.console import BASE, Browser

_LINK = re.compile(r'href="([^"]+)"')
# How many pages of one shape are read for their links: those of different kinds have different actions.
READ_EACH = 14


def find_all(browser: Browser, texts: dict[str, str] | None = None) -> dict[str, str]:
    """The shape and the path of each page below the console. `browser` must be signed in. `texts` gets the HTML of each.

    Fails for a page that does not answer with 200.
    """
    found: dict[str, str] = {}
    read: dict[str, int] = {}
    waiting, linked_by = ["overview"], {"overview": ""}
    while waiting:
        path = waiting.pop(0)
        shape = shape_of(path)
        if read.get(shape, 0) >= READ_EACH:
            continue
        read[shape] = read.get(shape, 0) + 1
        found.setdefault(shape, path)
        page = browser.get(path)
        assert page.status == 200, f"{path}, which {linked_by[path]} links to, answers {page.status}"
        if not page.headers["Content-Type"][0].startswith("text/html"):
            del found[shape]
            continue
        if texts is not None:
            texts.setdefault(shape, page.text)
        for link in links(page.text):
            if link not in linked_by:
                linked_by[link] = path
                waiting.append(link)
    return found


def links(text: str) -> Iterator[str]:
    """The paths below the console that a page links to, assets excepted."""
    for target in _LINK.findall(text):
        below = html.unescape(target).removeprefix(f"{BASE}/")
        if below != html.unescape(target) and not below.startswith("assets/"):
            yield below


def shape_of(path: str) -> str:
    """The path with `*` for an id, and with the names of the parameters of its query."""
    parts = urlsplit(path)
    steps = parts.path.split("/")
    section = BY_NAME.get(steps[0])
    if section:
        own = {NEW, *(action.name for action in section.bulk)}
        size = len(section.id_fields)
        rest = steps[1:]
        if rest and rest[0] not in own:
            rest = ["*" for _ in rest[:size]] + rest[size:]
        steps = [steps[0], *rest]
    names = sorted(each.partition("=")[0] for each in parts.query.split("&") if each)
    kind = "?" + "&".join(names) if names else ""
    # Each kind of connection has a form of its own.
    return "/".join(steps) + ("?" + parts.query if "kind" in names else kind)


def defined() -> set[str]:
    """The shapes that the table of sections defines."""
    found = {"overview", "search"}
    for section in SECTIONS:
        thing = "/".join([section.name, *("*" for _ in section.id_fields)])
        found.add(f"{section.name}/*" if section.parent else section.name)
        found |= {f"{section.name}/{NEW}"} if section.create else set()
        found |= {thing} if section.show_operation else set()
        found |= {f"{thing}/{action.name}" for action in section.actions}
        found |= {f"{section.name}/{action.name}" for action in section.bulk}
    return found
