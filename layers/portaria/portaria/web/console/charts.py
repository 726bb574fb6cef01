"""What the charts of the overview show. The templates draw them as SVG, each with the same numbers as a table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

WIDTH, HEIGHT, GAP = 320, 96, 2


@dataclass(frozen=True)
class Bar:
    """One horizontal bar. `share` is its length as a part of the whole width; `text` is shown beside it instead of the count,
    and `detail` below the chart."""

    name: str
    label: str
    count: int
    share: float
    link: str = ""
    colour: str = "quiet"
    text: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Piece:
    """A part of a column: its state, and its place in the drawing."""

    colour: str
    count: int
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Column:
    """One hour or day of installs. `label` is the time in UTC, `is_marked` whether the axis shows it."""

    label: str
    connected: int
    failed: int
    in_progress: int
    pieces: tuple[Piece, ...]
    x: float
    is_marked: bool


def bars(counted: Iterable[tuple[str, str, int, str, str]]) -> list[Bar]:
    """Of name, label, count, link and colour; the longest bar has the whole width."""
    rows = list(counted)
    longest = max((count for _, _, count, _, _ in rows), default=0) or 1
    return [Bar(name, label, count, count / longest, link, colour) for name, label, count, link, colour in rows]


def columns(counted: list[dict[str, int]], labels: list[str], marked_each: int) -> list[Column]:
    """Stacked columns: connected below, then what is in progress, failed on top."""
    highest = max((sum(each.values()) for each in counted), default=0) or 1
    width = WIDTH / max(len(counted), 1)
    made = []
    for number, (each, label) in enumerate(zip(counted, labels, strict=True)):
        x, y = number * width, float(HEIGHT)
        pieces = []
        for name, colour in (("connected", "good"), ("in_progress", "busy"), ("failed", "bad")):
            if not each[name]:
                continue
            # One install among thousands stays visible.
            height = max(2.0, each[name] / highest * (HEIGHT - 4))
            y -= height
            place = round(x + GAP / 2, 1), round(y, 1), round(width - GAP, 1), round(height, 1)
            pieces.append(Piece(colour, each[name], *place))
        is_marked = (len(counted) - 1 - number) % marked_each == 0
        made.append(Column(label, **each, pieces=tuple(pieces), x=round(x + width / 2, 1), is_marked=is_marked))
    return made
