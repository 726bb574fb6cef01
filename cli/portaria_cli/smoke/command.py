"""The command `smoke`."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.text import Text

from portaria_cli.auth import Principal
from portaria_cli.command_classes import Command
from portaria_cli.context import CliContext, working
from portaria_cli.doctor.command import STYLES
from portaria_cli.errors import NotDone
from portaria_cli.terminal import output
from portaria_cli.terminal.columns import Column

if TYPE_CHECKING:
    from portaria_cli.smoke.session import Report, Row

INTERRUPTED = 130
# How long what happens later may take, by default. A worker that starts cold answers within some seconds.
PATIENCE_S = 90
CHECK_NAMES = (
    "unknown-client", "forged-code", "private-integration", "outbound-call", "front-door", "functions", "event-sources",
    "schedules", "dead-letter-queues", "indexes", "alarm-topic",
)  # fmt: skip
COLUMNS = (
    Column("check", lambda row: Text(row["check"]), is_whole=True),
    Column("result", lambda row: Text(row["state"], style=STYLES[row["state"]]), is_whole=True),
    Column("seconds", lambda row: Text(f"{row['seconds']:.1f}".rjust(7)), is_whole=True),
    Column("found", lambda row: Text(row["found"])),
    Column("what to do", lambda row: Text(row["advice"])),
)


@click.command(cls=Command)
@click.option(
    "--only", multiple=True, type=click.Choice(CHECK_NAMES), metavar="CHECK",
    help=f"Run this check alone; may be given several times. One of {', '.join(CHECK_NAMES)}.",
)  # fmt: skip
@click.option(
    "--patience", default=PATIENCE_S, show_default=True, type=click.IntRange(1, 900), metavar="SECONDS",
    help="How long to wait for what a check expects to happen.",
)  # fmt: skip
@click.pass_context
def smoke(ctx: click.Context, only: tuple[str, ...], patience: int) -> None:
    """Test a deployed stack from outside.

    Calls the stack with your AWS credentials, without an account at any platform. Everything that it makes is named
    portaria-smoke-… and removed at the end, also after Ctrl-C; what a killed run left is removed by the next one. Ends with 1
    where a check fails. It makes one failed install and one dead letter, so the alarms on those may go off.
    """
    try:
        # Only here: the other commands need none of what this one looks with.
        from portaria_cli.doctor.deployment import Deployment  # noqa: PLC0415
        from portaria_cli.smoke.session import Session  # noqa: PLC0415
    except ModuleNotFoundError as missing:
        raise NotDone(f"smoke needs {missing.name}: pip install '.[doctor]'") from None
    cli: CliContext = ctx.obj
    if not isinstance(cli.api.caller, Principal):
        raise NotDone("smoke needs AWS credentials: leave out --token-file and PORTARIA_TOKEN", exit_code=2)
    deployment = Deployment(cli.settings)
    with working() as tell:
        session = Session(deployment, cli.api, patience, tell, partial(_ended, cli))
        report = session.checks(dict.fromkeys(only) if only else CHECK_NAMES)
    document = {"stack": deployment.stack_name, "name": session.run.names.name, **report.document()}
    cli.print(document, partial(_shown, report))
    ctx.exit(INTERRUPTED if report.interrupted else 1 if report.failed else 0)


def _ended(cli: CliContext, row: Row) -> None:
    """Where no terminal shows how far it is, a line for each check that has ended."""
    if not sys.stderr.isatty():
        cli.say(f"{row.check}: {row.state} ({row.seconds:.1f} s)")


def _shown(report: Report, console: Console) -> None:
    output.print_table(COLUMNS, [vars(row) for row in report.rows], console)
    if report.alarms:
        told = f"{' and '.join(report.alarms)} may go off within five minutes: this run made what they watch for, on purpose."
        console.print(Text(f"\n{told}", style="dim"), soft_wrap=True)
