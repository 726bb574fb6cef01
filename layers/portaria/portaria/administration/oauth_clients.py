"""Administering OAuth clients: the applications registered with platforms."""

from __future__ import annotations

import re
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from portaria import connections, oauth_clients
from portaria.administration.inputs import Input, PlatformName, SecretText, matching, parse
from portaria.contract import OAuthClient, Rejected, Secret
from portaria.platforms import part
from portaria.table import Conflict, Table
from portaria.vault import Vault

HIDDEN = "*****"


def _https_url(text: str) -> str:
    """Kept exactly as it came: platforms compare it character by character."""
    rule = "must be an https URL of at most 500 printable ASCII characters, without user, query or fragment"
    usable = bool(re.fullmatch(r"https://[\x21-\x7e]{1,492}", text)) and not re.search(r"[@?#\\]", text)
    try:
        usable = usable and bool(urlsplit(text).hostname) and urlsplit(text).port != 0
    except ValueError:
        usable = False
    if not usable:
        raise PydanticCustomError("rule", "{rule}", {"rule": rule})
    return text


ClientName = Annotated[
    str, AfterValidator(matching(r"[a-z0-9][a-z0-9-]{1,31}", "2 to 32 of a-z 0-9 -, for it stands in URLs, no - first"))
]
ClientId = Annotated[str, AfterValidator(matching(r"[\x21-\x7e]{1,255}", "1 to 255 printable ASCII characters"))]
Scopes = Annotated[str, AfterValidator(matching(r"[\x20-\x7e]{0,1000}", "at most 1,000 printable ASCII characters"))]
RedirectUri = Annotated[str, AfterValidator(_https_url)]


class Replacement(Input):
    """Without `client_secret` the stored one stays; without `redirect_uri` it is this API's own."""

    client_id: ClientId
    client_secret: SecretText | None = None
    redirect_uri: RedirectUri | None = None
    scopes: Scopes = ""


class Creation(Replacement):
    platform: PlatformName
    name: ClientName
    client_secret: SecretText


def create(table: Table, vault: Vault, body: dict[str, Any], api_url: str) -> dict[str, Any]:
    """Raises `Rejected` (409 `client_exists`) and `Retryable`.

    The secret is stored before the item that makes it usable. A death between the two leaves a secret that nobody uses;
    creating the client again overwrites it.
    """
    sent = parse(Creation, body)
    _require_install_part(sent.platform)
    client = _client(sent.platform, sent.name, sent, api_url)
    if table.get(*oauth_clients.key(client.platform, client.name)):
        raise _exists(client)
    _store_secret(vault, client, sent.client_secret)
    try:
        oauth_clients.put(table, client, new=True)
    except Conflict:
        raise _exists(client) from None
    return show(client) | _advice(client, api_url)


def replace(table: Table, vault: Vault, platform: str, name: str, body: dict[str, Any], api_url: str) -> dict[str, Any]:
    """Raises `Rejected` (404 `unknown_client`) and `Retryable`. A death half-way is mended by sending the same again."""
    sent = parse(Replacement, body)
    oauth_clients.get(table, platform, name)
    client = _client(platform, name, sent, api_url)
    if sent.client_secret:
        _store_secret(vault, client, sent.client_secret)
    try:
        oauth_clients.put(table, client, new=False)
    except Conflict:
        raise _unknown(platform, name) from None
    return show(client) | _advice(client, api_url)


def get(table: Table, platform: str, name: str, api_url: str) -> dict[str, Any]:
    client = oauth_clients.get(table, platform, name)
    return show(client) | _advice(client, api_url)


def list_page(table: Table, cursor: str | None, limit: int) -> tuple[list[dict[str, Any]], str | None]:
    clients, next_cursor = oauth_clients.list_page(table, cursor, limit)
    return [show(client) for client in clients], next_cursor


def delete(table: Table, vault: Vault, platform: str, name: str) -> None:
    """Raises `Rejected`: 404 `unknown_client`, 409 `client_in_use` while a route or a connection needs it.

    The item goes first, so that none stands without its secret. Where a death left the secret behind, deleting again
    removes it before it answers 404. A client's secret is also in the platform's console: it is removed at once, which
    lets the same name be created again.
    """
    source = f"client:{platform}/{name}"
    if route := next(table.query_all(source, index="by_source"), None):
        raise Rejected("client_in_use", f"the route {route['name']} starts at it: delete that first", status=409)
    # A connection made by an install is called {platform}-{client}-{account}, and another client's name may begin alike.
    for item in table.query_all(connections.LIST, index="listing", sk_prefix=f"{platform}-{name}-"):
        if item.get("client") == name:
            raise Rejected(
                "client_in_use",
                f"the connection {item['name']} renews its tokens with it: delete that first",
                status=409,
            )
    found = table.get(*oauth_clients.key(platform, name))
    if found:
        oauth_clients.delete(table, platform, name)
    vault.remove(vault.client_secret_id(platform, name), at_once=True)
    if not found:
        raise _unknown(platform, name)


def show(client: OAuthClient) -> dict[str, Any]:
    return {
        "platform": client.platform,
        "name": client.name,
        "client_id": client.client_id,
        "client_secret": HIDDEN,
        "redirect_uri": client.redirect_uri,
        "scopes": client.scopes,
        "install_page_url": install_page_url(client),
    }


def install_page_url(client: OAuthClient) -> str:
    """The hosted page that starts an install. Its cookie binds the browser, so it must be on the redirect URI's host."""
    return f"{client.redirect_uri.rstrip('/')}/start"


def _advice(client: OAuthClient, api_url: str) -> dict[str, Any]:
    warnings = []
    if not client.redirect_uri.rstrip("/").endswith(f"/install/{client.platform}/{client.name}"):
        warnings.append(
            f"redirect_uri does not end in /install/{client.platform}/{client.name}: whatever answers there must pass the "
            f"call, and /start and /result/… below it, on to {api_url}/install/{client.platform}/{client.name}"
        )
    return {"warnings": warnings}


def _client(platform: str, name: str, sent: Replacement, api_url: str) -> OAuthClient:
    redirect_uri = sent.redirect_uri or f"{api_url}/install/{platform}/{name}"
    return OAuthClient(platform, name, sent.client_id, redirect_uri, sent.scopes)


def _store_secret(vault: Vault, client: OAuthClient, client_secret: Secret) -> None:
    vault.replace(vault.client_secret_id(client.platform, client.name), {"client_secret": client_secret})


def _require_install_part(platform: str) -> None:
    try:
        part(platform, "install")
    except Rejected:
        raise Rejected(
            "unknown_platform",
            f"there is no platform {platform!r} here that applications install from",
            field="platform",
        ) from None


def _exists(client: OAuthClient) -> Rejected:
    detail = f"there is an OAuth client {client.platform}/{client.name} already: replace it with PUT"
    return Rejected("client_exists", detail, field="name", status=409)


def _unknown(platform: str, name: str) -> Rejected:
    return Rejected("unknown_client", f"no OAuth client {platform}/{name} is registered", status=404)
