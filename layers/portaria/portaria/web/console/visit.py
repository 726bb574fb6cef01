"""One request to the console by a person who is signed in, and what a page answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from dataclasses import replace as with_changes
from http import HTTPStatus

from portaria.api.operation import ApiContext
from portaria.web.console.api_calls import ApiCalls
from portaria.web.console.forms import Sent
from portaria.web.console.pages import Frame


@dataclass(frozen=True)
class Visit:
    """`query` has one value for each parameter; `sent` are the fields of a form that `guard` has let through."""

    frame: Frame
    api: ApiCalls
    query: dict[str, str]
    sent: Sent
    is_post: bool
    context: ApiContext

    def at(self, section: str) -> Visit:
        return with_changes(self, frame=with_changes(self.frame, current=section))

    def sent_one(self, name: str) -> str:
        values = self.sent.get(name, [])
        return values[0] if values else ""


@dataclass(frozen=True)
class Outcome:
    """A page, or a redirect to a place below the console with a query. `headers` replace those of a page."""

    body: str = ""
    status: int = HTTPStatus.OK
    redirect: str = ""
    query: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
