"""Administering OAuth clients: the applications registered with platforms. `oauth_client_rules` says what one may be."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from portaria.api.operation import ApiRequest, Reply, changed_meanwhile, page, require_match
from portaria.api.rules import branding_rules, oauth_client_rules
from portaria.api.rules.stored_resources import Stored
from portaria.api.schemas import Output
from portaria.aws.table import Conflict, Table
from portaria.connections import oauth_clients, refused_grants
from portaria.connections.branding import logos
from portaria.connections.branding.logos import Logo
from portaria.connections.vault import Vault
from portaria.core.callbacks import OAuthClient, Secret
from portaria.core.errors import Rejected
from portaria.core.item_keys import oauth_client_key


class OAuthClientOutput(Output):
    """An application that is registered with a platform."""

    platform: str = Field(description="The platform that the application is registered with.")
    name: str = Field(description="The OAuth client's name, unique within the platform. It is part of its URLs.")
    client_id: str = Field(description="The application's id at the platform.")
    credentials_set: list[Literal["client_secret"]] = Field(
        description="The names of the secrets that are stored. A secret is never returned."
    )
    redirect_uri: str = Field(description="The URL to register with the platform as its redirect URI.")
    scopes: str | None = Field(
        description="The scopes that are requested, separated as the platform expects it. Null if the platform sets them.",
    )
    api_domains: list[str] = Field(
        description="The domains that connections of this client may use. Its tokens are sent nowhere else."
    )
    install_page_url: str | None = Field(
        description="The page on which customers install the application. Null if the platform has no such page."
    )
    grant: str | None = Field(description="The grant type. Null if the platform determines it.")
    authorize_url: str | None = Field(
        description="The provider's authorization endpoint. Null if the platform determines it."
    )
    token_url: str | None = Field(description="The provider's token endpoint. Null if the platform determines it.")
    token_auth: str | None = Field(
        description="How the client authenticates at the token endpoint. Null if the platform determines it."
    )
    return_urls: list[str] = Field(description="The pages of your application that customers may be sent back to.")
    display_name: str | None = Field(description="The application's name on the hosted pages. Null if it is not set.")
    logo_url: str | None = Field(description="The URL of the logo. Null if there is none.")
    colour: str | None = Field(description="The colour of buttons on the hosted pages. Null if it is not set.")
    support_email: str | None = Field(description="The support address on the hosted pages. Null if it is not set.")
    support_url: str | None = Field(
        description="The support page that the hosted pages link to. Null if it is not set."
    )
    privacy_url: str | None = Field(
        description="The privacy policy that the hosted pages link to. Null if it is not set."
    )
    terms_url: str | None = Field(
        description="The terms of service that the hosted pages link to. Null if it is not set."
    )


class OAuthClientWithWarnings(OAuthClientOutput):
    """An OAuth client, and what may be wrong with it."""

    warnings: list[str] = Field(description="Sentences about what may be a mistake. Empty if nothing was found.")


def create(asked: ApiRequest) -> Reply:
    """Raises `Rejected` (409 `client_exists`) and `Retryable`.

    The secret and the logo are stored before the item that makes them usable. A death before the item leaves a secret that is
    not used; creating the client again overwrites it.
    """
    table, vault, sent = asked.context.table, asked.context.vault, asked.sent
    client = oauth_client_rules.check_creation(sent, asked.api_url)
    if table.get(*oauth_client_key(client.platform, client.name)):
        raise _exists(client)
    _store_secret(vault, client, sent.client_secret)
    _store_logo(table, client, sent.logo)
    try:
        revision = oauth_clients.put(table, client, new=True)
    except Conflict:
        raise _exists(client) from None
    return Reply(
        oauth_client_rules.show(client) | _advice(client, asked.api_url),
        etag=revision,
        target=f"{client.platform}/{client.name}",
    )


def replace(asked: ApiRequest) -> Reply:
    """Raises `Rejected` (404 `unknown_client`, 409 `client_fixed`, `client_in_use`, 409 or 412 `changed_meanwhile`) and
    `Retryable`. Connections that their provider's refusals ended are tried again with what the client is now.

    A death half-way is mended by sending the same again.
    """
    table, vault, sent = asked.context.table, asked.context.vault, asked.sent
    platform, name = asked.path["platform"], asked.path["client"]
    old, revision = oauth_clients.find(table, platform, name)
    require_match(asked, revision)
    client = oauth_client_rules.check_replacement(old, sent, Stored(table), asked.api_url)
    if sent.client_secret:
        _store_secret(vault, client, sent.client_secret)
    _store_logo(table, client, sent.logo)
    try:
        revision = oauth_clients.put(table, client, new=False, revision=revision)
    except Conflict:
        raise changed_meanwhile(asked) from None
    if sent.logo is not None:
        logos.delete_others(table, platform, name, kept=client.logo)
    refused_grants.resume(table, platform, name)
    return Reply(oauth_client_rules.show(client) | _advice(client, asked.api_url), etag=revision)


def get(asked: ApiRequest) -> Reply:
    """Raises `Rejected` (404 `unknown_client`)."""
    client, revision = oauth_clients.find(asked.context.table, asked.path["platform"], asked.path["client"])
    return Reply(oauth_client_rules.show(client) | _advice(client, asked.api_url), etag=revision)


def list_page(asked: ApiRequest) -> Reply:
    clients, next_cursor = oauth_clients.list_page(asked.context.table, asked.cursor, asked.limit)
    return page([oauth_client_rules.show(client) for client in clients], next_cursor)


def delete(asked: ApiRequest) -> Reply:
    """Raises `Rejected`: 404 `unknown_client`, 409 `client_in_use` while a route or a connection needs it.

    The item goes first, so that none stands without its secret or its logo. Where a death left these behind, deleting again
    removes them before it answers 404. A client's secret is also in the platform's console: it is removed at once, which
    lets the same name be created again.
    """
    table, vault = asked.context.table, asked.context.vault
    platform, name = asked.path["platform"], asked.path["client"]
    source = f"client:{platform}/{name}"
    if route := next(table.query_all(source, index="by_source"), None):
        raise Rejected(
            "client_in_use",
            f"the route {route['name']} has this OAuth client as its source: delete the route first",
            status=409,
        )
    if user := next(iter(Stored(table).connections_of(platform, name)), None):
        detail = f"the connection {user.name} renews its tokens with this OAuth client: delete the connection first"
        raise Rejected("client_in_use", detail, status=409)
    found = table.get(*oauth_client_key(platform, name))
    if found:
        oauth_clients.delete(table, platform, name)
    logos.delete_others(table, platform, name)
    vault.remove(vault.client_secret_id(platform, name), immediately=True)
    if not found:
        raise _unknown(platform, name)
    return Reply(None)


def _advice(client: OAuthClient, api_url: str) -> dict[str, Any]:
    warnings = []
    if not oauth_clients.api_domains(client):
        warnings.append(
            "api_domains is missing: the client's connections go on, and no new one can be made until it names the domains "
            "that its tokens may go to"
        )
    if not client.redirect_uri.rstrip("/").endswith(f"/install/{client.platform}/{client.name}"):
        warnings.append(
            f"redirect_uri does not end in /install/{client.platform}/{client.name}: whatever answers there must pass the "
            f"call, and /start, /result/… and /logo/… below it, on to {api_url}/install/{client.platform}/{client.name}"
        )
    warnings += branding_rules.warnings(client)
    return {"warnings": warnings}


def _store_logo(table: Table, client: OAuthClient, logo: Logo | str | None) -> None:
    if isinstance(logo, Logo):
        logos.store(table, client.platform, client.name, logo)


def _store_secret(vault: Vault, client: OAuthClient, client_secret: Secret) -> None:
    vault.replace(vault.client_secret_id(client.platform, client.name), {"client_secret": client_secret})


def _exists(client: OAuthClient) -> Rejected:
    detail = f"the OAuth client {client.platform}/{client.name} exists already: replace it with PUT"
    return Rejected("client_exists", detail, field="name", status=409)


def _unknown(platform: str, name: str) -> Rejected:
    return Rejected("unknown_client", f"there is no OAuth client {platform}/{name}", status=404)
