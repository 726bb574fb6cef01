"""The commands for receipts: what became of requests and records."""

from __future__ import annotations

from functools import partial

import click

from portaria_cli import completion, output
from portaria_cli.api import NotDone
from portaria_cli.context import CliContext
from portaria_cli.groups.resources import NewestOption, show

KIND = "receipts"
STATES = ("queued", "sent", "accepted", "applied", "failed", "unknown")


@click.group()
def receipts() -> None:
    """Receipts: the outcome of each request to a destination. They are kept for 30 days."""


@receipts.command("list")
@click.option(
    "--destination",
    metavar="NAME",
    shell_complete=completion.names("connections"),
    help="Only receipts of this destination.",
)
@click.option("--record", metavar="SOURCE/KEY", help="Only requests that contained this record.")
@click.option("--request", metavar="ID", help="Only receipts of the request with this X-Request-Id.")
@click.option("--correlation-id", metavar="ID", help="Only receipts of front-door requests with this X-Correlation-Id.")
@click.option("--state", type=click.Choice(STATES), help="Only in this state.")
@NewestOption
@click.pass_obj
def list_receipts(desk: CliContext, /, most: int, **filters: str | None) -> None:
    """List receipts, the newest first: all, or by destination, record, request or correlation id."""
    given = {name: value for name, value in filters.items() if value}
    if len(given.keys() & {"destination", "request", "correlation_id"}) > 1 or (
        "record" in given and "destination" not in given
    ):
        raise NotDone(
            "give at most one of --destination (optionally with --record), --request and --correlation-id", exit_code=2
        )
    found = desk.list(KIND, most=most, **given)
    desk.print(found, partial(output.listed, KIND, found, filters=given))


@receipts.command("show")
@click.argument("receipt")
@click.pass_obj
def show_receipt(desk: CliContext, receipt: str) -> None:
    """Show a receipt with what its destination reported."""
    show(desk, KIND, receipt)
