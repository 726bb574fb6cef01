"""The commands of private integrations: named, scoped tokens for programs that call this API."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click
import yaml

from portaria.access import scopes as every_scope
from portaria_cli import completion, output
from portaria_cli.api import Document, NotDone
from portaria_cli.completion import Scope
from portaria_cli.context import CliContext
from portaria_cli.groups.resources import MostOption, show

KIND = "private-integrations"
# What `--from` takes of what `integrations show` tells.
COPIED = ("description", "scopes")

Argument = click.argument(
    "integration", metavar="ID", shell_complete=completion.names(KIND, lambda item: str(item["id"]), "name")
)
SaveTokenOption = click.option(
    "--save-token", type=click.Path(path_type=Path), metavar="FILE",
    help="Write the token to this new file, for your eyes only, instead of printing it.",
)  # fmt: skip


@click.group()
def integrations() -> None:
    """Private integrations: named, scoped tokens for programs."""


@integrations.command("list")
@MostOption
@click.pass_obj
def list_integrations(desk: CliContext, most: int | None) -> None:
    """List private integrations, and how old tokens are."""
    found = desk.list(KIND, most=most)
    desk.print(found, partial(output.listed, KIND, found))


@integrations.command("show")
@Argument
@click.pass_obj
def show_integration(desk: CliContext, integration: str) -> None:
    """Show a private integration; never its token."""
    show(desk, KIND, integration)


@integrations.command("create")
@click.argument("name")
@click.option("--description", metavar="TEXT", help="What it is for.")
@click.option(
    "--scope", "scopes", type=Scope(), multiple=True, metavar="SCOPE", help="What it may do; can be repeated."
)
@click.option(
    "--from", "source", type=click.Path(path_type=Path), metavar="FILE",
    help="Take description and scopes from YAML or JSON, such as `portaria --json integrations show` prints.",
)  # fmt: skip
@SaveTokenOption
@click.pass_obj
def create_integration(
    desk: CliContext,
    name: str,
    description: str | None,
    scopes: tuple[str, ...],
    source: Path | None,
    save_token: Path | None,
) -> None:
    """Create a private integration, print its token.

    The token is shown this once. Standard output gets it alone: `portaria integrations create … > token`.
    """
    copied = _read(source) if source else {}
    body = {"name": name, **copied, **({} if description is None else {"description": description})}
    body["scopes"] = list(dict.fromkeys([*copied.get("scopes", []), *scopes]))
    if not body["scopes"]:
        raise NotDone(
            "a private integration needs at least one --scope: `portaria integrations scopes` lists them", exit_code=2
        )
    with _keeping(save_token) as keep:
        made = desk.api.create(KIND, body=body)
        told = f"The private integration {made['name']} ({made['id']}) is created, with {_count(made['scopes'])}."
        if made.get("token") is None:
            if desk.as_json:
                desk.print(made, lambda console: None)
            raise NotDone(
                f"{made['name']} ({made['id']}) is created, but its token was lost with the first response and cannot be "
                f"shown: create another with `portaria integrations rotate {made['id']} --now`",
                problem={"id": made["id"]},
            )
        _tell_token(desk, made, told, save_token, keep)


@integrations.command("edit")
@Argument
@click.option("--name", metavar="TEXT", help="A new name.")
@click.option("--description", metavar="TEXT", help="A new description; '' for none.")
@click.option(
    "--scope", "scopes", type=Scope(), multiple=True, metavar="SCOPE", help="Replace all scopes; can be repeated."
)
@click.option(
    "--add-scope", "added", type=Scope(), multiple=True, metavar="SCOPE", help="Add this scope; can be repeated."
)
@click.option(
    "--remove-scope",
    "removed",
    type=Scope(),
    multiple=True,
    metavar="SCOPE",
    help="Remove this scope; can be repeated.",
)
@click.pass_obj
def edit_integration(
    desk: CliContext,
    integration: str,
    name: str | None,
    description: str | None,
    scopes: tuple[str, ...],
    added: tuple[str, ...],
    removed: tuple[str, ...],
) -> None:
    """Change name, description or scopes; the token stays.

    New scopes count from its next call on. Nothing is changed if somebody else changes it at the same time.
    """
    if scopes and (added or removed):
        raise NotDone("--scope replaces all scopes: do not combine it with --add-scope or --remove-scope", exit_code=2)
    body: Document = {"name": name, "description": description}
    body = {field: value for field, value in body.items() if value is not None}
    if not (body or scopes or added or removed):
        raise NotDone(
            "there is nothing to change: give --name, --description, --scope, --add-scope or --remove-scope",
            exit_code=2,
        )
    found, etag = desk.api.get_with_etag(KIND, integration)
    if missing := [scope for scope in removed if scope not in found["scopes"]]:
        raise NotDone(f"{found['name']} ({integration}) does not have the scope {missing[0]}")
    if scopes:
        body["scopes"] = list(scopes)
    elif added or removed:
        body["scopes"] = [scope for scope in dict.fromkeys([*found["scopes"], *added]) if scope not in removed]
    changed = desk.api.patch(KIND, integration, body=body, etag=etag)
    desk.print(changed, partial(output.shown, changed))


@integrations.command("rotate")
@Argument
@click.option("--now", "expire_now", is_flag=True, help="End the old token at once, not after seven days.")
@SaveTokenOption
@click.pass_obj
def rotate_integration(desk: CliContext, integration: str, expire_now: bool, save_token: Path | None) -> None:
    """Make a new token and print it.

    It is shown this once. The old one works for seven days more: until then `cancel` goes back to it, and `expire` ends it
    early.
    """
    with _keeping(save_token) as keep:
        try:
            made = desk.api.post(KIND, integration, "rotate", body={"expire_now": expire_now})
        except NotDone as lost:
            if not lost.answer_lost:
                raise
            advice = (
                f"`portaria integrations rotate {integration} --now` creates another token"
                if expire_now
                else f"if `portaria integrations show {integration}` shows a rotation, cancel it and rotate again"
            )
            sentence = f"{lost}; the new token cannot be shown: {advice}"
            raise NotDone(sentence, exit_code=lost.exit_code, answer_lost=True) from None
        until = made["previous_until"]
        old = f"The old token works until {until}." if until else "The old token has ended."
        _tell_token(desk, made, f"{made['name']} ({made['id']}) has a new token. {old}", save_token, keep)


def _end_rotation(desk: CliContext, integration: str, how: str) -> None:
    found = desk.api.post(KIND, integration, "rotation", how, body={})
    desk.print(found, partial(output.shown, found))


@integrations.command("cancel")
@Argument
@click.pass_obj
def cancel_rotation(desk: CliContext, integration: str) -> None:
    """Go back to the old token; the new one ends."""
    _end_rotation(desk, integration, "cancel")


@integrations.command("expire")
@Argument
@click.pass_obj
def expire_old_token(desk: CliContext, integration: str) -> None:
    """End the old token of a rotation before its time."""
    _end_rotation(desk, integration, "expire")


@integrations.command("delete")
@Argument
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def delete_integration(desk: CliContext, integration: str, yes: bool) -> None:
    """Delete a private integration: revoke its tokens.

    They work no more from that moment on, anywhere.
    """
    if not yes:
        found = desk.api.get(KIND, integration)
        click.confirm(f"Delete {found['name']} ({integration})? Its tokens stop working at once.", abort=True, err=True)
    desk.api.delete(KIND, integration)
    desk.print({"deleted": integration}, lambda console: console.print(f"{integration} is deleted.", markup=False))


@integrations.command("scopes")
@click.pass_obj
def list_scopes(desk: CliContext) -> None:
    """List all scopes, without calling the API."""
    found = [
        {"scope": scope, "allows": allows, "narrows": scope in every_scope.NARROWABLE}
        for scope, allows in every_scope.SCOPES.items()
    ]
    desk.print(found, partial(output.scopes, found))


def _read(source: Path) -> Document:
    try:
        content = yaml.safe_load(source.read_text(encoding="utf-8"))
    except OSError as error:
        raise NotDone(f"{source} cannot be read: {error.strerror}", exit_code=2) from None
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError):
        raise NotDone(f"{source} is not valid YAML or JSON", exit_code=2) from None
    copied = {field: content[field] for field in COPIED if field in content} if isinstance(content, dict) else {}
    if not copied or not isinstance(copied.get("scopes", []), list):
        raise NotDone(f"{source} must contain description, scopes (a list), or both", exit_code=2)
    return copied


def _count(scopes: list[str]) -> str:
    return f"{len(scopes)} scope{'s' if len(scopes) > 1 else ''}"


@contextmanager
def _keeping(save_token: Path | None) -> Iterator[Callable[[str], Any]]:
    """A new file for a token, made before the token is, so that none is lost for want of one. Without it, nothing is kept."""
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
    desk: CliContext, made: Document, told: str, save_token: Path | None, keep: Callable[[str], Any]
) -> None:
    if save_token:
        keep(made["token"])
        without = {field: value for field, value in made.items() if field != "token"}
        desk.print(without, lambda console: click.echo(told))
        desk.say(f"Its token is in {save_token} and cannot be shown again.")
        return
    desk.say(told)
    desk.print(made, lambda console: click.echo(made["token"]))
    sys.stdout.flush()
    desk.say("This token cannot be shown again: store it where only the program that needs it can read it.")
