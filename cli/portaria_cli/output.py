"""Output for people: tables that fit the terminal."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

# The ages in days from which a token should be rotated, and must be.
ROTATE_SOON, ROTATE_NOW = 80, 90
# A cell that is longer than this and than half of the terminal is broken into lines.
LONGEST_CELL = 48
MOST_IN_A_CELL = 2
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
STYLES = {
    "created": "green", "replaced": "yellow", "updated": "yellow", "unchanged": "dim",
    "connected": "green", "failed": "red", "needs_reconnect": "red", "received": "yellow", "exchanging": "yellow",
    "pending": "yellow", "removed": "dim", "running": "yellow",
    "done": "green", "refused": "red", "begun": "yellow",
    "registered": "green", "unknown": "yellow", "not_sent": "yellow",
    "works": "green", "unclear": "yellow",
    "applied": "green", "redriven": "green", "would_redrive": "green", "gone": "yellow", "in_progress": "yellow",
    "open": "yellow", "paused": "red", "waiting": "yellow",
}  # fmt: skip


class Column(NamedTuple):
    """A narrow table leaves out columns with a high `extra` first, and never those with 0."""

    title: str
    cell: Callable[[dict[str, Any]], Text]
    extra: int = 0
    is_whole: bool = False


def error_line(sentence: str) -> Text:
    return Text.assemble(("error: ", "bold red"), sentence)


def plain(text: str) -> Text:
    """Text without markup."""
    return Text(text)


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


# --------------------------------------------------------------------------------------------------------------- columns


def _of(field: str, extra: int = 0, title: str = "", *, is_whole: bool = False) -> Column:
    """A column with one field, abbreviated."""
    return Column(title or field.replace("_", " "), lambda item: _brief(item.get(field)), extra, is_whole)


def _time(field: str, extra: int = 0) -> Column:
    return Column(field.removesuffix("_at"), lambda item: _or_none(item.get(field), since), extra, is_whole=True)


def _age(item: dict[str, Any]) -> Text:
    days = item.get("age_days")
    return _none() if days is None else age(days, rotates=item.get("kind") not in ("oauth2", "client_credentials"))


def _next_try(item: dict[str, Any]) -> Text:
    at = item["next_try_at"]
    return Text(f"in {until_in(at)}" if at else "now")


def _oldest(item: dict[str, Any]) -> Text:
    age_s = item["oldest_age_s"]
    return _none() if age_s is None else Text(_span(age_s))


def _waited(item: dict[str, Any]) -> Text:
    """The age of a dead letter."""
    return Text(since(item["set_aside_at"]).removesuffix(" ago"))


def _used(item: dict[str, Any]) -> Text:
    """When the new or the old token was last used."""
    used = max(item["last_used_at"] or "", item["previous_last_used_at"] or "")
    return Text(_to_the_hour(used)) if used else Text("never", style="dim")


def _overlap(item: dict[str, Any]) -> Text:
    until = item["previous_until"]
    return Text(f"ends in {until_in(until)}", style="yellow") if until else _none()


def _mapping(item: dict[str, Any]) -> Text:
    count = len(item.get("mapping") or {})
    return Text(f"{count} attribute{'s' if count > 1 else ''}") if count else Text("default", style="dim")


def _by(item: dict[str, Any]) -> Text:
    """The name of a private integration, or the last part of an AWS principal's ARN, a user's or a session's name."""
    is_principal = item["by"].startswith("arn:")
    name = item["by_name"] or ""
    return Text(name.rpartition("/")[2] if is_principal else name or item["by"])


def _kinds(item: dict[str, Any]) -> Text:
    return Text(", ".join(kind["name"] for kind in item["kinds"]) or "by installs")


def _accepted(item: dict[str, Any]) -> Text:
    offer = item["destination"]
    return Text(", ".join(offer["accepted"])) if offer else _none()


def _why(item: dict[str, Any]) -> Text:
    return Text(item["detail"] or item["reason"] or "")


COLUMNS = {
    "platforms": (
        _of("name", is_whole=True), Column("kinds of connection", _kinds),
        Column("installs", lambda item: Text("yes" if item["is_installable"] else "–"), 2),
        Column("sources", lambda item: Text(", ".join(item["sources"]) or "–"), 1), Column("destination for", _accepted, 1),
    ),
    "oauth-clients": (_of("platform"), _of("name", is_whole=True), _of("client_id", 1), _of("scopes", 2)),
    "connections": (
        _of("name", is_whole=True), _of("platform"), _of("kind", 2), _of("state", is_whole=True), _of("label", 4),
        _of("fields", 3), Column("age", _age, is_whole=True), _time("updated_at", 5),
    ),
    "routes": (
        _of("name", is_whole=True), _of("source", 1), _of("object", 4), _of("destination"),
        Column("mapping", _mapping, 3), _of("dedupe_fields", 2), _of("priority", 5),
    ),
    "install-links": (
        _of("id", is_whole=True), _time("created_at"), _of("purpose", is_whole=True), _of("platform", 3), _of("client", 1),
        _of("connection", 2, is_whole=True), _time("used_at"),
        Column("until (UTC)", lambda item: Text(item["expires_at"][:16].replace("T", " ")), 1),
    ),
    "installs": (
        _of("id", is_whole=True), _time("received_at"), _of("state", is_whole=True), _of("reason", 2),
        _of("account_host", 1), _of("connection", 3, is_whole=True),
    ),
    "private-integrations": (
        _of("id", is_whole=True), _of("name"), _of("scopes", 1), Column("token's age", _age, is_whole=True),
        Column("last used", _used, is_whole=True), Column("old token", _overlap, is_whole=True),
    ),
    "webhooks": (
        _of("id", is_whole=True), _of("state", is_whole=True), _of("url"), _of("events", 1), _of("disabled_reason", 4, "why"),
        _time("failing_since", 2), _time("last_success_at", 3),
    ),
    "webhook-deliveries": (
        _of("id", is_whole=True), _time("event_at", 3), _of("event"), _of("state", is_whole=True), _of("reason", 1),
        _of("attempt_count", 2, "attempts"), _of("last_status", 4, "status"), _time("next_attempt_at", 5),
    ),
    "console-sessions": (
        _of("id", is_whole=True), _of("principal"), _of("is_active", title="active"), _of("scopes", 1),
        _time("last_used_at", 2), _time("ends_at", 3), _of("source", 4), _of("browser", 5),
    ),
    "audit": (
        Column("at (UTC)", lambda item: Text(item["at"][:16].replace("T", " ")), is_whole=True),
        Column("by", _by), Column("operation", lambda item: Text(item["operation"].replace("_", " "))),
        _of("target"), _of("outcome", is_whole=True), _of("reason", 1),
    ),
    "receipts": (
        _of("id", title="receipt", is_whole=True), _time("sent_at"), _of("state", is_whole=True), _of("record_count",
        title="records"),
        _of("object", 4), _of("destination", 3), _of("applied_count", 2, "applied"), _of("failure_counts", 1, "failed"),
        _of("code", 5),
    ),
    "destinations": (
        _of("name", is_whole=True), _of("state", is_whole=True), _of("reason", 1), _time("since", 3),
        Column("next try", _next_try, is_whole=True),
        _of("waiting_record_count", title="waiting"), Column("oldest", _oldest, 2, is_whole=True),
        _of("connection", 4),
    ),
    "dead-letters": (
        _of("id", is_whole=True), Column("age", _waited, is_whole=True), _of("state", is_whole=True), _of("record_count",
        title="records"),
        _of("reason"), _of("source"), _of("destination"), _of("route", 2), _of("detail", 1),
    ),
}  # fmt: skip
REDRIVEN = (
    _of("id", title="letter", is_whole=True), _of("record_count", title="records"), _of("outcome", is_whole=True),
    _of("reason", title="why"),
)  # fmt: skip
STARTED = (_of("route", title="backfill of", is_whole=True), _of("state", is_whole=True))
BACKFILLS = (
    _of("route", title="backfill of", is_whole=True), _of("object", 3), _of("state", is_whole=True), _of("record_count",
    title="records"),
    _time("started_at", 1), _time("finished_at", 4), _of("detail", 2, "why"),
)  # fmt: skip
RECONCILIATIONS = (_of("object", title="changes of", is_whole=True), _time("since"), _time("due_at", 1))
OUTCOMES = (
    _of("place", is_whole=True),
    _of("name"),
    _of("outcome", is_whole=True),
    Column("why", _why),
)


def _brief(value: Any) -> Text:
    if value in (None, "", {}, []):
        return _none()
    if isinstance(value, dict):
        return Text(" ".join(str(inner) for inner in value.values()))
    if isinstance(value, list):
        more = f" and {len(value) - MOST_IN_A_CELL} more" if len(value) > MOST_IN_A_CELL else ""
        return Text(", ".join(map(str, value[:MOST_IN_A_CELL])) + more)
    return styled(str(value))


def _or_none(value: Any, told: Callable[[Any], str]) -> Text:
    return Text(told(value)) if value else _none()


def _none() -> Text:
    return Text("–", style="dim")


def _whole(field: str, value: Any, item: dict[str, Any]) -> Text:
    if isinstance(value, dict):
        return Text("\n".join(f"{name}: {_as_text(inner)}" for name, inner in value.items()))
    if isinstance(value, list):
        return Text("\n".join(map(_as_text, value)))
    if field == "age_days":
        return _age(item)
    if field.endswith("last_used_at"):
        return Text(f"{value} ({_to_the_hour(value)})")
    with suppress(ValueError, TypeError):
        if field.endswith("_at"):
            return Text(f"{value} ({since(value)})")
        if field.endswith("_until"):
            return Text(f"{value} ({until_in(value)} left)")
    return styled(_as_text(value))


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def styled(word: str) -> Text:
    return Text(word.replace("_", " ") if word == "not_sent" else word, style=STYLES.get(word, ""))


def age(days: int, *, rotates: bool = True) -> Text:
    """A token's age, with a remark if it should be rotated."""
    told = f"{days} d"
    if rotates and days >= ROTATE_NOW:
        return Text(f"{told}: rotate", style="bold red")
    if rotates and days >= ROTATE_SOON:
        return Text(f"{told}: rotate soon", style="yellow")
    return Text(told)


def since(iso: str) -> str:
    seconds = int((datetime.now(UTC) - datetime.fromisoformat(iso)).total_seconds())
    return f"{_span(seconds)} ago" if seconds >= 0 else f"in {_span(-seconds)}"


def until_in(iso: str) -> str:
    """The time that remains, rounded to the nearest unit."""
    return _span(round((datetime.fromisoformat(iso) - datetime.now(UTC)).total_seconds()), round)


def _to_the_hour(iso: str) -> str:
    hours = int((datetime.now(UTC) - datetime.fromisoformat(iso)).total_seconds()) // 3_600
    if hours < 1:
        return "this hour"
    return f"{hours // 24} d ago" if hours >= 24 else f"{hours} h ago"


def _span(seconds: int, whole: Callable[[float], int] = int) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{whole(seconds / size)} {unit}"
    return f"{max(0, seconds)} s"
