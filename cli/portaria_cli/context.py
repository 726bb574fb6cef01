"""What every command works with: the API, the two streams, and how what cannot be done is told."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console
from rich.status import Status

from portaria_cli import output
from portaria_cli.api import Api, Document, NotDone


class Commands(click.Group):
    """Tells what cannot be done as one line and an exit code, as a JSON document where `--json` was asked for."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except NotDone as not_done:
            if ctx.params.get("as_json"):
                click.echo(json.dumps({"error": str(not_done), **not_done.problem}, ensure_ascii=False), err=True)
            else:
                errors().print(output.error_line(str(not_done)), markup=False)
            ctx.exit(not_done.exit_code)


def errors() -> Console:
    """Standard error, on which lines are not broken."""
    return Console(stderr=True, soft_wrap=True, highlight=False)


class CliContext:
    """The API is looked for when it is first called."""

    def __init__(self, find: Callable[[], Api], as_json: bool) -> None:
        self._find = find
        self._api: Api | None = None
        self.as_json = as_json

    @property
    def api(self) -> Api:
        if not self._api:
            self._api = self._find()
        return self._api

    def list(self, *path: str, most: int | None = None, **filters: str) -> list[Document]:
        """A listing, read to its end; where that takes more than a page, a terminal shows how far it is."""
        found = []
        with working() as tell:
            for item in self.api.list(*path, most=most, **filters):
                found.append(item)
                if len(found) % 100 == 0:
                    tell(f"{len(found):,} read so far")
        return found

    def print(self, document: Any, shown: Callable[[Console], None]) -> None:
        """On standard output: JSON for programs, what `shown` makes of it for people."""
        if self.as_json:
            click.echo(json.dumps(document, indent=2, ensure_ascii=False))
        else:
            # What goes into a pipe or a file is searched line by line, so its tables are wide.
            fits = sys.stdout.isatty() or "COLUMNS" in os.environ
            shown(Console(highlight=False, width=None if fits else 200))

    def print_alone(self, document: Any, text: str, *, said: str = "") -> None:
        """A text that is read by a program or piped on, and for people, apart from it, what there is to say about it."""
        self.print(document, lambda console: click.echo(text))
        if said:
            self.say(said)

    def say(self, sentence: str) -> None:
        """To people, on standard error."""
        if not self.as_json:
            click.echo(sentence, err=True)


@contextmanager
def working() -> Iterator[Callable[[str], None]]:
    """Says on a terminal's standard error what is being done, from the first time that it is told."""
    console = errors()
    status: list[Status] = []

    def tell(what: str) -> None:
        if not console.is_terminal:
            return
        if not status:
            status.append(console.status(""))
            status[0].start()
        status[0].update(output.plain(what))

    try:
        yield tell
    finally:
        if status:
            status[0].stop()
