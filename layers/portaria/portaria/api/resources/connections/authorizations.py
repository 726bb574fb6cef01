"""Authorizations: the link with which a person lets a connection into their account at the provider.

The link holds a ticket that opens it once, within 15 minutes. Only the ticket's SHA-256 is stored; accept_install uses it up.
"""

from __future__ import annotations

import secrets
from datetime import timedelta

from pydantic import Field

from portaria import platforms
from portaria.api.operation import ApiRequest, Reply
from portaria.api.rules.oauth_client_rules import install_page_url
from portaria.api.schemas import Output, Time
from portaria.connections import connection_store, oauth_clients
from portaria.core import clock
from portaria.core.errors import ConnectionRemoved, Rejected
from portaria.core.item_keys import ticket_key

TICKET_LIFE = timedelta(minutes=15)
KIND = "oauth2"
STATES = ("pending", "connected", "needs_reconnect")


class Authorization(Output):
    """A link with which a person grants a connection access to an account."""

    url: str = Field(description="The link to give to the person. It is returned once.")
    expires_at: Time | None = Field(
        description="When the link stops working. Null for the link to an install page, which does not expire."
    )


def create(asked: ApiRequest) -> Reply:
    """The link that authorizes a connection, also one that is connected already, and its end.

    An application that customers install has one install page for all; its link does not end. Raises `Rejected`: 404
    `unknown_connection`, 409 `not_authorisable`, `connection_removed`, `unknown_client`, `api_domains_missing` or
    `domain_not_registered`.
    """
    table, name = asked.context.table, asked.path["name"]
    connection = connection_store.get(table, name)
    if connection.kind != KIND:
        detail = (
            f"{name} has the kind {connection.kind}, which needs no authorization: replace its credentials with "
            f"PUT /connections/{name}/credentials"
        )
        raise Rejected("not_authorisable", detail, status=409)
    if connection.state not in STATES:
        raise ConnectionRemoved(f"the connection {name} is {connection.state}")
    try:
        client = oauth_clients.get(table, connection.platform, connection.client)
    except Rejected as unknown:
        raise Rejected(unknown.reason, unknown.detail, status=409) from None
    platform = platforms.load(connection.platform)
    if not platform.authorization_links:
        return Reply({"url": install_page_url(client), "expires_at": None})
    try:
        oauth_clients.check_connection(client, connection)
    except Rejected as outside:
        raise Rejected(outside.reason, outside.detail, status=409) from None
    if not client.authorize_url:
        detail = f"the OAuth client {client.platform}/{client.name} has no authorize_url: add it to create authorization links"
        raise Rejected("not_authorisable", detail, status=409)
    ticket = secrets.token_urlsafe(32)
    expires_at = clock.now() + TICKET_LIFE
    pk, sk = ticket_key(ticket)
    table.put(
        {
            "pk": pk,
            "sk": sk,
            "platform": connection.platform,
            "client": connection.client,
            "connection": name,
            "account_host": platform.require(platform.token_endpoint).token_domain(connection, client),
            "scopes": platform.require(platform.provider_clients).requested_scopes(connection, client),
            "expires_at": int(expires_at.timestamp()),
        }
    )
    url = f"{install_page_url(client)}?ticket={ticket}"
    return Reply({"url": url, "expires_at": clock.to_iso(expires_at)})
