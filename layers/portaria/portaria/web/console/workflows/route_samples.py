"""Sample records for the mapping editor: recent ones of a route's source, and that of a dead letter."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from portaria.core.errors import Retryable
from portaria.web.console import pages
from portaria.web.console.api_calls import Problem
from portaria.web.console.visit import Visit

Content = dict[str, Any]
MAX_SAMPLES, MAX_CONNECTIONS = 5, 50
# A record is called by the first of these that it has.
TITLES = ("name", "first_name", "firstName", "email", "title")


@dataclass(frozen=True)
class Sample:
    """A record to choose. `text` is its JSON, as the form sends it back."""

    id: str
    title: str
    updated_at: str
    text: str


class NoSamples(Exception):
    """`detail` says why there is no sample."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


def recent(visit: Visit, source: str, object_name: str) -> list[Sample]:
    """Recent records of a route's source. Raises `NoSamples`."""
    try:
        connection = _connection(visit, source)
        if not connection:
            raise NoSamples(str(pages.translate(visit.frame.language, "preview.no_connection")))
        query = {"object": object_name, "limit": str(MAX_SAMPLES)}
        found = visit.api.call("list_sample_records", {"name": connection}, query=query).content["items"]
    except Problem as problem:
        raise NoSamples(problem.detail) from None
    except Retryable as later:
        raise NoSamples(later.detail) from None
    if not found:
        raise NoSamples(str(pages.translate(visit.frame.language, "preview.no_records")))
    return [
        Sample(str(each["id"]), _title(each["data"]), each["updated_at"] or "", as_text(each["data"])) for each in found
    ]


def of_letter(visit: Visit, letter: str) -> str:
    """The first record of a dead letter as JSON; empty if the session may not see it, or if it has none."""
    if not letter or not visit.api.allows("show_dead_letter"):
        return ""
    try:
        content = visit.api.call("show_dead_letter", {"id": letter}).content["content"]
    except Problem:
        return ""
    data = next((each["data"] for each in content if each["data"]), None)
    return as_text(data) if data else ""


def as_text(data: Any) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False)


def _connection(visit: Visit, source: str) -> str:
    """The connection to read: the source itself, or a connected account of the OAuth client that is the source."""
    kind, _, name = source.strip().partition(":")
    if kind != "client":
        return name
    platform, _, client = name.partition("/")
    query = {"platform": platform, "state": "connected", "limit": str(MAX_CONNECTIONS)}
    found = visit.api.call("list_connections", query=query).content["items"]
    return next((str(each["name"]) for each in found if each["client"] == client), "")


def _title(data: Content) -> str:
    return next((str(data[name]) for name in TITLES if isinstance(data.get(name), str) and data[name]), "")
