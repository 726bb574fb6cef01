"""Installs: from an authorization code to a connection, each step safe to repeat after a death at any instruction.

    received → exchanging → connected, or failed with a reason

A worker reads what has been done from durable facts, never from memory: a grant is stored under a name that the install
decides, so finding it there means that the code has been exchanged; the install's `connection` is written in the same
transaction as the connection itself. A worker that takes over looks for these facts before it does anything.
"""

from __future__ import annotations

from collections.abc import Callable

from portaria.aws import event_bus
from portaria.aws.table import Conflict, Table
from portaria.connections import connection_store, oauth_clients
from portaria.connections.vault import Credentials, SealedTable, Vault
from portaria.core import clock, event_catalogue
from portaria.core.callbacks import OAuthClient
from portaria.core.entities import Connection
from portaria.core.errors import Rejected, Retryable
from portaria.core.settings import ExchangeCodeSettings
from portaria.core.stored_reasons import InstallFailure
from portaria.installs import claims, event_subscriptions
from portaria.installs.connection_commit import ConnectionCommit, check_named, check_restorable
from portaria.installs.exchange_outcomes import ExchangeOutcome, publish_failure
from portaria.installs.grant_exchange import GrantExchange
from portaria.installs.install_lease import InstallLease, outcome_of
from portaria.installs.install_messages import Install


def exchange(
    install: Install,
    settings: ExchangeCodeSettings,
    time_left_s: Callable[[], float],
    *,
    connect_timeout_s: float | None = None,
) -> ExchangeOutcome:
    """Bring an install as far as possible: to its connection, or to its failure.

    Safe to call any number of times and by several workers concurrently: one works, the others have to wait. Raises
    `Retryable` where it should be called again; `after_s` is then set. With a `connect_timeout_s`, a host to which no
    connection can be made is given up sooner; nothing has been sent to it then. How long its answer may take does not
    change, because giving up on an answer loses the grant.
    """
    exchange = _Exchange(install, settings, time_left_s, connect_timeout_s)
    try:
        exchange.lease.claim()
    except Conflict as conflict:
        return outcome_of(conflict)
    try:
        try:
            exchange.run()
        except Rejected as rejected:
            exchange.fail(rejected)
            return ExchangeOutcome("failed", rejected.reason, rejected.detail)
        return ExchangeOutcome("connected")
    except Exception as error:
        exchange.lease.release()
        if isinstance(error, Retryable):
            raise error.replaced(after_s=exchange.lease.wait_s(error.after_s), answer_lost=False) from error
        raise


class _Exchange:
    """One worker's turn at an install."""

    def __init__(
        self,
        install: Install,
        settings: ExchangeCodeSettings,
        time_left_s: Callable[[], float],
        connect_timeout_s: float | None = None,
    ) -> None:
        self.install = install
        self.settings = settings
        self.table = Table(settings.table_name)
        sealed_table = SealedTable(self.table, settings.sealing_key_id)
        self.vault = Vault(settings.secrets_prefix, sealed_table, new_in=settings.credential_store)
        self.lease = InstallLease(self.table, install, self.vault.grant_id(install.id))
        self.grants = GrantExchange(self.lease, settings, self.vault, time_left_s, connect_timeout_s)

    def run(self) -> None:
        """Raises `Rejected` where the install has failed for good."""
        item = self.lease.item
        if item.get("reason"):
            raise Rejected(item["reason"], item["detail"])
        client = oauth_clients.get(self.table, self.install.platform, self.install.client)
        if not item.get("connection"):
            if self.install.account_id:
                check_restorable(self.table, self.install)
            if self.install.connection:
                check_named(self.install, connection_store.find(self.table, self.install.connection), client)
            credentials = self.grants.stored() or self.grants.exchange(client)
            account = None if self.install.connection else self.grants.read_account(credentials)
            ConnectionCommit(self.lease, self.grants).commit(account, credentials, client)
        connection = connection_store.get(self.table, item["connection"])
        if item["superseded"]:
            self.vault.remove(self.grants.secret_id)
            if item.get("tags_of_superseded"):
                claims.publish_tagged(self.settings.bus_name, connection)
        else:
            self._replace_previous(connection, client)
            event_bus.put(
                self.settings.bus_name,
                event_catalogue.CONNECTION_READY,
                {
                    "connection": connection.name,
                    "platform": connection.platform,
                    "client": connection.client,
                    "generation": item["generation"],
                    "tags": connection.tags,
                },
            )
        self.lease.end("connected", "connected_at = :now REMOVE lease_until", {":now": clock.to_iso(clock.now())})

    def fail(self, rejected: Rejected) -> None:
        """End the install with a reason: written first, so that a later turn reports the same one, then published."""
        item = self.lease.item
        if not item.get("reason"):
            self.lease.update(
                "SET reason = :reason, detail = :detail", {":reason": rejected.reason, ":detail": rejected.detail}
            )
        if not item.get("connection") and (self.grants.has_stored or self.lease.attempt > 1):
            # Only then: Secrets Manager takes 50 deletions a second, and most failures of forged codes come before a grant.
            # The grant of an account that was not asked for is of no use to anyone, so it is not kept for a recovery.
            is_foreign = rejected.reason == InstallFailure.OTHER_ACCOUNT
            self.vault.remove(self.grants.secret_id, immediately=is_foreign)
        publish_failure(self.table, self.settings, self.install, item["account_host"], rejected)
        self.lease.end(
            "failed", "failed_at = :now REMOVE lease_until, sealed_grant", {":now": clock.to_iso(clock.now())}
        )

    def _replace_previous(self, connection: Connection, client: OAuthClient) -> None:
        """Subscribe to the account's event webhooks; then end those of the grant before, and remove that grant."""
        is_account = not self.install.connection
        if is_account:
            credentials = self._credentials(connection)
            event_subscriptions.subscribe_installed(
                self.table, connection, client, credentials, endpoints=self.settings.event_endpoints
            )
        if previous := self.lease.item.get("previous_secret_id"):
            if is_account:
                # Their URL contains a key that ends with that grant.
                credentials = self._credentials(connection)
                ended = self.vault.read(previous)
                endpoints = self.settings.event_endpoints
                for destination in event_subscriptions.event_urls(connection, client, ended, endpoints):
                    event_subscriptions.unsubscribe(self.table, connection, credentials, destination)
            self.vault.remove(previous)

    def _credentials(self, connection: Connection) -> Credentials | None:
        """Raises `Retryable` where a migration has just moved them."""
        credentials = self.vault.read(connection.secret_id)
        if credentials is None and connection_store.get(self.table, connection.name).secret_id != connection.secret_id:
            raise Retryable("connection_changed", "the connection changed meanwhile", after_s=1)
        return credentials
