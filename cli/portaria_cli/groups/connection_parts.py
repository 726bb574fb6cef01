"""The commands for what belongs to a connection: authorization links, event addresses and backfills."""

from __future__ import annotations

from functools import partial

import click

from portaria_cli import completion, output
from portaria_cli.command_classes import Commands
from portaria_cli.context import CliContext

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
