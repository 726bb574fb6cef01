"""Listing and showing installs: what arrived, its state, and how a failed one can be tried again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field

from portaria.api.operation import ApiRequest, Filters, Reply, page
from portaria.api.rules import tag_filters
from portaria.api.schemas import Output, Time
from portaria.api.validation import MOMENT, NAME, PLATFORM_NAME, Matching, read_moment
from portaria.aws import filter_index, merged_pages
from portaria.aws.table import Item, Table, encode_cursor
from portaria.connections import oauth_clients, tag_index
from portaria.core import clock
from portaria.core.errors import Rejected
from portaria.core.item_keys import INSTALL_STATES, client_install_list, install_key, install_list
from portaria.core.tags import INDEXED

FILTERS: Filters = {
    tag_filters.NAME: tag_filters.RULE,
    "client": Matching(rf"{PLATFORM_NAME}/{NAME}", "an OAuth client as platform/name, such as kommo/acme"),
    "state": INSTALL_STATES,
    "reason": Matching(r"[a-z][a-z0-9_]{0,63}", "why installs failed, such as code_expired"),
    "since": MOMENT,
}
# How many installs one call searches for those with a reason.
PAGE_SIZE, MAX_PAGES = 100, 10


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
    began_at: Time | None = Field(description="When the code exchange was first tried.")
    stored_at: Time | None = Field(description="When the credentials were stored for the connection.")
    connected_at: Time | None = Field(description="When the connection was ready.")
    failed_at: Time | None = Field(description="When the install failed.")
    reconnect_url: str | None = Field(description="Where the customer can install again. Only for a failed install.")
    link: str | None = Field(description="The id of the install link that the install began with.")
    tags: dict[str, str] = Field(description="The tags of its install link, or else those of the connection.")
    return_url: str | None = Field(description="Where the customer returned to.")


def get(asked: ApiRequest) -> Reply:
    """Raises `Rejected` (404 `unknown_install`)."""
    item = asked.context.table.get(*install_key(asked.path["id"]))
    if not item:
        raise Rejected("unknown_install", "there is no install with this id; installs are kept for 90 days", status=404)
    return Reply(show(asked.context.table, item))


def list_page(asked: ApiRequest) -> Reply:
    """Newest first. With a reason, a page with a cursor may be short. Raises `Rejected` (`bad_cursor`, `bad_since`)."""
    if tag_filters.NAME in asked.filters:
        return _of_customer(asked)
    table, filters = asked.context.table, asked.filters
    since = clock.to_iso(read_moment(filters["since"], "since")) if "since" in filters else ""
    states = [filters["state"]] if "state" in filters else ["failed"] if "reason" in filters else list(INSTALL_STATES)
    if "client" in filters:
        platform, _, client = filters["client"].partition("/")
        partitions, index = [client_install_list(state, platform, client) for state in states], filter_index.INDEX
    else:
        partitions, index = [install_list(state) for state in states], "listing"

    def read(cursor: str | None, limit: int) -> tuple[list[Item], str | None]:
        found, next_cursor = merged_pages.merged_page(
            table, partitions, index=index, cursor=cursor, limit=limit, newest_first=True, since=since
        )
        if index == filter_index.INDEX:
            found = [item for item in filter_index.read_items(table, found) if item.get("filter_pk") in partitions]
        return found, next_cursor

    if "reason" in filters:
        found, next_cursor = _with_reason(read, filters["reason"], asked.cursor, asked.limit)
    else:
        found, next_cursor = read(asked.cursor, asked.limit)
    return page([show(table, item) for item in found], next_cursor)


def _with_reason(
    read: Callable[[str | None, int], tuple[list[Item], str | None]], reason: str, cursor: str | None, limit: int
) -> tuple[list[Item], str | None]:
    found: list[Item] = []
    for _ in range(MAX_PAGES):
        items, cursor = read(cursor, PAGE_SIZE)
        found += [item for item in items if item.get("reason") == reason]
        if len(found) >= limit:
            is_last = len(found) == limit and not cursor
            # A cursor is the place of the last install that was returned.
            return found[:limit], None if is_last else encode_cursor(found[limit - 1]["list_sk"])
        if not cursor:
            break
    return found, cursor


def _of_customer(asked: ApiRequest) -> Reply:
    table, customer_id = asked.context.table, tag_filters.read(asked)
    ids, next_cursor = tag_index.find_page(
        table, tag_index.INSTALL_PREFIX, customer_id, asked.cursor, asked.limit, newest_first=True
    )
    items = table.get_many(install_key(each) for each in ids)
    found = [items[install_key(each)] for each in ids if install_key(each) in items]
    return page([show(table, item) for item in found if item.get("tags", {}).get(INDEXED) == customer_id], next_cursor)


def show(table: Table, item: Item) -> dict[str, Any]:
    """An install as the API returns it. Of a failed one the OAuth client is read, for the link to reconnect."""
    shown = {
        field: item.get(field)
        for field in (
            "state", "reason", "detail", "platform", "client", "account_host", "connection", "received_at",
            "began_at", "stored_at", "connected_at", "failed_at",
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
        "link": item.get("link"),
        "tags": item.get("tags", {}),
        "return_url": item.get("return_url"),
    }
