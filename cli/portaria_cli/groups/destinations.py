"""The commands for destinations."""

from __future__ import annotations

from functools import partial

import click
from rich.console import Console

from portaria_cli import completion
from portaria_cli.command_classes import Commands
from portaria_cli.context import CliContext, Paging
from portaria_cli.errors import Document
from portaria_cli.group_parts.resources import with_paging
from portaria_cli.terminal import output

KIND = "destinations"


@click.group(cls=Commands)
def destinations() -> None:
    """Destinations that are paused or have waiting records."""


@destinations.command("list")
@with_paging
@click.pass_obj
def list_destinations(cli: CliContext, paging: Paging) -> None:
    """List the destinations that are paused or have waiting records.

    Each has the reason and the begin of its pause, the time of the next try, about how many records wait, and the age of the
    oldest.
    """
    page = cli.read_page(KIND, paging=paging)
    cli.print_page(KIND, page, shown=partial(_listed, page.items))


@destinations.command("resume")
@click.argument("name", shell_complete=completion.names(KIND, help_field="reason"))
@click.pass_obj
def resume_destination(cli: CliContext, name: str) -> None:
    """End a destination's pauses and try its waiting records at once.

    Do this when the cause is corrected. If the destination still refuses, the next pause begins and no record is lost.
    """
    found = cli.api.create(KIND, name, "resume", body={})
    cli.print(found, partial(_resumed, found))


def _listed(items: list[Document], console: Console) -> None:
    if items:
        output.listed(KIND, items, console)
    else:
        console.print("No destination is paused, and no records wait.", style="dim")


def _resumed(found: Document, console: Console) -> None:
    name, count = found["name"], found["waiting_record_count"]
    if not found["ended"] and not count:
        console.print(f"{name} was not paused, and no records wait for it.", markup=False)
        return
    ended = " and ".join(f"{pause['reason']} ({pause['object'] or 'all objects'})" for pause in found["ended"])
    said = f"Ended: {ended}. " if ended else ""
    console.print(f"{name} is tried now. {said}{output.waiting(count)}", markup=False)
