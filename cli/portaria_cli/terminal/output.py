"""Output for people: tables that fit the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from portaria_cli.terminal.cells import as_text, since, styled, to_the_hour, until_in
from portaria_cli.terminal.columns import (
    BACKFILLS,
    COLUMNS,
    OUTCOMES,
    RECONCILIATIONS,
    REDRIVEN,
    STARTED,
    Column,
    token_age,
)

# A cell that is longer than this and than half of the terminal is broken into lines.
LONGEST_CELL = 48
MOST_ON_A_TERMINAL = 50
TITLES = {
    "oauth-clients": "OAuth client",
    "connections": "connection",
    "routes": "route",
    "install-links": "install link",
    "installs": "install",
    "private-integrations": "private integration",
    "webhooks": "webhook",
    "webhook-deliveries": "webhook delivery",
    "console-sessions": "console session",
    "audit": "audit entry",
    "receipts": "receipt",
    "destinations": "destination",
    "dead-letters": "dead letter",
    "platforms": "platform",
    "scopes": "scope",
}


def error_line(sentence: str) -> Text:
    return Text.assemble(("error: ", "bold red"), sentence)


def plural_of(kind: str) -> str:
    title = TITLES[kind]
    return f"{title.removesuffix('y')}ies" if title.endswith("y") else f"{title}s"


def waiting(count: int, *, deleted: bool = False) -> str:
    """About how many records wait for a destination, and what becomes of them if it is deleted."""
    said, becomes = (
        ("1 record waits", "becomes a dead letter")
        if count == 1
        else (f"{count:,} records wait", "become dead letters")
    )
    return f"About {said} for it, and {becomes}." if deleted else f"About {said} for it."


def listed(
    kind: str, items: list[dict[str, Any]], console: Console, *, filters: Mapping[str, str] | None = None
) -> None:
    """A table, or a sentence with the `filters` that were given if there are no items."""
    if not items:
        given = ", ".join(f"{name} {value}" for name, value in (filters or {}).items())
        console.print(Text(f"There are no {plural_of(kind)}{f' with {given}' if given else ''}.", style="dim"))
        return
    print_table(COLUMNS[kind], items, console)


def print_table(columns: Sequence[Column], items: Sequence[dict[str, Any]], console: Console) -> None:
    """A table with the columns that fit, the most important ones first."""
    longest = max(LONGEST_CELL, console.width // 2)
    chosen = [column for column in columns if not column.extra]
    for more in sorted((column for column in columns if column.extra), key=lambda column: column.extra):
        wider = [column for column in columns if column in chosen or column is more]
        if _width(_table(wider, items, longest), console) <= console.width:
            chosen = wider
    console.print(_table(chosen, items, longest))


def _width(table: Table, console: Console) -> int:
    return Measurement.get(console, console.options.update(width=1_000), table).maximum


def _table(columns: Sequence[Column], items: Sequence[dict[str, Any]], longest: int) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
    for column in columns:
        # Names are copied into the next command, so they stay whole.
        table.add_column(
            column.title, overflow="fold", no_wrap=column.is_whole, max_width=None if column.is_whole else longest
        )
    for item in items:
        table.add_row(*(column.cell(item) for column in columns))
    return table


def shown(item: dict[str, Any], console: Console) -> None:
    told = {field: _whole(field, value, item) for field, value in item.items() if value not in (None, "", {}, [])}
    width = max((len(field) for field in told), default=0)
    for field, value in told.items():
        for number, line in enumerate(value.split("\n")):
            label = (field if number == 0 else "").ljust(width)
            # The terminal wraps the line, so that a URL that is copied stays whole.
            console.print(Text.assemble((label, "dim"), "  ", line), soft_wrap=True)


def outcomes(entries: list[dict[str, Any]], counts: dict[str, int], console: Console) -> None:
    """The entries that failed, each with the reason, and the number of entries with each outcome."""
    if entries:
        most = MOST_ON_A_TERMINAL if console.is_terminal else len(entries)
        print_table(OUTCOMES, entries[:most], console)
        if len(entries) > most:
            console.print(f"and {len(entries) - most:,} more; --json shows all", style="dim")
        console.print()
    words = [Text.assemble(f"{count:,} ", styled(outcome)) for outcome, count in counts.items()]
    console.print(Text(" · ").join(words) if words else Text("The file has no entries.", style="dim"))


def redriven(
    letters: list[dict[str, Any]], all_letters: list[dict[str, Any]], counts: dict[str, int], console: Console
) -> None:
    """The dead letters that need attention, and the number of dead letters with each outcome."""
    if letters:
        most = MOST_ON_A_TERMINAL if console.is_terminal else len(letters)
        print_table(REDRIVEN, letters[:most], console)
        if len(letters) > most:
            console.print(f"and {len(letters) - most:,} more; --json shows all", style="dim")
        console.print()
    words = [Text.assemble(f"{count:,} ", styled(outcome)) for outcome, count in counts.items()]
    records = sum(letter["record_count"] for letter in all_letters)
    console.print(
        Text(" · ").join([*words, Text(f"{records:,} records")])
        if words
        else Text("There are no dead letters.", style="dim")
    )


def started(items: list[dict[str, Any]], console: Console) -> None:
    """Backfills that were started."""
    print_table(STARTED, items, console)


def backfills(found: dict[str, Any], console: Console) -> None:
    for field, title, columns in (
        ("runs", "backfills", BACKFILLS),
        ("reconciliations", "reconciliations", RECONCILIATIONS),
    ):
        if found[field]:
            print_table(columns, found[field], console)
        else:
            console.print(f"There are no {title}.", style="dim")


def _whole(field: str, value: Any, item: dict[str, Any]) -> Text:
    if isinstance(value, dict):
        return Text("\n".join(f"{name}: {as_text(inner)}" for name, inner in value.items()))
    if isinstance(value, list):
        return Text("\n".join(map(as_text, value)))
    if field == "age_days":
        return token_age(item)
    if field.endswith("last_used_at"):
        return Text(f"{value} ({to_the_hour(value)})")
    with suppress(ValueError, TypeError):
        if field.endswith("_at"):
            return Text(f"{value} ({since(value)})")
        if field.endswith("_until"):
            return Text(f"{value} ({until_in(value)} left)")
    return styled(as_text(value))
