"""Static credentials: those that a person entered, and log-ins with them."""

from __future__ import annotations

import logging
from dataclasses import replace as with_changes

from portaria import platforms
from portaria.aws.table import Table
from portaria.connections import connection_store, oauth_clients
from portaria.connections.tokens.usability import check_usable, is_young
from portaria.connections.vault import Credentials, Vault
from portaria.core import clock
from portaria.core.callbacks import OAuthClient
from portaria.core.entities import Connection, Grant
from portaria.core.errors import NoCredentials, Retryable
from portaria.outbound import http_client

logger = logging.getLogger(__name__)

LOG_IN_KINDS = ("client_credentials", "password")


def log_in(
    connection: Connection, credentials: Credentials, client: OAuthClient | None, *, is_trial: bool = False
) -> Grant:
    """Request a token with credentials that can be used any number of times. Raises `Rejected` and `Retryable`.

    The platform may return a shared token with the rest of its life, which may be zero. In a trial, before credentials are
    stored, the platform may also answer that there is no such account.
    """
    platform = platforms.load(connection.platform)
    tokens = platform.require(platform.log_in)
    given_at = clock.now()
    response = http_client.send(
        tokens.token_request(connection, credentials, client),
        allowed_domain=tokens.token_domain(connection, client),
        owner=connection.name,
    )
    if is_trial:
        tokens.refuse_unknown_account(connection, response)
    return with_changes(tokens.read_grant(response, given_at), given_at=given_at)


def static_credentials(table: Table, vault_: Vault, connection: Connection) -> tuple[Connection, Credentials]:
    """The static credentials of a connection, for requests that need more than a token, and the connection as it is now.

    Raises `Rejected` (409 as `check_usable`, or `no_credentials`) and `Retryable`.
    """
    while True:
        check_usable(connection)
        credentials = vault_.read(connection.secret_id, connection.version_id) if connection.secret_id else None
        if credentials:
            return connection, credentials
        before, connection = connection, connection_store.get(table, connection.name)
        if connection != before:
            continue
        if is_young(connection):
            raise Retryable(
                "vault_lags", f"Secrets Manager does not return the credentials of {connection.name} yet", after_s=2
            )
        raise NoCredentials(f"no credentials are stored for the connection {connection.name}")


def with_client(
    table: Table, vault_: Vault, connection: Connection, credentials: Credentials
) -> tuple[Credentials, OAuthClient | None]:
    """The credentials that a log-in needs, and the connection's OAuth client with its secret, if it has one.

    Raises `Rejected` and `Retryable`.
    """
    if not connection.client:
        return credentials, None
    client = oauth_clients.get(table, connection.platform, connection.client)
    return {**credentials, "client_secret": vault_.client_secret(client.platform, client.name)}, client
