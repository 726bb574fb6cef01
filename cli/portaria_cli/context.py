"""What every command works with: its settings, the API, and the two output streams."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from rich.console import Console
from rich.status import Status

from portaria_cli import profiles
from portaria_cli.errors import Document
from portaria_cli.terminal import cells, output

if TYPE_CHECKING:
    from portaria_cli.api import Api
    from portaria_cli.profiles import Settings


class Paging(NamedTuple):
    """Which part of a listing is read: `most` items, all of them for None, from `cursor` on."""

    most: int | None = None
    cursor: str | None = None


class Page(NamedTuple):
    """A part of a listing. `next_cursor` is None if nothing follows."""

    items: list[Document]
    next_cursor: str | None


class CliContext:
    """What the options of the command line say. The API is looked up when it is first called."""

    def __init__(self, given: Mapping[str, Any], *, as_json: bool = False, uses_pager: bool = True) -> None:
        self._given = given
        self.as_json = as_json
        self.uses_pager = uses_pager

    @cached_property
    def settings(self) -> Settings:
        return profiles.settle(self._given)

    @cached_property
    def api(self) -> Api:
        from portaria_cli.auth import find_api  # noqa: PLC0415 - botocore takes long to import

        return find_api(self.settings)

    def read_page(self, *path: str, paging: Paging, **filters: str) -> Page:
        """A part of a listing. A terminal shows the progress if that takes more than one request."""
        found: list[Document] = []
        next_cursor = paging.cursor
        with working() as tell:
            for page in self.api.pages(*path, most=paging.most, cursor=paging.cursor, **filters):
                found += page["items"]
                next_cursor = page["next_cursor"]
                if next_cursor:
                    tell(f"{len(found):,} read so far")
        return Page(found, next_cursor)

    def print_page(
        self,
        kind: str,
        page: Page,
        *,
        filters: Mapping[str, str] | None = None,
        shown: Callable[[Console], None] | None = None,
    ) -> None:
        """A table, in a pager if it is longer than the terminal, and how to get more."""
        shown = shown or partial(output.listed, kind, page.items, filters=filters)
        self.print({"items": page.items, "next_cursor": page.next_cursor}, shown, is_long=True)
        if page.next_cursor:
            self.say(f"There are more: --all prints all, and this prints the next page:\n--cursor {page.next_cursor}")

    def print(self, document: Any, shown: Callable[[Console], None], *, is_long: bool = False) -> None:
        """On standard output: JSON for programs, or what `shown` prints for people. Only what `is_long` uses a pager."""
        if self.as_json:
            click.echo(json.dumps(document, indent=2, ensure_ascii=False))
            return
        is_terminal = sys.stdout.isatty()
        # Pipes and files are searched line by line, so their tables are wide.
        fits = is_terminal or "COLUMNS" in os.environ
        console = Console(highlight=False, width=None if fits else 200)
        # An empty PAGER means no pager, as for git.
        if not (is_long and is_terminal and self.uses_pager and os.environ.get("PAGER", "less")):
            shown(console)
            return
        with console.capture() as capture:
            shown(console)
        text = capture.get()
        if text.count("\n") < console.height:
            click.echo(text, nl=False)
        else:
            click.echo_via_pager(text)

    def print_alone(self, document: Any, text: str, *, said: str = "") -> None:
        """A text alone on standard output, for a program or a pipe. `said` goes to people, on standard error."""
        self.print(document, lambda console: click.echo(text))
        if said:
            self.say(said)

    def say(self, sentence: str) -> None:
        """To people, on standard error."""
        if not self.as_json:
            click.echo(sentence, err=True)


def errors() -> Console:
    """Standard error, on which lines are not broken."""
    return Console(stderr=True, soft_wrap=True, highlight=False)


@contextmanager
def working() -> Iterator[Callable[[str], None]]:
    """Shows on a terminal's standard error what is being done, once it has been told something."""
    console = errors()
    status: list[Status] = []

    def tell(what: str) -> None:
        if not console.is_terminal:
            return
        if not status:
            status.append(console.status(""))
            status[0].start()
        status[0].update(cells.plain(what))

    try:
        yield tell
    finally:
        if status:
            status[0].stop()
