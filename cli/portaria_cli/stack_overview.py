"""The commands `overview` and `settings`: what is going on in the stack, and how it is set up."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from portaria_cli.command_classes import Command
from portaria_cli.context import CliContext
from portaria_cli.errors import Document
from portaria_cli.terminal import output

# A count is overdue when two more runs of `count_states` should have made it.
OVERDUE_S = 600


@click.command("overview", cls=Command)
@click.pass_obj
def overview(cli: CliContext) -> None:
    """Show counts by state, grants that end, queues and alarms."""
    found = cli.api.get("overview")
    cli.print(found, partial(_shown, found))


@click.command("settings", cls=Command)
@click.pass_obj
def settings(cli: CliContext) -> None:
    """Show the stack's parameters, limits and pages at AWS."""
    found = cli.api.get("settings")
    cli.print(found, partial(output.shown, _flat(found)), is_long=True)


def _flat(found: Document) -> Document:
    return found | {
        "parameters": {each["name"]: each["value"] for each in found["parameters"] or ()},
        "limits": {each["name"]: f"{each['unit_count']:,} {each['unit']}" for each in found["limits"]},
        "links": {each["name"]: each["url"] for each in found["links"]},
        # A check has a line for each of its findings.
        "findings": [f"{each['check']}: {each['state']}: {each['found']}" for each in found["findings"]],
    }


def _shown(found: Document, console: Console) -> None:
    at_least = {part["name"]: "" if part["is_complete"] else "at least " for part in found["parts"]}

    def counted(part: str, label: str, counts: list[dict[str, Any]]) -> None:
        text = _counts(counts) or "none"
        _line(console, label, at_least[part] + text if part in at_least else "not counted yet")

    for window in found["installs"]:
        counted("installs", f"installs {window['window']}", window["states"])
        if window["failures"]:
            counted("installs", "  failures", window["failures"])
    counted("connections", "connections", found["connections"])
    counted("receipts", "receipts 24h", found["receipts"])
    counted("dead_letters", "dead letters", found["dead_letters"])
    for part in found["parts"]:
        if _seconds_since(part["next_count_at"]) > OVERDUE_S:
            _line(console, "old count", f"{part['name']}: counted last at {part['counted_at']}; run `portaria doctor`")
    for quota in found["quotas"]:
        _line(console, f"quota {quota['subscription']}", f"{quota['used_count']:,} of {quota['quota_count']:,}")
    for grant in found["grants"]:
        _line(console, "grant ends", f"{grant['ends_at']}  {grant['connection']} ({grant['cause']})")
    for destination in found["destinations"]:
        reason = destination["reason"] or "no pause"
        _line(console, "destination", f"{destination['name']}: {destination['state']}, {reason}")
    waits = [f"{each['name']} {each['oldest_age_s']} s" for each in found["queues"] or () if each["oldest_age_s"]]
    _line(console, "queues", "unknown" if found["queues"] is None else ", ".join(waits) or "empty")
    for alarm in found["alarms"] or ():
        _line(console, "alarm", f"{alarm['name']} since {alarm['since']}")
    if not found["alarms"]:
        _line(console, "alarms", "unknown" if found["alarms"] is None else "none")


def _seconds_since(moment: str) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()


def _counts(counts: list[dict[str, Any]]) -> str:
    return ", ".join(f"{each['total_count']:,} {each['name']}" for each in counts if each["total_count"])


def _line(console: Console, label: str, text: str) -> None:
    console.print(Text.assemble((label.ljust(16), "dim"), "  ", text or "none"), soft_wrap=True)
