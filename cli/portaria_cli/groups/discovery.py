"""The commands that tell what the API offers and who calls it: platforms, scopes and the caller."""

from __future__ import annotations

from functools import partial

import click

from portaria_cli import completion, output
from portaria_cli.command_classes import Command, Commands
from portaria_cli.context import CliContext, Paging
from portaria_cli.groups.resources import add_list, add_show, named, with_paging


@click.group(cls=Commands)
def platforms() -> None:
    """Platforms: what connections and routes can be made of."""


add_list(platforms, "platforms")
add_show(
    platforms, "platforms", named("platforms", "PLATFORM", completion.names("platforms")), "PLATFORM",
    "Show a platform: its kinds of connection with their fields, and what it accepts as a destination.",
)  # fmt: skip


@click.group(cls=Commands)
def scopes() -> None:
    """Scopes: what a private integration may do."""


@scopes.command("list")
@with_paging
@click.pass_obj
def list_scopes(cli: CliContext, paging: Paging) -> None:
    """List all scopes, and which of them can be narrowed to one connection."""
    page = cli.read_page("scopes", paging=paging)
    cli.print_page("scopes", page, shown=partial(output.scopes, page.items))


@click.command("me", cls=Command)
@click.pass_obj
def me(cli: CliContext) -> None:
    """Show who you are to the API, and your scopes."""
    found = cli.api.get("me")
    cli.print(found, partial(output.shown, found))
