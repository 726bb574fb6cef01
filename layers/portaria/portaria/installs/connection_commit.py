"""The transaction that points a connection to an install's grant and records that in the install."""

from __future__ import annotations

from dataclasses import replace as with_changes
from typing import Any

from portaria import platforms
from portaria.aws.table import Conflict, Item, Table, put_of, update_of
from portaria.connections import connection_store, oauth_clients, tag_index
from portaria.connections.vault import Credentials
from portaria.core import clock, event_catalogue
from portaria.core.callbacks import OAuthClient
from portaria.core.entities import Account, Connection
from portaria.core.errors import OtherAccount, Rejected, Retryable
from portaria.core.item_keys import install_key
from portaria.core.stored_reasons import ConnectionReason
from portaria.core.tags import Tags
from portaria.installs import claims
from portaria.installs.grant_exchange import GrantExchange
from portaria.installs.install_lease import InstallLease
from portaria.installs.install_messages import Install
from portaria.platforms.protocols import TokenEndpoint


class ConnectionCommit:
    """Commits the grant of one install."""

    def __init__(self, lease: InstallLease, grants: GrantExchange) -> None:
        self.lease = lease
        self.grants = grants
        self.install = lease.install
        self.table = lease.table

    def commit(self, account: Account | None, credentials: Credentials, client: OAuthClient) -> None:
        """Point the account's connection to this grant, or the named one where there is no `account`, and write that down
        in the install, in one transaction.

        Of two grants for one connection the one that arrived later stands, whichever is exchanged first. Raises `Rejected`
        where the named connection is gone, and `Retryable` where the connection changed meanwhile.
        """
        name = self.install.connection
        if account:
            _check_account(self.install, account)
            name = connection_store.installed_name(client.platform, client.name, account.id)
        old = connection_store.find(self.table, name)
        connection = _of_account(account, client, name, old) if account else check_named(self.install, old, client)
        received_at = clock.to_iso(self.install.received_at)
        superseded = bool(old and old.granted_at > received_at and old.secret_id != self.grants.secret_id)
        writes: list[dict[str, Any]] = []
        claim = None
        if account and not superseded and (old is None or old.state == "removed"):
            # A connection that exists already got its tags when the claim was made.
            claim = claims.find(self.table, client.platform, client.name, account.id)
            writes.append(claims.consumption(client.platform, client.name, account.id, claim))
        tags, tagged_at = self._newest_tags(old, claim)
        connection = with_changes(connection, tags=tags, tagged_at=tagged_at)
        if old and superseded:
            generation = old.generation
            if old.state != "removed" and tagged_at != old.tagged_at:
                writes.append(connection_store.tagging(old, tags, tagged_at))
                writes += tag_index.connection_writes(name, old.tags, tags)
        else:
            generation = old.generation + 1 if old else 1
            writes.append(self._connection_write(connection, generation, credentials, client, old))
            # Also where the tags are the same: the entry of a connection that was removed ends with it.
            writes += tag_index.connection_writes(name, old.tags if old else {}, tags)
        outcome: Item = {"connection": name, "generation": generation, "superseded": superseded}
        outcome["stored_at"] = clock.to_iso(clock.now())
        if old and superseded and tagged_at != old.tagged_at:
            outcome["tags_of_superseded"] = True
        if tags and not self.install.tags:
            outcome["tags"] = tags
            received, expires_at = self.lease.item["received_at"], self.lease.item["expires_at"]
            if entry := tag_index.install_entry(self.install.id, received, tags, expires_at):
                writes.append(put_of(entry))
        if old and not superseded and old.secret_id != self.grants.secret_id:
            outcome["previous_secret_id"] = old.secret_id
        writes.append(
            update_of(
                *install_key(self.install.id),
                "SET " + ", ".join(f"#{field} = :{field}" for field in outcome),
                condition="attempts = :attempt",
                values={f":{field}": value for field, value in outcome.items()} | {":attempt": self.lease.attempt},
                names={f"#{field}": field for field in outcome},
            )
        )
        try:
            self.table.write_all(writes)
        except Conflict:
            raise Retryable("connection_changed", "the connection changed meanwhile", after_s=1) from None
        self.lease.item |= outcome

    def _newest_tags(self, old: Connection | None, claim: claims.Claim | None) -> tuple[Tags, str]:
        """The connection's tags and when they were given: the newest of its own, a claim's and this install's.

        A connection that an administrator deleted has lost its tags; one whose account uninstalled has not.
        """
        found: tuple[Tags, str] = ({}, "")
        if old and not (old.state == "removed" and old.reason == ConnectionReason.DELETED):
            found = (old.tags, old.tagged_at)
        elif old:
            found = ({}, old.tagged_at)
        if claim and not claim.has_ended and claim.claimed_at > found[1]:
            found = (claim.tags, claim.claimed_at)
        if self.install.tags and (received_at := clock.to_iso(self.install.received_at)) > found[1]:
            found = (self.install.tags, received_at)
        return found

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
            secret_id=self.grants.secret_id,
            version_id=self.grants.version_id,
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
        announce = event_catalogue.RECOVERED if old.state == "needs_reconnect" else ""
        return put_of(
            connection_store.to_item(connection, announce=announce),
            # The state too, so that one that is removed meanwhile stays removed.
            f"generation = :generation AND secret_id = :secret_id AND #state = :state AND {connection_store.TAGS_UNCHANGED}",
            {":generation": old.generation, ":secret_id": old.secret_id, ":state": old.state}
            | connection_store.tags_fence(old),
            {"#state": "state"},
        )


def check_restorable(table: Table, install: Install) -> None:
    """Raises `Rejected` (`connection_gone`) where the connection that an install link restores has been deleted."""
    name = connection_store.installed_name(install.platform, install.client, install.account_id)
    connection = connection_store.find(table, name)
    if connection is None or (connection.state == "removed" and connection.reason == ConnectionReason.DELETED):
        raise Rejected("connection_gone", f"the connection {name} was deleted after its link was made")


def _check_account(install: Install, account: Account) -> None:
    """Raises `OtherAccount` where an install link is for another account than the one that installed."""
    if install.account_id and install.account_id != account.id:
        raise OtherAccount(
            f"the link is for the account {install.account_id}, and access was granted to {account.id}: that grant was not "
            "kept, and the connection has not changed"
        )


def check_named(install: Install, connection: Connection | None, client: OAuthClient) -> Connection:
    """The connection that the grant is for. Raises `Rejected` where the grant cannot be for it any more."""
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


def _of_account(account: Account, client: OAuthClient, name: str, old: Connection | None) -> Connection:
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


def _token_endpoint(name: str) -> TokenEndpoint:
    platform = platforms.load(name)
    return platform.require(platform.token_endpoint)
