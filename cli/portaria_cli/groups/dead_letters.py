"""The commands for dead letters."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from time import sleep
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from portaria_cli import completion
from portaria_cli.command_classes import Commands
from portaria_cli.context import CliContext, Paging, working
from portaria_cli.errors import USAGE, Document, NotDone
from portaria_cli.group_parts.resources import add_show, given, named, with_paging
from portaria_cli.terminal import output

KIND = "dead-letters"
# The API's limit for one request.
MAX_LETTERS = 100
MAX_WAIT_S, MAX_WAITS = 60.0, 5
INTERRUPTED = 130
GOOD = ("redriven", "would_redrive")

_complete = completion.names(KIND, lambda item: str(item["id"]), "reason")
Letter = named(KIND, "ID", _complete)
ReasonOption = click.option("--reason", metavar="REASON", help="Only those with this reason.")
RouteOption = click.option(
    "--route", metavar="NAME", shell_complete=completion.names("routes"), help="Only dead letters of this route."
)
ConnectionOption = click.option(
    "--connection", metavar="NAME", shell_complete=completion.names("connections"),
    help="Only those from or to this connection.",
)  # fmt: skip
BeforeOption = click.option(
    "--before", metavar="TIME", help="Only those set aside before this time, such as 2026-01-31T23:59:59Z."
)


@click.group("dead-letters", cls=Commands)
def dead_letters() -> None:
    """Dead letters: records that could not be delivered.

    Each has a reason. They are kept for 90 days.
    """


@dead_letters.command("list")
@ReasonOption
@RouteOption
@ConnectionOption
@click.option("--state", type=click.Choice(["open", "redriving", "redriven"]), help="Only in this state.")
@click.option("--record", metavar="SOURCE/KEY", help="Only those with this record.")
@click.option("--email", metavar="ADDRESS", help="Only those with a record that had this e-mail address.")
@click.option("--request", metavar="ID", help="Only those of the request with this X-Request-Id.")
@with_paging
@click.pass_obj
def list_letters(cli: CliContext, /, paging: Paging, **filters: str | None) -> None:
    """List dead letters, the newest first."""
    chosen = given(filters)
    cli.print_page(KIND, cli.read_page(KIND, paging=paging, **chosen), filters=chosen)


add_show(
    dead_letters,
    KIND,
    Letter,
    "ID",
    "Show a dead letter with its records; values that look like credentials are shown as ***.",
)


@dead_letters.command("delete")
@click.argument("letters", metavar="[ID]...", nargs=-1, shell_complete=_complete)
@ReasonOption
@RouteOption
@ConnectionOption
@BeforeOption
@click.option("--all", "all_letters", is_flag=True, help="Delete all dead letters, including redriven ones.")
@click.option("--dry-run", is_flag=True, help="Only show how many these are.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def delete(
    cli: CliContext,
    /,
    letters: tuple[str, ...],
    all_letters: bool,
    dry_run: bool,
    yes: bool,
    **filters: str | None,
) -> None:
    """Delete dead letters and their records for good: those with these IDs, or all that match.

    The command asks first, with their number. The exit code is 1 if one of them was not deleted.
    """
    chosen = given(filters)
    if sum((bool(letters), bool(chosen), all_letters)) != 1:
        raise NotDone("give the ids of dead letters, options such as --reason, or --all", exit_code=USAGE)
    if len(letters) == 1 and not dry_run:
        if not yes:
            click.confirm(f"Delete the dead letter {letters[0]} and its records?", abort=True, err=True)
        cli.api.delete(KIND, letters[0])
        cli.print({"deleted": letters[0]}, lambda console: console.print(f"{letters[0]} is deleted.", markup=False))
        return
    # Dead letters that arise meanwhile were not counted, so they stay.
    bodies = _selections(letters, {"before": _now()} | chosen)
    if dry_run or not yes:
        found = _delete(cli, bodies, dry_run=True)
        if dry_run:
            cli.print(found, partial(_print_deletion, found, "Would be deleted"))
            return
        click.confirm(f"Delete {_counted(found)}?", abort=True, err=True)
    found = _delete(cli, bodies, dry_run=False)
    cli.print(found, partial(_print_deletion, found, "Deleted"))
    if found["not_deleted"]:
        click.get_current_context().exit(1)


def _selections(letters: tuple[str, ...], filters: Document) -> list[Document]:
    """The bodies of the requests that select dead letters."""
    if not letters:
        return [filters]
    return [{"ids": list(letters[start : start + MAX_LETTERS])} for start in range(0, len(letters), MAX_LETTERS)]


def _delete(cli: CliContext, bodies: list[Document], *, dry_run: bool) -> Document:
    """The sums of the API's responses."""
    found: Document = {"dead_letter_count": 0, "record_count": 0, "not_deleted": []}
    with working() as tell:
        for body in bodies:
            cursor: Document = {}
            while True:
                answer = cli.api.create(KIND, "delete", body={**body, **cursor, "dry_run": dry_run})
                found = {field: found[field] + answer[field] for field in found}
                tell(f"{found['dead_letter_count']:,} dead letters so far")
                if not answer["more"]:
                    break
                cursor = {"cursor": answer["next_cursor"]}
    return found


def _print_deletion(found: Document, becomes: str, console: Console) -> None:
    console.print(f"{becomes}: {_counted(found)}.")
    for each in found["not_deleted"]:
        console.print(Text(f"not deleted: {each['id']} ({each['outcome'].replace('_', ' ')})"), soft_wrap=True)


def _counted(found: Document) -> str:
    letters, records = found["dead_letter_count"], found["record_count"]
    return f"{letters:,} dead letter{'' if letters == 1 else 's'} with {records:,} record{'' if records == 1 else 's'}"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dead_letters.command("redrive")
@click.argument("letters", metavar="[ID]...", nargs=-1, shell_complete=_complete)
@ReasonOption
@RouteOption
@ConnectionOption
@BeforeOption
@click.option("--all", "all_open", is_flag=True, help="Redrive all open dead letters.")
@click.option("--dry-run", is_flag=True, help="Only show which these are.")
@click.pass_obj
def redrive(cli: CliContext, /, letters: tuple[str, ...], all_open: bool, dry_run: bool, **filters: str | None) -> None:
    """Send dead letters again: those with these IDs, or all open ones that match.

    At most twenty are sent a second. Those with the IDs given are sent even if they were sent before. New dead letters that
    arise meanwhile are left for the next time.
    """
    chosen = given(filters)
    if sum((bool(letters), bool(chosen), all_open)) != 1:
        raise NotDone("give the ids of dead letters, options such as --reason, or --all", exit_code=USAGE)
    redriving = Redriving(cli, dry_run)
    with working() as tell:
        if letters:
            redriving.named(letters, tell)
        else:
            # A record that fails again is not redriven by the same command.
            redriving.open_ones({"before": _now()} | chosen, tell)
    outcomes = redriving.outcomes
    counts: dict[str, int] = {}
    for became in outcomes:
        counts[became["outcome"]] = counts.get(became["outcome"], 0) + 1
    bad = [became for became in outcomes if became["outcome"] not in GOOD]
    cli.print(
        {"letters": outcomes, "counts": counts},
        partial(output.redriven, outcomes if dry_run else bad, outcomes, counts),
    )
    if redriving.trouble:
        raise redriving.trouble
    if bad:
        click.get_current_context().exit(1)


class Redriving:
    """Redrives dead letters, one request after the other. `trouble` is the error that stopped it."""

    def __init__(self, cli: CliContext, dry_run: bool) -> None:
        self.cli = cli
        self.dry_run = dry_run
        self.outcomes: list[Document] = []
        self.trouble: NotDone | None = None

    def named(self, letters: tuple[str, ...], tell: Any) -> None:
        for start in range(0, len(letters), MAX_LETTERS):
            if self._post({"ids": list(letters[start : start + MAX_LETTERS])}, tell) is None:
                return

    def open_ones(self, filters: Document, tell: Any) -> None:
        answer = self._post(filters, tell)
        while answer and answer["more"]:
            answer = self._post(filters | {"cursor": answer["next_cursor"]}, tell)

    def _post(self, body: Document, tell: Any) -> Document | None:
        """A response, or None if sending stops."""
        waits = 0
        try:
            while True:
                try:
                    answer = self.cli.api.post(KIND, "redrive", body=body | {"dry_run": self.dry_run})
                    break
                except NotDone as refused:
                    # Dead letters that were redriven are no longer open, so a repeated request sends none twice.
                    wait_s = 1.0 if refused.answer_lost and "ids" not in body else refused.retry_after_s
                    if wait_s is None or wait_s > MAX_WAIT_S or waits == MAX_WAITS:
                        self.trouble = refused
                        return None
                    waits += 1
                    tell(f"waiting {wait_s:.0f} s")
                    sleep(wait_s)
        except KeyboardInterrupt:
            self.trouble = NotDone("interrupted", exit_code=INTERRUPTED)
            return None
        self.outcomes += answer["letters"]
        tell(f"{len(self.outcomes):,} letters so far")
        return answer
