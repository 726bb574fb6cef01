"""The command `configure`: check a file, plan what it changes, and apply that."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from portaria_cli.command_classes import Command
from portaria_cli.configure.problems import WrongFile
from portaria_cli.context import CliContext, working
from portaria_cli.errors import USAGE, NotDone

if TYPE_CHECKING:
    from portaria_cli.configure.plan import Plan


@click.command(cls=Command)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Check FILE and print the plan; write nothing.")
@click.option(
    "--replace", multiple=True, metavar="CONNECTION",
    help="Delete this connection and create it again where FILE changes what a connection keeps. Can be repeated.",
)  # fmt: skip
@click.pass_context
def configure(ctx: click.Context, file: Path, dry_run: bool, replace: tuple[str, ...]) -> None:
    """Create or change what a file describes.

    The whole file is checked first: where anything is wrong, every problem is printed with its line and column, and nothing
    is written. Then the plan is printed and applied. Running it again is harmless, and continues what was interrupted.

    A secret in FILE is {env: NAME} or {file: PATH}. A client_secret and credentials that FILE gives are written each time,
    a connection's after they have been tried. Once stored, they may be left out. What FILE does not name stays as it is.
    """
    try:
        # Only here: the rules need libraries that no other command needs.
        from portaria_cli.configure import apply, display  # noqa: PLC0415
    except ModuleNotFoundError as missing:
        raise NotDone(f"configure needs {missing.name}: pip install '.[cli]'") from None
    cli: CliContext = ctx.obj
    with working() as tell:
        plan = _plan(ctx, cli, file, replace, tell)
    if dry_run:
        cli.print([step.document() for step in plan.steps], partial(display.plan, plan.steps))
        cli.say("Nothing was written (--dry-run).")
        return
    if not cli.as_json:
        cli.print(None, partial(display.plan, plan.steps, warn=False))
        click.echo()
    results = apply.apply(cli, file, plan.steps)
    cli.print(results, partial(display.summary, results, plan.steps))


def _plan(
    ctx: click.Context, cli: CliContext, file: Path, replace: tuple[str, ...], tell: Callable[[str], None]
) -> Plan:
    """Raises `WrongFile` with every problem of the file, and `NotDone` where it or the API cannot be read."""
    from portaria_cli.configure.entries import Reader  # noqa: PLC0415
    from portaria_cli.configure.expected import Expected  # noqa: PLC0415
    from portaria_cli.configure.plan import Planner  # noqa: PLC0415
    from portaria_cli.configure.source import compose  # noqa: PLC0415

    reader = Reader(file)
    entries = reader.entries(compose(file))
    if not entries and reader.problems:
        raise WrongFile(file, reader.problems)
    described = {entry.identity[0] for entry in entries if entry.section == "connections"}
    if strangers := [name for name in replace if name not in described]:
        raise NotDone(f"--replace {strangers[0]}: {file} describes no connection of this name", exit_code=USAGE)
    try:
        api = cli.api
    except NotDone as missing:
        if not reader.problems:
            raise
        raise WrongFile(file, reader.problems, f"The rest was not checked: {missing}") from None
    expected = Expected(api)
    planner = Planner(file, expected, replace, _own_command(ctx), tell)
    remark = ""
    try:
        planner.make(entries)
    except NotDone as not_read:
        if not (reader.problems or planner.plan.problems):
            raise
        remark = f"The rest was not checked: {not_read}"
    for each in dict.fromkeys(expected.remarks):
        cli.say(each)
    if problems := [*reader.problems, *planner.plan.problems]:
        raise WrongFile(file, problems, remark)
    return planner.plan


def _own_command(ctx: click.Context) -> str:
    """How this command line was told which stack it works on, for commands that are to be pasted."""
    options = ctx.find_root().params
    found = ["portaria"]
    for name in ("profile", "stack_file", "token_file"):
        if options.get(name):
            found += [f"--{name.replace('_', '-')}", shlex.quote(str(options[name]))]
    return " ".join(found)
