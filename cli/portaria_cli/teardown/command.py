"""The command `teardown`."""

from __future__ import annotations

import re
import sys
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.text import Text

from portaria_cli.command_classes import Command
from portaria_cli.context import CliContext, working
from portaria_cli.errors import USAGE, Document, NotDone
from portaria_cli.terminal import output
from portaria_cli.terminal.columns import Column

if TYPE_CHECKING:
    from portaria_cli.teardown.inventory import Inventory, Left
    from portaria_cli.teardown.removal import Done

# CloudFormation's rule. An empty name would be the beginning of everything.
STACK_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,127}")
OUTCOME_STYLES = {"removed": "green", "kept": "yellow", "failed": "bold red"}
LISTED = (
    Column("what", lambda row: Text(row["what"]), is_whole=True),
    Column("count", lambda row: Text(f"{row['count']:,}".rjust(5)), is_whole=True),
    Column("USD a month", lambda row: Text(f"{row['usd_month']:.2f}".rjust(11)), is_whole=True),
    Column("removing it", lambda row: Text(row["removal"])),
)
REMOVED = (
    Column("what", lambda row: Text(row["kind"]), is_whole=True),
    Column("outcome", lambda row: Text(row["outcome"], style=OUTCOME_STYLES[row["outcome"]]), is_whole=True),
    Column("", lambda row: Text(row["told"])),
)


@click.command(cls=Command)
@click.option("--yes", "confirmed", metavar="NAME", help="Remove without asking: the stack's name, once more.")
@click.option("--delete-stack", is_flag=True, help="Delete the stack itself first, where it is still there.")
@click.option("--delete-data", is_flag=True, help="Delete the table too, and the key whatever it has sealed.")
@click.option("--force-delete-without-recovery", is_flag=True, help="Delete secrets for good, not in 30 days.")
@click.pass_context
def teardown(
    ctx: click.Context,
    confirmed: str | None,
    delete_stack: bool,
    delete_data: bool,
    force_delete_without_recovery: bool,
) -> None:
    """List and remove what a deleted stack leaves behind.

    Deleting a stack keeps its table, its key and its secrets, which cost money. This lists them and, once you have typed the
    stack's name, removes them: secrets with 30 days to bring them back; the key with 30 days, once no sealed grant needs it;
    the table with --delete-data alone. What was interrupted goes on where it is run again.
    """
    try:
        # Only here: the other commands need none of what this one looks with.
        from portaria_cli.doctor.deployment import Deployment  # noqa: PLC0415
        from portaria_cli.doctor.findings import NotLooked  # noqa: PLC0415
        from portaria_cli.teardown import inventory  # noqa: PLC0415
        from portaria_cli.teardown.removal import Wanted, remove  # noqa: PLC0415
    except ModuleNotFoundError as missing:
        raise NotDone(f"teardown needs {missing.name}: pip install '.[doctor]'") from None
    cli: CliContext = ctx.obj
    deployment = Deployment(cli.settings)
    if not STACK_NAME.fullmatch(deployment.stack_name):
        raise NotDone("--stack-name must be the name of a stack", exit_code=USAGE)
    if confirmed is not None and confirmed != deployment.stack_name:
        raise NotDone(f"--yes must be the stack's name, {deployment.stack_name}: nothing was removed", exit_code=USAGE)
    with working() as tell:
        try:
            found = inventory.take(deployment, tell)
        except NotLooked as reason:
            raise NotDone(f"the stack could not be looked up: {reason}", exit_code=3) from None
    rows = _rows(found)
    document: Document = {"listed": {**asdict(found), "usd_month": round(found.usd_month, 2)}, "removed": []}
    if confirmed is None and not cli.as_json:
        cli.print(document, partial(_listed, found, rows))
    if not _may_remove(cli, found, confirmed):
        if cli.as_json:
            cli.print(document, lambda console: None)
        return
    if found.stack_status and not delete_stack:
        raise NotDone(
            f"the stack {found.stack_name} still exists: delete it first, or give --delete-stack", exit_code=USAGE
        )
    wanted = Wanted(data=delete_data, without_recovery=force_delete_without_recovery, stack=delete_stack)
    with working() as tell:
        done = remove(deployment, found, wanted, tell)
    cli.print({**document, "removed": [asdict(each) for each in done]}, partial(_removed, done))
    ctx.exit(1 if any(each.outcome == "failed" for each in done) else 0)


def _may_remove(cli: CliContext, found: Inventory, confirmed: str | None) -> bool:
    if confirmed is not None:
        return True
    if (found.is_empty and not found.stack_status) or cli.as_json or not sys.stdin.isatty():
        return False
    typed = click.prompt(
        "\nType the stack's name to remove this, or press Enter to leave it", default="", show_default=False
    )
    if typed and typed != found.stack_name:
        raise NotDone("that is not the stack's name: nothing was removed", exit_code=USAGE)
    return bool(typed)


def _rows(found: Inventory) -> list[Document]:
    def row(what: str, left: Left, removal: str) -> Document:
        going = f" ({left.going:,} more are being deleted already)" if left.going else ""
        return {"what": what, "count": len(left.ids), "usd_month": left.usd_month, "removal": removal + going}

    return [
        row("secrets", found.secrets, "30 days to bring them back; --force-delete-without-recovery: none"),
        row("table", found.tables, "only with --delete-data"),
        row("sealing key", found.keys, "30 days to keep it; once no sealed grant needs it, or with --delete-data"),
        row("log groups", found.log_groups, "at once"),
        row("SAM artifacts", found.artifacts, "at once; those that samconfig.toml put under the stack's name"),
        row("layer versions", found.layer_versions, "never: other stacks of the account may use them"),
    ]


def _listed(found: Inventory, rows: list[Document], console: Console) -> None:
    if found.stack_status:
        console.print(f"The stack {found.stack_name} is {found.stack_status}. Deleting it would leave:\n")
    else:
        console.print(f"There is no stack {found.stack_name} (any more). It left:\n")
    output.print_table(LISTED, rows, console)
    console.print(f"\nAbout {found.usd_month:.2f} USD a month, at the list prices of us-east-1.")
    for what, reason in found.skipped.items():
        console.print(Text(f"not looked at: {what}: {reason}", style="yellow"), soft_wrap=True)


def _removed(done: list[Done], console: Console) -> None:
    output.print_table(REMOVED, [asdict(each) for each in done], console)
