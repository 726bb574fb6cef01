"""Where a connection's token comes from: its stored credentials, those before a rotation, or a log-in."""

from __future__ import annotations

import logging

from portaria.aws.table import Item, Table
from portaria.connections import connection_store
from portaria.connections.credential_stores import sealing
from portaria.connections.tokens.cache import Token, TokenCache
from portaria.connections.tokens.static_credentials import log_in, with_client
from portaria.connections.tokens.usability import is_young
from portaria.connections.vault import Credentials, Vault
from portaria.core import clock
from portaria.core.entities import Connection
from portaria.core.errors import NoCredentials, Rejected, Retryable

logger = logging.getLogger(__name__)


class TokenSources:
    """Reads tokens; what it returns is not in the cache yet. A refusal of a log-in is cached."""

    def __init__(self, table: Table, vault: Vault, sealing_key_id: str, cache: TokenCache) -> None:
        self.table = table
        self.vault = vault
        self.sealing_key_id = sealing_key_id
        self.cache = cache

    def stored(self, connection: Connection, item: Item) -> Token | None:
        """The token that the connection's item points to, or None if it points to another one by now.

        Raises `Rejected` (`no_credentials`) and `Retryable`.
        """
        if sealed := item.get("sealed"):
            credentials: Credentials | None = sealing.unseal(
                self.sealing_key_id, {"connection": connection.name}, sealed
            )
        else:
            credentials = self.vault.read(connection.secret_id, connection.version_id)
        if not credentials:
            if connection_store.get(self.table, connection.name) != connection:
                return None
            if is_young(connection):
                raise Retryable(
                    "vault_lags", f"Secrets Manager does not return the credentials of {connection.name} yet", after_s=2
                )
            raise NoCredentials(f"no credentials are stored for the connection {connection.name}")
        ends_at, given_at = credentials.get("expires_at"), credentials.get("given_at")
        # Older pairs are stored without `given_at`: a generation's token was issued when the generation began.
        begins = given_at.reveal() if given_at else connection.updated_at
        return Token(
            credentials,
            connection.generation,
            connection.version_id,
            clock.from_iso(ends_at.reveal()) if ends_at else None,
            clock.from_iso(begins) if ends_at and begins else None,
        )

    def before_rotation(self, connection: Connection) -> Token | None:
        """The credentials that a rotation replaced, while their overlap lasts."""
        previous = connection.previous_version_id
        if not previous or clock.from_iso(connection.previous_until) <= clock.now():
            return None
        credentials = self.vault.read(connection.secret_id, previous)
        if not credentials:
            return None
        logger.warning("previous_credentials_used", extra={"connection": connection.name})
        return Token(credentials, connection.generation, previous)

    def log_in(self, connection: Connection) -> Token | None:
        """For client credentials and passwords: any number of tokens may be requested, so none is stored.

        Returns None if the connection's item points to other credentials by now. Raises `Rejected` and `Retryable`.
        """
        if refusal := self.cache.refusal(connection):
            raise refusal
        credentials = self.vault.read(connection.secret_id, connection.version_id) if connection.secret_id else {}
        if credentials is None:
            if connection_store.get(self.table, connection.name) != connection:
                return None
            raise NoCredentials(f"no credentials are stored for the connection {connection.name}")
        credentials, client = with_client(self.table, self.vault, connection, credentials)
        try:
            grant = log_in(connection, credentials, client)
        except Rejected as rejected:
            self.cache.refuse(connection, rejected)
            raise
        if grant.expires_at <= clock.now():
            raise Retryable(
                "token_ends_now", f"{connection.platform} issued a token that has already expired", after_s=2
            )
        return Token(
            {"access_token": grant.access_token},
            connection.generation,
            connection.version_id,
            grant.expires_at,
            grant.given_at,
        )
