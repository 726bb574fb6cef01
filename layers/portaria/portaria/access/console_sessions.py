"""Sessions of the console: a one-time link that an AWS principal asks for, and the browser's session that it opens.

The link holds 32 random bytes and opens once, within two minutes. Opening it creates the session in the same transaction, so a
link is never used without a session. The table holds the SHA-256 of a link's and of a session's secret, never the secret.

A session ends eight hours after it began, or after one hour without a request. What it may do is set when the link is created
and cannot grow.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from portaria.aws.table import Conflict, Item, Table, put_of, update_of
from portaria.core import clock
from portaria.core.callbacks import Secret
from portaria.core.errors import Rejected

LINK_LIFE = timedelta(minutes=2)
SESSION_LIFE = timedelta(hours=8)
IDLE_LIFE = timedelta(hours=1)
# A session's last use is written at most once in this time.
TOUCH_EVERY = timedelta(minutes=1)
# An ended session is listed for this long, until DynamoDB deletes it.
LISTED_FOR = timedelta(days=1)
LIST = "CONSOLE_SESSIONS"
_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")
_MAX_BROWSER_LENGTH = 200


@dataclass(frozen=True)
class ConsoleSession:
    """`principal` is the ARN of the AWS principal who asked for the link. `scopes` is None where it may do everything.

    `id` names the session in listings and in the audit trail; it does not open it. Times are ISO 8601.
    """

    id: str
    principal: str
    scopes: tuple[str, ...] | None
    created_at: str
    last_used_at: str
    ends_at: str
    source: str = ""
    browser: str = ""

    def ended(self, now: datetime) -> bool:
        idle_end = clock.from_iso(self.last_used_at) + IDLE_LIFE
        return now >= min(clock.from_iso(self.ends_at), idle_end)


def create_link(table: Table, principal: str, scopes: tuple[str, ...] | None) -> tuple[Secret, datetime]:
    """Store a link. Returns its secret and when it expires."""
    token = secrets.token_urlsafe(32)
    expires_at = clock.now() + LINK_LIFE
    pk, sk = _link_key(token)
    table.put(
        {
            "pk": pk,
            "sk": sk,
            "principal": principal,
            "scopes": None if scopes is None else list(scopes),
            "expires_at": int(expires_at.timestamp()),
        },
        condition="attribute_not_exists(pk)",
    )
    return Secret(token), expires_at


def open_link(table: Table, token: Secret, source: str, browser: str) -> tuple[ConsoleSession, Secret]:
    """Use a link. Returns the session and the secret that the browser's cookie holds.

    Raises `Rejected` (403 `console_link_invalid`) where the link is unknown, expired or used: a page must not tell which.
    """
    if not _TOKEN.fullmatch(token.reveal()):
        raise _invalid_link()
    link = table.get(*_link_key(token.reveal()))
    now = clock.now()
    # By the clock, since DynamoDB deletes expired items up to days late.
    if not link or link.get("used_at") or int(link["expires_at"]) <= int(now.timestamp()):
        raise _invalid_link()
    cookie = secrets.token_urlsafe(32)
    scopes = link.get("scopes")
    session = ConsoleSession(
        session_id(Secret(cookie)),
        link["principal"],
        None if scopes is None else tuple(scopes),
        created_at=clock.to_iso(now),
        last_used_at=clock.to_iso(now),
        ends_at=clock.to_iso(now + SESSION_LIFE),
        source=source,
        browser=browser[:_MAX_BROWSER_LENGTH],
    )
    use = update_of(
        *_link_key(token.reveal()),
        "SET used_at = :now",
        "attribute_exists(pk) AND attribute_not_exists(used_at)",
        {":now": clock.to_iso(now)},
    )
    try:
        table.write_all([use, put_of(_to_item(session), "attribute_not_exists(pk)")])
    except Conflict:
        raise _invalid_link() from None
    return session, Secret(cookie)


def find(table: Table, cookie: Secret) -> ConsoleSession | None:
    """The session that a cookie opens, or None where it has ended or was revoked. Notes that it was used."""
    if not _TOKEN.fullmatch(cookie.reveal()):
        return None
    item = table.get(*_session_key(session_id(cookie)))
    now = clock.now()
    if not item or (session := _read(item)).ended(now):
        return None
    if clock.from_iso(session.last_used_at) + TOUCH_EVERY <= now:
        try:
            table.update(
                *_session_key(session.id),
                "SET last_used_at = :now",
                condition="attribute_exists(pk)",
                values={":now": clock.to_iso(now)},
            )
        except Conflict:
            return None
    return session


def revoke(table: Table, session: str) -> None:
    """End a session at once. Raises `Rejected` (404 `unknown_console_session`)."""
    try:
        table.delete(*_session_key(session), condition="attribute_exists(pk)")
    except Conflict:
        raise Rejected("unknown_console_session", f"there is no console session {session}", status=404) from None


def list_page(table: Table, cursor: str | None, limit: int) -> tuple[list[ConsoleSession], str | None]:
    """Newest first, those that have ended today included."""
    items, cursor = table.query(LIST, index="listing", newest_first=True, cursor=cursor, limit=limit)
    return [_read(item) for item in items], cursor


def session_id(cookie: Secret) -> str:
    return hashlib.sha256(cookie.reveal().encode()).hexdigest()[:40]


def _to_item(session: ConsoleSession) -> Item:
    pk, sk = _session_key(session.id)
    expires_at = clock.from_iso(session.ends_at) + LISTED_FOR
    return {
        "pk": pk,
        "sk": sk,
        "list_pk": LIST,
        "list_sk": f"{session.created_at}#{session.id}",
        "principal": session.principal,
        "scopes": None if session.scopes is None else list(session.scopes),
        "created_at": session.created_at,
        "last_used_at": session.last_used_at,
        "ends_at": session.ends_at,
        "address": session.source,
        "browser": session.browser,
        "expires_at": int(expires_at.timestamp()),
    }


def _read(item: Item) -> ConsoleSession:
    scopes = item.get("scopes")
    return ConsoleSession(
        item["pk"].partition("#")[2],
        item["principal"],
        None if scopes is None else tuple(scopes),
        item["created_at"],
        item["last_used_at"],
        item["ends_at"],
        item.get("address", ""),
        item.get("browser", ""),
    )


def _link_key(token: str) -> tuple[str, str]:
    return f"CONSOLE_LINK#{hashlib.sha256(token.encode()).hexdigest()}", "CONSOLE_LINK"


def _session_key(session: str) -> tuple[str, str]:
    return f"CONSOLE_SESSION#{session}", "CONSOLE_SESSION"


def _invalid_link() -> Rejected:
    detail = "this link does not work: it opens once, within two minutes. Run `portaria console` for a new one"
    return Rejected("console_link_invalid", detail, status=403)
