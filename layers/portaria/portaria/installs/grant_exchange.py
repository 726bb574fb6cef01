"""The exchange of a code for a grant, and its storage before anything else is done with it."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace as with_changes

from portaria import platforms
from portaria.aws.table import Conflict, Table
from portaria.connections import request_budget, vault, webhook_endpoints
from portaria.connections.credential_stores import sealing
from portaria.connections.tokens import stored_grant
from portaria.connections.vault import Credentials, Vault
from portaria.core import clock
from portaria.core.callbacks import OAuthClient, Secret
from portaria.core.entities import Account
from portaria.core.errors import CodeRefused, CodeUsed, Rejected, Retryable
from portaria.core.settings import ExchangeCodeSettings
from portaria.installs.install_lease import InstallLease
from portaria.outbound import http_client
from portaria.outbound.request_slots import Priority

# A code is sent only by a worker that has the time to wait for the answer and to store what it holds.
TIME_TO_EXCHANGE_S = 34.0
# A platform's refusals of a code that has been exchanged before.
CODE_OVER = (CodeUsed, CodeRefused)


class GrantExchange:
    """The grant of one install. `secret_id` and `version_id` are where it is stored.

    `has_stored` says whether this turn may have put a grant into the vault.
    """

    def __init__(
        self,
        lease: InstallLease,
        settings: ExchangeCodeSettings,
        vault_: Vault,
        time_left_s: Callable[[], float],
        connect_timeout_s: float | None,
    ) -> None:
        self.lease = lease
        self.install = lease.install
        self.settings = settings
        self.vault = vault_
        self.time_left_s = time_left_s
        self.connect_timeout_s = connect_timeout_s
        self.has_stored = False
        self._version_id = ""

    @property
    def secret_id(self) -> str:
        return str(self.lease.item["secret_id"])

    @property
    def version_id(self) -> str:
        # Which generation it will be is known only once the account is.
        return self._version_id or vault.version_id(self.secret_id, 0)

    def stored(self) -> Credentials | None:
        """The grant of an earlier turn, moved into the vault if it had to be sealed."""
        if self.lease.attempt == 1:
            return None
        if sealed := self.lease.item.get("sealed_grant"):
            credentials = sealing.unseal(self.settings.sealing_key_id, {"install": self.install.id}, sealed)
            self._version_id = self.vault.create(self.secret_id, credentials, self.version_id)
            self.lease.update("REMOVE sealed_grant", {})
            return credentials
        found = self.vault.find(self.secret_id)
        if not found:
            return None
        credentials, self._version_id = found
        return credentials

    def exchange(self, client: OAuthClient) -> Credentials:
        """Exchange the code, and store the grant.

        Raises `Rejected` where the code is worth nothing any more, and `Retryable`.
        """
        platform = platforms.load(self.install.platform)
        endpoint = platform.require(platform.token_endpoint)
        if clock.now() >= self.install.code_ends_at():
            raise Rejected("code_expired", "the authorization code expired before the platform accepted it")
        client_secret = self.vault.client_secret(self.install.platform, self.install.client)
        seal = sealing.prepare_seal(self.settings.sealing_key_id, {"install": self.install.id})
        self.vault.prepare(self.secret_id)
        if self.time_left_s() < TIME_TO_EXCHANGE_S:
            raise Retryable(
                "short_of_time", "there is too little time left to wait for the platform's response", after_s=1
            )
        host = self.lease.item["account_host"]
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
            if self.lease.attempt > 1:
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

    def read_account(self, credentials: Credentials) -> Account:
        """Ask the platform which account the grant is for. Raises `Rejected` and `Retryable`."""
        platform = platforms.load(self.install.platform)
        accounts = platform.require(platform.account_lookup)
        host = self.lease.item["account_host"]
        request = accounts.account_request(host, credentials["access_token"])
        request_budget.wait(Table(self.settings.table_name), self.install.platform, Priority.EXCHANGE)
        response = http_client.send(request, allowed_domain=host, owner=self.install.id)
        return accounts.read_account(response, host)

    def _store(self, credentials: Credentials, seal: sealing.Seal) -> None:
        """Put the grant where it survives, before anything else is done with it: the vault, else sealed in the table."""
        self.has_stored = True
        while True:
            try:
                self._version_id = self.vault.create(self.secret_id, credentials, self.version_id)
                return
            except Retryable as refused:
                try:
                    self.lease.update("SET sealed_grant = :sealed", {":sealed": seal.seal(credentials)})
                except Conflict:
                    raise
                except Exception:
                    # Neither accepted it, and it exists nowhere else: try until the function is ended.
                    if self.time_left_s() < 5:
                        raise
                    clock.sleep(0.2)
                    continue
                raise refused
