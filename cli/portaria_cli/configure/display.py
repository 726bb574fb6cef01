"""What `configure` shows: the plan, a line for each step that is done, and a summary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import click
from rich.console import Console
from rich.text import Text

from portaria_cli.configure.plan import CREATE, NOTHING, Step
from portaria_cli.errors import Document
from portaria_cli.terminal import cells

STYLES = {"create": "green", "change": "yellow", "replace": "bold red", "nothing": "dim"}
CHANGES = ("created", "replaced", "updated", "unchanged")


def plan(steps: Sequence[Step], console: Console, *, warn: bool = True) -> None:
    if not steps:
        console.print("The file names nothing.", style="dim")
        return
    console.print("Plan", style="bold")
    width = max(len(step.action) for step in steps)
    for step in steps:
        # The terminal breaks the lines: names stay whole, to be copied.
        what = f": {_what(step)}" if _what(step) else ""
        line = Text.assemble((step.action.ljust(width), STYLES[step.action]), f"  {step.entry.title}{what}")
        console.print(line, soft_wrap=True)
    for step in steps if warn else ():
        _warn(step.name, step.warnings, console)


def done(step: Step, change: str, console: Console) -> None:
    """One line, as soon as the step is done."""
    # A secret that is written each time leaves everything else as it was.
    also = " (client_secret written)" if change == "unchanged" and "client_secret" in step.fields else ""
    console.print(Text.assemble(cells.styled(change), f" {step.entry.title}{also}"), soft_wrap=True)


def summary(results: Sequence[Document], steps: Sequence[Step], console: Console) -> None:
    """How much was done, and what is left for the person to do."""
    if not results:
        return
    counts = Counter(str(result["change"]) for result in results)
    words = ", ".join(f"{counts[change]} {change}" for change in CHANGES if counts[change])
    console.print(f"\n{words}", style="bold")
    for result, step in zip(results, steps, strict=True):
        if step.entry.kind == "oauth-clients" and (step.action == CREATE or "redirect_uri" in step.fields):
            _redirect_uri(result, console)
    for result in results:
        _warn(str(result["name"]), result.get("warnings", []), console)


def _redirect_uri(client: Document, console: Console) -> None:
    if client.get("grant") == "client_credentials":
        # No person is asked, so none comes back.
        return
    console.print(f"\nRegister this redirect URI with {client['platform']}, exactly as it stands here:", style="bold")
    console.print(Text(client["redirect_uri"]), soft_wrap=True)
    if client["install_page_url"]:
        console.print("Customers can start an install at:", style="bold")
        console.print(Text(client["install_page_url"]), soft_wrap=True)


def _warn(name: str, warnings: Sequence[str], console: Console) -> None:
    for warning in warnings:
        console.print(Text.assemble(("warning: ", "bold yellow"), f"{name}: {warning}"), soft_wrap=True)


def _what(step: Step) -> str:
    """The fields that change, and why where that is not plain."""
    reason = f" ({step.reason})" if step.reason else ""
    return f"{', '.join(step.fields)}{reason}"


def listed(steps: Sequence[Step]) -> str:
    return ", ".join(step.entry.title for step in steps if step.action != NOTHING)


def note(text: str) -> None:
    click.echo(text, err=True)
