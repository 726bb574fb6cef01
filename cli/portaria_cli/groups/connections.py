"""The commands of connections: what can be done with one, and what its platform offers."""

from __future__ import annotations

import json
import sys
from base64 import b64encode
from functools import partial
from pathlib import Path

import click

from portaria_cli import bulk_upload, completion, import_files, output
from portaria_cli.api import Document, NotDone
from portaria_cli.context import CliContext
from portaria_cli.groups.resources import add

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
FRONT_ENDS = ("default", "customer")
# The API's own limits.
MOST_USERS, MOST_CONTACTS = 500, 50

_complete = completion.names("connections", help_field="platform")
Name = click.argument("name", shell_complete=_complete)


@click.group()
def connections() -> None:
    """Connections: stored credentials, one account each."""


add(connections, "connections", "NAME", _complete)


@connections.command("rotate")
@Name
@click.option("--now", "expire_now", is_flag=True, help="Delete the old token at once, not after the overlap.")
@click.pass_obj
def rotate_connection(desk: CliContext, name: str, expire_now: bool) -> None:
    """Replace a connection's token with a new one.

    It is asked for, or piped in, and tried first. The old one stays in reserve for the days in which the platform lets both
    work.
    """
    token = click.prompt("New token", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.read()
    body = {"credentials": {"token": token.strip()}, "expire_now": expire_now}
    found = desk.api.post("connections", name, "rotate", body=body)
    desk.print(found, partial(output.shown, found))


@connections.command("expire")
@Name
@click.pass_obj
def expire_rotation(desk: CliContext, name: str) -> None:
    """Delete the old token of a rotation now."""
    found = desk.api.post("connections", name, "rotation", "expire", body={})
    desk.print(found, partial(output.shown, found))


@connections.command("authorize")
@Name
@click.pass_obj
def create_authorization(desk: CliContext, name: str) -> None:
    """Print a link with which a person grants access, or grants it again."""
    found = desk.api.create("connections", name, "authorizations", body={})
    ends = f"The link works once, until {found['expires_at']}." if found["expires_at"] else ""
    desk.print_alone(found, found["url"], said=ends)


@connections.command("events")
@Name
@click.pass_obj
def create_event_address(desk: CliContext, name: str) -> None:
    """Create the webhook URL for a platform's events.

    It is printed this once, with the secret that its header must carry. Those made before work for another hour.
    """
    found = desk.api.post("connections", name, "event-addresses", body={})
    header = found["header_name"]
    said = f"Header {header}: {found['header_value']} " if header else ""
    desk.print_alone(found, found["url"], said=f"{said}(Keep it secret: it is not shown again.)")


@connections.command("call")
@Name
@click.argument("method", type=click.Choice(METHODS, case_sensitive=False), metavar="METHOD")
@click.argument("target", metavar="PATH")
@click.option("--data", metavar="TEXT", help="The body; @FILE reads it from a file, @- from standard input.")
@click.option("--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="A header; can be repeated.")
@click.pass_obj
def call_connection(
    desk: CliContext, name: str, method: str, target: str, data: str | None, headers: tuple[str, ...]
) -> None:
    """Send a request through a connection.

    Its credential is applied on the way. PATH begins with /, or is a whole https URL within the allowed domain. The answer's
    body goes to standard output, its status to standard error; with --json all of it is one document. Exit code 1 tells of
    a status from 400 on.
    """
    if not target.startswith("/") and not target.lower().startswith("https://"):
        # It may hold a secret, so it is not repeated.
        raise NotDone("the path must begin with /, or be a whole URL that begins with https://", exit_code=2)
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


@connections.command("backfill")
@Name
@click.option("--route", metavar="ROUTE", help="Only for this route.")
@click.pass_obj
def start_backfill(desk: CliContext, name: str, route: str | None) -> None:
    """Read all of a connection's records (backfill).

    For every route that begins there. A backfill that runs goes on; one that has ended begins anew, from the first page.
    """
    found = desk.api.post("connections", name, "backfills", body={"route": route} if route else {})
    desk.print(found, partial(output.started, found["runs"]))


@connections.command("backfills")
@Name
@click.pass_obj
def list_backfills(desk: CliContext, name: str) -> None:
    """Show a connection's backfills and reconciliations.

    A reconciliation reads again and again what changed in the account, so that events its platform lost still arrive.
    """
    found = desk.api.get("connections", name, "backfills")
    desk.print(found, partial(output.backfills, found))


@connections.command("sso")
@Name
@click.argument("user_identifier")
@click.option(
    "--front-end", type=click.Choice(FRONT_ENDS), default="default", show_default=True, help="Where the link leads."
)
@click.option("--addresses", is_flag=True, help="Print the platform's own URL, which contains the key, not a link.")
@click.pass_obj
def sign_on(desk: CliContext, name: str, user_identifier: str, front_end: str, addresses: bool) -> None:
    """Print a single sign-on link for a user.

    Their browser is sent there. It works once, within two minutes.
    """
    body = {
        "user_identifier": user_identifier,
        "front_end": front_end,
        "deliver": "addresses" if addresses else "link",
    }
    found = desk.api.post("connections", name, "sso", body=body)
    if addresses:
        said = "The URL logs a browser in, once: keep it out of logs."
        desk.print_alone(found, found["addresses"][front_end], said=said)
    else:
        desk.print_alone(found, found["link"], said=f"The link works once, until {found['expires_at']}.")


@connections.command("identifiers")
@Name
@click.argument("file", type=click.Path(path_type=Path))
@click.pass_obj
def register_identifiers(desk: CliContext, name: str, file: Path) -> None:
    """Register users' identifiers for single sign-on.

    An identifier is what another system calls a platform's user. FILE is CSV whose first line names the columns user_login
    and identifier, as a spreadsheet writes it. Doing it again is harmless. Exit code 1 tells that somebody was not registered.
    """
    users = import_files.read_users(file)
    bulk_upload.send(
        desk, users, MOST_USERS, "users",
        lambda batch: desk.api.post("connections", name, "identifiers", body={"users": batch}),
    )  # fmt: skip


@connections.command("contact")
@Name
@click.argument("contact", metavar="ID")
@click.pass_obj
def show_contact(desk: CliContext, name: str, contact: str) -> None:
    """Show a contact, with its platform's own fields."""
    found = desk.api.get("connections", name, "contacts", contact)
    desk.print(found, partial(output.shown, {"id": found["id"], **found["fields"]}))


@connections.command("upsert")
@Name
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--overwrite-tags", is_flag=True, help="Write tags too: they replace all tags of a contact.")
@click.pass_obj
def upsert_contacts(desk: CliContext, name: str, file: Path, overwrite_tags: bool) -> None:
    """Create or update a platform's contacts.

    They are found by e-mail address or phone number. FILE is JSON (a list of contacts with the platform's own fields), or
    CSV whose first line names those fields. Doing it again is harmless. Exit code 1 tells that some contact was not written.
    """
    contacts = import_files.read_contacts(file)
    body = {"overwrite_tags": True} if overwrite_tags else {}
    bulk_upload.send(
        desk, contacts, MOST_CONTACTS, "contacts",
        lambda batch: desk.api.post("connections", name, "contacts", body={"contacts": batch, **body}),
    )  # fmt: skip


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        # It may be a secret that slipped out of its place: it is not repeated.
        raise NotDone("a --header must have the form 'NAME: VALUE'", exit_code=2)
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
