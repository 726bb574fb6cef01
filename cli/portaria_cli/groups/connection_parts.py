"""The commands for what belongs to a connection: authorization links, event addresses and backfills."""

from __future__ import annotations

import json
from functools import partial

import click
from rich.console import Console
from rich.text import Text

from portaria_cli import completion
from portaria_cli.command_classes import Commands
from portaria_cli.context import CliContext
from portaria_cli.errors import Document
from portaria_cli.terminal import output

Connection = click.argument(
    "name", metavar="CONNECTION", shell_complete=completion.names("connections", help_field="platform")
)


@click.group(cls=Commands)
def authorizations() -> None:
    """Authorization links, for people to grant access."""


@authorizations.command("create")
@Connection
@click.pass_obj
def create_authorization(cli: CliContext, name: str) -> None:
    """Print the link that a person opens to grant access."""
    found = cli.api.create("connections", name, "authorizations", body={})
    cli.print_alone(found, found["url"], said=f"The link works once, until {found['expires_at']}.")


@click.group("event-addresses", cls=Commands)
def event_addresses() -> None:
    """Webhook URLs for a platform's events."""


@event_addresses.command("create")
@Connection
@click.pass_obj
def create_event_address(cli: CliContext, name: str) -> None:
    """Create the webhook URL for a platform's events.

    It is printed this once, with the secret of its header. Earlier URLs work for another hour.
    """
    found = cli.api.create("connections", name, "event-addresses", body={})
    header = found["header_name"]
    said = f"Header {header}: {found['header_value']} " if header else ""
    cli.print_alone(found, found["url"], said=f"{said}(Keep it secret: it is not shown again.)")


@click.group(cls=Commands)
def backfills() -> None:
    """Backfills: reading all records of a connection."""


@backfills.command("create")
@Connection
@click.option("--route", metavar="ROUTE", shell_complete=completion.names("routes"), help="Only for this route.")
@click.pass_obj
def start_backfill(cli: CliContext, name: str, route: str | None) -> None:
    """Read all records of a connection.

    They are read for each route that starts at the connection. A running backfill continues; one that has ended starts again
    from the first page.
    """
    found = cli.api.create("connections", name, "backfills", body={"route": route} if route else {})
    cli.print(found, partial(output.started, found["runs"]))


@backfills.command("list")
@Connection
@click.pass_obj
def list_backfills(cli: CliContext, name: str) -> None:
    """Show a connection's backfills and reconciliations.

    A reconciliation reads at intervals what changed in the account, so that changes without an event arrive too.
    """
    found = cli.api.get("connections", name, "backfills")
    cli.print(found, partial(output.backfills, found))


@click.group(cls=Commands)
def reconciliations() -> None:
    """Reconciliations: reading what changed in an account."""


@reconciliations.command("create")
@Connection
@click.pass_obj
def start_reconciliations(cli: CliContext, name: str) -> None:
    """Read now what changed in a connection's account.

    The schedule does the same at intervals. `portaria backfills list` shows until when changes have been read.
    """
    found = cli.api.create("connections", name, "reconciliations", body={})
    cli.print(found, partial(output.shown, found))


@click.group("sample-records", cls=Commands)
def sample_records() -> None:
    """Sample records: what a mapping receives from a connection."""


@sample_records.command("list")
@Connection
@click.option("--object", "object_name", metavar="OBJECT", help="The object to read.  [default: contacts]")
@click.pass_obj
def list_sample_records(cli: CliContext, name: str, object_name: str | None) -> None:
    """Print recent records of a connection, one JSON document a line.

    They are read at the platform, for previews of routes (`portaria routes preview`).
    """
    path = ("connections", name, "sample-records")
    found = list(cli.api.list(*path, object=object_name) if object_name else cli.api.list(*path))
    cli.print({"items": found}, partial(_print_samples, found), is_long=True)


def _print_samples(found: list[Document], console: Console) -> None:
    for each in found:
        console.print(Text(json.dumps(each["data"], ensure_ascii=False)), soft_wrap=True)
