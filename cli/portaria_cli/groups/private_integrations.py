"""The commands for private integrations, which are named, scoped tokens for programs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click

from portaria_cli import completion
from portaria_cli.command_classes import Commands
from portaria_cli.completion import Scope
from portaria_cli.context import CliContext
from portaria_cli.errors import USAGE, Document, NotDone
from portaria_cli.group_parts import inputs
from portaria_cli.group_parts.resources import add_list, add_show, named, printed
from portaria_cli.terminal import output

KIND = "private-integrations"

_complete = completion.names(KIND, lambda item: str(item["id"]), "name")
Id = click.argument("integration", metavar="ID", shell_complete=_complete)
SaveTokenOption = click.option(
    "--save-token", type=click.Path(path_type=Path), metavar="FILE",
    help="Write the token to this new file, which only you can read, instead of printing it.",
)  # fmt: skip


@click.group("private-integrations", cls=Commands)
def private_integrations() -> None:
    """Private integrations: scoped tokens for programs."""


add_list(private_integrations, KIND, "List private integrations, and how old tokens are.")
add_show(private_integrations, KIND, named(KIND, "ID", _complete), "ID", "Show a private integration; never its token.")


@private_integrations.command("create")
@click.argument("name")
@click.option("--description", metavar="TEXT", help="What it is for.")
@click.option(
    "--scope", "scopes", type=Scope(), multiple=True, metavar="SCOPE", help="What it may do; can be repeated."
)
@inputs.FileOption
@SaveTokenOption
@click.pass_obj
def create_integration(
    cli: CliContext,
    name: str,
    description: str | None,
    scopes: tuple[str, ...],
    file: Path | None,
    save_token: Path | None,
) -> None:
    """Create a private integration, print its token.

    The token is shown this once. Standard output gets it alone: `portaria private-integrations create … > token`.
    Scopes of the options are added to the file's scopes. The name in the file is ignored.
    """
    body = inputs.read(KIND, file)
    content = {**body.content, "name": name, **inputs.fields(description=description)}
    if scopes:
        held = content.get("scopes")
        content["scopes"] = list(dict.fromkeys([*(held if isinstance(held, list) else []), *scopes]))
    if not content.get("scopes"):
        raise NotDone(
            "a private integration needs at least one --scope: `portaria scopes list` lists them", exit_code=USAGE
        )
    with _keeping(save_token) as keep:
        made = inputs.Body(content, body.file, body.entry).send(lambda sent: cli.api.create(KIND, body=sent))
        told = f"The private integration {made['name']} ({made['id']}) is created, with {_count(made['scopes'])}."
        _tell_token(cli, made, told, save_token, keep)


@private_integrations.command("edit")
@Id
@click.option("--name", metavar="TEXT", help="A new name.")
@click.option("--description", metavar="TEXT", help="A new description; '' for none.")
@click.option(
    "--scope", "scopes", type=Scope(), multiple=True, metavar="SCOPE", help="Replace all scopes; can be repeated."
)
@click.option(
    "--add-scope", "added", type=Scope(), multiple=True, metavar="SCOPE", help="Add this scope; can be repeated."
)
@click.option(
    "--remove-scope", "removed", type=Scope(), multiple=True, metavar="SCOPE",
    help="Remove this scope; can be repeated.",
)  # fmt: skip
@inputs.FileOption
@click.pass_obj
def edit_integration(
    cli: CliContext,
    /,
    integration: str,
    scopes: tuple[str, ...],
    added: tuple[str, ...],
    removed: tuple[str, ...],
    file: Path | None,
    **given: str | None,
) -> None:
    """Change name, description or scopes; the token stays.

    New scopes count from its next request on. If it changes at the same time, the command fails and changes nothing.
    """
    if scopes and (added or removed):
        raise NotDone(
            "--scope replaces all scopes: do not combine it with --add-scope or --remove-scope", exit_code=USAGE
        )
    body = inputs.read(KIND, file)
    content = body.content | inputs.fields(**given, scopes=scopes)
    inputs.require_changes({**content, **dict.fromkeys((*added, *removed))})
    found, etag = cli.api.get_with_etag(KIND, integration)
    if added or removed:
        held: list[str] = content["scopes"] if isinstance(content.get("scopes"), list) else found["scopes"]
        if missing := [scope for scope in removed if scope not in held]:
            raise NotDone(f"{found['name']} ({integration}) does not have the scope {missing[0]}")
        content["scopes"] = [scope for scope in dict.fromkeys([*held, *added]) if scope not in removed]
    changed = inputs.Body(content, body.file, body.entry).send(
        lambda sent: cli.api.patch(KIND, integration, body=sent, etag=etag)
    )
    printed(cli, changed, f"{changed['name']} ({integration}) is changed.")


@private_integrations.command("rotate")
@Id
@click.option("--now", "expire_now", is_flag=True, help="End the old token at once, not after seven days.")
@SaveTokenOption
@click.pass_obj
def rotate_integration(cli: CliContext, integration: str, expire_now: bool, save_token: Path | None) -> None:
    """Make a new token and print it.

    It is shown this once. The old one works for seven more days: until then `cancel` returns to it, and `expire` ends it early.
    """
    with _keeping(save_token) as keep:
        made = cli.api.create(KIND, integration, "rotate", body={"expire_now": expire_now})
        until = made["previous_until"]
        old = f"The old token works until {until}." if until else "The old token has ended."
        _tell_token(cli, made, f"{made['name']} ({made['id']}) has a new token. {old}", save_token, keep)


def _end_rotation(cli: CliContext, integration: str, how: str) -> None:
    found = cli.api.post(KIND, integration, "rotation", how, body={})
    cli.print(found, partial(output.shown, found))


@private_integrations.command("cancel")
@Id
@click.pass_obj
def cancel_rotation(cli: CliContext, integration: str) -> None:
    """Return to the old token; the new one ends."""
    _end_rotation(cli, integration, "cancel")


@private_integrations.command("expire")
@Id
@click.pass_obj
def expire_old_token(cli: CliContext, integration: str) -> None:
    """End the old token of a rotation early."""
    _end_rotation(cli, integration, "expire")


@private_integrations.command("delete")
@Id
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def delete_integration(cli: CliContext, integration: str, yes: bool) -> None:
    """Delete a private integration: revoke its tokens.

    They stop working at once.
    """
    if not yes:
        found = cli.api.get(KIND, integration)
        click.confirm(f"Delete {found['name']} ({integration})? Its tokens stop working at once.", abort=True, err=True)
    cli.api.delete(KIND, integration)
    cli.print({"deleted": integration}, lambda console: console.print(f"{integration} is deleted.", markup=False))


def _count(scopes: list[str]) -> str:
    return f"{len(scopes)} scope{'s' if len(scopes) > 1 else ''}"


@contextmanager
def _keeping(save_token: Path | None) -> Iterator[Callable[[str], Any]]:
    """A new file for a token. It is made before the token, so that no token is lost because it cannot be stored."""
    if not save_token:
        yield lambda token: None
        return
    try:
        descriptor = os.open(save_token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise NotDone(
            f"{save_token} exists already and is not overwritten: give another file",
            exit_code=2,
        ) from None
    except OSError as error:
        raise NotDone(f"{save_token} cannot be written: {error.strerror}", exit_code=2) from None
    with open(descriptor, "w", encoding="ascii") as file:
        try:
            yield partial(print, file=file, flush=True)
        except BaseException:
            if not file.tell():
                save_token.unlink(missing_ok=True)
            raise


def _tell_token(
    cli: CliContext, made: Document, told: str, save_token: Path | None, keep: Callable[[str], Any]
) -> None:
    if made["token"] is None:
        # The first response was lost, and the token has been used since.
        if cli.as_json:
            cli.print(made, lambda console: None)
        raise NotDone(
            f"{told} Its token was lost with the first response and cannot be shown: create another with "
            f"`portaria private-integrations rotate {made['id']} --now`",
            problem={"id": made["id"]},
        )
    if save_token:
        keep(made["token"])
        without = {field: value for field, value in made.items() if field != "token"}
        cli.print(without, lambda console: click.echo(told))
        cli.say(f"Its token is in {save_token} and cannot be shown again.")
        return
    cli.say(told)
    cli.print(made, lambda console: click.echo(made["token"]))
    sys.stdout.flush()
    cli.say("This token cannot be shown again: store it where only the program that needs it can read it.")
