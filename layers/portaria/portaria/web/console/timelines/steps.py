"""Time lines: what became of an install or of a record, step by step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

DONE, NOW, WAITING, FAILED, UNCLEAR = "good", "busy", "quiet", "bad", "warn"
Content = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """One step. `name` is the key of its text below `step`, and `state` the colour of a badge.

    `at` is empty for a step without a time of its own. `detail` is the API's sentence, `note` a text in the page's language,
    `place` the page that the step leads to, and `label` the name of what the step is about.
    """

    name: str
    state: str
    at: str = ""
    detail: str = ""
    note: Markup | str = ""
    place: str = ""
    label: str = ""


@dataclass(frozen=True)
class Notice:
    """A sentence above a thing: `text` in the page's language, `kind` its colour, and `place` where it leads."""

    text: Markup
    kind: str = ""
    place: str = ""


def in_order(steps: list[Step]) -> list[Step]:
    """Steps by their time; one without a time keeps its place behind the step before it."""
    moment, keyed = "", []
    for number, step in enumerate(steps):
        moment = step.at or moment
        keyed.append((moment, number, step))
    return [step for _, _, step in sorted(keyed, key=lambda each: each[:2])]
