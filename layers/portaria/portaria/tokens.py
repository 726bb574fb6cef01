"""The one supply of access tokens: callers ask for a connection's token and never see where it comes from.

What a platform's grant needs is in its `tokens` part. Tokens are kept in memory until shortly before they end.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from portaria import clock, egress
from portaria.contract import Connection, Grant, Rejected, Retryable, Secret
from portaria.platforms import part
from portaria.vault import Credentials, Vault

# A token that ends sooner than this is not handed out: a request that takes its full time-out would outlive it.
MARGIN = timedelta(seconds=60)

_kept: dict[tuple[str, int], Grant] = {}


def access_token(vault: Vault, connection: Connection) -> Secret:
    """A token that holds for another minute at least; of a shared one, which is not renewed early, what is left of it.

    Raises `Rejected` where the connection cannot give one until somebody acts (`needs_reconnect`, `no_credentials`,
    `token_expired`) and `Retryable` where the vault or the platform does not answer.
    """
    if connection.state != "connected":
        raise Rejected("needs_reconnect", f"the connection {connection.name} is {connection.state}", status=409)
    grant = _kept.get(_kept_as(connection))
    if not grant or grant.expires_at - MARGIN <= clock.now():
        grant = _fetch(vault, connection)
        _kept[_kept_as(connection)] = grant
    return grant.access_token


def forget(connection: Connection) -> None:
    """Drop a token that the platform refused, so that the next call fetches another."""
    _kept.pop(_kept_as(connection), None)


def _kept_as(connection: Connection) -> tuple[str, int]:
    """By the secret, not the name: a connection that was removed and made again by its old name has another account's."""
    return connection.secret_id, connection.generation


def _fetch(vault: Vault, connection: Connection) -> Grant:
    credentials = vault.read(connection.secret_id)
    if not credentials:
        raise Rejected("no_credentials", f"the vault holds nothing for the connection {connection.name}", status=409)
    if connection.kind == "client_credentials":
        return _log_in(connection, credentials)
    grant = read_stored(credentials)
    if grant.expires_at - MARGIN <= clock.now():
        raise Rejected("token_expired", f"the access token of {connection.name} has ended; install again", status=409)
    return grant


def _log_in(connection: Connection, credentials: Credentials) -> Grant:
    """Client credentials: any number of tokens may be asked for, so nothing has to be stored."""
    platform = part(connection.platform, "tokens")
    response = egress.send(
        platform.token_request(connection, credentials), allowed_domain=platform.token_domain(connection)
    )
    grant: Grant = platform.read_grant(response, clock.now())
    if grant.expires_at <= clock.now():
        raise Retryable("token_ends_now", f"{connection.platform} gave a token without life left", after_s=2)
    return grant


def to_stored(grant: Grant) -> Credentials:
    """A grant as the vault keeps it."""
    stored = {
        "access_token": grant.access_token,
        "expires_at": Secret(clock.to_iso(grant.expires_at)),
        "token_type": Secret(grant.token_type),
        "scopes": Secret(grant.scopes),
    }
    return stored | ({"refresh_token": grant.refresh_token} if grant.refresh_token else {})


def read_stored(credentials: Credentials) -> Grant:
    return Grant(
        access_token=credentials["access_token"],
        refresh_token=credentials.get("refresh_token"),
        expires_at=datetime.fromisoformat(credentials["expires_at"].reveal()),
        token_type=credentials["token_type"].reveal(),
        scopes=credentials["scopes"].reveal(),
    )
