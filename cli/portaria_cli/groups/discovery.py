"""The commands that tell what the API offers and who calls it: platforms, scopes and the caller."""

from __future__ import annotations

from functools import partial

import click
from rich.console import Console
from rich.text import Text

from portaria_cli import completion
from portaria_cli.command_classes import Command, Commands
from portaria_cli.context import CliContext, Paging
from portaria_cli.errors import Document
from portaria_cli.group_parts.resources import add_list, named, path_of, with_paging
from portaria_cli.terminal import output
from portaria_cli.terminal.columns import Column

SCOPES = (
    Column("scope", lambda item: Text(item["name"]), is_whole=True),
    Column("narrows", lambda item: Text("yes" if item["is_narrowable"] else "–"), is_whole=True),
    Column("what it allows", lambda item: Text(item["description"])),
)


@click.group(cls=Commands)
def platforms() -> None:
    """Platforms: what connections and routes can be made of."""


add_list(platforms, "platforms")


@platforms.command("show")
@named("platforms", "PLATFORM", completion.names("platforms"))
@click.pass_obj
def show_platform(cli: CliContext, name: str) -> None:
    """Show what connections, OAuth clients and routes of a platform need."""
    found = cli.api.get("platforms", *path_of(name, "PLATFORM"))
    cli.print(found, partial(output.shown, _flat(found)), is_long=True)


def _flat(platform: Document) -> Document:
    """A platform with a line of text for each kind of connection and each part of its offer as a destination."""
    offer = platform["destination"] or {}
    return {
        "name": platform["name"],
        "installs": "yes" if platform["is_installable"] else "no",
        "tests": "yes" if platform["is_testable"] else "no",
        "api_domains": platform["api_domains"],
        "connections": {kind["name"]: _needs(kind) for kind in platform["kinds"]},
        "sources": platform["sources"],
        "accepts": offer.get("accepted"),
        "targets": offer.get("target_rule"),
        "dedupe_fields": {target: ", ".join(fields) for target, fields in offer.get("dedupe_fields", {}).items()},
        "options": {option["name"]: option["rule"] for option in offer.get("options", ())},
    }


def _needs(kind: Document) -> str:
    fields = [each["name"] + ("" if each["is_required"] else " (optional)") for each in kind["fields"]]
    needs = [
        f"fields {', '.join(fields)}" if fields else "",
        f"credentials {', '.join(kind['credentials'])}" if kind["credentials"] else "",
        "an allowed domain" if kind["needs_allowed_domain"] else "",
        "an OAuth client" if kind["needs_client"] else "",
        "a person's consent" if kind["needs_consent"] else "",
    ]
    return "; ".join(filter(None, needs))


@click.group(cls=Commands)
def scopes() -> None:
    """Scopes: what a private integration may do."""


@scopes.command("list")
@with_paging
@click.pass_obj
def list_scopes(cli: CliContext, paging: Paging) -> None:
    """List all scopes, and which of them can be narrowed to one connection."""
    page = cli.read_page("scopes", paging=paging)
    cli.print_page("scopes", page, shown=partial(_listed, page.items))


@click.command("me", cls=Command)
@click.pass_obj
def me(cli: CliContext) -> None:
    """Show who you are to the API, and your scopes."""
    found = cli.api.get("me")
    cli.print(found, partial(output.shown, found))


def _listed(items: list[Document], console: Console) -> None:
    output.print_table(SCOPES, items, console)
    console.print(
        "\nSome scopes can be narrowed to one connection: connections:call@crm",
        style="dim",
        soft_wrap=True,
    )
