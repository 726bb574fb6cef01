"""The commands for destinations: what keeps records from them, and how to try again at once."""

from __future__ import annotations

from functools import partial

import click
from rich.console import Console

from portaria_cli import completion, output
from portaria_cli.api import Document
from portaria_cli.context import CliContext
from portaria_cli.groups.resources import MostOption

KIND = "destinations"


@click.group()
def destinations() -> None:
    """Destinations that are paused, or that records wait for."""


@destinations.command("list")
@MostOption
@click.pass_obj
def list_destinations(desk: CliContext, most: int | None) -> None:
    """List the destinations that are paused or have waiting records.

    For each: why it is paused and since when, when it is tried next, how many records wait about, and how old the oldest is.
    """
    found = desk.list(KIND, most=most)
    desk.print(found, partial(_listed, found))


@destinations.command("resume")
@click.argument("name", shell_complete=completion.names(KIND, help_field="reason"))
@click.pass_obj
def resume_destination(desk: CliContext, name: str) -> None:
    """End a destination's pauses and try its waiting records at once.

    Do this when what it refused for is mended. If it still refuses, the next pause begins and nothing is lost.
    """
    found = desk.api.post(KIND, name, "resume", body={})
    desk.print(found, partial(_resumed, found))


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
