"""Install links: a URL that starts an install for one customer, and what the install is then given.

A link's token is 32 random bytes in its URL; the table holds its SHA-256 only, as the link's id. What the link was created with
(tags, return URL, connection) is in its item and goes from there into the state of each authorization, never into a URL.
`install_sessions` opens links. A link is for one of three purposes:

    install     any account installs the OAuth client's application
    reconnect   exactly one connection is authorized again
    claim       the tags are attached to the connection of an account that has installed or will install without a link
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

from portaria.aws.table import Item, Table
from portaria.core import clock, tags
from portaria.core.callbacks import Secret
from portaria.core.errors import Rejected
from portaria.core.item_keys import INSTALL_LINKS_LIST, install_link_id, install_link_key, install_link_list_key

INSTALL, RECONNECT, CLAIM = "install", "reconnect", "claim"
# How long a link that has ended is kept, so that its page can say what has happened.
KEPT_AFTER_END = timedelta(days=7)


@dataclass(frozen=True)
class InstallLink:
    """`account_id` is the only account that may use the link, empty for any. `account_host` and `scopes` are for providers that
    are asked for one connection: the host that the client's secret goes to and the scopes to request. `language` is `pt`, `es`,
    `en`, or empty for the browser's. Times are ISO 8601; `used_at` is empty for a link that was not used or that can be used
    again."""

    purpose: str
    platform: str
    client: str
    connection: str = ""
    account_id: str = ""
    account_host: str = ""
    scopes: str = ""
    tags: tags.Tags | None = None
    return_url: str = ""
    language: str = ""
    single_use: bool = True
    id: str = ""
    created_at: str = ""
    expires_at: str = ""
    used_at: str = ""


class LinkPage(NamedTuple):
    """`cursor` is None on the last page."""

    links: list[InstallLink]
    cursor: str | None


TEXTS = (
    "purpose",
    "platform",
    "client",
    "connection",
    "account_id",
    "account_host",
    "scopes",
    "return_url",
    "language",
)


def create(table: Table, link: InstallLink, life: timedelta) -> tuple[str, Secret]:
    """Store a link; returns its id and its token. The token cannot be read again."""
    token = secrets.token_urlsafe(32)
    link_id, now = install_link_id(token), clock.now()
    pk, sk = install_link_key(link_id)
    list_pk, list_sk = install_link_list_key(link_id, clock.to_iso(now))
    item: Item = {name: value for name in TEXTS if (value := getattr(link, name))}
    item |= {
        "pk": pk,
        "sk": sk,
        "list_pk": list_pk,
        "list_sk": list_sk,
        "id": link_id,
        "created_at": clock.to_iso(now),
        "ends_at": int((now + life).timestamp()),
        "expires_at": int((now + life + KEPT_AFTER_END).timestamp()),
        "single_use": 1 if link.single_use else 0,
    }
    if link.tags:
        item["tags"] = tags.encode(link.tags)
    table.put(item)
    return link_id, Secret(token)


def get(table: Table, link_id: str) -> InstallLink:
    """Raises `Rejected` (404 `unknown_install_link`)."""
    item = table.get(*install_link_key(link_id))
    if not item:
        detail = "there is no install link with this id; links are kept for a week after they end"
        raise Rejected("unknown_install_link", detail, status=404)
    return _read(item)


def list_page(table: Table, cursor: str | None, limit: int) -> LinkPage:
    """Newest first."""
    items, next_cursor = table.query(INSTALL_LINKS_LIST, index="listing", newest_first=True, cursor=cursor, limit=limit)
    return LinkPage([_read(item) for item in items], next_cursor)


def delete(table: Table, link_id: str) -> None:
    """A link that is deleted cannot be opened. One that was opened before can still be finished in that browser."""
    table.delete(*install_link_key(link_id))


def _read(item: Item) -> InstallLink:
    return InstallLink(
        **{name: item[name] for name in TEXTS if name in item},
        tags=tags.decode(item.get("tags", "")),
        single_use=bool(item["single_use"]),
        id=item["id"],
        created_at=item["created_at"],
        expires_at=clock.epoch_to_iso(item["ends_at"]),
        used_at=item.get("used_at", ""),
    )
