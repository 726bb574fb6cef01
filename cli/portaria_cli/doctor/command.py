"""The command `doctor`: look at a deployed stack and say what to do."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.text import Text

from portaria.overview.findings import FAIL, SKIPPED, STATES, WARN, Finding
from portaria_cli.command_classes import Command
from portaria_cli.context import CliContext, working
from portaria_cli.doctor.findings import NotLooked, NotThere
from portaria_cli.errors import NotDone

if TYPE_CHECKING:
    from portaria_cli.doctor.checks import Check
    from portaria_cli.doctor.deployment import Deployment

STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red", "skipped": "dim"}


@click.command(cls=Command)
@click.pass_context
def doctor(ctx: click.Context) -> None:
    """Check a deployed stack and say what to do.

    Reads the stack with your AWS credentials; it changes nothing and reads no secret. A check without
    permission is skipped, and names the permission that it needs. The exit code is 1 if a check fails.
    """
    try:
        # Only here: the other commands need none of what this one looks with.
        from portaria_cli.doctor.checks import CHECKS  # noqa: PLC0415
        from portaria_cli.doctor.deployment import Deployment  # noqa: PLC0415
    except ModuleNotFoundError as missing:
        raise NotDone(f"the doctor needs {missing.name}: pip install '.[doctor]'") from None
    cli: CliContext = ctx.obj
    deployment = Deployment(cli.settings)
    found: list[Finding] = []
    with working() as tell:
        for number, (name, check) in enumerate(CHECKS.items(), 1):
            tell(f"{number}/{len(CHECKS)}  {name}")
            found += look(name, check, deployment)
    counts = Counter(finding.state for finding in found)
    document = {
        "stack": deployment.stack_name,
        "checks": [finding.document() for finding in found],
        "counts": {state: counts[state] for state in STATES},
    }
    cli.print(document, partial(_shown, found, counts))
    ctx.exit(1 if counts[FAIL] else 0)


def look(name: str, check: Check, deployment: Deployment) -> list[Finding]:
    """What a check found until its end, or until it could not look any further."""
    found: list[Finding] = []
    try:
        for finding in check(deployment):
            found.append(finding)
    except NotLooked as reason:
        found.append(Finding(name, SKIPPED, str(reason)))
    except NotThere as missing:
        found.append(Finding(name, FAIL, f"{missing} does not exist", "deploy again: `make deploy`"))
    except NotDone:
        raise
    except Exception as error:  # noqa: BLE001 - one check that breaks off must not hide the others
        found.append(
            Finding(name, WARN, f"this check failed unexpectedly ({type(error).__name__})", "please report this error")
        )
    return found


def _shown(found: list[Finding], counts: Counter[str], console: Console) -> None:
    width = max(len(finding.check) for finding in found)
    for finding in found:
        line = Text.assemble(
            (finding.state.ljust(8), STYLES[finding.state]), finding.check.ljust(width + 2), finding.found
        )
        console.print(line, soft_wrap=True)
        if finding.advice:
            console.print(Text(f"{'':{width + 10}}→ {finding.advice}", style="dim"), soft_wrap=True)
    words = [Text.assemble(f"{counts[state]} ", (state, STYLES[state])) for state in STATES if counts[state]]
    console.print()
    console.print(Text(" · ").join(words))
