"""The commands for connections: what they are made of, their credentials, and requests through them."""

from __future__ import annotations

import json
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import click

from portaria_cli import completion
from portaria_cli.command_classes import Commands
from portaria_cli.context import CliContext, Paging
from portaria_cli.errors import USAGE, Document, NotDone
from portaria_cli.group_parts import inputs
from portaria_cli.group_parts.resources import CustomerOption, add_delete, add_show, given, named, printed, with_paging
from portaria_cli.terminal import output

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
KIND, FORM = "connections", "NAME"
STATES = ("pending", "connected", "needs_reconnect", "removed")

Name = named(KIND, FORM, completion.names(KIND, help_field="platform"))
CredentialOption = click.option(
    "--credential", "credentials", type=inputs.SecretPair(), multiple=True, metavar=f"NAME={inputs.SECRET_FORM}",
    help="Where a credential is: a file, standard input or an environment variable; can be repeated.",
)  # fmt: skip


@click.group(cls=Commands)
def connections() -> None:
    """Connections: stored credentials, one account each."""


@connections.command("list")
@click.option("--platform", metavar="PLATFORM", help="Only of this platform.")
@click.option("--state", type=click.Choice(STATES), help="Only in this state.")
@click.option("--account-id", metavar="ID", help="Only to the account with this id at its platform.")
@CustomerOption
@with_paging
@click.pass_obj
def list_connections(cli: CliContext, /, paging: Paging, **filters: str | None) -> None:
    """List connections, by name."""
    page = cli.read_page(KIND, paging=paging, **given(filters))
    cli.print_page(KIND, page, filters=given(filters))


add_show(connections, KIND, Name, FORM)


@connections.command("create")
@click.argument("name")
@click.option("--platform", metavar="PLATFORM", help="Such as http, oauth2, marketo, leadconnector or engage.")
@click.option("--kind", metavar="KIND", help="How it authenticates, such as bearer, if the platform has several.")
@click.option("--allowed-domain", metavar="DOMAIN", help="The domain that its credentials may be sent to.")
@click.option("--client", metavar="NAME", help="The OAuth client that it gets its tokens with.")
@click.option("--scopes", metavar="TEXT", help="Scopes to request instead of the OAuth client's.")
@click.option(
    "--field", "given_fields", type=inputs.Pair(), multiple=True, metavar="NAME=VALUE",
    help="A field of its kind, such as munchkin_id=123-ABC-456; can be repeated.",
)  # fmt: skip
@CredentialOption
@inputs.FileOption
@click.pass_obj
def create_connection(
    cli: CliContext,
    /,
    name: str,
    given_fields: tuple[tuple[str, str], ...],
    credentials: tuple[tuple[str, Callable[[], str]], ...],
    file: Path | None,
    **options: Any,
) -> None:
    """Create a connection.

    Its credentials are tested first, if the platform has a request for that. A connection that people authorize is pending
    until somebody opens its link (`portaria authorizations create`).

    \b
    portaria connections create erp --platform http --kind bearer \\
        --allowed-domain api.example.com --credential token=@token.txt
    """
    body = inputs.read(KIND, file)
    content = inputs.named(body.content, {"name": name}, name) | {"name": name, **inputs.fields(**options)}
    content = _with_credentials(content, credentials, file)
    if given_fields:
        held = content.get("fields")
        content["fields"] = {**(held if isinstance(held, dict) else {}), **dict(given_fields)}
    made = inputs.Body(content, body.file, body.entry).send(lambda sent: cli.api.create(KIND, body=sent))
    printed(cli, made, f"The connection {name} is created.")
    if made["state"] == "pending":
        cli.say(f"Next: `portaria authorizations create {name}` prints the link with which a person grants access.")


@connections.command("edit")
@Name
@CredentialOption
@inputs.FileOption
@click.pass_obj
def replace_credentials(
    cli: CliContext, name: str, credentials: tuple[tuple[str, Callable[[], str]], ...], file: Path | None
) -> None:
    """Replace a connection's credentials; the rest of it cannot change.

    All its credentials are needed. They are tested first, if the platform has a request for that.
    """
    if not file:
        inputs.require_changes(dict(credentials))
    body = inputs.read(KIND, file)
    content = _with_credentials(inputs.named(body.content, {"name": name}, name), credentials, file)
    changed = inputs.Body(content, body.file, body.entry).send(
        lambda sent: cli.api.put(KIND, name, "credentials", body=sent)
    )
    printed(cli, changed, f"The credentials of the connection {name} are replaced.")


add_delete(connections, KIND, Name, FORM)


@connections.command("rotate")
@Name
@click.option("--now", "expire_now", is_flag=True, help="Delete the old token at once, not after the overlap.")
@click.pass_obj
def rotate_connection(cli: CliContext, name: str, expire_now: bool) -> None:
    """Replace a connection's token with a new one.

    The command asks for it, or reads it from standard input. It is tested first. The old token is kept as a fallback for as
    long as the platform accepts both.
    """
    token = click.prompt("New token", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.read()
    body = {"credentials": {"token": token.strip()}, "expire_now": expire_now}
    found = cli.api.create("connections", name, "rotate", body=body)
    cli.print(found, partial(output.shown, found))


@connections.command("expire")
@Name
@click.pass_obj
def expire_rotation(cli: CliContext, name: str) -> None:
    """Delete the old token of a rotation now."""
    found = cli.api.post("connections", name, "rotation", "expire", body={})
    cli.print(found, partial(output.shown, found))


@connections.command("renew")
@Name
@click.pass_obj
def renew_connection(cli: CliContext, name: str) -> None:
    """Renew a connection's tokens now.

    The schedule renews them in time by itself.
    """
    found = cli.api.create("connections", name, "renew", body={})
    cli.print(found, partial(output.shown, found))


@connections.command("test")
@Name
@click.pass_obj
def test_connection(cli: CliContext, name: str) -> None:
    """Test a connection with a harmless request to its platform.

    The exit code is 1 unless the credentials work. Credentials that the platform calls invalid end the connection.
    """
    found = cli.api.create("connections", name, "test", body={})
    cli.print(found, partial(output.shown, found))
    if found["state"] != "works":
        click.get_current_context().exit(1)


@connections.command("call")
@Name
@click.argument("method", type=click.Choice(METHODS, case_sensitive=False), metavar="METHOD")
@click.argument("target", metavar="PATH")
@click.option("--data", metavar="TEXT", help="The body; @FILE reads it from a file, @- from standard input.")
@click.option("--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="A header; can be repeated.")
@click.pass_obj
def call_connection(
    cli: CliContext, name: str, method: str, target: str, data: str | None, headers: tuple[str, ...]
) -> None:
    """Send a request through a connection.

    The connection's credential is added. PATH begins with /, or is a whole https URL within the allowed domain. The body of the
    response goes to standard output and its status to standard error; with --json both are one document. The exit code is 1
    for a status from 400 on.
    """
    if not target.startswith("/") and not target.lower().startswith("https://"):
        # It may hold a secret, so it is not repeated.
        raise NotDone("the path must begin with /, or be a whole URL that begins with https://", exit_code=USAGE)
    body: Document = {"method": method, "path" if target.startswith("/") else "url": target}
    given = dict(_header(header) for header in headers)
    if data is not None:
        content = _data(data)
        if _is_json(content) and "content-type" not in {header.lower() for header in given}:
            given["Content-Type"] = "application/json"
        body |= _as_text_or_base64(content)
    # A request that changes something is sent once, also if its answer is lost.
    post = cli.api.post if method in ("GET", "HEAD", "OPTIONS") else cli.api.create
    answer = post("connections", name, "call", body=body | ({"headers": given} if given else {}))
    if cli.as_json:
        cli.print(answer, lambda console: None)
    else:
        _print_response(answer)
    if answer["status"] >= 400:
        click.get_current_context().exit(1)


def _with_credentials(
    content: Document, credentials: tuple[tuple[str, Callable[[], str]], ...], file: Path | None
) -> Document:
    """Merge the credentials of the options into the credentials of the file."""
    if not credentials:
        return content
    held = content.get("credentials")
    return {
        **content,
        "credentials": {**(held if isinstance(held, dict) else {}), **inputs.secrets(credentials, file)},
    }


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        # It may be a secret that slipped out of its place: it is not repeated.
        raise NotDone("a --header must have the form 'NAME: VALUE'", exit_code=USAGE)
    return name.strip(), value.strip()


def _data(text: str) -> bytes:
    if not text.startswith("@"):
        return text.encode()
    if text == "@-":
        return sys.stdin.buffer.read()
    try:
        return Path(text[1:]).read_bytes()
    except OSError as error:
        raise NotDone(f"{text[1:]} cannot be read: {error.strerror}", exit_code=USAGE) from None


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


def _print_response(answer: Document) -> None:
    """The response to a call: its status on standard error, its body on standard output. A terminal gets indented JSON."""
    click.echo(f"{answer['status']} {answer['headers'].get('content-type', '')}".rstrip(), err=True)
    if answer["withheld"]:
        click.echo(f"Note: {answer['withheld']}.", err=True)
    if answer["body_base64"]:
        sys.stdout.buffer.write(b64decode(answer["body_base64"]))
        return
    body: str = answer["body"] or ""
    if sys.stdout.isatty():
        with suppress(ValueError, RecursionError):
            body = json.dumps(json.loads(body), indent=2, ensure_ascii=False)
        body += "" if not body or body.endswith("\n") else "\n"
    click.echo(body, nl=False)
