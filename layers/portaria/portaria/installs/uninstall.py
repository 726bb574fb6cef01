"""Uninstalls: a customer removes the integration, or an administrator deletes a connection.

    hook → verified by accept_uninstall → [Uninstalls] → confirmed with the platform → removed
    delete → marked as removed          → [Uninstalls] → removed

A disconnect hook has no date, so it can be replayed after a reinstall: its signature only proves an earlier uninstall.
Therefore the platform is asked whether the account is connected, three times over eleven minutes, because its answer may lag. A
removed connection's item stays for `KEPT_FOR`: records on their way still find their route, and operators see what happened.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from portaria import platforms
from portaria.aws import event_bus, queues
from portaria.aws.table import Conflict, Table, update_of
from portaria.connections import connection_store, oauth_clients, tag_index, webhook_endpoints
from portaria.connections.tokens import provider
from portaria.connections.vault import SealedTable, Vault
from portaria.core import clock, event_catalogue
from portaria.core.entities import Connection, UninstallNotice
from portaria.core.errors import (
    ConnectionRemoved,
    NeedsReconnect,
    NoCredentials,
    Rejected,
    Retryable,
    TokenExpired,
    TokenRefused,
)
from portaria.core.settings import RemoveConnectionsSettings
from portaria.core.stored_reasons import ConnectionReason
from portaria.installs import event_subscriptions

logger = logging.getLogger(__name__)

# The waits before a platform that still accepts the connection's token is asked again.
CHECK_AGAIN_S = (60.0, 600.0)
KEPT_FOR = timedelta(days=90)
UNINSTALLED, DELETED = ConnectionReason.UNINSTALLED, ConnectionReason.DELETED


@dataclass(frozen=True)
class RemovalOutcome:
    """The result of one message: `removed`, `still_connected` (a replayed hook), `checked` (to be checked again later), or
    `ignored`."""

    state: str


def accept(notice: UninstallNotice, platform: str, client_name: str, queue_url: str) -> str:
    """Queue a disconnect hook that was verified; returns the connection's name. Raises `Retryable`."""
    name = connection_store.installed_name(platform, client_name, notice.account_id)
    queues.send(queue_url, [queues.encode({"connection": name, "why": UNINSTALLED, "checks": 0})])
    return name


def delete(table: Table, queue_url: str, connection: Connection) -> None:
    """Mark a connection as removed, which stops its use immediately, and queue the rest. Raises `Conflict` and `Retryable`.

    If the message cannot be queued, deleting again sends it.
    """
    if connection.state != "removed":
        _mark(table, connection, DELETED)
    message = {"connection": connection.name, "why": DELETED, "secret_id": connection.secret_id}
    queues.send(queue_url, [queues.encode(message)])


def handle_message(body: str, settings: RemoveConnectionsSettings, time_left_s: Callable[[], float]) -> RemovalOutcome:
    """Handle one message of the Uninstalls queue. Raises `Retryable` where it should be delivered again."""
    try:
        message = json.loads(body)
        name, why = str(message["connection"]), str(message["why"])
        checks, secret_id = int(message.get("checks", 0)), str(message.get("secret_id", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        logger.error("uninstall_message_unreadable")
        return RemovalOutcome("ignored")
    return _Removal(name, settings, time_left_s).run(why, checks, secret_id)


class _Removal:
    def __init__(self, name: str, settings: RemoveConnectionsSettings, time_left_s: Callable[[], float]) -> None:
        self.name = name
        self.settings = settings
        self.table = Table(settings.table_name)
        self.vault = Vault(settings.secrets_prefix, SealedTable(self.table, settings.sealing_key_id))
        self.token_provider = provider.TokenProvider(self.table, self.vault, settings.sealing_key_id, time_left_s)

    def run(self, why: str, checks: int, secret_id: str) -> RemovalOutcome:
        connection = connection_store.find(self.table, self.name)
        if not connection or (secret_id and connection.secret_id != secret_id):
            # A new connection has this name: only the secret of the old one is left to remove.
            if secret_id:
                self.vault.remove(secret_id)
            return RemovalOutcome("removed" if secret_id else "ignored")
        if connection.state != "removed":
            if why == DELETED:
                return RemovalOutcome("ignored")
            if self._still_connected(connection) or self._may_come_back(checks):
                return self._check_again(checks)
            try:
                # With the generation from before the check: a connection that was installed again meanwhile stays.
                _mark(self.table, connection, why)
            except Conflict:
                raise Retryable("connection_changed", "the connection changed meanwhile", after_s=5) from None
        webhook_endpoints.close_address(self.table, connection)
        if why == DELETED:
            self._unsubscribe(connection)
        if connection.secret_id:
            self.vault.remove(connection.secret_id)
        event_bus.put(
            self.settings.bus_name,
            event_catalogue.REMOVED,
            {
                "connection": connection.name,
                "platform": connection.platform,
                "client": connection.client,
                "label": connection.label,
                "why": why,
                "tags": connection.tags,
            },
        )
        return RemovalOutcome("removed")

    def _still_connected(self, connection: Connection) -> bool:
        """Ask the platform. Only a clear refusal counts: a platform that does not answer is asked again."""
        platform = platforms.load(connection.platform)
        account = platform.require(platform.account_lookup)
        try:
            response = self.token_provider.send(
                connection,
                lambda token: account.account_request(connection.allowed_domain, token.credentials["access_token"]),
            )
            account.read_account(response, connection.allowed_domain)
        except (NeedsReconnect, TokenRefused, TokenExpired, NoCredentials, ConnectionRemoved):
            return False
        return True

    def _may_come_back(self, checks: int) -> bool:
        """Whether the refused token may have a successor: the platform then refused the token, not the customer.

        A worker that used the refresh token may have stored the new pair without committing it, or may still do so.
        """
        connection = connection_store.get(self.table, self.name)
        if connection.reason != ConnectionReason.ANSWER_LOST:
            return False
        return checks < len(CHECK_AGAIN_S) or self.token_provider.recover(connection)

    def _check_again(self, checks: int) -> RemovalOutcome:
        if checks >= len(CHECK_AGAIN_S):
            logger.warning("uninstall_not_confirmed", extra={"connection": self.name})
            return RemovalOutcome("still_connected")
        message = {"connection": self.name, "why": UNINSTALLED, "checks": checks + 1}
        queues.send(self.settings.uninstalls_queue_url, [queues.encode(message)], delay_s=CHECK_AGAIN_S[checks])
        return RemovalOutcome("checked")

    def _unsubscribe(self, connection: Connection) -> None:
        """Delete the subscriptions to the event webhooks, with the stored token."""
        try:
            platform = platforms.load(connection.platform)
            platform.require(platform.webhook_subscriptions)
            client = oauth_clients.get(self.table, connection.platform, connection.client)
        except Rejected:
            return
        credentials = self.vault.read(connection.secret_id, connection.version_id)
        endpoints = self.settings.event_endpoints
        for destination in event_subscriptions.event_urls(connection, client, credentials, endpoints):
            event_subscriptions.unsubscribe(self.table, connection, credentials, destination)


def _mark(table: Table, connection: Connection, why: str) -> None:
    """Mark a connection as removed: it cannot be used any more. Raises `Conflict` where its credentials have just changed.

    A deleted one leaves the index `by_filter`, because lists do not show it.
    """
    now = clock.now()
    expires_at = int((now + KEPT_FOR).timestamp())
    is_listed = why != DELETED
    listed = connection_store.filter_keys(connection, "removed") if is_listed else {}
    removal = update_of(
        *connection_store.key(connection.name),
        "SET #state = :removed, #reason = :why, updated_at = :now, expires_at = :expires_at"
        + "".join(f", {name} = :{name}" for name in listed)
        + " REMOVE lease_until, retry_at, tries, sealed, sealed_next, announce, due_pk, due_at"
        + ("" if is_listed else ", filter_pk, filter_sk"),
        condition=f"generation = :generation AND {connection_store.TAGS_UNCHANGED}",
        names={"#state": "state", "#reason": "reason"},
        values={
            ":removed": "removed",
            ":why": why,
            ":now": clock.to_iso(now),
            ":expires_at": expires_at,
            ":generation": connection.generation,
            **{f":{name}": value for name, value in listed.items()},
        }
        | connection_store.tags_fence(connection),
    )
    entry = tag_index.connection_writes(connection.name, {}, connection.tags, expires_at=expires_at)
    table.write_all([removal, *entry])
