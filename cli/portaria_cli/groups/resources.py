"""The commands `list`, `show` and `delete` of every kind of resource, and `audit`."""

from __future__ import annotations

from functools import partial

import click

from portaria_cli import completion, output
from portaria_cli.api import Document, NotDone
from portaria_cli.context import CliContext

MostOption = click.option("--limit", "most", type=click.IntRange(1), metavar="N", help="The first N only.")
NewestOption = click.option(
    "--limit", "most", type=click.IntRange(1), default=50, show_default=True, metavar="N", help="The newest N."
)


def _client_name(item: Document) -> str:
    return f"{item['platform']}/{item['name']}"


@click.group()
def clients() -> None:
    """OAuth clients: applications that are registered with platforms."""


@click.group()
def routes() -> None:
    """Routes: which records are sent to which destination."""


@click.group()
def installs() -> None:
    """Installs, the newest first."""


@installs.command("list")
@click.option(
    "--state", type=click.Choice(["received", "exchanging", "connected", "failed"]), help="Only in this state."
)
@NewestOption
@click.pass_obj
def list_installs(desk: CliContext, state: str | None, most: int) -> None:
    """List installs, the newest first."""
    given = {"state": state} if state else {}
    found = desk.list("installs", most=most, **given)
    desk.print(found, partial(output.listed, "installs", found, filters=given))


@installs.command("show")
@click.argument("install", shell_complete=completion.names("installs", lambda item: str(item["id"]), "account_host"))
@click.pass_obj
def show_install(desk: CliContext, install: str) -> None:
    """Show an install: its outcome, and the link to try again."""
    show(desk, "installs", install)


@click.group()
def audit() -> None:
    """The audit trail: who changed what, and the outcome."""


@audit.command("list")
@NewestOption
@click.pass_obj
def list_audit(desk: CliContext, most: int) -> None:
    """List changes, the newest first; --json also shows their source address and the request."""
    found = desk.list("audit", most=most)
    desk.print(found, partial(output.listed, "audit", found))


def add(group: click.Group, kind: str, argument: str, complete: completion.Completing) -> None:
    """The commands list, show and delete of one kind of resource."""

    @group.command("list")
    @MostOption
    @click.pass_obj
    def list_all(desk: CliContext, most: int | None) -> None:
        found = desk.list(kind, most=most)
        desk.print(found, partial(output.listed, kind, found))

    @group.command("show")
    @click.argument("name", metavar=argument, shell_complete=complete)
    @click.pass_obj
    def show_one(desk: CliContext, name: str) -> None:
        show(desk, kind, *_path(name, argument))

    @group.command("delete")
    @click.argument("name", metavar=argument, shell_complete=complete)
    @click.option("--yes", is_flag=True, help="Do not ask.")
    @click.pass_obj
    def delete(desk: CliContext, name: str, yes: bool) -> None:
        path = _path(name, argument)
        if not yes:
            click.confirm(f"Delete the {output.TITLES[kind]} {name}?", abort=True, err=True)
        waiting = desk.api.delete(kind, *path).get("waiting_record_count")
        said = f" {output.waiting(waiting, deleted=True)}" if waiting else ""
        told = {"deleted": name} | ({"waiting_record_count": waiting} if waiting else {})
        desk.print(told, lambda console: console.print(f"{name} is deleted.{said}", markup=False))

    plural = output.plural_of(kind)
    list_all.help, show_one.help, delete.help = (
        f"List {plural}.",
        f"Show one of the {plural}.",
        f"Delete one of the {plural}.",
    )


def show(desk: CliContext, kind: str, *path: str) -> None:
    found = desk.api.get(kind, *path)
    desk.print(found, partial(output.shown, found))


def _path(name: str, argument: str) -> list[str]:
    path = name.split("/")
    if len(path) != len(argument.split("/")) or not all(path):
        raise NotDone(f"{name!r} must have the form {argument}", exit_code=2)
    return path


add(clients, "oauth-clients", "PLATFORM/NAME", completion.names("oauth-clients", _client_name))
add(routes, "routes", "NAME", completion.names("routes"))
