"""What the rules look up, in the table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from portaria.aws.table import Table
from portaria.connections import connection_store, oauth_clients
from portaria.core.callbacks import OAuthClient
from portaria.core.entities import Connection
from portaria.core.errors import Rejected
from portaria.core.stored_reasons import ConnectionReason


@dataclass(frozen=True)
class Stored:
    """A `Known` that looks in the table."""

    table: Table

    def client(self, platform: str, name: str) -> OAuthClient:
        """Raises `Rejected` (404 `unknown_client`)."""
        return oauth_clients.get(self.table, platform, name)

    def connection(self, name: str) -> Connection:
        """Raises `Rejected` (404 `unknown_connection`), also for one that has been deleted and whose item is still there."""
        found = connection_store.get(self.table, name)
        if is_deleted(found):
            raise Rejected("unknown_connection", f"there is no connection {name!r}", field="connection", status=404)
        return found

    def connections_of(self, platform: str, client: str) -> Iterable[Connection]:
        for item in self.table.query_all(connection_store.LIST, index="listing"):
            if (item["platform"], item.get("client")) == (platform, client) and item["state"] != "removed":
                yield connection_store.read(item)


def is_deleted(connection: Connection) -> bool:
    """Whether it is gone for administrators, though its item stays for a while for what is still on its way."""
    return connection.state == "removed" and connection.reason == ConnectionReason.DELETED
