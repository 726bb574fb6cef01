"""The commands: `configure FILE`, list, show and delete for OAuth clients, connections, routes and installs, and what else
connections can do (`rotate`, `expire`, `authorize`, `call`).

Exit codes: 0 done · 1 the API refused, or the one that was called did · 2 wrong usage or configuration file · 3 the API or
AWS was not reached.
"""

from __future__ import annotations

import json
import os
import sys
from base64 import b64encode
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from portaria.cli import configuration, output
from portaria.cli.api import Api, Document, NotDone, find_api

# What changes each time something is written, without anything having changed.
VOLATILE = ("updated_at", "granted_at", "token_ends_at", "age_days", "warnings")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class _Commands(click.Group):
    """Tells what cannot be done as one line and an exit code, as a JSON document where `--json` was asked for."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except NotDone as not_done:
            if ctx.params.get("as_json"):
                click.echo(json.dumps({"error": str(not_done), **not_done.problem}), err=True)
            else:
                Console(stderr=True, soft_wrap=True, highlight=False).print(
                    output.error_line(str(not_done)), markup=False
                )
            ctx.exit(not_done.exit_code)


class Desk:
    """What every command needs; the API is looked for when it is first called."""

    def __init__(self, find: Callable[[], Api], as_json: bool) -> None:
        self._find = find
        self._api: Api | None = None
        self.as_json = as_json

    @property
    def api(self) -> Api:
        if not self._api:
            self._api = self._find()
        return self._api

    def print(self, document: Any, shown: Callable[[Console], None]) -> None:
        if self.as_json:
            click.echo(json.dumps(document, indent=2, ensure_ascii=False))
        else:
            # What goes into a pipe or a file is searched line by line, so its tables are wide.
            fits = sys.stdout.isatty() or "COLUMNS" in os.environ
            shown(Console(highlight=False, width=None if fits else 200))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--api-url", envvar="PORTARIA_API_URL", metavar="URL", help="The API, stage included (PORTARIA_API_URL).")
@click.option(
    "--stack-name", envvar="PORTARIA_STACK_NAME", default="portaria", show_default=True, metavar="NAME",
    help="The CloudFormation stack whose output ApiUrl is called.",
)  # fmt: skip
@click.option(
    "--stack-file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="A local cloud's file, build/stack.json, instead of AWS.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.pass_context
def portaria(ctx: click.Context, api_url: str | None, stack_name: str, stack_file: Path | None, as_json: bool) -> None:
    """Administer Portaria with your AWS credentials."""
    ctx.obj = Desk(partial(find_api, api_url, stack_name, stack_file), as_json)


@portaria.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.pass_obj
def configure(desk: Desk, file: Path) -> None:
    """Create or replace what FILE describes.

    Running it again is harmless. A secret in FILE is {env: NAME} or {file: PATH}; those given are written each time, a
    connection's after they have been tried. Once stored, a client_secret or the credentials may be left out. What FILE
    does not name stays as it is.
    """
    wanted = configuration.read(file)
    done: list[Document] = []
    try:
        for client in wanted.clients:
            done.append(_write(desk.api, "oauth-clients", client, "platform", "name"))
        for connection in wanted.connections:
            done.append(_write_connection(desk.api, connection))
        for route in wanted.routes:
            done.append(_write(desk.api, "routes", route, "name"))
    except NotDone:
        if done and not desk.as_json:
            desk.print(done, partial(output.configured, done))
        raise
    desk.print(done, partial(output.configured, done))


def _write(api: Api, kind: str, entry: Document, *identity: str) -> Document:
    path = [kind, *(entry[field] for field in identity)]
    try:
        before = api.find(*path)
        if before is None:
            return _done(kind, "created", api.post(kind, body=entry))
        body = {field: value for field, value in entry.items() if field not in identity}
        after = api.put(*path, body=body)
    except NotDone as not_done:
        raise _placed(not_done, path) from None
    return _done(kind, "unchanged" if _lasting(before) == _lasting(after) else "updated", after)


def _write_connection(api: Api, entry: Document) -> Document:
    """A connection's credentials are its only part that can be written again: without them it is created or compared."""
    if "credentials" in entry:
        return _write(api, "connections", entry, "name")
    path = ["connections", entry["name"]]
    try:
        found = api.find(*path)
        if not found:
            return _done("connections", "created", api.post("connections", body=entry))
    except NotDone as not_done:
        raise _placed(not_done, path) from None
    for field, value in entry.items():
        if not _is_as_wanted(found, field, value):
            raise NotDone(
                f"connections {entry['name']}: {field} differs from the file and cannot change: delete the connection first",
                exit_code=1,
            )
    return _done("connections", "unchanged", found)


def _is_as_wanted(found: Document, field: str, value: Any) -> bool:
    """Whether a connection has what the file says; of its fields, those that the file leaves out have their defaults."""
    match field:
        case "fields" if isinstance(value, dict):
            return bool({**found["fields"], **value} == found["fields"])
        case "scopes":
            return bool(found["fields"].get("scopes", "") == value)
        case "allowed_domain" if isinstance(value, str):
            return bool(found[field] == value.lower())
    return bool(found.get(field) == value)


def _placed(not_done: NotDone, path: list[str]) -> NotDone:
    sentence = f"{path[0]} {'/'.join(path[1:])}: {not_done}"
    return NotDone(sentence, exit_code=not_done.exit_code, status=not_done.status, problem=not_done.problem)


def _done(kind: str, change: str, now: Document) -> Document:
    return {**now, "resource": kind, "change": change}


def _lasting(document: Document) -> Document:
    return {field: value for field, value in document.items() if field not in VOLATILE}


MostOption = click.option("--limit", "most", type=click.IntRange(1), metavar="N", help="The first N only.")


@portaria.group()
def clients() -> None:
    """OAuth clients: the applications registered with platforms."""


@portaria.group()
def connections() -> None:
    """Connections: stored credentials, one account each."""


@connections.command("rotate")
@click.argument("name")
@click.option("--now", "expire_now", is_flag=True, help="Drop the old token at once, not after the overlap.")
@click.pass_obj
def rotate_connection(desk: Desk, name: str, expire_now: bool) -> None:
    """Hand in a platform's new token, asked for or piped in.

    It is tried first; the old one stays in reserve for the days in which the platform lets both work.
    """
    token = click.prompt("New token", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.read()
    body = {"credentials": {"token": token.strip()}, "expire_now": expire_now}
    found = desk.api.post("connections", name, "rotate", body=body)
    desk.print(found, partial(output.shown, found))


@connections.command("expire")
@click.argument("name")
@click.pass_obj
def expire_rotation(desk: Desk, name: str) -> None:
    """Drop the old token of a rotation before its time."""
    found = desk.api.post("connections", name, "rotate", "expire", body={})
    desk.print(found, partial(output.shown, found))


@connections.command("authorize")
@click.argument("name")
@click.pass_obj
def authorize_connection(desk: Desk, name: str) -> None:
    """Print the link in which a person gives their consent: for a first time or again."""
    found = desk.api.get("connections", name, "authorize")
    # The link alone is what a program reads or a person pipes on.
    desk.print(found, lambda console: console.print(found["authorize_url"], markup=False, soft_wrap=True))
    if found["expires_at"] and not desk.as_json:
        click.echo(f"It opens once, until {found['expires_at']}.", err=True)


@connections.command("call")
@click.argument("name")
@click.argument("method", type=click.Choice(METHODS, case_sensitive=False), metavar="METHOD")
@click.argument("target", metavar="PATH")
@click.option("--data", metavar="TEXT", help="The body; @FILE reads it from a file, @- from standard input.")
@click.option("--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="A header; can be repeated.")
@click.pass_obj
def call_connection(
    desk: Desk, name: str, method: str, target: str, data: str | None, headers: tuple[str, ...]
) -> None:
    """Call the API behind a connection, with its credential applied.

    PATH begins with /, or is a whole https URL within the allowed domain. The answer's body goes to standard output, its
    status to standard error; with --json all of it is one document. Exit code 1 tells of a status from 400 on.
    """
    body: Document = {"method": method, "path" if target.startswith("/") else "url": target}
    given = dict(_header(header) for header in headers)
    if data is not None:
        content = _data(data)
        if _is_json(content) and "content-type" not in {header.lower() for header in given}:
            given["Content-Type"] = "application/json"
        body |= _as_text_or_base64(content)
    answer = desk.api.post("connections", name, "call", body=body | ({"headers": given} if given else {}))
    if desk.as_json:
        desk.print(answer, lambda console: None)
    else:
        output.called(answer)
    if answer["status"] >= 400:
        click.get_current_context().exit(1)


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        # It may be a secret that slipped out of its place: it is not repeated.
        raise NotDone("a --header is not of the form 'NAME: VALUE'", exit_code=2)
    return name.strip(), value.strip()


def _data(text: str) -> bytes:
    if not text.startswith("@"):
        return text.encode()
    if text == "@-":
        return sys.stdin.buffer.read()
    try:
        return Path(text[1:]).read_bytes()
    except OSError as error:
        raise NotDone(f"{text[1:]} cannot be read: {error.strerror}", exit_code=2) from None


def _is_json(content: bytes) -> bool:
    try:
        json.loads(content)
    except (ValueError, RecursionError):
        return False
    return True


def _as_text_or_base64(content: bytes) -> Document:
    try:
        return {"body": content.decode()}
    except UnicodeDecodeError:
        return {"body_base64": b64encode(content).decode()}


@portaria.group()
def routes() -> None:
    """Routes: which records go where."""


@portaria.group()
def installs() -> None:
    """Installs, the newest first."""


@installs.command("list")
@click.option(
    "--state", type=click.Choice(["received", "exchanging", "connected", "failed"]), help="Only in this state."
)
@click.option(
    "--limit", "most", type=click.IntRange(1), default=50, show_default=True, metavar="N", help="The newest N."
)
@click.pass_obj
def list_installs(desk: Desk, state: str | None, most: int) -> None:
    """List installs, the newest first."""
    found = list(desk.api.list("installs", most=most, **({"state": state} if state else {})))
    desk.print(found, partial(output.listed, "installs", found))


@installs.command("show")
@click.argument("install")
@click.pass_obj
def show_install(desk: Desk, install: str) -> None:
    """Show an install: what became of it, and the link to try it again."""
    _show(desk, "installs", install)


def _add(group: click.Group, kind: str, argument: str) -> None:
    """The commands list, show and delete of one kind of resource."""

    @group.command("list")
    @MostOption
    @click.pass_obj
    def list_all(desk: Desk, most: int | None) -> None:
        found = list(desk.api.list(kind, most=most))
        desk.print(found, partial(output.listed, kind, found))

    @group.command("show")
    @click.argument("name", metavar=argument)
    @click.pass_obj
    def show(desk: Desk, name: str) -> None:
        _show(desk, kind, *_path(name, argument))

    @group.command("delete")
    @click.argument("name", metavar=argument)
    @click.option("--yes", is_flag=True, help="Do not ask.")
    @click.pass_obj
    def delete(desk: Desk, name: str, yes: bool) -> None:
        path = _path(name, argument)
        if not yes:
            click.confirm(f"Delete {kind} {name}?", abort=True, err=True)
        desk.api.delete(kind, *path)
        desk.print({"deleted": name}, lambda console: console.print(f"{name} is deleted.", markup=False))

    plural = kind.replace("oauth-", "OAuth ")
    list_all.help, show.help, delete.help = (
        f"List {plural}.",
        f"Show one of the {plural}.",
        f"Delete one of the {plural}.",
    )


_add(clients, "oauth-clients", "PLATFORM/NAME")
_add(connections, "connections", "NAME")
_add(routes, "routes", "NAME")


def _path(name: str, argument: str) -> list[str]:
    path = name.split("/")
    if len(path) != len(argument.split("/")) or not all(path):
        raise NotDone(f"{name!r} is not of the form {argument}", exit_code=2)
    return path


def _show(desk: Desk, kind: str, *path: str) -> None:
    found = desk.api.get(kind, *path)
    desk.print(found, partial(output.shown, found))


def main() -> None:
    # A pipe that is closed early (`… | head`) is no error of this program's.
    try:
        portaria.main(prog_name="portaria")
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
