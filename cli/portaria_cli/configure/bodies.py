"""An entry as the body that the API takes, read by the API's own model.

Where some fields are wrong, the rest of the entry is still read, so that the rules find what is wrong with that as well.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from portaria.api import validation
from portaria.api.rules import connection_rules, oauth_client_rules, route_rules
from portaria.api.validation import Fault
from portaria_cli.configure.entries import UNREAD, Entry, Steps

MODELS: dict[str, type[validation.Input]] = {
    "clients": oauth_client_rules.OAuthClientCreation,
    "connections": connection_rules.ConnectionCreation,
    "routes": route_rules.RouteCreation,
}
# Placeholders for required fields that have a problem, so that their problem is reported only once.
_IN_PLACE = {
    "platform": UNREAD,
    "name": UNREAD,
    "client_id": UNREAD,
    "client_secret": UNREAD,
    "source": f"connection:{UNREAD}",
    "object": "contacts",
    "destination": UNREAD,
}
# The rounds in which wrong fields are taken out: values inside a field first, then the whole field.
_ROUNDS = 4


@dataclass
class Body:
    """`sent` is None where so much is wrong that no rule could be applied. `wrong` are the fields that have a fault already."""

    sent: Any
    faults: list[Fault] = field(default_factory=list)
    wrong: set[Steps] = field(default_factory=set)

    def is_about_a_wrong_field(self, steps: Steps) -> bool:
        return any(steps[: len(wrong)] == wrong or wrong[: len(steps)] == steps for wrong in self.wrong)


def read(entry: Entry, model: type[validation.Input], content: dict[str, Any]) -> Body:
    body = Body(None, wrong=set(entry.unread))
    content = deepcopy(content)
    for number in range(_ROUNDS):
        body.sent, faults = validation.check(model, content)
        if body.sent is not None:
            break
        # A field that is missing because its name is misspelled is one mistake.
        body.wrong |= {(*fault.steps[:-1], fault.meant) for fault in faults if fault.meant}
        for fault in faults:
            if not body.is_about_a_wrong_field(fault.steps):
                body.faults.append(fault)
            body.wrong.add(fault.steps)
            _take_out(content, fault.steps if number == 0 else fault.steps[:1])
    return body


def _take_out(content: dict[str, Any], steps: Steps) -> None:
    *above, last = steps
    parent: Any = content
    for step in above:
        parent = parent[step] if _has(parent, step) else None
    if parent is content and last in _IN_PLACE:
        content[str(last)] = _IN_PLACE[str(last)]
    elif isinstance(parent, dict):
        parent.pop(last, None)
    elif isinstance(parent, list) and _has(parent, last):
        # The places of the others stay as they are: what takes its place is wrong in the next round, and then the list goes.
        parent[int(last)] = None


def _has(parent: Any, step: str | int) -> bool:
    if isinstance(parent, list):
        return isinstance(step, int) and 0 <= step < len(parent)
    return isinstance(parent, dict) and step in parent
