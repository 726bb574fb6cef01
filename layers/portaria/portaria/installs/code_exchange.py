"""Installs: from an authorization code to a connection, each step safe to repeat after a death at any instruction.

    received → exchanging → connected, or failed with a reason

What has been done is read from durable facts, never from memory: a grant is stored under a name that the install
decides, so finding it there means that the code has been exchanged; the install's `connection` is written in the same
transaction as the connection itself. A worker that takes over looks for these facts before it does anything.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from dataclasses import replace as with_changes
from datetime import datetime, timedelta
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from portaria import platforms
from portaria.aws import event_bus
from portaria.aws.table import Conflict, Item, Table, put_of, update_of
from portaria.connections import connection_store, oauth_clients, vault, webhook_endpoints
from portaria.connections.tokens import stored_grant
from portaria.connections.vault import Credentials, Vault
from portaria.core import clock
from portaria.core.entities import Account, Connection, OAuthClient, Rejected, Retryable, Secret
from portaria.core.errors import CodeRefused, CodeUsed
from portaria.core.settings import ExchangeCodeSettings
from portaria.outbound import http_client
from portaria.platforms.protocols import TokenEndpoint

LIST = "INSTALLS"
# Longer than exchange_code may run (40 s): a lease that has ended belongs to a worker that is dead.
LEASE_S = 45
# A code is sent only by a worker that has the time to wait for the answer and to store what it holds.
TIME_TO_EXCHANGE_S = 34.0
KEPT_FOR = timedelta(days=90)
# What a platform says of a code that has been exchanged before.
CODE_OVER = (CodeUsed, CodeRefused)


@dataclass(frozen=True)
class Install:
    """A message of the Exchanges queue. Times are aware datetimes in UTC.

    `connection` names the connection that the grant is for; empty where the account behind the grant decides it.
    `code_verifier` is PKCE's, where the consent page was asked for one. `address_hash` is `arrival_sources.source_of`.
    """

    id: str
    platform: str
    client: str
    code: Secret
    account_host: str
    source: str
    received_at: datetime
    connection: str = ""
    code_verifier: Secret | None = None
    address_hash: str = ""


@dataclass(frozen=True)
class ExchangeOutcome:
    """What became of an install: `state` is `connected` or `failed`, with the reason and the advice where it failed."""

    state: str
    reason: str = ""
    detail: str = ""


def key(install_id: str) -> tuple[str, str]:
    return f"INSTALL#{install_id}", "INSTALL"


def read_message(body: str) -> Install:
    fields = json.loads(body)
    return Install(
        id=fields["install_id"],
        platform=fields["platform"],
        client=fields["client"],
        code=Secret(fields["code"]),
        account_host=fields["account_host"],
        source=fields["source"],
        received_at=clock.from_iso(fields["received_at"]),
        connection=fields.get("connection", ""),
        code_verifier=Secret(fields["code_verifier"]) if "code_verifier" in fields else None,
        address_hash=fields.get("address_hash", ""),
    )


def exchange(
    install: Install,
    settings: ExchangeCodeSettings,
    time_left_s: Callable[[], float],
    *,
    connect_timeout_s: float | None = None,
) -> ExchangeOutcome:
    """Bring an install as far as it goes: to its connection, or to its failure.

    Safe to call any number of times and by several workers at once: one works, the others are told to wait. Raises
    `Retryable` where it should be called again; `after_s` is then set. With a `connect_timeout_s`, a host to which no
    connection comes about is given up sooner; nothing has been sent to it then. How long its answer may take does not change,
    because giving up on an answer loses the grant.
    """
    exchange = _Exchange(install, settings, time_left_s, connect_timeout_s)
    try:
        exchange.claim()
    except Conflict as conflict:
        return _already(conflict)
    try:
        try:
            exchange.run()
        except Rejected as rejected:
            exchange.fail(rejected)
            return ExchangeOutcome("failed", rejected.reason, rejected.detail)
        return ExchangeOutcome("connected")
    except Exception as error:
        exchange.release()
        if isinstance(error, Retryable):
            raise error.replaced(after_s=exchange.wait_s(error.after_s), answer_lost=False) from error
        raise


def expire(install: Install, settings: ExchangeCodeSettings) -> ExchangeOutcome | None:
    """End an install with which nothing was done in its code's life, in one write; None where something was done.

    The bus is told first: after a death in between it is told again.
    """
    table = Table(settings.table_name)
    if (table.get(*key(install.id)) or {}).get("attempts", 0):
        return None
    expired = Rejected("code_expired", "the code reached the end of its life before it could be exchanged")
    _tell_failure(table, settings, install, install.account_host, expired)
    now = clock.now()
    received_at = clock.to_iso(install.received_at)
    item: Item = {
        "pk": key(install.id)[0],
        "sk": key(install.id)[1],
        "list_pk": LIST,
        "list_sk": f"{received_at}#{install.id}",
        "state": "failed",
        "reason": expired.reason,
        "detail": expired.detail,
        "platform": install.platform,
        "client": install.client,
        "account_host": install.account_host,
        "arrived_by": install.source,
        "received_at": received_at,
        "failed_at": clock.to_iso(now),
        "attempts": 0,
        "expires_at": int((now + KEPT_FOR).timestamp()),
    }
    try:
        table.put(item, condition="attribute_not_exists(attempts) OR attempts = :none", values={":none": 0})
    except Conflict:
        return None
    return ExchangeOutcome("failed", expired.reason, expired.detail)


def _tell_failure(
    table: Table, settings: ExchangeCodeSettings, install: Install, account_host: str, rejected: Rejected
) -> None:
    try:
        client = oauth_clients.get(table, install.platform, install.client)
        reconnect_url = oauth_clients.reconnect_url(client, install.connection)
    except Rejected:
        reconnect_url = ""
    event_bus.put(
        settings.bus_name,
        event_bus.INSTALL_FAILED,
        {
            "install_id": install.id,
            "platform": install.platform,
            "client": install.client,
            "account_host": account_host,
            "reason": rejected.reason,
            "detail": rejected.detail,
            "reconnect_url": reconnect_url,
        },
    )


def _already(conflict: Conflict) -> ExchangeOutcome:
    item = conflict.item or {}
    if item.get("state") in ("connected", "failed"):
        return ExchangeOutcome(item["state"], item.get("reason", ""), item.get("detail", ""))
    wait_s = max(1.0, item.get("lease_until", 0) - clock.now().timestamp() + 1)
    raise Retryable("in_progress", "another worker is processing this install", after_s=wait_s)


class _Exchange:
    """One worker's turn at an install. `attempt` fences it: a later turn has a higher one, and only the last may write."""

    def __init__(
        self,
        install: Install,
        settings: ExchangeCodeSettings,
        time_left_s: Callable[[], float],
        connect_timeout_s: float | None = None,
    ) -> None:
        self.install = install
        self.settings = settings
        self.time_left_s = time_left_s
        self.connect_timeout_s = connect_timeout_s
        # Whether this turn may have put a grant into the vault.
        self.has_stored = False
        self.table = Table(settings.table_name)
        self.vault = Vault(settings.secrets_prefix)
        self.secret_id = self.vault.grant_id(install.id)
        # Which generation it will be is known only once the account is.
        self.version_id = vault.version_id(self.secret_id, 0)
        self.item: Item = {}

    @property
    def attempt(self) -> int:
        return int(self.item["attempts"])

    def claim(self) -> None:
        """Take the lease. Raises `Conflict` where the install has ended or another worker holds it."""
        install, now = self.install, clock.now()
        received_at = clock.to_iso(install.received_at)
        self.item = self.table.update(
            *key(install.id),
            "SET #state = :exchanging, platform = :platform, client = :client, lease_until = :until, "
            "attempts = if_not_exists(attempts, :zero) + :one, account_host = if_not_exists(account_host, :host), "
            "arrived_by = if_not_exists(arrived_by, :arrived_by), received_at = if_not_exists(received_at, :received_at), "
            "list_pk = :list, list_sk = if_not_exists(list_sk, :list_sk), expires_at = :expires_at",
            condition="attribute_not_exists(pk) OR #state = :received OR (#state = :exchanging AND "
            "(attribute_not_exists(lease_until) OR lease_until < :now))",
            names={"#state": "state"},
            values={
                ":exchanging": "exchanging",
                ":received": "received",
                ":platform": install.platform,
                ":client": install.client,
                ":until": int(now.timestamp()) + LEASE_S,
                ":now": int(now.timestamp()),
                ":zero": 0,
                ":one": 1,
                ":host": install.account_host,
                ":arrived_by": install.source,
                ":received_at": received_at,
                ":list": LIST,
                ":list_sk": f"{received_at}#{install.id}",
                ":expires_at": int((now + KEPT_FOR).timestamp()),
            },
        )

    def run(self) -> None:
        """Raises `Rejected` where the install has failed for good."""
        if self.item.get("reason"):
            raise Rejected(self.item["reason"], self.item["detail"])
        client = oauth_clients.get(self.table, self.install.platform, self.install.client)
        if not self.item.get("connection"):
            if self.install.connection:
                self._check_named(connection_store.find(self.table, self.install.connection), client)
            credentials = self._stored_grant() or self._exchange(client)
            account = None if self.install.connection else self._read_account(credentials)
            self._commit(account, credentials, client)
        connection = connection_store.get(self.table, self.item["connection"])
        if self.item["superseded"]:
            self.vault.remove(self.secret_id)
        else:
            if not self.install.connection:
                self._subscribe(connection, client)
            if previous := self.item.get("previous_secret_id"):
                if not self.install.connection:
                    self._unsubscribe(previous, connection, client)
                self.vault.remove(previous)
            event_bus.put(
                self.settings.bus_name,
                event_bus.CONNECTION_READY,
                {
                    "connection": connection.name,
                    "platform": connection.platform,
                    "client": connection.client,
                    "generation": self.item["generation"],
                },
            )
        self._update(
            "SET #state = :connected, connected_at = :now REMOVE lease_until",
            {":connected": "connected", ":now": clock.to_iso(clock.now())},
        )

    def fail(self, rejected: Rejected) -> None:
        """End the install with a reason: written down first, so that a later turn tells the same one, then told to the bus."""
        if not self.item.get("reason"):
            self._update(
                "SET reason = :reason, detail = :detail", {":reason": rejected.reason, ":detail": rejected.detail}
            )
        if not self.item.get("connection") and (self.has_stored or self.attempt > 1):
            # Only then: Secrets Manager takes 50 deletions a second, and most failures of forged codes come before a grant.
            self.vault.remove(self.secret_id)
        _tell_failure(self.table, self.settings, self.install, self.item["account_host"], rejected)
        self._update(
            "SET #state = :failed, failed_at = :now REMOVE lease_until, sealed_grant",
            {":failed": "failed", ":now": clock.to_iso(clock.now())},
        )

    def release(self) -> None:
        """Give the lease back so that the next turn need not wait for its end; where that fails, it waits."""
        try:
            self._update("REMOVE lease_until", {})
        except (Conflict, ClientError, BotoCoreError):
            return

    def wait_s(self, asked_s: float | None) -> float:
        """How long until the next turn: as asked, or doubling from 2 s to a minute; always inside the code's life."""
        wait_s = asked_s if asked_s is not None else min(60.0, 2.0**self.attempt)
        wait_s *= 1 + secrets.randbelow(250) / 1000
        life_s = (self._code_ends_at() - clock.now()).total_seconds()
        return max(1.0, min(wait_s, life_s - 30)) if life_s > 30 else wait_s

    def _stored_grant(self) -> Credentials | None:
        """The grant of an earlier turn, moved into the vault if it had to be sealed."""
        if self.attempt == 1:
            return None
        if sealed := self.item.get("sealed_grant"):
            credentials = vault.unseal(self.settings.sealing_key_id, {"install": self.install.id}, sealed)
            self.version_id = self.vault.create(self.secret_id, credentials, self.version_id)
            self._update("REMOVE sealed_grant", {})
            return credentials
        found = self.vault.find(self.secret_id)
        if not found:
            return None
        credentials, self.version_id = found
        return credentials

    def _exchange(self, client: OAuthClient) -> Credentials:
        endpoint = _token_endpoint(self.install.platform)
        if clock.now() >= self._code_ends_at():
            raise Rejected("code_expired", "the authorization code expired before the platform accepted it")
        client_secret = self.vault.client_secret(self.install.platform, self.install.client)
        seal = vault.prepare_seal(self.settings.sealing_key_id, {"install": self.install.id})
        if self.time_left_s() < TIME_TO_EXCHANGE_S:
            raise Retryable(
                "short_of_time", "there is too little time left to wait for the platform's response", after_s=1
            )
        host = self.item["account_host"]
        given_at = clock.now()
        request = endpoint.exchange_request(
            client, client_secret, host, self.install.code, self.install.code_verifier or None
        )
        if self.connect_timeout_s is not None:
            request = with_changes(request, connect_timeout_s=self.connect_timeout_s)
        response = http_client.send(request, allowed_domain=host, owner=self.install.id)
        try:
            grant = endpoint.read_grant(response, given_at)
        except CODE_OVER:
            if self.attempt > 1:
                raise Rejected(
                    "answer_lost",
                    "the platform used the code but its response was lost: the customer must connect again",
                ) from None
            raise
        credentials = stored_grant.to_stored(with_changes(grant, given_at=given_at, client_id=client.client_id))
        if not self.install.connection:
            credentials["webhook_key"] = Secret(secrets.token_urlsafe(webhook_endpoints.KEY_BYTES))
        self._store(credentials, seal)
        return credentials

    def _store(self, credentials: Credentials, seal: vault.Seal) -> None:
        """Put the grant where it survives, before anything else is done with it: the vault, else sealed in the table."""
        self.has_stored = True
        while True:
            try:
                self.version_id = self.vault.create(self.secret_id, credentials, self.version_id)
                return
            except Retryable as refused:
                try:
                    self._update("SET sealed_grant = :sealed", {":sealed": seal.seal(credentials)})
                except Conflict:
                    raise
                except Exception:
                    # Neither took it, and it exists nowhere else: try until the function is ended.
                    if self.time_left_s() < 5:
                        raise
                    clock.sleep(0.2)
                    continue
                raise refused

    def _read_account(self, credentials: Credentials) -> Account:
        platform = platforms.load(self.install.platform)
        accounts = platform.require(platform.account_lookup)
        host = self.item["account_host"]
        request = accounts.account_request(host, credentials["access_token"])
        response = http_client.send(request, allowed_domain=host, owner=self.install.id)
        return accounts.read_account(response, host)

    def _check_named(self, connection: Connection | None, client: OAuthClient) -> Connection:
        """The connection that the grant is for, if it is still one that the grant can be for. Raises `Rejected`."""
        install = self.install
        kind = _token_endpoint(install.platform).KIND
        if (
            connection is None
            or connection.state == "removed"
            or (connection.platform, connection.client, connection.kind) != (install.platform, install.client, kind)
        ):
            raise Rejected(
                "connection_gone",
                f"the connection {install.connection} was removed or replaced after its link was made",
            )
        oauth_clients.check_connection(client, connection)
        return connection

    def _commit(self, account: Account | None, credentials: Credentials, client: OAuthClient) -> None:
        """Point the account's connection to this grant, or the named one where there is no `account`, and write that down
        in the install, in one transaction.

        Of two grants for one connection the one that arrived later stands, whichever is exchanged first.
        """
        name = self.install.connection
        if account:
            name = connection_store.installed_name(client.platform, client.name, account.id)
        old = connection_store.find(self.table, name)
        connection = self._of_account(account, client, name, old) if account else self._check_named(old, client)
        received_at = clock.to_iso(self.install.received_at)
        superseded = bool(old and old.granted_at > received_at and old.secret_id != self.secret_id)
        writes: list[dict[str, Any]] = []
        if old and superseded:
            generation = old.generation
        else:
            generation = old.generation + 1 if old else 1
            writes.append(self._connection_write(connection, generation, credentials, client, old))
        outcome: Item = {"connection": name, "generation": generation, "superseded": superseded}
        if old and not superseded and old.secret_id != self.secret_id:
            outcome["previous_secret_id"] = old.secret_id
        writes.append(
            update_of(
                *key(self.install.id),
                "SET " + ", ".join(f"#{field} = :{field}" for field in outcome),
                condition="attempts = :attempt",
                values={f":{field}": value for field, value in outcome.items()} | {":attempt": self.attempt},
                names={f"#{field}": field for field in outcome},
            )
        )
        try:
            self.table.write_all(writes)
        except Conflict:
            raise Retryable("connection_changed", "the connection changed meanwhile", after_s=1) from None
        self.item |= outcome

    def _of_account(self, account: Account, client: OAuthClient, name: str, old: Connection | None) -> Connection:
        """An account's connection, without what this grant brings."""
        return Connection(
            name=name,
            platform=client.platform,
            kind=_token_endpoint(client.platform).KIND,
            allowed_domain=account.host,
            state="pending",
            generation=0,
            secret_id="",
            label=account.name,
            client=client.name,
            account_id=account.id,
            created_at=old.created_at if old else clock.to_iso(clock.now()),
        )

    def _connection_write(
        self,
        connection: Connection,
        generation: int,
        credentials: Credentials,
        client: OAuthClient,
        old: Connection | None,
    ) -> dict[str, Any]:
        scopes = credentials["scopes"].reveal()
        if not scopes and self.install.connection:
            # A provider that names none has granted those that it was asked for.
            platform = platforms.load(client.platform)
            scopes = platform.require(platform.provider_clients).granted_as_requested(connection, client)
        connection = with_changes(
            connection,
            state="connected",
            generation=generation,
            secret_id=self.secret_id,
            version_id=self.version_id,
            scopes=scopes,
            reason="",
            refused_since="",
            refusal="",
            updated_at=clock.to_iso(clock.now()),
            granted_at=clock.to_iso(self.install.received_at),
            token_ends_at=credentials["expires_at"].reveal(),
        )
        if not old:
            return put_of(connection_store.to_item(connection), "attribute_not_exists(pk)")
        announce = event_bus.RECOVERED if old.state == "needs_reconnect" else ""
        return put_of(
            connection_store.to_item(connection, announce=announce),
            # The state too, so that one that is removed meanwhile stays removed.
            "generation = :generation AND secret_id = :secret_id AND #state = :state",
            {":generation": old.generation, ":secret_id": old.secret_id, ":state": old.state},
            {"#state": "state"},
        )

    def _subscribe(self, connection: Connection, client: OAuthClient) -> None:
        """Ask for the account's event webhooks. An account that may not have them is connected all the same, with a note.

        Their address is open before the platform hears of it, so that no event is turned away.
        """
        credentials = self.vault.read(connection.secret_id)
        destination = events_url(connection, client, credentials)
        if not credentials or not destination:
            return
        if not webhook_endpoints.open_address(self.table, connection, credentials["webhook_key"]):
            return
        platform = platforms.load(self.install.platform)
        webhooks = platform.require(platform.webhook_subscriptions)
        request = webhooks.subscribe_request(connection.allowed_domain, credentials["access_token"], destination)
        try:
            response = http_client.send(request, allowed_domain=connection.allowed_domain, owner=connection.name)
            webhooks.read_answer(response)
        except Rejected as refused:
            self.table.update(
                *connection_store.key(connection.name),
                "SET notes = :notes",
                condition="generation = :generation",
                values={":notes": [refused.detail], ":generation": connection.generation},
            )

    def _unsubscribe(self, previous_secret_id: str, connection: Connection, client: OAuthClient) -> None:
        """Take back the webhooks of the grant that this one replaces: their address carries a key that ends with it."""
        credentials = self.vault.read(connection.secret_id)
        destination = events_url(connection, client, self.vault.read(previous_secret_id))
        if not credentials or not destination:
            return
        platform = platforms.load(self.install.platform)
        webhooks = platform.require(platform.webhook_subscriptions)
        request = webhooks.unsubscribe_request(connection.allowed_domain, credentials["access_token"], destination)
        with suppress(Rejected):
            response = http_client.send(request, allowed_domain=connection.allowed_domain, owner=connection.name)
            webhooks.read_answer(response)

    def _update(self, expression: str, values: Item) -> None:
        """Write to the install as its holder; a later turn makes this a `Conflict`."""
        self.table.update(
            *key(self.install.id),
            expression,
            condition="attempts = :attempt",
            values={**values, ":attempt": self.attempt},
            names={"#state": "state"} if "#state" in expression else None,
        )

    def _code_ends_at(self) -> datetime:
        return self.install.received_at + _token_endpoint(self.install.platform).CODE_LIFE


def _token_endpoint(platform: str) -> TokenEndpoint:
    found = platforms.load(platform)
    return found.require(found.token_endpoint)


def events_url(connection: Connection, client: OAuthClient, credentials: Credentials | None) -> str:
    """Where a platform sends a connection's events, or nothing where the redirect URI is not this API's own."""
    redirect_uri = client.redirect_uri.rstrip("/")
    base_url = redirect_uri.removesuffix(f"/install/{client.platform}/{client.name}")
    if not credentials or base_url == redirect_uri:
        return ""
    return f"{base_url}/events/{connection.platform}/{connection.name}/{credentials['webhook_key'].reveal()}"
