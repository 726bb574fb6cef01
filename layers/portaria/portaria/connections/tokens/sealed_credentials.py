"""Credentials that are sealed in a connection's item because the vault could not take another version."""

from __future__ import annotations

import logging

from portaria.aws.table import Conflict, Table
from portaria.connections import connection_store
from portaria.connections.credential_stores import sealing
from portaria.connections.tokens.refresh_lease import fence_of
from portaria.connections.tokens.stored_grant import add_version
from portaria.connections.vault import Vault
from portaria.core import clock
from portaria.core.entities import Connection
from portaria.core.errors import Rejected, Retryable

logger = logging.getLogger(__name__)


def move_to_vault(table: Table, vault_: Vault, sealing_key_id: str, connection: Connection) -> bool:
    """Move sealed credentials into the vault. Returns False if they stay sealed; they remain in use."""
    item = connection_store.get_item(table, connection.name)
    sealed = item.get("sealed")
    if not sealed:
        return True
    connection = connection_store.read(item)
    credentials = sealing.unseal(sealing_key_id, {"connection": connection.name}, sealed)
    try:
        version = add_version(vault_, connection.secret_id, connection.generation, credentials, fence_of(item))
    except (Retryable, Rejected) as refused:
        facts = {"connection": connection.name, "reason": refused.reason}
        logger.warning("credentials_stay_sealed", extra=facts)
        return False
    try:
        table.update(
            *connection_store.key(connection.name),
            f"SET version_id = :version, {connection_store.VERSION_ADDED_AT} = :now REMOVE sealed",
            condition="generation = :generation AND attribute_exists(sealed)",
            values={
                ":version": version,
                ":now": clock.to_iso(clock.now()),
                ":generation": connection.generation,
            },
        )
    except Conflict:
        # The tokens have been refreshed meanwhile.
        return False
    return True
