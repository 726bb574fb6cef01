"""The commands for receipts."""

from __future__ import annotations

import click

from portaria_cli import completion
from portaria_cli.command_classes import Commands
from portaria_cli.context import CliContext, Paging
from portaria_cli.errors import USAGE, NotDone
from portaria_cli.group_parts.resources import add_show, given, named, with_paging

KIND = "receipts"
STATES = ("queued", "sent", "accepted", "applied", "failed", "unknown")


@click.group(cls=Commands)
def receipts() -> None:
    """Receipts: the outcome of each request to a destination.

    They are kept for 30 days.
    """


@receipts.command("list")
@click.option(
    "--destination",
    metavar="NAME",
    shell_complete=completion.names("connections"),
    help="Only receipts of this destination.",
)
@click.option("--record", metavar="SOURCE/KEY", help="Only requests that contained this record.")
@click.option("--email", metavar="ADDRESS", help="Only requests with a record that had this e-mail address.")
@click.option("--request", metavar="ID", help="Only receipts of the request with this X-Request-Id.")
@click.option("--correlation-id", metavar="ID", help="Only receipts of front-door requests with this X-Correlation-Id.")
@click.option("--state", type=click.Choice(STATES), help="Only in this state.")
@with_paging
@click.pass_obj
def list_receipts(cli: CliContext, /, paging: Paging, **filters: str | None) -> None:
    """List receipts, the newest first: all, or by destination, record, request or correlation id."""
    chosen = given(filters)
    if len(chosen.keys() & {"destination", "request", "correlation_id"}) > 1 or (
        chosen.keys() & {"record", "email"} and "destination" not in chosen
    ):
        raise NotDone(
            "give at most one of --destination (optionally with --record or --email), --request and --correlation-id",
            exit_code=USAGE,
        )
    cli.print_page(KIND, cli.read_page(KIND, paging=paging, **chosen), filters=chosen)


add_show(receipts, KIND, named(KIND, "ID", completion.none), "ID", "Show a receipt with what its destination reported.")
