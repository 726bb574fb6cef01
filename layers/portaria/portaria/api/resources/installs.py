"""Listing and showing installs: what arrived, its state, and how a failed one can be tried again."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from portaria.api.operation import ApiRequest, Reply, page
from portaria.api.schemas import Output, Time
from portaria.api.validation import read_moment
from portaria.aws.table import Item, Table, cursor_after
from portaria.connections import oauth_clients
from portaria.core import clock
from portaria.core.errors import Rejected
from portaria.core.item_keys import INSTALLS_LIST, install_key

STATES = ("received", "exchanging", "connected", "failed")
# How many items one call reads at most when it looks for a state: enough for a day of many installs, and answered well
# inside the function's time.
MAX_READ = 2_000
PAGE_SIZE = 200


class InstallOutput(Output):
    """One arrival of an authorization code, and what became of it. Kept for 90 days. A value is null if the install has
    not reached that point.
    """

    id: str = Field(description="The install's id.")
    state: Literal["received", "exchanging", "connected", "failed"] = Field(
        description="`received` (the code is stored), `exchanging`, `connected` or `failed`."
    )
    reason: str | None = Field(description="Why the install failed.")
    detail: str | None = Field(description="A sentence about the failure, for people.")
    platform: str = Field(description="The platform that the code came from.")
    client: str = Field(description="The name of the OAuth client that was installed.")
    account_host: str | None = Field(description="The host of the customer's account at the platform.")
    connection: str | None = Field(description="The name of the connection that the install created or renewed.")
    attempt_count: int | None = Field(description="How many times the code exchange was tried.")
    received_at: Time = Field(description="When the code arrived.")
    connected_at: Time | None = Field(description="When the connection was ready.")
    failed_at: Time | None = Field(description="When the install failed.")
    reconnect_url: str | None = Field(description="Where the customer can install again. Only for a failed install.")


def get(asked: ApiRequest) -> Reply:
    """Raises `Rejected` (404 `unknown_install`)."""
    item = asked.context.table.get(*install_key(asked.path["id"]))
    if not item:
        raise Rejected("unknown_install", "there is no install with this id; installs are kept for 90 days", status=404)
    return Reply(show(asked.context.table, item))


def list_page(asked: ApiRequest) -> Reply:
    """Newest first. With a `state` a page can be short, even empty, before the last: the cursor then leads on.

    Raises `Rejected` (`bad_cursor`, `bad_since`).
    """
    table, cursor, limit, state = asked.context.table, asked.cursor, asked.limit, asked.filters.get("state")
    since = clock.to_iso(read_moment(asked.filters["since"], "since")) if "since" in asked.filters else ""
    found: list[Item] = []
    for _ in range(MAX_READ // PAGE_SIZE):
        items, cursor = table.query(
            INSTALLS_LIST,
            index="listing",
            newest_first=True,
            limit=PAGE_SIZE if state else limit,
            cursor=cursor,
            sk_from=since,
        )
        for position, item in enumerate(items):
            if state in (None, item.get("state")):
                found.append(item)
            if len(found) == limit:
                ended = not cursor and position == len(items) - 1
                return page([show(table, item) for item in found], None if ended else cursor_after(item))
        if not cursor:
            break
    return page([show(table, item) for item in found], cursor)


def show(table: Table, item: Item) -> dict[str, Any]:
    """An install as the API returns it. Of a failed one the OAuth client is read, for the link to reconnect."""
    shown = {
        field: item.get(field)
        for field in (
            "state", "reason", "detail", "platform", "client", "account_host", "connection", "received_at",
            "connected_at", "failed_at",
        )
    }  # fmt: skip
    reconnect_url = None
    if item.get("state") == "failed":
        try:
            client = oauth_clients.get(table, item["platform"], item["client"])
            reconnect_url = oauth_clients.reconnect_url(client, item.get("connection", "")) or None
        except Rejected:
            reconnect_url = None
    return {
        "id": item["pk"].partition("#")[2],
        **shown,
        "attempt_count": item.get("attempts"),
        "reconnect_url": reconnect_url,
    }
