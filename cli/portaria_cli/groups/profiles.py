"""The commands for profiles: what the configuration file holds, and which settings count."""

from __future__ import annotations

import os
from functools import partial

import click
from rich.console import Console
from rich.text import Text

from portaria_cli import completion, profiles
from portaria_cli.command_classes import Commands
from portaria_cli.context import CliContext
from portaria_cli.errors import USAGE, Document, NotDone
from portaria_cli.terminal import output
from portaria_cli.terminal.columns import Column


def _column(name: str, extra: int) -> Column:
    return Column(name.replace("_", " "), lambda item: Text(item[name] or "–"), extra)


COLUMNS = (
    Column("name", lambda item: Text(item["name"]), is_whole=True),
    Column("in use", lambda item: Text("yes" if item["in_use"] else "–"), is_whole=True),
    _column("stack_name", 1),
    _column("stack_file", 3),
    _column("api_url", 2),
    _column("region", 4),
    _column("aws_profile", 5),
    _column("token_file", 6),
)


@click.group("profiles", cls=Commands)
def group() -> None:
    """Profiles: named settings in the configuration file.

    The file is $XDG_CONFIG_HOME/portaria/config.toml, usually ~/.config/portaria/config.toml:

    \b
    [profiles.staging]
    stack_name = "portaria-staging"
    region = "eu-west-1"
    aws_profile = "staging"

    \b
    [profiles.crm-sync]
    api_url = "https://abc123.execute-api.eu-west-1.amazonaws.com/live"
    token_file = "crm-sync.token"

    A profile holds no secret: token_file names a file. Settings come from the options, then the environment, then the
    profile that --profile or PORTARIA_PROFILE names, or else the profile `default`. A profile that --profile names comes
    before the environment.
    """


@group.command("list")
@click.pass_obj
def list_profiles(cli: CliContext) -> None:
    """List the profiles of the configuration file."""
    held = profiles.read()
    in_use = cli.settings.profile
    items = [
        {"name": name, "in_use": name == in_use, **{field: settings.get(field) for field in profiles.FIELDS}}
        for name, settings in held.items()
    ]
    file = str(profiles.config_file(os.environ))
    cli.print({"file": file, "items": items}, partial(_listed, file, items), is_long=True)


@group.command("show")
@click.argument("name", required=False, shell_complete=completion.profile_names)
@click.pass_obj
def show_profile(cli: CliContext, name: str | None) -> None:
    """Show a profile, or the settings that count now.

    Without NAME, each setting is shown with where it comes from: an option, the environment or a profile.
    """
    if name:
        held = profiles.read()
        if name not in held:
            file = profiles.config_file(os.environ)
            raise NotDone(f"{file} has no profile {name}", exit_code=USAGE)
        found: Document = {"name": name, **{field: held[name].get(field) for field in profiles.FIELDS}}
        cli.print(found, partial(output.shown, found))
        return
    settings = cli.settings
    rows = [
        {"setting": field, "value": str(value) if value else None, "source": settings.sources.get(field, "default")}
        for field in profiles.FIELDS
        for value in [getattr(settings, field)]
    ]
    document = {"profile": settings.profile or None, "settings": rows}
    cli.print(document, partial(_shown, rows))


def _listed(file: str, items: list[Document], console: Console) -> None:
    if items:
        output.print_table(COLUMNS, items, console)
    else:
        console.print(Text(f"There are no profiles. They are read from {file}.", style="dim"), soft_wrap=True)


def _shown(rows: list[Document], console: Console) -> None:
    columns = (
        Column("setting", lambda row: Text(row["setting"].replace("_", " ")), is_whole=True),
        Column("value", lambda row: Text(row["value"] or "–", style="" if row["value"] else "dim")),
        Column("from", lambda row: Text(row["source"] if row["value"] else ""), is_whole=True),
    )
    output.print_table(columns, rows, console)
