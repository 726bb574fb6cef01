"""Pages that are more than a listing, a thing or a form over one operation."""

from __future__ import annotations

from collections.abc import Callable

from portaria.web.console import bulk_pages, connection_creation
from portaria.web.console.sections import BY_NAME
from portaria.web.console.visit import Outcome, Visit

Page = Callable[[Visit], Outcome]


def find(steps: list[str]) -> Page | None:
    """The page at a path below the console, None if it is one that every section has."""
    if steps == ["connections", "new"]:
        return connection_creation.show
    if len(steps) == 2 and steps[0] in BY_NAME:
        section = BY_NAME[steps[0]]
        for action in section.bulk:
            if action.name == steps[1]:
                return lambda visit: bulk_pages.show(visit, section, action)
    return None
