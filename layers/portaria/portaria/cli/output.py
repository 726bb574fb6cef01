"""What people see: tables that fit their terminal. Programs get JSON instead."""

from __future__ import annotations

import json
import sys
from base64 import b64decode
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

COLUMNS = {
    "oauth-clients": ("platform", "name", "client_id", "scopes"),
    "connections": ("name", "platform", "kind", "state", "label", "fields", "age_days", "updated_at"),
    "routes": ("name", "source", "object", "destination", "mapping", "dedupe_fields", "priority"),
    "installs": ("id", "received_at", "state", "reason", "account_host", "connection"),
}
TITLES = {
    "oauth-clients": "OAuth client",
    "connections": "connection",
    "routes": "route",
}
STYLES = {
    "created": "green", "updated": "yellow", "unchanged": "dim",
    "connected": "green", "failed": "red", "needs_reconnect": "red", "received": "yellow", "exchanging": "yellow",
    "pending": "yellow", "removed": "dim",
}  # fmt: skip


def error_line(sentence: str) -> Text:
    return Text.assemble(("error: ", "bold red"), sentence)


def listed(kind: str, items: list[dict[str, Any]], console: Console) -> None:
    if not items:
        console.print(f"There are no {kind.replace('oauth-', 'OAuth ')}.", style="dim")
        return
    table = _table(*(column.removesuffix("_at").replace("_", " ") for column in COLUMNS[kind]))
    for item in items:
        table.add_row(*(_brief(column, item.get(column)) for column in COLUMNS[kind]))
    console.print(table)


def shown(item: dict[str, Any], console: Console) -> None:
    told = {field: _whole(field, value) for field, value in item.items() if value not in (None, "", {}, [])}
    width = max(len(field) for field in told)
    for field, value in told.items():
        for number, line in enumerate(value.split("\n")):
            label = (field if number == 0 else "").ljust(width)
            # Wrapped by the terminal, not here: what is copied from it, a URL say, stays whole.
            console.print(Text.assemble((label, "dim"), "  ", line), soft_wrap=True)


def configured(done: list[dict[str, Any]], console: Console) -> None:
    """What `configure` did, and what is left for the person to do."""
    if not done:
        console.print("The file names nothing.", style="dim")
        return
    table = _table("", "name", "change")
    for item in done:
        name = f"{item['platform']}/{item['name']}" if item["resource"] == "oauth-clients" else item["name"]
        table.add_row(TITLES[item["resource"]], Text(name), _styled(item["change"]))
    console.print(table)
    for item in done:
        # Where no person is asked, none comes back.
        if item["resource"] == "oauth-clients" and item.get("grant") != "client_credentials":
            console.print(
                f"\nRegister this redirect URI with {item['platform']}, exactly as it stands here:", style="bold"
            )
            console.print(Text(item["redirect_uri"]), soft_wrap=True)
            if item["install_page_url"]:
                console.print("Customers can start an install at:", style="bold")
                console.print(Text(item["install_page_url"]), soft_wrap=True)
    warnings = [(item["name"], warning) for item in done for warning in item.get("warnings", [])]
    if warnings:
        console.print()
    for name, warning in warnings:
        console.print(Text.assemble(("warning: ", "bold yellow"), f"{name}: {warning}"), soft_wrap=True)


def called(answer: dict[str, Any]) -> None:
    """The answer to a call: its status on standard error, its body as it is on standard output, JSON indented for eyes."""
    click.echo(f"{answer['status']} {answer['headers'].get('content-type', '')}".rstrip(), err=True)
    if "body_base64" in answer:
        sys.stdout.buffer.write(b64decode(answer["body_base64"]))
        return
    body: str = answer["body"]
    if sys.stdout.isatty():
        with suppress(ValueError, RecursionError):
            body = json.dumps(json.loads(body), indent=2, ensure_ascii=False)
        body += "" if not body or body.endswith("\n") else "\n"
    click.echo(body, nl=False)


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        # A name is there to be copied into the next command.
        table.add_column(column, overflow="fold", no_wrap=column in ("id", "name"))
    return table


def _brief(column: str, value: Any) -> Text:
    if value in (None, "", {}, []):
        return Text("default" if column == "mapping" else "–", style="dim")
    if column.endswith("_at"):
        return Text(_ago(value))
    if column == "mapping":
        return Text(f"{len(value)} attributes")
    if isinstance(value, dict):
        return Text(" ".join(str(inner) for inner in value.values()))
    if isinstance(value, list):
        return Text(", ".join(map(str, value)))
    return _styled(str(value))


def _whole(field: str, value: Any) -> Text:
    if isinstance(value, dict):
        return Text("\n".join(f"{name}: {inner}" for name, inner in value.items()))
    if isinstance(value, list):
        return Text("\n".join(map(str, value)))
    if field.endswith("_at"):
        return Text(f"{value} ({_ago(value)})")
    return _styled(str(value))


def _styled(word: str) -> Text:
    return Text(word, style=STYLES.get(word, ""))


def _ago(iso: str) -> str:
    seconds = max(0, int((datetime.now(UTC) - datetime.fromisoformat(iso)).total_seconds()))
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"
