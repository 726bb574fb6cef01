"""What `configure` shows: the plan, a line for each step that is done, and a summary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import click
from rich.console import Console
from rich.text import Text

from portaria.cli import output
from portaria.cli.api import Document
from portaria.cli.configure.plan import CREATE, NOTHING, Step

STYLES = {"create": "green", "change": "yellow", "replace": "bold red", "nothing": "dim"}
COLUMNS = (
    output.Column("plan", lambda item: Text(item["action"], style=STYLES[item["action"]]), is_whole=True),
    output.Column("", lambda item: Text(output.TITLES[item["resource"]]), is_whole=True),
    output.Column("name", lambda item: Text(item["name"]), is_whole=True),
    output.Column("what", lambda item: Text(_what(item))),
)


def plan(steps: Sequence[Step], console: Console) -> None:
    if not steps:
        console.print("The file names nothing.", style="dim")
        return
    output.print_table(COLUMNS, [step.document() for step in steps], console)
    for step in steps:
        _warn(step.name, step.warnings, console)


def told(step: Step) -> str:
    return f"{output.TITLES[step.entry.kind]} {step.name}"


def done(step: Step, change: str, console: Console) -> None:
    """One line, as soon as the step is done."""
    console.print(Text.assemble(output.styled(change), " ", told(step)), soft_wrap=True)


def summary(results: Sequence[Document], steps: Sequence[Step], console: Console) -> None:
    """How much was done, and what is left for the person to do."""
    counts = Counter(str(result["change"]) for result in results)
    words = ", ".join(f"{counts[change]} {change}" for change in ("created", "updated", "unchanged") if counts[change])
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


def _what(item: Document) -> str:
    if item["action"] == NOTHING:
        return ""
    fields = ", ".join(item["fields"])
    if not item["reason"]:
        return fields
    return f"{fields} ({item['reason']})" if fields else str(item["reason"])


def listed(steps: Sequence[Step]) -> str:
    return ", ".join(told(step) for step in steps if step.action != NOTHING)


def note(text: str) -> None:
    click.echo(text, err=True)
