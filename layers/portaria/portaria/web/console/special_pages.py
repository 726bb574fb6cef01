"""Pages that are more than a listing, a thing or a form over one operation."""

from __future__ import annotations

from collections.abc import Callable

from portaria.web.console import settings_page
from portaria.web.console.sections import BY_NAME
from portaria.web.console.visit import Outcome, Visit
from portaria.web.console.workflows import (
    audit_export,
    bulk_pages,
    connection_creation,
    logo_page,
    record_search,
    route_editor,
)

Page = Callable[[Visit], Outcome]


def find(steps: list[str]) -> Page | None:
    """The page at a path below the console, None if it is one that every section has."""
    if steps == ["connections", "new"]:
        return connection_creation.show
    if steps == ["settings"]:
        return settings_page.show
    if steps == ["search"]:
        return record_search.show
    if steps == ["routes", "new"]:
        return lambda visit: route_editor.show(visit, [])
    if len(steps) == 3 and steps[0] == "routes" and steps[2] in ("edit", "preview"):
        return lambda visit: route_editor.show(visit, steps[1:2])
    if steps == ["audit", "export"]:
        return audit_export.show
    if len(steps) == 4 and steps[0] == "oauth-clients" and steps[3] == "logo":
        return lambda visit: logo_page.show(visit, steps[1:3])
    if len(steps) == 3 and steps[0] in BY_NAME:
        section = BY_NAME[steps[0]]
        for action in section.actions:
            if action.is_bulk and action.name == steps[2]:
                return lambda visit: bulk_pages.show(visit, section, action, steps[1:2])
    if len(steps) == 2 and steps[0] in BY_NAME:
        section = BY_NAME[steps[0]]
        if section.bulk and steps[1] == "selected":
            return lambda visit: bulk_pages.of_selection(visit, section)
        for action in section.bulk:
            if action.name == steps[1]:
                return lambda visit: bulk_pages.show(visit, section, action)
    return None
