"""The columns of each table that the command line prints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from rich.text import Text

from portaria_cli.terminal.cells import age, brief, none, or_none, since, span, to_the_hour, until_in


class Column(NamedTuple):
    """A narrow table leaves out columns with a high `extra` first, and never those with 0."""

    title: str
    cell: Callable[[dict[str, Any]], Text]
    extra: int = 0
    is_whole: bool = False


def _of(field: str, extra: int = 0, title: str = "", *, is_whole: bool = False) -> Column:
    """A column with one field, abbreviated."""
    return Column(title or field.replace("_", " "), lambda item: brief(item.get(field)), extra, is_whole)


def _time(field: str, extra: int = 0) -> Column:
    return Column(field.removesuffix("_at"), lambda item: or_none(item.get(field), since), extra, is_whole=True)


def token_age(item: dict[str, Any]) -> Text:
    days = item.get("age_days")
    return none() if days is None else age(days, rotates=item.get("kind") not in ("oauth2", "client_credentials"))


def _next_try(item: dict[str, Any]) -> Text:
    at = item["next_try_at"]
    return Text(f"in {until_in(at)}" if at else "now")


def _oldest(item: dict[str, Any]) -> Text:
    age_s = item["oldest_age_s"]
    return none() if age_s is None else Text(span(age_s))


def _waited(item: dict[str, Any]) -> Text:
    """The age of a dead letter."""
    return Text(since(item["set_aside_at"]).removesuffix(" ago"))


def _used(item: dict[str, Any]) -> Text:
    """When the new or the old token was last used."""
    used = max(item["last_used_at"] or "", item["previous_last_used_at"] or "")
    return Text(to_the_hour(used)) if used else Text("never", style="dim")


def _overlap(item: dict[str, Any]) -> Text:
    until = item["previous_until"]
    return Text(f"ends in {until_in(until)}", style="yellow") if until else none()


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
    return Text(", ".join(offer["accepted"])) if offer else none()


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
        _of("fields", 3), Column("age", token_age, is_whole=True), _time("updated_at", 5),
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
        _of("id", is_whole=True), _of("name"), _of("scopes", 1), Column("token's age", token_age, is_whole=True),
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
        _of("name", is_whole=True), _of("state", is_whole=True), _of("reason", 1), _of("host", 2), _time("since", 3),
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
