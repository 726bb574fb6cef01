"""One worker's turn at refreshing a connection's tokens, with a refresh token that works once.

Exactly one worker refreshes at a time. It holds a lease in the connection's item with a fence (`refresh_lease`), sends the
refresh token once (`refresh_call`), stores the new pair before anything uses it, and points to it only while nothing newer is
stored (`pair_storage`):

    claim (lease, fence, tries) → look for a pair that an earlier worker stored → send → store → point to it

If the worker dies, its successor (a caller, or the visit of a sweep) finds the stored pair, or sends again. If the platform
refuses the first sending of a refresh token, the grant was revoked; if it refuses a later one, an answer was lost.
`refused_grants` decides on refusals that do not end the grant. The platform's `token_endpoint` builds the request and reads the
answer.

https://www.rfc-editor.org/rfc/rfc9700#section-4.14
"""

from __future__ import annotations

import logging
from datetime import timedelta

from portaria import platforms
from portaria.aws import due_index
from portaria.aws.table import Conflict, Item
from portaria.connections import connection_store, oauth_clients, refused_grants, request_budget
from portaria.connections.credential_stores import sealing
from portaria.connections.refused_grants import Verdict
from portaria.connections.tokens.cache import Token
from portaria.connections.tokens.pair_storage import PairStorage
from portaria.connections.tokens.refresh_call import RefreshCall
from portaria.connections.tokens.refresh_context import RefreshContext
from portaria.connections.tokens.refresh_lease import RefreshLease
from portaria.connections.tokens.stored_grant import to_stored
from portaria.connections.tokens.usability import end
from portaria.core import clock
from portaria.core.callbacks import OAuthClient
from portaria.core.entities import Connection
from portaria.core.errors import (
    AccountMoved,
    GrantRevoked,
    NeedsReconnect,
    PortariaError,
    Rejected,
    Retryable,
    TokenExpired,
    WrongClient,
)
from portaria.core.stored_reasons import ConnectionReason
from portaria.outbound import http_client
from portaria.outbound.request_slots import Priority

logger = logging.getLogger(__name__)

# Between failed tries: doubling from 2 s to five minutes.
FIRST_WAIT_S = 2.0
LONGEST_WAIT_S = 300.0
# While the OAuth client itself is wrong: doubling from five minutes to an hour.
CLIENT_WRONG_WAIT_S = 300.0
CLIENT_WRONG_LONGEST_WAIT_S = 3_600.0


class TokenRefresh:
    """One worker's turn at refreshing a connection's tokens. `after_401` is whether the platform refused the old token."""

    def __init__(self, context: RefreshContext, connection: Connection, old: Token, *, after_401: bool = False) -> None:
        self.context = context
        self.connection = connection
        self.old = old
        self.lease = RefreshLease(context.table, connection)
        self.call = RefreshCall(connection, old, self.lease, context.time_left_s)
        self.storage = PairStorage(context, connection, self.lease, after_401=after_401)

    def run(self, found: Item) -> float | None:
        """Refresh the tokens. `found` is the connection's item as it was read.

        Returns None if the item has changed, by this turn or another's. Otherwise another worker has the lease, and the result
        is when it ends (epoch seconds). Raises `Rejected` if the grant is dead or cannot be refreshed, and `Retryable` if it
        should be tried later.
        """
        if not self.context.sealing_key_id or "refresh_token" not in self.old.credentials:
            if self.context.sealing_key_id and self.old.ends_within(timedelta(0)):
                self._end(ConnectionReason.TOKEN_EXPIRED, "its access token has ended and came without a refresh token")
            raise TokenExpired(
                f"the access token of {self.connection.name} has expired and cannot be renewed: connect again"
            )
        try:
            self.lease.claim(self.context.time_left_s(), found, is_visit=self.context.is_visit)
        except Conflict as conflict:
            return self.lease.held_until(conflict.item or self._item_now())
        try:
            self._take_turn()
        except Conflict:
            return None
        except Exception as error:
            if not isinstance(error, NeedsReconnect) and self._refused_too_long():
                if self.storage.adopt():
                    return None
                detail = f"the provider has refused every renewal for too long: {_detail_of(error)}"
                self._end(ConnectionReason.REFUSED_TOO_LONG, detail, fence=self.lease.fence)
            self._give_up(error)
            raise
        return None

    def recover(self) -> bool:
        """Point to a stored pair, if there is one. Without a lease: there is at most one such pair, so any worker may do it."""
        self.lease.item = self._item_now()
        return self.storage.adopt()

    def _item_now(self) -> Item:
        return connection_store.get_item(self.context.table, self.connection.name)

    def _take_turn(self) -> None:
        if self.lease.tries > 1 and self.storage.adopt():
            return
        platform = platforms.load(self.connection.platform)
        endpoint = platform.require(platform.token_endpoint)
        client = oauth_clients.get(self.context.table, self.connection.platform, self.connection.client)
        client_secret = self.context.vault.client_secret(client.platform, client.name)
        old = self.old.credentials["refresh_token"]
        request = endpoint.refresh_request(self.connection, client, client_secret, old)
        seal = sealing.prepare_seal(self.context.sealing_key_id, {"connection": self.connection.name})
        self.context.vault.prepare(self.connection.secret_id)
        try:
            grant = self.call.send(endpoint, client, request)
        except GrantRevoked as revoked:
            self._check_client_unchanged(client)
            self._end_revoked(revoked)
        except AccountMoved:
            if not self._follow_move(client):
                raise
        else:
            self.storage.store({**self.old.credentials, **to_stored(grant)}, seal)

    def _follow_move(self, client: OAuthClient) -> bool:
        """Where the account has moved to another host of its platform, continue there in another turn. False: it has not."""
        platform = platforms.load(self.connection.platform)
        account = platform.require(platform.account_relocation)
        request = account.locate_request(self.old.credentials)
        request_budget.wait(self.context.table, self.connection.platform, Priority.REFRESH)
        response = http_client.send(request, allowed_domain=account.LOCATION_DOMAIN, owner=self.connection.name)
        host = account.read_location(response)
        if host == self.connection.allowed_domain:
            return False
        if host.partition(".")[2] != self.connection.allowed_domain.partition(".")[2]:
            oauth_clients.check_domain(client, host)
        logger.info("account_moved", extra={"connection": self.connection.name, "to": host})
        values = {":host": host, ":tries": self.lease.tries - 1}
        self.lease.update("SET allowed_domain = :host, tries = :tries REMOVE lease_until", values)
        return True

    def _check_client_unchanged(self, client: OAuthClient) -> None:
        """Raises `WrongClient` if the refresh token was issued to another client id: the grant works with the right one."""
        given_to = self.old.credentials.get("client_id")
        if given_to and given_to.reveal() != client.client_id:
            raise WrongClient(
                f"the tokens of {self.connection.name} were given to another client_id than the one that the OAuth client "
                f"{client.platform}/{client.name} has now: put that back, or connect again"
            )

    def _end_revoked(self, revoked: GrantRevoked) -> None:
        """The platform calls the refresh token used or revoked: end the connection unless a newer pair is stored anywhere."""
        if self.storage.adopt():
            return
        reason, detail = ConnectionReason.GRANT_REVOKED, revoked.detail
        if self.lease.tries > 1:
            reason = ConnectionReason.ANSWER_LOST
            detail = "the platform renewed the tokens but its response was lost"
        self._end(reason, detail, fence=self.lease.fence)

    def _refused_too_long(self) -> bool:
        limit = self.context.refused_limit
        return (
            limit is not None
            and self.call.verdict is Verdict.REFUSED
            and refused_grants.has_lasted(self.lease.item, limit, clock.now())
        )

    def _end(self, reason: ConnectionReason, detail: str, *, fence: int | None = None) -> None:
        """End the connection and raise `NeedsReconnect`. Does nothing if the connection has changed meanwhile."""
        try:
            end(self.context.table, self.connection, reason, fence=fence)
        except Conflict:
            return
        raise NeedsReconnect(f"the customer must connect {self.connection.name} again: {detail}")

    def _give_up(self, error: Exception) -> None:
        """Return the lease with a pause before the next turn. If that write fails, the lease ends by itself.

        If the refresh token may have been sent, the connection stays due for a sweep (see `refresh_lease`).
        """
        if isinstance(error, NeedsReconnect):
            return
        changes: Item = {"retry_at": int(clock.now().timestamp() + self._wait_s(error))}
        verdict = self.call.verdict
        changes |= refused_grants.changes(self.lease.item, verdict, error, clock.now())
        if "refused_since" in changes and not self.context.is_visit and verdict is Verdict.REFUSED:
            # The visit of the next sweep warns the owner.
            changes |= {"due_pk": due_index.RENEWALS, "due_at": clock.to_iso(clock.now())}
        if not self.call.sent:
            # An absolute number: boto3 repeats a write whose answer was lost, and the first one may have been carried out.
            changes["tries"] = self.lease.tries - 1
            if self.lease.due_before and not changes["tries"]:
                changes["due_at"] = self.lease.due_before
        if verdict is Verdict.REFUSED:
            since = changes.get("refused_since") or self.lease.item.get("refused_since")
            reason = error.reason if isinstance(error, PortariaError) else ""
            facts = {"connection": self.connection.name, "reason": reason, "refused_since": since}
            logger.warning("refresh_refused", extra=facts)
        try:
            self.lease.update(
                f"SET {', '.join(f'{name} = :{name}' for name in changes)} REMOVE lease_until",
                {f":{name}": value for name, value in changes.items()},
            )
        except Exception as failed:  # noqa: BLE001 - the first error is the one to raise; the lease ends by itself
            logger.warning(
                "refresh_lease_not_returned",
                extra={"connection": self.connection.name, "error": type(failed).__name__},
            )

    def _wait_s(self, error: Exception) -> float:
        doublings = min(self.lease.tries - 1, 10)
        if isinstance(error, Rejected):
            return min(CLIENT_WRONG_LONGEST_WAIT_S, CLIENT_WRONG_WAIT_S * 2.0**doublings)
        if isinstance(error, Retryable) and error.after_s is not None:
            return min(LONGEST_WAIT_S, error.after_s)
        return min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0**doublings)


def _detail_of(error: Exception) -> str:
    return error.detail if isinstance(error, PortariaError) else ""
