"""The commands for what single platforms offer: contacts, user identifiers and single sign-on."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from portaria_cli import bulk_upload, completion, import_files
from portaria_cli.command_classes import Commands
from portaria_cli.context import CliContext
from portaria_cli.terminal import output

FRONT_ENDS = ("default", "customer")
# The API's own limits.
MOST_USERS, MOST_CONTACTS = 500, 50

Connection = click.argument(
    "name", metavar="CONNECTION", shell_complete=completion.names("connections", help_field="platform")
)


@click.group(cls=Commands)
def contacts() -> None:
    """Contacts of a connection's platform."""


@contacts.command("show")
@Connection
@click.argument("contact", metavar="ID")
@click.pass_obj
def show_contact(cli: CliContext, name: str, contact: str) -> None:
    """Show a contact, with its platform's own fields."""
    found = cli.api.get("connections", name, "contacts", contact)
    cli.print(found, partial(output.shown, {"id": found["id"], **found["fields"]}))


@contacts.command("upsert")
@Connection
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--overwrite-tags", is_flag=True, help="Write tags too: they replace all tags of a contact.")
@click.pass_obj
def upsert_contacts(cli: CliContext, name: str, file: Path, overwrite_tags: bool) -> None:
    """Create or update a platform's contacts.

    They are found by e-mail address or phone number. FILE is JSON (a list of contacts with the platform's own fields), or
    CSV whose first line names those fields. The same file can be sent again. The exit code is 1 if a contact was not written.
    """
    entries = import_files.read_contacts(file)
    body = {"overwrite_tags": True} if overwrite_tags else {}
    bulk_upload.send(
        cli, entries, MOST_CONTACTS, "contacts",
        lambda batch: cli.api.post("connections", name, "contacts", body={"contacts": batch, **body}),
    )  # fmt: skip


@click.group(cls=Commands)
def identifiers() -> None:
    """User identifiers for single sign-on."""


@identifiers.command("register")
@Connection
@click.argument("file", type=click.Path(path_type=Path))
@click.pass_obj
def register_identifiers(cli: CliContext, name: str, file: Path) -> None:
    """Register users' identifiers for single sign-on.

    An identifier is what another system calls a platform's user. FILE is CSV whose first line names the columns user_login
    and identifier, as a spreadsheet writes it. The same file can be sent again. The exit code is 1 if a user was not
    registered.
    """
    users = import_files.read_users(file)
    bulk_upload.send(
        cli, users, MOST_USERS, "users",
        lambda batch: cli.api.post("connections", name, "identifiers", body={"users": batch}),
    )  # fmt: skip


@click.group(cls=Commands)
def sso() -> None:
    """Single sign-on links."""


@sso.command("create")
@Connection
@click.argument("user_identifier")
@click.option(
    "--front-end", type=click.Choice(FRONT_ENDS), default="default", show_default=True, help="Where the link leads."
)
@click.option("--addresses", is_flag=True, help="Print the platform's own URL, which contains the key, not a link.")
@click.pass_obj
def sign_on(cli: CliContext, name: str, user_identifier: str, front_end: str, addresses: bool) -> None:
    """Print a single sign-on link for a user.

    Send the user's browser there. The link works once, within two minutes.
    """
    body = {
        "user_identifier": user_identifier,
        "front_end": front_end,
        "deliver": "addresses" if addresses else "link",
    }
    found = cli.api.create("connections", name, "sso", body=body)
    if addresses:
        said = "The URL logs a browser in, once: keep it out of logs."
        cli.print_alone(found, found["addresses"][front_end], said=said)
    else:
        cli.print_alone(found, found["link"], said=f"The link works once, until {found['expires_at']}.")
