"""Renewals: the scheduled work on connections. An index finds the connections that are due, a queue limits the rate.

    schedule → {"sweep"} → a page of due connections, a message each → one visit for each connection

A visit does everything that is due: it publishes an event that the item still holds, moves sealed credentials into the vault,
drops the old credentials of a rotation whose overlap has ended, warns of old credentials and of refused refreshes, and
refreshes tokens that are due or whose last refresh had no answer. Each step is idempotent, so if the worker dies, another visit
repeats it. A connection that must be connected again leaves the index after its event has been published, and is not tried
again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from dataclasses import replace as with_changes
from datetime import timedelta
from typing import Any

from portaria.access import private_integrations
from portaria.aws import due_index, event_bus, queues
from portaria.aws.table import Conflict, Item, Table
from portaria.connections import connection_store, credential_migration, grant_life, oauth_clients
from portaria.connections.credential_stores.protocol import STORES
from portaria.connections.tokens import provider, sealed_credentials
from portaria.connections.vault import SealedTable, Vault
from portaria.core import clock, event_catalogue
from portaria.core.entities import ROTATION_WARNINGS_AT, Connection
from portaria.core.errors import NeedsReconnect, Rejected, Retryable
from portaria.core.settings import RenewTokensSettings
from portaria.core.stored_reasons import ConnectionReason
from portaria.outbound.rate_limiter import RateLimiter

logger = logging.getLogger(__name__)

# Each renewal makes one provider call and one write to Secrets Manager. At most two workers (MaximumConcurrency in
# template.yaml) renew one each second: two a second in total. Kommo allows seven a second from one address, Secrets Manager
# fifty in a region.
RENEWALS_PER_SECOND = 1.0
# Sweeps skip a connection for this time after its visit was queued; then, if it is still due, they queue it again.
VISIT_AGAIN = timedelta(minutes=30)


@dataclass(frozen=True)
class RenewalOutcome:
    """The outcome of one message: `swept`, `renewed`, `visited`, `ended` (must be connected again), `ignored`,
    `migration_queued`, or as `Migration.move`.

    `days_to_death` is the shortest remaining life, in days, of the due connections' refresh tokens.
    """

    state: str
    queued: int = 0
    days_to_death: float | None = None


def handle_message(
    body: str, settings: RenewTokensSettings, time_left_s: Callable[[], float], rate_limiter: RateLimiter
) -> RenewalOutcome:
    """Handle one message of the Renewals queue. Raises `Retryable` if it should return to the queue.

    `rate_limiter` limits the rate of requests to platforms: `RENEWALS_PER_SECOND`.
    """
    try:
        message = json.loads(body)
        if "sweep" in message:
            return _sweep(message["sweep"], settings)
        integration = message.get("private_integration")
        name = "" if integration or "migrate" in message else str(message["connection"])
    except (ValueError, KeyError, TypeError, AttributeError):
        logger.error("renewal_message_unreadable")
        return RenewalOutcome("ignored")
    if "migrate" in message:
        return _migrate(message, settings, time_left_s)
    if integration:
        private_integrations.warn_of_age(Table(settings.table_name), settings.bus_name, str(integration))
        return RenewalOutcome("visited")
    return _Visit(name, settings, time_left_s, rate_limiter).run()


def _sweep(cursor: str | None, settings: RenewTokensSettings) -> RenewalOutcome:
    """Queue a visit for each connection of one page of the due ones, and a message for the next page.

    A duplicate visit finds nothing to do. Each item's due time is moved by `VISIT_AGAIN` before its visit is queued, so that
    the next sweep skips it; a death between the two delays that visit.
    """
    table = Table(settings.table_name)
    due = due_index.claim_page(table, due_index.RENEWALS, cursor, again_after=VISIT_AGAIN)
    bodies = []
    for item in due.claimed:
        is_connection = item["sk"] == connection_store.SK
        bodies.append(
            queues.encode({"connection": item["name"]} if is_connection else {"private_integration": item["id"]})
        )
    if due.cursor:
        bodies.append(queues.encode({"sweep": due.cursor}))
    queues.send(settings.renewals_queue_url, bodies)
    found = [connection_store.read(item) for item in due.items if item["sk"] == connection_store.SK]
    lives = [days for connection in found if (days := days_to_death(connection)) is not None]
    return RenewalOutcome("swept", queued=len(bodies) - bool(due.cursor), days_to_death=min(lives, default=None))


def _migrate(
    message: dict[str, str], settings: RenewTokensSettings, time_left_s: Callable[[], float]
) -> RenewalOutcome:
    """Move a connection's credentials to the store that the message names, or queue that for a page of connections.

    The message names the store, because a function of an earlier deployment has another parameter.
    """
    store, table = message["migrate"], Table(settings.table_name)
    if store not in STORES:
        logger.error("renewal_message_unreadable")
        return RenewalOutcome("ignored")
    if "connection" not in message:
        queued = credential_migration.queue_page(table, settings.renewals_queue_url, store, message.get("cursor", ""))
        return RenewalOutcome("migration_queued", queued=queued)
    return _Visit(message["connection"], settings, time_left_s, RateLimiter(RENEWALS_PER_SECOND)).migrate(store)


class _Visit:
    def __init__(
        self, name: str, settings: RenewTokensSettings, time_left_s: Callable[[], float], rate_limiter: RateLimiter
    ) -> None:
        self.name = name
        self.rate_limiter = rate_limiter
        self.settings = settings
        self.table = Table(settings.table_name)
        self.vault = Vault(settings.secrets_prefix, SealedTable(self.table, settings.sealing_key_id))
        self.refused_limit = timedelta(days=float(settings.refused_grant_days))
        self.token_provider = provider.TokenProvider(
            self.table,
            self.vault,
            settings.sealing_key_id,
            time_left_s,
            patience_s=0,
            refused_limit=self.refused_limit,
        )

    def run(self) -> RenewalOutcome:
        item = self.table.get(*connection_store.key(self.name))
        if not item:
            return RenewalOutcome("ignored")
        connection = connection_store.read(item)
        if connection.reason == ConnectionReason.ANSWER_LOST and self.token_provider.recover(connection):
            # It has been due since it ended: the next visit publishes that it has recovered.
            return RenewalOutcome("visited")
        if announce := item.get(connection_store.ANNOUNCE):
            self._tell(connection, announce)
        if connection.state != "connected":
            self._settle(item, connection, announced=announce)
            return RenewalOutcome("ended" if connection.state == "needs_reconnect" else "ignored")
        self._warn_of_refusals(item)
        if connection.kind == "oauth2" and (self._is_due(connection) or self._lost_an_answer(item)):
            if announce:
                self._strike_off(item)
            return self._renew(connection)
        if item.get("sealed") and connection_store.vault_rests_until(item) <= clock.now():
            if not sealed_credentials.move_to_vault(self.table, self.vault, self.settings.sealing_key_id, connection):
                # It stays due, and a later sweep tries again.
                return RenewalOutcome("visited")
            del item["sealed"]
        connection = self._drop_previous(connection)
        self._warn_of_age(connection, item)
        self._settle(item, connection, announced=announce)
        return RenewalOutcome("visited")

    def migrate(self, store: str) -> RenewalOutcome:
        connection = connection_store.find(self.table, self.name)
        if connection and connection.reason == ConnectionReason.ANSWER_LOST and self.token_provider.recover(connection):
            return RenewalOutcome("visited")
        migration = credential_migration.Migration(self.table, self.vault, self.settings.sealing_key_id, self.name)
        return RenewalOutcome(migration.move(store))

    def _renew(self, connection: Connection) -> RenewalOutcome:
        self.rate_limiter.wait()
        try:
            self.token_provider.renew(connection)
        except NeedsReconnect:
            # The item now holds the event to announce. The visit that the next sweep queues announces it.
            return RenewalOutcome("ended")
        except (Rejected, Retryable):
            self._warn_of_refusals(connection_store.get_item(self.table, self.name))
            raise
        return RenewalOutcome("renewed")

    def _is_due(self, connection: Connection) -> bool:
        """Whether the token is in the last part of its life, counted from its last refresh."""
        return bool(connection.token_ends_at) and connection_store.renewal_at(connection) <= clock.now()

    def _lost_an_answer(self, item: Item) -> bool:
        """Whether the refresh token may have been sent without an answer. The platform may still answer it again."""
        return bool(item.get("tries")) and not item.get("refused_since")

    def _strike_off(self, item: Item) -> None:
        """Record that the item's event has been published, before a renewal that would keep it for the new generation."""
        with suppress(Conflict):
            self.table.update(
                *connection_store.key(self.name),
                f"REMOVE {connection_store.ANNOUNCE}",
                condition=f"{connection_store.ANNOUNCE} = :told AND generation = :generation",
                values={":told": item[connection_store.ANNOUNCE], ":generation": item["generation"]},
            )

    def _settle(self, item: Item, connection: Connection, *, announced: str | None) -> None:
        """Record that everything due has been done, unless something else has become due meanwhile."""
        due_at = connection_store.due_at(connection, clock.now())
        if item.get("sealed"):
            due_at = min(due_at or connection_store.NEVER, clock.to_iso(connection_store.vault_rests_until(item)))
        gone = [*([connection_store.ANNOUNCE] if announced else []), *([] if due_at else ["due_pk", "due_at"])]
        sets = "SET due_at = :next" if due_at else ""
        removes = f"REMOVE {', '.join(gone)}" if gone else ""
        values: Item = {":due_at": item.get("due_at", ""), ":generation": item["generation"], ":state": item["state"]}
        try:
            self.table.update(
                *connection_store.key(self.name),
                f"{sets} {removes}".strip(),
                condition="due_at = :due_at AND generation = :generation AND #state = :state",
                names={"#state": "state"},
                values=values | ({":next": due_at} if due_at else {}),
            )
        except Conflict:
            return

    def _tell(self, connection: Connection, announce: str) -> None:
        detail: dict[str, Any] = {
            "connection": connection.name,
            "platform": connection.platform,
            "client": connection.client,
            "label": connection.label,
            "generation": connection.generation,
            "tags": connection.tags,
        }
        if announce == event_catalogue.NEEDS_RECONNECT:
            detail |= {"reason": connection.reason, "reconnect_url": self._reconnect_url(connection)}
        event_bus.put(self.settings.bus_name, announce, detail)

    def _reconnect_url(self, connection: Connection) -> str:
        """The URL where the customer connects again; empty if an administrator must enter new credentials."""
        if not connection.client:
            return ""
        try:
            client = oauth_clients.get(self.table, connection.platform, connection.client)
        except Rejected:
            return ""
        return oauth_clients.reconnect_url(client, connection.name)

    def _drop_previous(self, connection: Connection) -> Connection:
        """Drop the old credentials of a rotation whose overlap has ended."""
        if not connection.previous_until or clock.from_iso(connection.previous_until) > clock.now():
            return connection
        self.vault.drop(connection.secret_id, connection.previous_version_id)
        try:
            self.table.update(
                *connection_store.key(self.name),
                "SET previous_until = :none, previous_version_id = :none",
                condition="previous_version_id = :previous",
                values={":none": "", ":previous": connection.previous_version_id},
            )
        except Conflict:
            return connection
        return with_changes(connection, previous_until="", previous_version_id="")

    def _warn_of_age(self, connection: Connection, item: Item) -> None:
        """Publish, once for each limit, that static credentials are 80 or 90 days old."""
        if connection.kind not in connection_store.STATIC_KINDS or not connection.granted_at:
            return
        age = clock.now() - clock.from_iso(connection.granted_at)
        passed = sum(age >= limit for limit in ROTATION_WARNINGS_AT)
        if passed <= int(item.get("warned", 0)):
            return
        event_bus.put(
            self.settings.bus_name,
            event_catalogue.ROTATION_DUE,
            {
                "connection": connection.name,
                "platform": connection.platform,
                "age_days": age.days,
                "tags": connection.tags,
            },
        )
        try:
            self.table.update(
                *connection_store.key(self.name),
                "SET warned = :passed",
                condition="granted_at = :granted_at",
                values={":passed": passed, ":granted_at": connection.granted_at},
            )
        except Conflict:
            return

    def _warn_of_refusals(self, item: Item) -> None:
        """Publish, once a day during a run of refusals, that the platform refuses to refresh the connection's tokens."""
        connection = connection_store.read(item)
        if not connection.refused_since:
            return
        since = clock.from_iso(connection.refused_since)
        day = (clock.now() - since).days + 1
        if day <= int(item.get("refused_told", 0)):
            return
        event_bus.put(
            self.settings.bus_name,
            event_catalogue.REFRESH_REFUSED,
            {
                "connection": connection.name,
                "platform": connection.platform,
                "client": connection.client,
                "label": connection.label,
                "detail": connection.refusal,
                "refused_since": connection.refused_since,
                "ends_at": clock.to_iso(since + self.refused_limit),
                "tags": connection.tags,
            },
        )
        try:
            self.table.update(
                *connection_store.key(self.name),
                "SET refused_told = :day",
                condition="refused_since = :since",
                values={":day": day, ":since": connection.refused_since},
            )
        except Conflict:
            return


def days_to_death(connection: Connection) -> float | None:
    """The remaining life of an unused refresh token in days; None if the platform sets no end."""
    ends_at = grant_life.ends_at(connection)
    return (ends_at - clock.now()) / timedelta(days=1) if ends_at else None
