"""The vault: every credential is read and written through it, and it calls the store that holds the credential.

The credentials of a connection are in Secrets Manager or, sealed, in the table: the `secret_id` in its item says where. An
OAuth client's secret is always in Secrets Manager.
"""

from __future__ import annotations

from portaria.connections.credential_stores.aws_secrets import SecretsManager
from portaria.connections.credential_stores.protocol import (
    SECRETS_MANAGER,
    TABLE,
    Credentials,
    CredentialStore,
    store_name,
    version_id,
)
from portaria.connections.credential_stores.sealed_table import SealedTable
from portaria.core.callbacks import Secret
from portaria.core.errors import Rejected

__all__ = ["Credentials", "SealedTable", "Vault", "version_id"]


class Vault:
    """`prefix` begins the name of every secret: `{prefix}/grants/{id}`, `{prefix}/oauth-clients/{platform}/{client}`.

    Without a `sealed_table` it can read OAuth clients' secrets and credentials in Secrets Manager only. `new_in` is the store
    of new grants. Methods are as in `CredentialStore`.
    """

    def __init__(self, prefix: str, sealed_table: SealedTable | None = None, *, new_in: str = SECRETS_MANAGER) -> None:
        self.prefix = prefix
        self.new_in = new_in
        self._secrets_manager = SecretsManager()
        self._sealed_table = sealed_table

    def grant_id(self, name: str, store: str = "") -> str:
        """The `secret_id` of a grant, by default in the store of new grants."""
        in_table = (store or self.new_in) == TABLE
        return SealedTable.secret_id(name) if in_table else f"{self.prefix}/grants/{name}"

    def client_secret_id(self, platform: str, client: str) -> str:
        return f"{self.prefix}/oauth-clients/{platform}/{client}"

    def client_secret(self, platform: str, client: str) -> Secret:
        """Raises `Rejected` (`no_client_secret`) if none is stored, and `Retryable`."""
        credentials = self.read(self.client_secret_id(platform, client))
        if not credentials:
            raise Rejected(
                "no_client_secret", f"no secret is stored for the OAuth client {platform}/{client}", status=409
            )
        return credentials["client_secret"]

    def read(self, secret_id: str, version: str = "") -> Credentials | None:
        """The credentials of a version, by default of the current one, or None if there is none. Raises `Retryable`."""
        found = self.find(secret_id, version)
        return found[0] if found else None

    def find(self, secret_id: str, version: str = "") -> tuple[Credentials, str] | None:
        return self._store(secret_id).find(secret_id, version)

    def prepare(self, secret_id: str) -> None:
        self._store(secret_id).prepare(secret_id)

    def create(self, secret_id: str, credentials: Credentials, version: str = "") -> str:
        return self._store(secret_id).create(secret_id, credentials, version)

    def add(self, secret_id: str, version: str, credentials: Credentials) -> bool:
        return self._store(secret_id).add(secret_id, version, credentials)

    def add_aside(self, secret_id: str, version: str, credentials: Credentials, turn: int) -> None:
        self._store(secret_id).add_aside(secret_id, version, credentials, turn)

    def stage(self, secret_id: str, version: str, credentials: Credentials) -> None:
        self._store(secret_id).stage(secret_id, version, credentials)

    def promote(self, secret_id: str, *, old: str, new: str) -> None:
        self._store(secret_id).promote(secret_id, old=old, new=new)

    def current_version(self, secret_id: str) -> str:
        return self._store(secret_id).current_version(secret_id)

    def drop(self, secret_id: str, version: str) -> None:
        self._store(secret_id).drop(secret_id, version)

    def replace(self, secret_id: str, credentials: Credentials) -> None:
        """Store an OAuth client's secret under a name, new or not: the last writer's is kept. Raises `Retryable`."""
        self._secrets_manager.replace(secret_id, credentials)

    def remove(self, secret_id: str, *, immediately: bool = False) -> None:
        self._store(secret_id).remove(secret_id, immediately=immediately)

    def _store(self, secret_id: str) -> CredentialStore:
        if store_name(secret_id) == SECRETS_MANAGER:
            return self._secrets_manager
        if self._sealed_table is None:
            raise RuntimeError("this function reads no credentials of the table")
        return self._sealed_table
