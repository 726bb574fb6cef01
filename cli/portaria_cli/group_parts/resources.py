"""What the groups of commands share: the commands `list`, `show` and `delete`, and the options of a listing."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial, wraps
from typing import Any

import click

from portaria_cli import completion
from portaria_cli.context import CliContext, Paging
from portaria_cli.errors import USAGE, Document, NotDone
from portaria_cli.terminal import output

# Filters whose names are no names of options.
FILTER_NAMES = {"customer_id": "tag.customer_id"}
# What a listing prints if neither --limit nor --all is given.
PAGE = 50


def with_paging(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options --limit, --all and --cursor. The function takes a `paging`."""

    @click.option("--limit", type=click.IntRange(1), metavar="N", help=f"Print N of them.  [default: {PAGE}]")
    @click.option("--all", "reads_all", is_flag=True, help="Print all of them.")
    @click.option("--cursor", metavar="CURSOR", help="Continue where another page ended: its next_cursor.")
    @wraps(function)
    def paged(*arguments: Any, limit: int | None, reads_all: bool, cursor: str | None, **options: Any) -> Any:
        if reads_all and limit:
            raise NotDone("--all prints everything: do not combine it with --limit", exit_code=USAGE)
        return function(*arguments, paging=Paging(None if reads_all else limit or PAGE, cursor), **options)

    return paged


class Moment(click.ParamType[str]):
    """A time as RFC 3339, or how long ago it was: 30m, 2h or 7d."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if found := re.fullmatch(r"([0-9]{1,5})([mhd])", str(value)):
            ago = timedelta(**{{"m": "minutes", "h": "hours", "d": "days"}[found[2]]: int(found[1])})
            return (datetime.now(UTC) - ago).strftime("%Y-%m-%dT%H:%M:%SZ")
        return str(value)


SinceOption = click.option(
    "--since", type=Moment(), metavar="TIME", help="Only from this time on: 2026-01-31T23:59:59Z, or 30m, 2h or 7d ago."
)


CustomerOption = click.option("--customer-id", metavar="ID", help="Only with this tag customer_id.")


def add_list(group: click.Group, kind: str, summary: str = "") -> None:
    """The command `list` of a kind of resource that has no filters."""

    @group.command("list", help=summary or f"List {output.plural_of(kind)}.")
    @with_paging
    @click.pass_obj
    def list_all(cli: CliContext, paging: Paging) -> None:
        cli.print_page(kind, cli.read_page(kind, paging=paging))


def add_show(group: click.Group, kind: str, argument: Callable[[Any], Any], form: str, summary: str = "") -> None:
    """The command `show` of a kind of resource. `argument` makes the argument `name`, which has the `form`."""

    @group.command("show", help=summary or f"Show one of the {output.plural_of(kind)}.")
    @argument
    @click.pass_obj
    def show_one(cli: CliContext, name: str) -> None:
        show(cli, kind, *path_of(name, form))


def add_delete(group: click.Group, kind: str, argument: Callable[[Any], Any], form: str, summary: str = "") -> None:
    """The command `delete` of a kind of resource. It asks first."""

    @group.command("delete", help=summary or f"Delete one of the {output.plural_of(kind)}.")
    @argument
    @click.option("--yes", is_flag=True, help="Do not ask.")
    @click.pass_obj
    def delete(cli: CliContext, name: str, yes: bool) -> None:
        path = path_of(name, form)
        if not yes:
            click.confirm(f"Delete the {output.TITLES[kind]} {name}?", abort=True, err=True)
        waiting = cli.api.delete(kind, *path).get("waiting_record_count")
        said = f" {output.waiting(waiting, deleted=True)}" if waiting else ""
        told = {"deleted": name} | ({"waiting_record_count": waiting} if waiting else {})
        cli.print(told, lambda console: console.print(f"{name} is deleted.{said}", markup=False))


def named(kind: str, form: str, complete: completion.Completing) -> Callable[[Any], Any]:
    """The argument `name`, shown in the help as its `form`."""
    return click.argument("name", metavar=form, shell_complete=complete)


def show(cli: CliContext, kind: str, *path: str) -> None:
    found = cli.api.get(kind, *path)
    cli.print(found, partial(output.shown, found), is_long=True)


def path_of(name: str, form: str) -> list[str]:
    """The steps of a path. Raises `NotDone` if a name has another form than PLATFORM/NAME, for example."""
    path = name.split("/")
    if len(path) != len(form.split("/")) or not all(path):
        raise NotDone(f"{name!r} must have the form {form}", exit_code=USAGE)
    return path


def given(filters: dict[str, str | None]) -> dict[str, str]:
    """The filters that were given, by the names that the API has for them."""
    return {FILTER_NAMES.get(name, name): value for name, value in filters.items() if value}


def printed(cli: CliContext, found: Document, said: str = "") -> None:
    """A resource that was created or changed, with its warnings for people on standard error."""
    cli.say(said)
    for warning in found.get("warnings") or ():
        cli.say(f"warning: {warning}")
    without = {field: value for field, value in found.items() if field != "warnings"}
    cli.print(found, partial(output.shown, without))
